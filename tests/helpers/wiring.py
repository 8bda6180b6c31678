# SPDX-License-Identifier: Apache-2.0
"""State dicts of each family, wired by hand and independently of the package's tables.

``Wiring`` notes which axis every dimension of every tensor lies on. The values of the large tensors are their own flat
index, so the indices that a selection kept can be read back from the selected values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Wiring:
    sizes: dict[str, int]
    kernel_dims: int = 2
    dims: dict[str, tuple] = field(default_factory=dict)
    kernels: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def add(self, name: str, *dims: str | int | tuple, kernel: int | None = None) -> None:
        self.dims[name] = dims
        self.kernels[name] = () if kernel is None else (kernel,) * self.kernel_dims

    def norm(self, name: str, axis: str, *, statistics: bool = True) -> None:
        for leaf in ("weight", "bias", *(("running_mean", "running_var") if statistics else ())):
            self.add(f"{name}.{leaf}", axis)

    def lengths(self, dim: str | int | tuple) -> list[int]:
        parts = dim if isinstance(dim, tuple) else (dim,)
        return [part if isinstance(part, int) else self.sizes[part] for part in parts]

    def state(self) -> dict[str, Tensor]:
        """Tensors whose entries are their flat index over the dimensions before the kernel."""
        state = {}
        for name, dims in self.dims.items():
            shape = [math.prod(self.lengths(dim)) for dim in dims]
            values = torch.arange(math.prod(shape), dtype=torch.float64).reshape(
                *shape, *([1] * len(self.kernels[name]))
            )
            state[name] = values.expand(*shape, *self.kernels[name])
        return state


def kept_indices(large: Wiring, source: str, selected: Tensor, depth: int = 1) -> list[tuple[str, list[int]]]:
    """(axis, indices) of each dimension, read back from the values of a selected tensor."""
    dims = large.dims[source]
    while selected.dim() > len(dims):
        selected = selected[..., 0]
    flat = (selected * depth).round().long()
    shape = [math.prod(large.lengths(dim)) for dim in dims]
    found = []
    for position, dim in enumerate(dims):
        stride = math.prod(shape[position + 1 :])
        index = (flat // stride) % shape[position]
        line = index.movedim(position, 0).reshape(index.shape[position], -1)
        assert bool((line == line[:, :1]).all()), f"{source}: dimension {position} is not one index set"
        line = line[:, 0]
        parts, lengths = (dim if isinstance(dim, tuple) else (dim,)), large.lengths(dim)
        for place, part in enumerate(parts):
            inner = math.prod(lengths[place + 1 :])
            component = (line // inner) % lengths[place]
            if isinstance(part, str):
                found.append((part, component.unique().tolist()))
        grid = torch.cartesian_prod(
            *[((line // math.prod(lengths[i + 1 :])) % lengths[i]).unique() for i in range(len(lengths))]
        )
        grid = grid.reshape(-1, len(lengths))
        weights = torch.tensor([math.prod(lengths[i + 1 :]) for i in range(len(lengths))])
        assert (grid * weights).sum(1).tolist() == line.tolist(), f"{source}: parts are not selected as a whole"
    return found


def vit(
    *, embed: int, heads: int, head_dim: int, mlp: int, depth: int, monai: bool, spatial: int, image: int = 1
) -> Wiring:
    net = Wiring({"embed": embed}, spatial)
    patch, position = ("patch_embed.proj", "pos_embed")
    out, fc1, fc2 = "proj", "fc1", "fc2"
    if monai:
        patch, position = "patch_embedding.patch_embeddings", "patch_embedding.position_embeddings"
        out, fc1, fc2 = "out_proj", "linear1", "linear2"
    net.add("cls_token", 1, 1, "embed")
    net.add(position, 1, 4**spatial + (not monai), "embed")
    net.add(f"{patch}.weight", "embed", image, kernel=2)
    net.add(f"{patch}.bias", "embed")
    for i in range(depth):
        axes = {f"head{i}": heads, f"dim{i}": head_dim, f"mlp{i}": mlp}
        net.sizes |= axes
        block = f"blocks.{i}"
        net.norm(f"{block}.norm1", "embed", statistics=False)
        net.add(f"{block}.attn.qkv.weight", (3, f"head{i}", f"dim{i}"), "embed")
        net.add(f"{block}.attn.qkv.bias", (3, f"head{i}", f"dim{i}"))
        net.add(f"{block}.attn.{out}.weight", "embed", (f"head{i}", f"dim{i}"))
        net.add(f"{block}.attn.{out}.bias", "embed")
        if not monai:
            net.add(f"{block}.ls1.gamma", "embed")
        net.norm(f"{block}.norm2", "embed", statistics=False)
        net.add(f"{block}.mlp.{fc1}.weight", f"mlp{i}", "embed")
        net.add(f"{block}.mlp.{fc1}.bias", f"mlp{i}")
        net.add(f"{block}.mlp.{fc2}.weight", "embed", f"mlp{i}")
        net.add(f"{block}.mlp.{fc2}.bias", "embed")
    net.norm("norm", "embed", statistics=False)
    return net


def convnext(*, widths: list[int], mlps: list[int], depths: list[int], spatial: int, image: int = 1) -> Wiring:
    net = Wiring({f"s{s}": width for s, width in enumerate(widths)}, spatial)
    net.add("stem.0.weight", "s0", image, kernel=2)
    net.add("stem.0.bias", "s0")
    net.norm("stem.1", "s0", statistics=False)
    for s, depth in enumerate(depths):
        if s:
            net.norm(f"stages.{s}.downsample.0", f"s{s - 1}", statistics=False)
            net.add(f"stages.{s}.downsample.1.weight", f"s{s}", f"s{s - 1}", kernel=2)
            net.add(f"stages.{s}.downsample.1.bias", f"s{s}")
        for b in range(depth):
            block, mlp = f"stages.{s}.blocks.{b}", f"mlp{s}.{b}"
            net.sizes[mlp] = mlps[s]
            net.add(f"{block}.gamma", f"s{s}")
            net.add(f"{block}.conv_dw.weight", f"s{s}", 1, kernel=3)
            net.add(f"{block}.conv_dw.bias", f"s{s}")
            net.norm(f"{block}.norm", f"s{s}", statistics=False)
            net.add(f"{block}.mlp.fc1.weight", mlp, f"s{s}")
            net.add(f"{block}.mlp.fc1.bias", mlp)
            net.add(f"{block}.mlp.fc2.weight", f"s{s}", mlp)
            net.add(f"{block}.mlp.fc2.bias", f"s{s}")
    net.norm("head.norm", f"s{len(widths) - 1}", statistics=False)
    return net


def efficientnet(
    *,
    stem: int,
    widths: list[int],
    mids: list[int],
    reduced: int,
    depths: list[int],
    head: int,
    spatial: int,
    image: int = 1,
) -> Wiring:
    """Stage 0 is depthwise separable, the others are inverted residuals; ``reduced`` 0 leaves squeeze-excite out."""
    net = Wiring({"stem": stem, "head": head} | {f"s{s}": width for s, width in enumerate(widths)}, spatial)
    net.add("conv_stem.weight", "stem", image, kernel=3)
    net.norm("bn1", "stem")
    for s, depth in enumerate(depths):
        for b in range(depth):
            block, before = f"blocks.{s}.{b}", f"s{s}" if b else (f"s{s - 1}" if s else "stem")
            mid = f"mid{s}.{b}" if s else before
            if s:
                net.sizes[mid] = mids[s]
                net.add(f"{block}.conv_pw.weight", mid, before, kernel=1)
                net.norm(f"{block}.bn1", mid)
            net.add(f"{block}.conv_dw.weight", mid, 1, kernel=3)
            net.norm(f"{block}.bn2" if s else f"{block}.bn1", mid)
            if reduced:
                net.sizes[f"se{s}.{b}"] = reduced
                net.add(f"{block}.se.conv_reduce.weight", f"se{s}.{b}", mid, kernel=1)
                net.add(f"{block}.se.conv_reduce.bias", f"se{s}.{b}")
                net.add(f"{block}.se.conv_expand.weight", mid, f"se{s}.{b}", kernel=1)
                net.add(f"{block}.se.conv_expand.bias", mid)
            net.add(f"{block}.conv_pwl.weight" if s else f"{block}.conv_pw.weight", f"s{s}", mid, kernel=1)
            net.norm(f"{block}.bn3" if s else f"{block}.bn2", f"s{s}")
    net.add("conv_head.weight", "head", f"s{len(widths) - 1}", kernel=1)
    net.norm("bn2", "head")
    return net


def resnet(
    *, stem: int, widths: list[int], mids: list[int], depths: list[int], bottleneck: bool, spatial: int, image: int = 1
) -> Wiring:
    """The first stage has no projection where its width equals the stem's: there both are one axis."""
    net = Wiring({"stem": stem}, spatial)
    streams = []
    for s, width in enumerate(widths, 1):
        streams.append("stem" if s == 1 and width == stem else f"s{s}")
        net.sizes[streams[-1]] = width
    net.add("conv1.weight", "stem", image, kernel=3)
    net.norm("bn1", "stem")
    for s, depth in enumerate(depths, 1):
        out = streams[s - 1]
        for b in range(depth):
            block, before = (
                f"layer{s}.{b}",
                out if b or (s == 1 and out == "stem") else (streams[s - 2] if s > 1 else "stem"),
            )
            names = [f"a{s}.{b}", f"c{s}.{b}"]
            net.sizes |= dict.fromkeys(names, mids[s - 1])
            if bottleneck:
                net.add(f"{block}.conv1.weight", names[0], before, kernel=1)
                net.add(f"{block}.conv2.weight", names[1], names[0], kernel=3)
                net.add(f"{block}.conv3.weight", out, names[1], kernel=1)
                net.norm(f"{block}.bn2", names[1])
                net.norm(f"{block}.bn3", out)
            else:
                net.add(f"{block}.conv1.weight", names[0], before, kernel=3)
                net.add(f"{block}.conv2.weight", out, names[0], kernel=3)
                net.norm(f"{block}.bn2", out)
            net.norm(f"{block}.bn1", names[0])
            if before != out:
                net.add(f"{block}.downsample.0.weight", out, before, kernel=1)
                net.add(f"{block}.downsample.0.bias", out)
                net.norm(f"{block}.downsample.1", out)
    return net
