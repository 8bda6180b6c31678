# SPDX-License-Identifier: Apache-2.0
"""The named axes of each network family.

Two tensors that touch the same axis (a residual stream, the hidden width of a block, the attention heads) must keep the
same indices. A family says so in a table: the name of a tensor on the left, its dimensions on the right.

    "blocks.{b}.attn.qkv.weight": "(qkv {block}.head {block}.head_dim) embed"

reads: the first dimension is made of three axes, the last of them running fastest; the second is the embedding. Further
words: ``image`` input channels, ``1`` a dimension that is not selected, ``*`` kernel dimensions (any number, none too),
``tokens`` positions. ``{s}`` is the stage, ``{b}`` the block, ``{block}`` the path of the block, ``{in}`` and ``{out}``
the residual stream before and after it, ``{last}`` the number of the last stage. A name may list alternatives of other
libraries, separated by ``|``; ``name.*`` stands for weight, bias and running statistics.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

CONSTANTS = {"qkv": 3, "gate": 2}  # axes with a fixed size, never selected

# What an absent tensor amounts to: a network without a bias or a layer scale computes as with these.
NEUTRAL = {"bias": 0.0, "gamma": 1.0}


@dataclass(frozen=True)
class Family:
    """One network family.

    Args:
        name: the word a user may give as ``family``.
        signature: regular expression of a tensor name that only this family has; group 1 is a prefix to strip
            (a wrapper module's name).
        tensors: tensor name -> dimensions, outside of blocks.
        blocks: kind of block -> (name that marks the kind, {tensor name -> dimensions}); the first marker decides.
        block: path of a block with ``{s}`` (staged families) and ``{b}``.
        stream: name of a stage's residual axis with ``{s}``, or the only stream's name.
        stem: axis in front of the first stage.
        keep_first: the first block of a stage differs in stride and width.
        skips_by_width: the first block of a stage adds its input where stride and widths allow it, and no tensor tells.
    """

    name: str
    signature: str
    tensors: Mapping[str, str]
    blocks: Mapping[str, tuple[str, Mapping[str, str]]]
    block: str
    stream: str
    stem: str
    keep_first: bool = False
    skips_by_width: bool = False

    @property
    def staged(self) -> bool:
        return "{s}" in self.block

    @cached_property
    def outer_rows(self) -> list[tuple[re.Pattern[str], str, str]]:
        return _compile(self.tensors)

    @cached_property
    def block_rows(self) -> dict[str, list[tuple[re.Pattern[str], str, str]]]:
        return {kind: _compile(rows) for kind, (_, rows) in self.blocks.items()}

    @cached_property
    def block_pattern(self) -> re.Pattern[str]:
        return re.compile(_regex(self.block) + r"\.(?P<rest>.+)")


def _regex(name: str) -> str:
    pattern = re.escape(name).replace(r"\{s\}", r"(?P<s>\d+)").replace(r"\{b\}", r"(?P<b>\d+)")
    return pattern.replace(r"\.\*", r"\.(?P<leaf>\w+)")


def _compile(rows: Mapping[str, str]) -> list[tuple[re.Pattern[str], str, str]]:
    """Rows as (regular expression, role, dimensions); the role is the first alternative and equal across libraries."""
    compiled = []
    for names, dims in rows.items():
        alternatives = [name.strip() for name in names.split("|")]
        compiled += [(re.compile(_regex(name)), alternatives[0], dims) for name in alternatives]
    return compiled


EFFICIENTNET = Family(
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
        "fused": (
            "conv_exp.weight",
            {
                "conv_exp.weight": "{block}.mid {in} *",
                "bn1.*": "{block}.mid",
                "se.conv_reduce.weight": "{block}.se {block}.mid *",
                "se.conv_reduce.bias": "{block}.se",
                "se.conv_expand.weight": "{block}.mid {block}.se *",
                "se.conv_expand.bias": "{block}.mid",
                "conv_pwl.weight": "{out} {block}.mid *",
                "bn2.*": "{out}",
            },
        ),
        "inverted": (
            "conv_pwl.weight",
            {
                "conv_pw.weight": "{block}.mid {in} *",
                "bn1.*": "{block}.mid",
                "conv_dw.weight": "{block}.mid 1 *",
                "bn2.*": "{block}.mid",
                "se.conv_reduce.weight": "{block}.se {block}.mid *",
                "se.conv_reduce.bias": "{block}.se",
                "se.conv_expand.weight": "{block}.mid {block}.se *",
                "se.conv_expand.bias": "{block}.mid",
                "conv_pwl.weight": "{out} {block}.mid *",
                "bn3.*": "{out}",
                "layer_scale.gamma": "{out}",
            },
        ),
        "separable": (
            "conv_dw.weight",
            {
                "conv_dw.weight": "{in} 1 *",
                "bn1.*": "{in}",
                "se.conv_reduce.weight": "{block}.se {in} *",
                "se.conv_reduce.bias": "{block}.se",
                "se.conv_expand.weight": "{in} {block}.se *",
                "se.conv_expand.bias": "{in}",
                "conv_pw.weight": "{out} {in} *",
                "bn2.*": "{out}",
            },
        ),
        "plain": ("conv.weight", {"conv.weight": "{out} {in} *", "bn1.*": "{out}"}),
    },
)

CONVNEXT = Family(
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
        "convnext": (
            "conv_dw.weight",
            {
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
        ),
    },
)

VIT = Family(
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
        "transformer": (
            "attn.qkv.weight",
            {
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
        ),
    },
)

_RESNET_DOWNSAMPLE = {
    "downsample.0.weight": "{out} {in} *",
    "downsample.0.bias": "{out}",
    "downsample.1.weight": "{out} {in} *",  # ResNet-D pools first; elsewhere this is a norm (one dimension, next row)
    "downsample.1.*": "{out}",
    "downsample.2.*": "{out}",
}
RESNET = Family(
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
        "bottleneck": (
            "conv3.weight",
            {
                "conv1.weight": "{block}.mid1 {in} *",
                "bn1.*": "{block}.mid1",
                "conv2.weight": "{block}.mid2 {block}.mid1 *",
                "bn2.*": "{block}.mid2",
                "conv3.weight": "{out} {block}.mid2 *",
                "bn3.*": "{out}",
                **_RESNET_DOWNSAMPLE,
            },
        ),
        "basic": (
            "conv2.weight",
            {
                "conv1.weight": "{block}.mid1 {in} *",
                "bn1.*": "{block}.mid1",
                "conv2.weight": "{out} {block}.mid1 *",
                "bn2.*": "{out}",
                **_RESNET_DOWNSAMPLE,
            },
        ),
    },
)

FAMILIES = {family.name: family for family in (EFFICIENTNET, CONVNEXT, VIT, RESNET)}

# First part of the name of a classifier, in the libraries that we know.
CLASSIFIERS = (
    "head",
    "heads",
    "head_dist",
    "fc",
    "classifier",
    "classification_head",
    "class_layers",
    "last_linear",
    "_fc",
)


@dataclass(frozen=True)
class TensorAxes:
    """What the table says of one tensor.

    Args:
        key: (role, stage, block); tensors of two networks with equal keys correspond.
        dims: per dimension the axes it is made of, without the kernel.
        kind: kind of block, ``""`` outside of blocks.
    """

    key: tuple[str, str, int | None]
    dims: tuple[tuple[str, ...], ...]
    kind: str = ""


@dataclass(frozen=True)
class NetworkAxes:
    """A network seen through a family's table.

    Args:
        family: the family.
        prefix: part of every name in front of the family's names.
        tensors: name -> axes, for each tensor the table knows.
        unknown: names that it doesn't know, without the classifier.
        depths: stage -> number of blocks (one stage ``""`` where the family isn't staged).
    """

    family: Family
    prefix: str
    tensors: dict[str, TensorAxes]
    unknown: list[str]
    depths: dict[str, int]
    by_key: dict[tuple[Any, ...], str] = field(repr=False, default_factory=dict)


def is_classifier(name: str) -> bool:
    """True for the tensors of a classifier head: they belong to the old classes and are never selected.

    A norm and a hidden layer in front of it (timm's ``head.pre_logits``) are features like any other.
    """
    parts = name.split(".")
    return parts[0] in CLASSIFIERS and parts[1:2] not in (["norm"], ["pre_logits"])


def find_family(names: list[str]) -> Family | None:
    """The family whose signature occurs among the tensor names, or None."""
    for family in FAMILIES.values():
        signature = re.compile(family.signature)
        if any(signature.fullmatch(name) for name in names):
            return family
    return None


def describe(family: Family, shapes: Mapping[str, tuple[int, ...]]) -> NetworkAxes:
    """Reads a network's tensors through a family's table.

    Args:
        family: the family.
        shapes: tensor name -> shape.

    Returns:
        Axes of each known tensor; ``unknown`` lists the others.
    """
    signature = re.compile(family.signature)
    prefix = next((found.group(1) for found in map(signature.fullmatch, shapes) if found), "")
    inner = {name: name[len(prefix) :] for name in shapes if name.startswith(prefix)}

    blocks: dict[str, set[str]] = {}
    depths: dict[str, int] = {}
    for name in inner.values():
        if found := family.block_pattern.fullmatch(name):
            stage = found.groupdict().get("s") or ""
            depths[stage] = max(depths.get(stage, 0), int(found["b"]) + 1)
            blocks.setdefault(name[: found.start("rest") - 1], set()).add(found["rest"])
    kinds = {
        path: next((kind for kind, (marker, _) in family.blocks.items() if marker in rest), None)
        for path, rest in blocks.items()
    }
    first, last = (min(depths, key=int), max(depths, key=int)) if family.staged and depths else ("", "")

    tensors: dict[str, TensorAxes] = {}
    unknown: list[str] = []
    for name, shape in shapes.items():
        if name not in inner:
            if not is_classifier(name):
                unknown.append(name)
            continue
        local = inner[name]
        found, kind, rows, path, rest = family.block_pattern.fullmatch(local), "", family.outer_rows, "", local
        if found:
            path, rest = local[: found.start("rest") - 1], found["rest"]
            kind = kinds[path] or ""
            rows = family.block_rows.get(kind, [])
        match = next(
            ((m, role, dims) for row, role, dims in rows if _fits(dims, shape) and (m := row.fullmatch(rest))), None
        )
        if match is None:
            if not is_classifier(local):
                unknown.append(name)
            continue
        groups = match[0].groupdict() | (found.groupdict() if found else {})
        stage = groups.get("s") or ""
        block = int(groups["b"]) if groups.get("b") else None
        streams = {"out": family.stream.replace("{s}", stage), "in": family.stream.replace("{s}", stage)}
        if family.staged and stage and not block:
            streams["in"] = family.stem if stage == first else family.stream.replace("{s}", str(int(stage) - 1))
        words = {"s": stage, "b": block, "block": path, "last": last, **streams}
        role = f"{match[1]}:{groups.get('leaf') or ''}"
        tensors[name] = TensorAxes((role, stage, block), _parse(match[2].format(**words)) if shape else (), kind)
    by_key = {axes.key: name for name, axes in tensors.items()}
    return NetworkAxes(family, prefix, tensors, unknown, depths, by_key)


def _fits(dims: str, shape: tuple[int, ...]) -> bool:
    """True where a tensor of this shape can be what the row describes; scalars (counters) fit every row."""
    named = len(_parse(dims))
    return not shape or len(shape) == named or (dims.endswith("*") and len(shape) > named)


def _parse(dims: str) -> tuple[tuple[str, ...], ...]:
    words = re.findall(r"\([^)]*\)|\S+", dims)
    return tuple(tuple(word.strip("()").split()) for word in words if word != "*")
