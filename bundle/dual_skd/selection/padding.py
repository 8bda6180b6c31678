# SPDX-License-Identifier: Apache-2.0
"""Computes networks in forms that added channels of zeros don't change, so that a narrow one equals its wide copy.

A norm divides by the number of channels, an attention by the root of its head's. Two networks of different widths then
never agree, however right their weights are. Here every norm divides by a length instead, in both networks.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

LENGTH = 16.0  # in place of a number of channels
HEAD_SCALE = 0.125  # in place of the inverse root of a head's channels


@contextmanager
def padding_invariant(*, flat_depth: bool = False) -> Iterator[PaddingInvariant]:
    """While active, replaces what depends on the number of channels by a form that channels of zeros don't change.

    Norms and weight standardisation divide by the root of the sum of squares. A mean over one dimension divides by a
    constant, and subtracting it from what it is the mean of does nothing. Attention has one scale. Numbers stay float64
    where a network asks for float32.

    Args:
        flat_depth: pads volumes along their depth by repeating, so that one that is constant there stays so.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), PaddingInvariant(flat_depth) as mode:
            yield mode
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


class PaddingInvariant(TorchFunctionMode):
    """Replaces functions by their forms, see :func:`padding_invariant`."""

    def __init__(self, flat_depth: bool) -> None:
        super().__init__()
        self.flat_depth = flat_depth
        self._is_paused = False
        self._means = WeakTensorKeyDictionary()  # mean -> reference to what it is the mean of

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if self._is_paused:
            return func(*args, **kwargs)
        if func is Tensor.float:
            return args[0].double()
        args = [_wide(value) for value in args]
        kwargs = {name: _wide(value) for name, value in kwargs.items()}
        if func in _MEANS and _one_dim(args, kwargs):
            mean = _sum(*args, **kwargs) / LENGTH
            self._means[mean] = weakref.ref(args[0])
            return mean
        if func in _DIFFERENCES and self._is_mean(*args[:2]):
            return args[0]
        if self.flat_depth and func in _DEPTH:
            return _DEPTH[func](*args, **kwargs)
        if func in _SCALINGS and len(args) == 2 and isinstance(args[1], float):
            args[1] = _scale(args[1])
        form = _FORMS.get(func)
        return form(*args, **kwargs) if form else func(*args, **kwargs)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While active, functions are what they are."""
        self._is_paused = True
        try:
            yield
        finally:
            self._is_paused = False

    def _is_mean(self, x: Any, other: Any) -> bool:
        return isinstance(other, Tensor) and other in self._means and self._means[other]() is x


def _wide(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value


def _one_dim(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    dim = args[1] if len(args) > 1 else kwargs.get("dim")
    return isinstance(dim, int) or (isinstance(dim, Sequence) and len(dim) == 1)


def _unit(x: Tensor, dims: Sequence[int]) -> Tensor:
    """``x`` divided by its length over ``dims``; zeros stay zeros."""
    return x / (torch.linalg.vector_norm(x, dim=tuple(dims), keepdim=True) + 1e-30)


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Weight and bias per channel, dimension 1."""
    shape = (1, -1) + (1,) * (x.dim() - 2)
    x = x if weight is None else x * weight.reshape(shape)
    return x if bias is None else x + bias.reshape(shape)


def _layer_norm(
    x: Tensor, shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None, eps: Any = None
) -> Tensor:
    x = LENGTH * _unit(x, range(-len(shape), 0))
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _group_norm(
    x: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: Any = None
) -> Tensor:
    places = x[0, 0].numel() ** 0.5
    grouped = x.reshape(len(x), groups, -1)
    return _affine((LENGTH * places * _unit(grouped, [2])).reshape(x.shape), weight, bias)


def _batch_norm(
    x: Tensor, mean: Tensor | None, var: Tensor | None, weight: Tensor | None = None, bias: Tensor | None = None,
    training: bool = False, momentum: Any = None, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """With statistics of ``x`` itself it standardises a convolution's weight, (1, O, I x kernel)."""
    if not training and mean is not None:
        return F.batch_norm(x, mean, var, weight, bias, eps=eps)
    return _affine(_unit(x, [dim for dim in range(x.dim()) if dim != 1]), weight, bias)


def _attention(*args: Any, **kwargs: Any) -> Tensor:
    scale = kwargs.get("scale")
    kwargs["scale"] = HEAD_SCALE if scale is None else _scale(scale)
    return F.scaled_dot_product_attention(*args, **kwargs)


def _scale(factor: float) -> float:
    """One scale for all that may be a root of a number of channels, or a root of that."""
    power = abs(factor) ** 4
    whole = max(power, 1 / power) if power else 0.0
    if not 2 <= whole < 2**32 or not math.isclose(whole, round(whole), rel_tol=1e-9):
        return factor
    return math.copysign(HEAD_SCALE if power < 1 else 1 / HEAD_SCALE, factor)


def _multi_head(query: Tensor, key: Tensor, value: Tensor, width: int, heads: int, *args: Any, **kwargs: Any) -> Any:
    """With the queries' projection scaled, so that the scale that is computed inside becomes ``HEAD_SCALE``."""
    factor = HEAD_SCALE * (query.shape[-1] / heads) ** 0.5
    stacked, bias, *others = args
    if kwargs.get("use_separate_proj_weight"):
        kwargs["q_proj_weight"] = kwargs["q_proj_weight"] * factor
    else:
        stacked = _scaled_start(stacked, width, factor)
    bias = None if bias is None else _scaled_start(bias, width, factor)
    return F.multi_head_attention_forward(query, key, value, width, heads, stacked, bias, *others, **kwargs)


def _scaled_start(x: Tensor, rows: int, factor: float) -> Tensor:
    return torch.cat([x[:rows] * factor, x[rows:]])


def _kept(x: Tensor, *_: Any, **__: Any) -> Tensor:
    """Without dropout, which some networks keep in evaluation."""
    return x


def _sum(x: Tensor, dim: Any = None, keepdim: bool = False, **_: Any) -> Tensor:
    return x.sum(dim, keepdim=keepdim)


def _variance(x: Tensor, dim: Any = None, *_: Any, keepdim: bool = False, **__: Any) -> Tensor:
    return x.square().sum(dim, keepdim=keepdim) / LENGTH


def _deviation(x: Tensor, dim: Any = None, *_: Any, keepdim: bool = False, **__: Any) -> Tensor:
    return _variance(x, dim, keepdim=keepdim).sqrt()


def _with_mean(spread: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
    def both(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        found = spread(*args, **kwargs)
        return found, torch.zeros_like(found)

    return both


def _pad_depth(x: Tensor, before: int, after: int) -> Tensor:
    """Repeats the first and the last slice of a volume (N, C, H, W, D)."""
    return F.pad(x, (before, after, 0, 0, 0, 0), mode="replicate")


def _conv3d(
    x: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Tensor:
    dilations = (dilation,) * 3 if isinstance(dilation, int) else dilation
    if padding == "same":
        padding = [step * (size - 1) // 2 for step, size in zip(dilations, weight.shape[2:], strict=True)]
    sides = (padding,) * 3 if isinstance(padding, int) else padding
    x = _pad_depth(x, sides[2], sides[2])
    return F.conv3d(x, weight, bias, stride, (*sides[:2], 0), dilation, groups)


def _pad(x: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    if x.dim() == 5 and mode == "constant":
        x, pad = _pad_depth(x, pad[0], pad[1]), (0, 0, *pad[2:])
    return F.pad(x, list(pad), mode=mode, value=value)


_SCALINGS = {
    torch.mul, Tensor.mul, Tensor.mul_, torch.div, Tensor.div, Tensor.div_, torch.true_divide, Tensor.true_divide
}  # fmt: skip
_MEANS = {torch.mean, Tensor.mean}
_DIFFERENCES = {torch.sub, Tensor.sub, Tensor.__sub__, torch.subtract, Tensor.subtract}
_DEPTH: dict[Callable[..., Any], Callable[..., Any]] = {F.conv3d: _conv3d, F.pad: _pad}
_DROPOUTS = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout, torch.dropout)
_FORMS: dict[Callable[..., Any], Callable[..., Any]] = {
    **dict.fromkeys(_DROPOUTS, _kept),
    F.layer_norm: _layer_norm,
    torch.layer_norm: _layer_norm,
    F.rms_norm: lambda x, shape, weight=None, eps=None: _layer_norm(x, shape, weight),
    F.group_norm: _group_norm,
    F.batch_norm: _batch_norm,
    F.scaled_dot_product_attention: _attention,
    F.multi_head_attention_forward: _multi_head,
    torch.var: _variance,
    Tensor.var: _variance,
    torch.std: _deviation,
    Tensor.std: _deviation,
    torch.var_mean: _with_mean(_variance),
    torch.std_mean: _with_mean(_deviation),
}
