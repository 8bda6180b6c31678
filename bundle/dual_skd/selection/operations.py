# SPDX-License-Identifier: Apache-2.0
"""What each operation of PyTorch that computes says about the dimensions of its operands, see :mod:`.tracing`.

A handler takes the tracer, the result, and the operands, as PyTorch's ``aten`` operation has them, and gives the result
its terms. An operation without a handler is followed where PyTorch marks it as elementwise, and refused otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from dual_skd.selection.terms import Term, keep_whole, product, tie
from dual_skd.selection.tracer import Tracer, elementwise, handles, results_of, space, tie_broadcast


@handles(
    "clone", "detach", "alias", "_to_copy", "lift_fresh", "_softmax", "_log_softmax", "_safe_softmax", "cumsum",
    "zero_", "fill_",
)  # fmt: skip
def same_shape(t: Tracer, out: Any, x: Tensor, *args: Any, **kwargs: Any) -> None:
    _set_first(t, out, t.read(x))


@handles(
    "empty_like", "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_empty", "new_full",
    "_assert_async",
)  # fmt: skip
def unrelated(t: Tracer, out: Any, *args: Any, **kwargs: Any) -> None:
    for result in results_of(out) if out is not None else []:
        t.terms(result)


@handles("copy_")
def copy(t: Tracer, out: Tensor, x: Tensor, source: Tensor, *args: Any, **kwargs: Any) -> None:
    terms = t.terms(x)
    tie_broadcast(terms, t.read(source))


# ---- products of matrices and convolutions


@handles("mm", "bmm")
def matrix_product(t: Tracer, out: Tensor, a: Tensor, b: Tensor, *args: Any) -> None:
    x, y = t.read(a), t.read(b)
    tie(x[-1], y[-2])
    for one, other in zip(x[:-2], y[:-2], strict=True):
        tie(one, other)
    t.set(out, [*x[:-1], y[-1]])


@handles("addmm", "baddbmm")
def matrix_product_and_sum(t: Tracer, out: Tensor, c: Tensor, a: Tensor, b: Tensor, **kwargs: Any) -> None:
    matrix_product(t, out, a, b)
    tie_broadcast(t.terms(out), t.read(c))


@handles("convolution")
def convolution(
    t: Tracer, out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], padding: Any,
    dilation: Any, transposed: bool, output_padding: Any, groups: int, *args: Any,
) -> None:  # fmt: skip
    terms, w = t.read(x), t.read(weight)
    rank = weight.dim() - 2
    t.kernels[id(weight)] = rank
    if tuple(weight.shape[2:]) == tuple(stride) and max(stride) > 1:
        t.patches.add(id(weight))
    inputs, outputs = (w[0], w[1]) if transposed else (w[1], w[0])
    channels = terms[1]
    if groups == 1:
        tie(channels, inputs)
        result = outputs
    else:
        result = _grouped(channels, inputs, outputs, groups, transposed=transposed)
    if bias is not None:
        tie(result, t.read(bias)[0])
    t.set(out, [terms[0], result, *slid(terms[2:], out.shape[2:])])


def _grouped(channels: Term, inputs: Term, outputs: Term, groups: int, *, transposed: bool) -> Term:
    """Ties the channels of a convolution in groups; returns the term of its result."""
    per_group = channels.size // groups
    group, wide = (channels, None) if per_group == 1 else (Term(groups), Term(per_group))
    if wide is not None:
        tie(channels, product([group, wide]))
        if not transposed:
            tie(inputs, wide)
    if transposed:
        if wide is not None:
            tie(inputs, product([group, wide]))
        else:
            tie(inputs, group)
        return product([group, outputs])
    more = outputs.size // groups
    tie(outputs, group if more == 1 else product([group, Term(more)]))
    return outputs


def slid(terms: Sequence[Term], sizes: Iterable[int]) -> list[Term]:
    """The places after a window has slid over dimensions; what isn't a place is needed whole."""
    found = []
    for term, size in zip(terms, sizes, strict=True):
        if not term.is_space and term.size > 1:
            keep_whole(term)
            found.append(term if term.size == size else Term(size, whole=True))
        else:
            found.append(term if term.size == size else space(size))
    return found


@handles(
    "avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices",
    "adaptive_max_pool2d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_max_pool3d",
    "upsample_linear1d", "upsample_bilinear2d",
    "upsample_nearest2d", "upsample_bicubic2d", "_upsample_bicubic2d_aa", "_upsample_bilinear2d_aa",
    "upsample_nearest3d", "upsample_trilinear3d", "reflection_pad2d", "replication_pad2d", "replication_pad3d",
)  # fmt: skip
def window(t: Tracer, out: Any, x: Tensor, *args: Any, **kwargs: Any) -> None:
    results = results_of(out)
    terms, result = t.read(x), results[0]
    same = 0  # leading dimensions stay: (N, C), or C alone
    while same < 2 and x.shape[same] == result.shape[same]:
        same += 1
    for each in results:
        t.set(each, [*terms[:same], *slid(terms[same:], result.shape[same:])])


# ---- norms


@handles("native_layer_norm", "_fused_rms_norm")
def layer_norm(t: Tracer, out: Any, x: Tensor, shape: Sequence[int], *weights: Any) -> None:
    terms = t.read(x)
    for weight in weights:
        if isinstance(weight, Tensor):
            for term, mine in zip(terms[-len(shape) :], t.read(weight), strict=True):
                tie(term, mine)
    _set_first(t, out, terms)


@handles("native_batch_norm", "_native_batch_norm_legit_no_training")
def batch_norm(t: Tracer, out: Any, x: Tensor, *others: Any, **kwargs: Any) -> None:
    terms = t.read(x)
    for other in others:
        if isinstance(other, Tensor):
            tie(terms[1], t.read(other)[0])
    _set_first(t, out, terms)


@handles("native_group_norm")
def group_norm(
    t: Tracer, out: Any, x: Tensor, weight: Any, bias: Any, n: int, c: int, hw: int, groups: int, eps: float
) -> None:
    terms = t.read(x)
    for other in (weight, bias):
        if isinstance(other, Tensor):
            tie(terms[1], t.read(other)[0])
    if 1 < groups < c:
        tie(terms[1], product([Term(groups), Term(c // groups)]))
    _set_first(t, out, terms)


def _set_first(t: Tracer, out: Any, terms: Sequence[Term]) -> None:
    first, *others = results_of(out)
    t.set(first, terms)
    for other in others:
        t.terms(other)


# ---- reductions


@handles("mean", "sum", "amax", "amin", "max", "min", "var", "std", "var_mean", "any", "all", "linalg_vector_norm")
def reduction(t: Tracer, out: Any, x: Tensor, *args: Any, **kwargs: Any) -> None:
    results = results_of(out)
    terms, result = t.read(x), results[0]
    at = next((arg for arg in (*args, kwargs.get("dim")) if isinstance(arg, (list, tuple))), None)
    if at is None:
        numbers = [arg for arg in args if isinstance(arg, int) and not isinstance(arg, bool)]
        at = [kwargs["dim"]] if isinstance(kwargs.get("dim"), int) else numbers[:1]
    gone = {dim % x.dim() for dim in at} if at else set(range(x.dim()))
    if result.dim() == x.dim():
        found = [Term(1) if dim in gone else term for dim, term in enumerate(terms)]
    else:
        found = [term for dim, term in enumerate(terms) if dim not in gone]
    for each in results:
        t.set(each, found)


@handles(
    "masked_fill", "masked_fill_", "addcmul", "_prelu_kernel", "hardswish", "hardswish_", "hardsigmoid", "hardtanh",
    "hardtanh_", "leaky_relu_", "elu_", "silu_", "gelu_",
)  # fmt: skip
def like_elements(t: Tracer, out: Any, *args: Any, **kwargs: Any) -> None:
    elementwise(t, out, *args, **kwargs)
