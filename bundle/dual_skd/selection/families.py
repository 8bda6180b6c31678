# SPDX-License-Identifier: Apache-2.0
"""The named axes of each network family: a new family is one more :class:`Family` in :data:`FAMILIES`.

Two tensors that touch the same axis (a residual stream, the hidden width of a block, the attention heads) must keep the
same indices. A family says so in a table: the name of a tensor on the left, its dimensions on the right.

    "attn.qkv.weight": "(qkv {block}.head {block}.head_dim) embed"

reads: the first dimension is made of three axes, the last of them running fastest; the second is the embedding. Further
words: ``image`` input channels, ``1`` a dimension that is not selected, ``*`` kernel dimensions (any number, none too),
``tokens`` positions, ``window`` relative positions, ``constant`` a tensor that isn't learned. ``{s}`` is the stage,
``{b}`` the block, ``{n}`` any other number, ``{block}`` the path of the block, ``{in}`` and ``{out}`` the residual
stream before and after it, ``{last}`` the number of the last stage. In a DenseNet ``{before}`` is what a block reads:
the stage's stream and what each block in front of it adds, one after the other; ``{joined}`` is that of a whole stage.
A name may list alternatives of other libraries, separated by ``|``; ``name.*`` stands for weight, bias and running
statistics. Names that differ more are in :mod:`.libraries`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

Marker = str | Callable[[Mapping[str, tuple[int, ...]]], bool]  # of a kind of block: a name, or a test of its shapes

FIXED_SIZES = {"qkv": 3, "kv": 2, "gate": 2, "merge": 4}  # axes that are never selected


@dataclass(frozen=True, eq=False)
class Family:
    """One network family.

    Args:
        name: the word a user may give as ``family``.
        signature: regular expression of a tensor name that only this family has; group 1 is a prefix to strip
            (a wrapper module's name).
        needs: name of another tensor that it always has.
        excludes: regular expression of names that only other networks have.
        tensors: tensor name -> dimensions, outside of blocks.
        blocks: (kind of block, what marks the kind) -> {tensor name -> dimensions}; the first marker decides.
        block: path of a block with ``{s}`` (staged families) and ``{b}``.
        stream: name of a stage's residual axis with ``{s}``, or the only stream's name.
        stem: axis in front of the first stage.
        grows: axis that each block adds to what the next ones read.
        keep_first: the first block of a stage differs in stride and width.
        skips_by_width: the first block of a stage adds its input where stride and widths allow; no tensor shows it.
    """

    name: str
    signature: str
    tensors: Mapping[str, str]
    blocks: Mapping[tuple[str, Marker], Mapping[str, str]]
    block: str
    stream: str
    stem: str
    keep_first: bool = False
    skips_by_width: bool = False
    grows: str = ""
    needs: str = ""
    excludes: str = ""

    @property
    def staged(self) -> bool:
        """Whether blocks lie in stages."""
        return "{s}" in self.block


def is_gated(block: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a transformer block's first layer makes both the gate and what is gated."""
    shapes = [
        block.get(f"mlp.{old}.weight", block.get(f"mlp.{new}.weight")) for old, new in zip(*MLP_NAMES, strict=True)
    ]
    return shapes[0] is not None and shapes[1] is not None and shapes[0][0] == 2 * shapes[1][1]


MLP_NAMES = (("fc1", "fc2"), ("linear1", "linear2"))  # timm's, MONAI's
ATTENTION = {
    "attn.qkv.weight": "(qkv {block}.head {block}.head_dim) {out}",
    "attn.qkv.bias": "(qkv {block}.head {block}.head_dim)",
    "attn.q_bias": "({block}.head {block}.head_dim)",
    "attn.k_bias": "({block}.head {block}.head_dim)",
    "attn.v_bias": "({block}.head {block}.head_dim)",
    "attn.q_norm.*": "{block}.head_dim",
    "attn.k_norm.*": "{block}.head_dim",
    "attn.norm.*": "({block}.head {block}.head_dim)",
    "attn.proj.weight|attn.out_proj.weight": "{out} ({block}.head {block}.head_dim)",
    "attn.proj.bias|attn.out_proj.bias": "{out}",
    "attn.relative_position_bias_table|attn.rel_pos.relative_position_bias_table": "window {block}.head",
    "attn.relative_position_index|attn.rel_pos.relative_position_index": "constant",
}
MLP = {
    "mlp.fc1.weight|mlp.linear1.weight": "{block}.mlp {out}",
    "mlp.fc1.bias|mlp.linear1.bias": "{block}.mlp",
    "mlp.norm.*": "{block}.mlp",
    "mlp.fc2.weight|mlp.linear2.weight": "{out} {block}.mlp",
    "mlp.fc2.bias|mlp.linear2.bias": "{out}",
}
GATED_MLP = {
    "mlp.fc1.weight|mlp.linear1.weight": "(gate {block}.mlp) {out}",
    "mlp.fc1.bias|mlp.linear1.bias": "(gate {block}.mlp)",
}
TRANSFORMER = {
    **ATTENTION,
    **MLP,
    "norm1.*": "{out}",
    "norm2.*": "{out}",
    "norm_cross_attn.*": "{out}",
    "ls1.gamma": "{out}",
    "ls2.gamma": "{out}",
    "gamma_1": "{out}",
    "gamma_2": "{out}",
    "attn.proj_l.weight": "{block}.head {block}.head",  # CaiT mixes its heads
    "attn.proj_l.bias": "{block}.head",
    "attn.proj_w.weight": "{block}.head {block}.head",
    "attn.proj_w.bias": "{block}.head",
    "attn.rel_pos.mlp.fc1.weight": "{block}.rel_pos 1",
    "attn.rel_pos.mlp.fc1.bias": "{block}.rel_pos",
    "attn.rel_pos.mlp.fc2.weight": "{block}.head {block}.rel_pos",
    "attn.rel_pos.mlp.fc2.bias": "{block}.head",
}
CLASS_ATTENTION = {  # CaiT's last blocks
    "gamma_1": "embed",
    "gamma_2": "embed",
    "norm1.*": "embed",
    "norm2.*": "embed",
    "attn.q.weight": "({path}.head {path}.head_dim) embed",
    "attn.q.bias": "({path}.head {path}.head_dim)",
    "attn.k.weight": "({path}.head {path}.head_dim) embed",
    "attn.k.bias": "({path}.head {path}.head_dim)",
    "attn.v.weight": "({path}.head {path}.head_dim) embed",
    "attn.v.bias": "({path}.head {path}.head_dim)",
    "attn.proj.weight": "embed ({path}.head {path}.head_dim)",
    "attn.proj.bias": "embed",
    "mlp.fc1.weight": "{path}.mlp embed",
    "mlp.fc1.bias": "{path}.mlp",
    "mlp.fc2.weight": "embed {path}.mlp",
    "mlp.fc2.bias": "embed",
}
ATTENTION_POOL = {  # SigLIP's map head
    "attn_pool.latent": "1 1 embed",
    "attn_pool.q.weight": "(pool.head pool.head_dim) embed",
    "attn_pool.q.bias": "(pool.head pool.head_dim)",
    "attn_pool.kv.weight": "(kv pool.head pool.head_dim) embed",
    "attn_pool.kv.bias": "(kv pool.head pool.head_dim)",
    "attn_pool.q_norm.*": "pool.head_dim",
    "attn_pool.k_norm.*": "pool.head_dim",
    "attn_pool.proj.weight": "embed (pool.head pool.head_dim)",
    "attn_pool.proj.bias": "embed",
    "attn_pool.norm.*": "embed",
    "attn_pool.mlp.fc1.weight": "pool.mlp embed",
    "attn_pool.mlp.fc1.bias": "pool.mlp",
    "attn_pool.mlp.fc2.weight": "embed pool.mlp",
    "attn_pool.mlp.fc2.bias": "embed",
}
WINDOWED = {
    **ATTENTION,
    **MLP,
    "norm1.*": "{out}",
    "norm2.*": "{out}",
    "attn.logit_scale": "{block}.head 1 1",
    "attn.cpb_mlp.0.weight": "{block}.cpb 1",
    "attn.cpb_mlp.0.bias": "{block}.cpb",
    "attn.cpb_mlp.2.weight": "{block}.head {block}.cpb",
    "attn.relative_coords_table": "constant",
    "attn_mask": "constant",
}
SQUEEZE_EXCITE = {
    "se.conv_reduce.weight": "{block}.se {block}.mid *",
    "se.conv_reduce.bias": "{block}.se",
    "se.conv_expand.weight": "{block}.mid {block}.se *",
    "se.conv_expand.bias": "{block}.mid",
}
RESNET_DOWNSAMPLE = {
    "downsample.0.weight": "{out} {in} *",
    "downsample.0.bias": "{out}",
    "downsample.1.weight": "{out} {in} *",  # ResNet-D pools first; elsewhere this is a norm (one dimension, next row)
    "downsample.1.*": "{out}",
    "downsample.2.*": "{out}",
}

_TABLES = (
    Family(
        name="efficientnet",
        signature=r"(.*?)blocks\.0\.0\.conv(_dw|_exp)?\.weight",
        needs="conv_stem.weight",  # a UNETR has such blocks too
        stem="stem",
        stream="stage{s}",
        block="blocks.{s}.{b}",
        keep_first=True,
        skips_by_width=True,
        tensors={
            "conv_stem.weight": "stem image *",
            "bn1.*": "stem",
            "conv_head.weight": "head stage{last} *",
            "conv_head.bias": "head",
            "bn2.*|norm_head.*": "head",
        },
        blocks={
            ("fused", "conv_exp.weight"): {
                "conv_exp.weight": "{block}.mid {in} *",
                "bn1.*": "{block}.mid",
                **SQUEEZE_EXCITE,
                "conv_pwl.weight": "{out} {block}.mid *",
                "bn2.*": "{out}",
            },
            ("inverted", "conv_pwl.weight"): {
                "conv_pw.weight": "{block}.mid {in} *",
                "bn1.*": "{block}.mid",
                "conv_dw.weight": "{block}.mid 1 *",
                "bn2.*": "{block}.mid",
                **SQUEEZE_EXCITE,
                "conv_pwl.weight": "{out} {block}.mid *",
                "bn3.*": "{out}",
                "layer_scale.gamma": "{out}",
            },
            ("separable", "conv_dw.weight"): {
                "conv_dw.weight": "{in} 1 *",
                "bn1.*": "{in}",
                "se.conv_reduce.weight": "{block}.se {in} *",
                "se.conv_reduce.bias": "{block}.se",
                "se.conv_expand.weight": "{in} {block}.se *",
                "se.conv_expand.bias": "{in}",
                "conv_pw.weight": "{out} {in} *",
                "bn2.*": "{out}",
            },
            ("plain", "conv.weight"): {"conv.weight": "{out} {in} *", "bn1.*": "{out}"},
        },
    ),
    Family(
        name="convnext",
        signature=r"(.*?)stages\.0\.blocks\.0\.conv_dw\.weight",
        excludes=r"stages\.\d+\.blocks\.\d+\.gamma_xca",  # EdgeNeXt
        stem="stage0",
        stream="stage{s}",
        block="stages.{s}.blocks.{b}",
        tensors={
            "stem.0.weight": "stage0 image *",
            "stem.0.bias": "stage0",
            "stem.1.*": "stage0",
            "stages.{s}.downsample.0.*": "{in}",
            "stages.{s}.downsample.1.weight": "{out} {in} *",
            "stages.{s}.downsample.1.bias": "{out}",
            "norm_pre.*": "stage{last}",
            "head.norm.*": "stage{last}",
            "head.pre_logits.fc.weight": "hidden stage{last} *",
            "head.pre_logits.fc.bias": "hidden",
        },
        blocks={
            ("convnext", "conv_dw.weight"): {
                "gamma": "{out}",
                "ls.gamma": "{out}",
                "conv_dw.weight": "{out} 1 *",
                "conv_dw.bias": "{out}",
                "norm.*": "{out}",
                "mlp.fc1.weight": "{block}.mlp {out} *",
                "mlp.fc1.bias": "{block}.mlp",
                "mlp.grn.*": "{block}.mlp",
                "mlp.fc2.weight": "{out} {block}.mlp *",
                "mlp.fc2.bias": "{out}",
            },
        },
    ),
    Family(
        name="vit",
        signature=r"(\D*?)blocks\.0\.attn\.qkv\.weight",  # not one stage of several, as in Swin
        excludes=r"blocks\.\d+\.(?:proj\.\w+|attn\.temperature)",  # Hiera; XCiT
        stem="embed",
        stream="embed",
        block="blocks.{b}",
        tensors={
            "cls_token": "1 1 embed",
            "reg_token|register_tokens": "1 registers embed",
            "mask_token": "1 embed",
            "pos_embed|patch_embedding.position_embeddings": "1 tokens embed",
            "patch_embed.proj.weight|patch_embedding.patch_embeddings.weight": "embed image *",
            "patch_embed.proj.bias|patch_embedding.patch_embeddings.bias": "embed",
            "patch_embedding.patch_embeddings.1.weight": "embed pixels",
            "patch_embedding.patch_embeddings.1.bias": "embed",
            "norm_pre.*": "embed",
            "norm.*": "embed",
            "fc_norm.*": "embed",
            "dist_token": "1 1 embed",
            "patch_embed.norm.*": "embed",
            "rope.*": "constant",
            **ATTENTION_POOL,
            **{
                f"blocks_token_only.{{n}}.{name}": dims.replace("{path}", "class{n}")
                for name, dims in CLASS_ATTENTION.items()
            },
        },
        blocks={
            ("gated", is_gated): {**TRANSFORMER, **GATED_MLP},
            ("transformer", "attn.qkv.weight"): TRANSFORMER,
        },
    ),
    *(
        Family(
            name=name,
            signature=signature,
            excludes=excludes,
            stem="stage0",
            stream="stage{s}",
            block="layers.{s}.blocks.{b}",
            tensors={
                "patch_embed.proj.weight": "stage0 image *",
                "patch_embed.proj.bias": "stage0",
                "patch_embed.norm.*": "stage0",
                "layers.{s}.downsample.norm.*": merged,
                "layers.{s}.downsample.reduction.weight": "{out} (merge {in})",
                "norm.*": "stage{last}",
            },
            blocks={("transformer", "attn.qkv.weight"): WINDOWED},
        )
        for name, signature, excludes, merged in (  # the norm of a patch merging stands in front of it or behind
            ("swin", r"(.*?)layers\.0\.blocks\.0\.attn\.qkv\.weight", r".*\.logit_scale", "(merge {in})"),
            ("swinv2", r"(.*?)layers\.0\.blocks\.0\.attn\.logit_scale", "", "{out}"),
        )
    ),
    Family(
        name="densenet",
        signature=r"(.*?)dense\.0\.0\.conv2\.weight",  # see libraries.py
        excludes=r"features\.conv1\.weight",  # a stem of three convolutions
        stem="stage0",
        stream="stage{s}",
        block="dense.{s}.{b}",
        grows="{block}.new",
        tensors={
            "stem.conv.weight": "stage0 image *",
            "stem.norm.*": "stage0",
            "transition.{s}.norm.*": "{joined}",
            "transition.{s}.conv.weight": "stage{s} {joined} *",
            "norm.*": "{joined}",
        },
        blocks={
            ("dense", "conv2.weight"): {
                "norm1.*": "{before}",
                "conv1.weight": "{block}.mid {before} *",
                "norm2.*": "{block}.mid",
                "conv2.weight": "{block}.new {block}.mid *",
            },
        },
    ),
    Family(
        name="resnet",
        signature=r"(.*?)layer1\.0\.conv1\.weight",
        stem="stem",
        stream="stage{s}",
        block="layer{s}.{b}",
        keep_first=True,
        tensors={
            "conv1.weight": "stem image *",
            "conv1.0.weight": "stem.0 image *",  # ResNet-D: three convolutions
            "conv1.1.*": "stem.0",
            "conv1.3.weight": "stem.1 stem.0 *",
            "conv1.4.*": "stem.1",
            "conv1.6.weight": "stem stem.1 *",
            "bn1.*": "stem",
        },
        blocks={
            ("bottleneck", "conv3.weight"): {
                "conv1.weight": "{block}.mid1 {in} *",
                "bn1.*": "{block}.mid1",
                "conv2.weight": "{block}.mid2 {block}.mid1 *",
                "bn2.*": "{block}.mid2",
                "conv3.weight": "{out} {block}.mid2 *",
                "bn3.*": "{out}",
                **RESNET_DOWNSAMPLE,
            },
            ("basic", "conv2.weight"): {
                "conv1.weight": "{block}.mid1 {in} *",
                "bn1.*": "{block}.mid1",
                "conv2.weight": "{out} {block}.mid1 *",
                "bn2.*": "{out}",
                **RESNET_DOWNSAMPLE,
            },
        },
    ),
)
FAMILIES = {family.name: family for family in _TABLES}
