# SPDX-License-Identifier: Apache-2.0
"""Checks a plan without any table: what it copies must compute in the large network what it computes in the small one.

Random values are put where the plan copies from, zeros elsewhere, and the small network takes its values from there as
the plan says (see ``embedding``). Both networks then have the same features, unless two tensors disagree about which
channel is which, or the small network lacks what the large one computes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dual_skd.errors import SelectionError
from dual_skd.selection.builder import CLASSIFIER
from dual_skd.selection.embedding import Embedding, Pick, first_line
from dual_skd.selection.naming import Naming
from dual_skd.selection.parts import Part, axes_of
from dual_skd.selection.view import View
from dual_skd.utils.wording import first_few

Verdict = Literal["consistent", "inconsistent", "no power", "not checked"]

TOLERANCE = 1e-8  # relative; in float64 equal networks differ by 1e-12
GAINS = (1.4, 0.8, 2.2)  # of the random weights: activations may vanish or saturate with one of them
CONTROLS = 3  # tensors that are spoilt, one at a time


@dataclass(frozen=True)
class PlanCheck:
    """What :meth:`SelectionPlan.check` found.

    Args:
        verdict: ``consistent``: the small network computes what the selected part of the large one computes.
            ``inconsistent``: it doesn't. ``no power``: weights that were spoilt on purpose weren't noticed, so the
            check says nothing. ``not checked``: the networks can't be compared.
        module: first module of the small network, in the order of computation, that gives something else.
        axis: the axes of its tensors.
        reason: why nothing was checked.
        unselected: parameters outside the classifier that aren't selected and stay random.
        adapted: tensors that are resampled or summed; they were compared in the small network's form where possible.
    """

    verdict: Verdict
    module: str = ""
    axis: str = ""
    reason: str = ""
    unselected: tuple[str, ...] = ()
    adapted: tuple[str, ...] = ()

    @property
    def consistent(self) -> bool:
        return self.verdict == "consistent"

    def __str__(self) -> str:
        text = str(self.verdict)
        if self.verdict == "inconsistent":
            axes = f" (axes {self.axis})" if self.axis else ""
            text += f": {self.module or 'the feature layer'}{axes} gives something else than in the large network"
        elif self.verdict == "no power":
            text += ": weights that were spoilt on purpose weren't noticed"
        elif self.reason:
            text += f": {self.reason}"
        if self.unselected:
            text += f"; not selected, so random: {first_few(list(self.unselected))}"
        return text


def check_plan(
    parts: Sequence[Part],
    pick: Pick,
    large: View,
    small: View,
    *,
    image: Tensor | None = None,
    seed: int = 0,
    naming: Naming | None = None,
) -> PlanCheck:
    """Runs both networks with what a plan copies, see the top of this file.

    Args:
        parts: the plan's parts.
        pick: takes a part's entries from a tensor shaped like its source, before any adaptation.
        large: view of the large network, with its module.
        small: the same of the small one.
        image: an input of the small network, of which the shape is used; None tries some.
        naming: of the large network's tensors that the plan stacks.
        seed: of the random values.

    Raises:
        SelectionError: a module is missing, or the small network can't compute ``image``.
    """
    for view, word in ((large, "large"), (small, "small")):
        if view.module is None:
            raise SelectionError(
                f"of the {word} network only the tensors are known, and a check computes with it: give the module, "
                f"plan.check({word}=...)"
            )
    try:
        pair = Embedding(parts, pick, large, small, naming or Naming())
    except SelectionError as error:
        return PlanCheck("not checked", reason=str(error))
    result = PlanCheck(
        "no power",
        unselected=tuple(p.name for p in parts if p.reason not in ("", CLASSIFIER) and p.name not in small.buffers),
        adapted=tuple(part.name for part in pair.selected if part.steps),
    )
    try:
        shape = pair.shape_of(image)
    except SelectionError as error:
        if image is not None:
            raise
        return replace(result, verdict="not checked", reason=str(error))
    generator = torch.Generator().manual_seed(seed)
    for gain in GAINS:
        pair.fill(generator, gain)
        result = replace(result, **_compare(pair, *pair.image(shape, generator)))
        if result.verdict != "no power":
            break
    return result


def _compare(pair: Embedding, large_image: Tensor, small_image: Tensor) -> dict[str, Any]:
    """The fields of the result for one draw of values."""
    try:
        wide = pair.run(pair.large, large_image)
    except Exception as error:  # whatever a foreign network raises on an image that it isn't made for
        reason = f"the large network can't compute an image of shape {tuple(large_image.shape)} ({first_line(error)})"
        return {"verdict": "not checked", "reason": reason}
    narrow = pair.run(pair.small, small_image)
    if not all(value.isfinite().all() for value in narrow + wide):
        return {"verdict": "no power"}
    point = None
    if not any(value.any() for value in narrow):  # a layer that isn't selected lies in front: compare what enters it
        point = _last_alive(pair, small_image)
        narrow = _outputs(pair, pair.small, small_image, point)
    agreed = _agree(narrow, wide) if point is None else None
    if agreed is None:  # the large network gives it elsewhere
        outputs = _outputs(pair, pair.large, large_image)
        found = [[(_contains(own, value), value) for value in outputs] for own in narrow]
        wide = [value for per in found for value in [value for same, value in per if same][:1]]
        answers = [{same for same, _ in per} for per in found]
        agreed = None if any(each <= {None} for each in answers) else all(True in each for each in answers)
    if agreed is None:
        shapes = ", ".join(str(tuple(value.shape)) for value in narrow)
        return {"verdict": "not checked", "reason": f"nothing in the large network has the features' shape {shapes}"}
    if not agreed:
        return {"verdict": "inconsistent"} | _first_difference(pair, large_image, small_image)
    return {"verdict": "consistent" if _has_power(pair, small_image, wide, point) else "no power"}


def _has_power(pair: Embedding, image: Tensor, wide: Sequence[Tensor], point: str | None) -> bool:
    """Whether the small network's features change when a weight is spoilt, one of several at a time."""
    names = pair.spoilable()
    chosen = [names[(2 * place + 1) * len(names) // (2 * CONTROLS)] for place in range(CONTROLS)] if names else []
    for name in chosen:
        with pair.spoilt(name):
            spoilt = pair.run(pair.small, image) if point is None else _outputs(pair, pair.small, image, point)
        if _agree(spoilt, wide):
            return False
    return bool(chosen)


def _last_alive(pair: Embedding, image: Tensor) -> str:
    """The last module of the small network whose output isn't zero."""
    alive = [""]

    def note(path: str, outputs: list[Tensor]) -> None:
        if any(value.any() for value in outputs):
            alive.append(path)

    pair.run(pair.small, image, note)
    return alive[-1]


def _outputs(pair: Embedding, network: nn.Module, image: Tensor, path: str | None = None) -> list[Tensor]:
    """What the modules of a network give, or the last output of one of them."""
    found: list[Tensor] = []

    def keep(seen: str, outputs: list[Tensor]) -> None:
        if path in (None, seen):
            found.extend(value.clone() for value in outputs)

    pair.run(network, image, keep)
    return found if path is None else found[-1:]


def _first_difference(pair: Embedding, large_image: Tensor, small_image: Tensor) -> dict[str, str]:
    """The first module that gives something else in the large network, and its axes."""
    outputs: dict[tuple[str, int], Tensor] = {}
    calls: Counter[str] = Counter()
    found: list[str] = []
    back = {pair.counterpart(path): path for path, _ in reversed(list(pair.small.named_modules()))}

    def remember(path: str, values: list[Tensor]) -> None:
        for value in values[:1]:
            outputs[path, calls[path]] = value.clone()  # a layer after it may work in place
        calls[path] += 1

    def compare(path: str, values: list[Tensor]) -> None:
        own = outputs.get((back[path], calls[path])) if path in back else None
        if not found and own is not None and values and _contains(own, values[0]) is False:
            found.append(back[path])
        calls[path] += 1

    pair.run(pair.small, small_image, remember)
    calls.clear()
    pair.run(pair.large, large_image, compare)
    module = found[0] if found else ""
    if not any(True for _ in pair.small.get_submodule(module).parameters()):  # an activation: name what it's part of
        module = module.rpartition(".")[0] or module
    dims = [part.dims for part in pair.selected if part.name.startswith(f"{module}.")]
    axes = [axis.name for dim in chain.from_iterable(dims) for axis in axes_of(dim or ()) if axis.large != axis.small]
    return {"module": module, "axis": ", ".join(list(dict.fromkeys(axes))[:3])}


def _agree(narrow: Sequence[Tensor], wide: Sequence[Tensor]) -> bool | None:
    """Whether all features of the small network occur in the large one; None where their shapes can't be compared."""
    if len(narrow) != len(wide):
        return None
    found = [_contains(own, other) for own, other in zip(narrow, wide, strict=True)]
    return None if None in found else all(found)


def _contains(narrow: Tensor, wide: Tensor) -> bool | None:
    """Whether every channel of one tensor occurs in the other; None where their shapes can't be compared.

    The channels are the dimension whose sizes differ; where none does, any but the first may be.
    """
    if narrow.dim() != wide.dim() or not narrow.is_floating_point():
        return None
    dims = [dim for dim in range(narrow.dim()) if narrow.shape[dim] != wide.shape[dim]]
    if len(dims) > 1 or not narrow.numel():
        return None
    return any(_channels_occur(narrow, wide, dim) for dim in dims or range(1, narrow.dim()))


def _channels_occur(narrow: Tensor, wide: Tensor, dim: int) -> bool:
    own, other = (value.detach().double().movedim(dim, 0).reshape(value.shape[dim], -1) for value in (narrow, wide))
    direction = torch.randn(own.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    marks, known = own @ direction, (other @ direction).sort().values  # one number per channel
    place = torch.searchsorted(known, marks).clamp(1, max(1, len(known) - 1))
    nearest = torch.minimum((known[place - 1] - marks).abs(), (known[place.clamp(max=len(known) - 1)] - marks).abs())
    return bool((nearest <= TOLERANCE * own.norm(dim=1).mean()).all())
