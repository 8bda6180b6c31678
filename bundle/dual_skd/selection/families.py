# SPDX-License-Identifier: Apache-2.0
"""The named axes of each network family: a new family is one more :class:`Family` in :data:`FAMILIES`.

Two tensors that touch the same axis (a residual stream, the hidden width of a block, the attention heads) must keep the
same indices. A family says so in a table: the name of a tensor on the left, its dimensions on the right.

    "attn.qkv.weight": "(qkv {block}.head {block}.head_dim) embed"

reads: the first dimension is made of three axes, the last of them running fastest; the second is the embedding. Further
words: ``image`` input channels, ``1`` a dimension that is not selected, ``*`` kernel dimensions (any number, none too),
``tokens`` positions. ``{s}`` is the stage, ``{b}`` the block, ``{block}`` the path of the block, ``{in}`` and ``{out}``
the residual stream before and after it, ``{last}`` the number of the last stage. A name may list alternatives of other
libraries, separated by ``|``; ``name.*`` stands for weight, bias and running statistics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FIXED_SIZES = {"qkv": 3, "gate": 2}  # axes that are never selected

# first part of a classifier's name, by library
CLASSIFIERS = "head heads head_dist fc classifier classification_head class_layers last_linear _fc".split()


@dataclass(frozen=True, eq=False)
class Family:
    """One network family.

    Args:
        name: the word a user may give as ``family``.
        signature: regular expression of a tensor name that only this family has; group 1 is a prefix to strip
            (a wrapper module's name).
        tensors: tensor name -> dimensions, outside of blocks.
        blocks: (kind of block, name that marks the kind) -> {tensor name -> dimensions}; the first marker decides.
        block: path of a block with ``{s}`` (staged families) and ``{b}``.
        stream: name of a stage's residual axis with ``{s}``, or the only stream's name.
        stem: axis in front of the first stage.
        keep_first: the first block of a stage differs in stride and width.
        skips_by_width: the first block of a stage adds its input where stride and widths allow; no tensor shows it.
    """

    name: str
    signature: str
    tensors: Mapping[str, str]
    blocks: Mapping[tuple[str, str], Mapping[str, str]]
    block: str
    stream: str
    stem: str
    keep_first: bool = False
    skips_by_width: bool = False

    @property
    def staged(self) -> bool:
        """Whether blocks lie in stages."""
        return "{s}" in self.block


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
        },
        blocks={
            ("transformer", "attn.qkv.weight"): {
                "norm1.*": "embed",
                "attn.qkv.weight": "(qkv {block}.head {block}.head_dim) embed",
                "attn.qkv.bias": "(qkv {block}.head {block}.head_dim)",
                "attn.q_norm.*": "{block}.head_dim",
                "attn.k_norm.*": "{block}.head_dim",
                "attn.proj.weight|attn.out_proj.weight": "embed ({block}.head {block}.head_dim)",
                "attn.proj.bias|attn.out_proj.bias": "embed",
                "ls1.gamma": "embed",
                "norm2.*": "embed",
                "norm_cross_attn.*": "embed",
                "mlp.fc1.weight|mlp.linear1.weight": "{block}.mlp embed",
                "mlp.fc1.bias|mlp.linear1.bias": "{block}.mlp",
                "mlp.fc2.weight|mlp.linear2.weight": "embed {block}.mlp",
                "mlp.fc2.bias|mlp.linear2.bias": "embed",
                "mlp.w12.weight": "(gate {block}.mlp) embed",
                "mlp.w12.bias": "(gate {block}.mlp)",
                "mlp.w3.weight": "embed {block}.mlp",
                "mlp.w3.bias": "embed",
                "ls2.gamma": "embed",
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
