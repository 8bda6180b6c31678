# SPDX-License-Identifier: Apache-2.0
"""Weight selection: plan from names and shapes, apply to values, report per tensor.

Source of the idea: Xu et al., "Initializing Models with Larger Ones", 2023 (arXiv 2311.18823): choose blocks, map
tensors by name, keep a subset of the indices of every dimension. Here every dimension carries a named axis (see
``axes``), and one axis keeps the same indices in every tensor that touches it.

    >>> import torch
    >>> from dual_skd.selection import plan_selection
    >>> large = {"fc1.weight": torch.arange(8.0).reshape(4, 2)}
    >>> small = {"fc1.weight": torch.zeros(2, 2)}
    >>> plan_selection(large, small).apply()["fc1.weight"]
    tensor([[0., 1.],
            [4., 5.]])
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor, nn

from dual_skd.errors import SelectionError
from dual_skd.options.choices import SelectionMode
from dual_skd.selection.builder import PlanBuilder
from dual_skd.selection.check import PlanCheck, check_plan
from dual_skd.selection.families import FAMILIES
from dual_skd.selection.family_builder import FamilyBuilder, UnknownTensor, common_family
from dual_skd.selection.indices import entries
from dual_skd.selection.naming import Naming, common_names, meet
from dual_skd.selection.parts import Part, axes_of, is_whole, piece_of
from dual_skd.selection.report import SelectionReport, SelectionRow, as_table
from dual_skd.selection.rules import ELEMENT_RULES, Layers, check_word
from dual_skd.selection.traced_builder import TracedBuilder
from dual_skd.selection.tracing import NotFollowed, trace
from dual_skd.selection.view import Network, View, view_of
from dual_skd.utils.wording import closing

logger = logging.getLogger(__name__)


class SelectionPlan:
    """Which entry of the large network each entry of the small one is copied from. Made by :func:`plan_selection`.

    Attributes:
        family: name of the family whose table gives the axes; ``"traced"`` where an image was followed through both
            networks, ``"generic"`` where sizes alone decide.
        doubts: why the axes may be inconsistent.
        checked: what :meth:`check` found last; None before.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        indices: Mapping[str, Tensor],
        *,
        large: View,
        small: View,
        family: str,
        doubts: Sequence[str],
        naming: Naming,
    ) -> None:
        self._parts = list(parts)
        self._indices = dict(indices)
        self._large = large
        self._naming = naming  # of the large network
        self._small = replace(small, state={})  # its tensors are the caller's
        self.family = family
        self.doubts = list(doubts)
        self.checked: PlanCheck | None = None

    @property
    def verified(self) -> bool:
        """Whether every axis is consistent: :meth:`check` found it so, or the family's table says it without doubt."""
        by_size = self.family == "generic"  # its doubt is what the check is for; others say what is missing
        if self.checked is not None and self.checked.verdict in ("consistent", "inconsistent"):
            return self.checked.consistent and (by_size or not self.doubts)
        return self.family in FAMILIES and not self.doubts

    def check(
        self, image: Tensor | None = None, *, large: nn.Module | None = None, small: nn.Module | None = None
    ) -> PlanCheck:
        """Computes whether the selected weights are a consistent part of the large network.

        Both networks get random values, the large one only where the plan copies from. They must then have the same
        features. It takes seconds on the CPU; the networks themselves aren't changed.

        Args:
            image: an input of the small network, (N, C, H, W[, D]), of which the shape is used; None tries some.
            large: the large network, where the plan was made for a state dict.
            small: the same of the small network.

        Returns:
            The verdict, which :attr:`verified` follows from now on.

        Raises:
            SelectionError: a module is missing, or the small network can't compute ``image``.
        """
        views = [
            view if given is None else replace(view, module=given)
            for view, given in ((self._large, large), (self._small, small))
        ]
        self.checked = check_plan(self._parts, self._pick, *views, image=image, naming=self._naming)
        return self.checked

    @property
    def axes(self) -> dict[str, list[int]]:
        """Axis name -> indices kept."""
        return {axis: index.tolist() for axis, index in self._indices.items()}

    @property
    def skipped(self) -> dict[str, list[str]]:
        """Reason -> tensors of the small network that aren't selected."""
        found = defaultdict(list)
        for part in self._parts:
            if part.reason:
                found[part.reason].append(part.name)
        return dict(found)

    def __repr__(self) -> str:
        return closing(f"SelectionPlan: {self._large.name} -> {self._small.name}", self.summary())

    def _repr_html_(self) -> str:
        title = f"<p><b>{escape(f'{self._large.name} → {self._small.name}')}</b></p>"
        details = f"<details><summary>Tensor by tensor</summary>{self.report()._repr_html_()}</details>"
        return f"<div>{title}{as_table(self.summary())}{details}</div>"

    def summary(self) -> list[tuple[str, str]]:
        """The main facts of the plan in words, as (name, text)."""
        chosen = [part.name for part in self._parts if not part.reason]
        numbers = sum(math.prod(self._small.shapes[name]) for name in chosen if name not in self._small.buffers)
        axes = "consistency of the axes is not verified"
        if self.verified:
            axes = "the axes are consistent"
        elif self.family == "traced" and not (self.doubts or self.checked):
            axes = "the axes are those of the networks' computation; check() tests them"
        rows = [
            ("family", f"{self.family}; {axes}"),
            *([("checked", str(self.checked))] if self.checked else []),
            ("tensors", f"{len(chosen)} of {len(self._parts)} selected"),
            (
                "parameters",
                f"{numbers:,} of {self._small.parameters:,} selected; {self._large.parameters:,} to select from",
            ),
        ]
        for place, (reason, names) in enumerate(self.skipped.items()):
            rows.append(
                ("" if place else "not selected", f"{', '.join(names[:3])}{' ...' if names[3:] else ''}: {reason}")
            )
        return rows + [("" if place else "doubts", doubt) for place, doubt in enumerate(self.doubts[:3])]

    def apply(self, large_state_dict: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Copies the selected weights.

        Args:
            large_state_dict: values to select from, shaped like those the plan was made for; None for those themselves.

        Returns:
            Name in the small network -> new tensor, for the selected tensors only, with the large network's dtype and
            device. Values are copied as they are; the report's ``note`` names each tensor that had to be adapted.

        Raises:
            SelectionError: when ``large_state_dict`` doesn't have the tensors of the plan.
        """
        state = self._large.state if large_state_dict is None else self._naming.values(large_state_dict)
        return {part.name: self._copy(part, state) for part in self._parts if not part.reason}

    def report(self) -> SelectionReport:
        """One :class:`SelectionRow` per tensor of the small network."""
        return SelectionReport([self._row(part) for part in self._parts], verified=self.verified)

    def write_report(self, path: str | Path) -> Path:
        """Writes :meth:`report` as CSV and returns the path."""
        return self.report().write(path)

    def _row(self, part: Part) -> SelectionRow:
        named = [axis.name for dim in part.dims for axis in axes_of(dim or ()) if axis.name in self._indices]
        notes = [text for text, _ in part.steps]
        if part.neutral is not None:
            notes.append(f"absent in the large network, which equals {part.neutral:g}")
        if part.add_first:
            notes.append(f"first entry of {part.add_first} added")
        if part.piece and not self._naming.is_piece(part):
            notes.append(f"part {part.piece[0] + 1} of {part.piece[1]}")
        return SelectionRow(
            part.name,
            self._naming.source(part),
            self._small.shapes[part.name],
            self._source_shape(part),
            {name: self._indices[name].tolist() for name in named},
            None if part.reason or part.source is None else self._norm_share(part, self._large.state[part.source]),
            part.reason,
            "; ".join(notes),
        )

    def _source_shape(self, part: Part) -> tuple[int, ...] | None:
        shape = self._large.shapes.get(part.source) if part.source else None
        if shape and part.piece and self._naming.is_piece(part):
            return (shape[0] // part.piece[1], *shape[1:])
        return shape

    def _norm_share(self, part: Part, source: Tensor) -> float | None:
        if source.device.type == "meta":
            return None
        if all(index is None for index in self._flat_indices(part)):
            return 1.0
        total = _squared_norm(piece_of(part, source))
        return _squared_norm(piece_of(part, self._pick(part, source))) / total if total else 1.0

    def _copy(self, part: Part, state: Mapping[str, Tensor]) -> Tensor:
        if part.neutral is not None:
            like = next(value for value in state.values() if value.is_floating_point())
            return like.new_full(self._small.shapes[part.name], part.neutral)
        if part.source is None or part.source not in state:
            raise SelectionError(
                f"{part.name}: the given weights lack {part.source!r}; give weights of the network that was planned for"
            )
        source = state[part.source].detach()
        if tuple(source.shape) != self._large.shapes[part.source]:
            raise SelectionError(
                f"{part.source}: planned for shape {self._large.shapes[part.source]}, got {tuple(source.shape)}; "
                "make a new plan for these weights"
            )
        result = self._pick(part, source)
        for _, step in part.steps:
            result = step(result)
        if part.add_first:
            result = result + self._pick(part, state[part.add_first].detach()[:, :1])
        result = piece_of(part, result).reshape(self._small.shapes[part.name])
        shares_memory = result.untyped_storage().data_ptr() == source.untyped_storage().data_ptr()
        return result.clone() if shares_memory else result.contiguous()

    def _pick(self, part: Part, tensor: Tensor) -> Tensor:
        """Index-selects each dimension, the most shrinking one first, so that no big intermediate is made."""
        chosen = [(dim, index) for dim, index in enumerate(self._flat_indices(part)) if index is not None]
        for dim, index in sorted(chosen, key=lambda item: len(item[1]) / tensor.shape[item[0]]):
            tensor = tensor.index_select(dim, index.to(tensor.device))
        return tensor

    def _flat_indices(self, part: Part) -> Iterator[Tensor | None]:
        """Per dimension the flat indices of its composed axes, or None where all of it is kept in order."""
        for dim in part.dims:
            yield None if dim is None or is_whole(dim) else entries(dim, self._indices)


def _squared_norm(tensor: Tensor) -> float:
    wide = tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
    return torch.linalg.vector_norm(wide).double().square().item()


def plan_selection(
    large: Network,
    small: Network,
    *,
    elements: str = "uniform",
    layers: Layers = "first",
    seed: int = 0,
    mode: str = "structured",
    family: str | None = None,
    large_heads: int | None = None,
    small_heads: int | None = None,
    large_grid: Sequence[int] | None = None,
    small_grid: Sequence[int] | None = None,
    image_size: Sequence[int] | None = None,
) -> SelectionPlan:
    """Plans the selection of a small network's weights from a large one.

    Classifier heads are never selected, not even for equal architectures: they belong to the old classes. In a network
    of no known family the classifier can't be recognised: initialise it yourself if the classes differ. A tensor
    without a counterpart of the same form keeps its values, with the reason in the report.

    Args:
        large: module or state dict to take weights from.
        small: module or state dict that gives the wanted shapes. It may be volumetric where ``large`` is 2D.
        elements: ``uniform`` (evenly spaced), ``consecutive``, ``complement`` (what uniform leaves out), ``random``
            (seeded per axis) or ``importance`` (largest summed squared norm over all parameters on the axis).
        layers: ``first``, ``last``, ``even``, or explicit: a list of blocks, for staged networks one list per stage
            (or a dictionary from stage number to list; absent stages take the first ones).
        seed: seed of ``random``.
        mode: ``structured``, or ``reference`` for comparison with the published code: its index rule on every dimension
            on its own, without named axes and attention heads.
        family: a key of ``families.FAMILIES``, whose table gives the axes; ``traced``, to follow an image through both
            networks; or ``generic``, by sizes alone. None takes the table of the family that the tensor names show if
            it has every tensor, else follows an image if both are modules, else goes by sizes.
        large_heads: attention heads of the large network, where only a state dict is given (else 64 channels a head).
        small_heads: the same of the small network (else the large network's channels per head).
        large_grid: token grid (h, w[, d]) of the large network's position embedding; None reads it from the module, or
            takes it as square or cubic.
        small_grid: the same of the small network.
        image_size: (H, W[, D]) of an image that modules take; None tries the sizes that they state, then usual ones.

    Returns:
        A plan that refers to the large network's tensors but copies none.

    Raises:
        SelectionError: when a rule is unknown, the small network is wider than the large one, or nothing corresponds.
    """
    check_word("elements", elements, ELEMENT_RULES)
    check_word("mode", mode, get_args(SelectionMode))
    check_word("family", family, (None, "generic", "traced", *FAMILIES))
    size = None if image_size is None else tuple(image_size)
    own = replace(view_of(large, large_grid), image_size=size), replace(view_of(small, small_grid), image_size=size)
    builder, parts, namings = _planned(*own, family, layers, (elements, mode), (large_heads, small_heads))
    _require_selected(parts, *own)
    parts, view = namings[0].sourced(parts), namings[0].view(own[0], builder.large)
    indices = builder.axes.choose(elements, seed, parts, view)
    plan = SelectionPlan(
        namings[1].parts(parts, own[1].shapes), indices, large=view, small=own[1], family=builder.family,
        doubts=list(dict.fromkeys(builder.doubts)), naming=namings[0],
    )  # fmt: skip
    logger.debug("%r", plan)
    if plan.doubts and not builder.reference:
        logger.warning("Consistency of the axes is not verified: %s.", "; ".join(plan.doubts[:3]))
    return plan


class _Planned(NamedTuple):
    """The parts of a plan, with the names that both networks' namings lead to."""

    builder: PlanBuilder
    parts: list[Part]
    namings: tuple[Naming, Naming]


def _planned(
    large: View,
    small: View,
    family: str | None,
    layers: Layers,
    rules: tuple[str, str],
    heads: tuple[int | None, int | None],
) -> _Planned:
    """The parts by the family's table where it fits, else by following an image, else by sizes alone."""
    refusal: SelectionError | None = None
    by_table = None
    if family not in ("generic", "traced"):
        try:
            by_table = _by_table(large, small, family, layers, rules, heads)
        except UnknownTensor as unknown:
            refusal = unknown
    if by_table and (family or not by_table.builder.doubts):
        return by_table
    views, namings = meet(large, small)
    builder = PlanBuilder(*views, *rules)
    if "reference" not in rules and (family == "traced" or not family):
        try:
            followed = _by_following(large, small, layers, rules)
        except NotFollowed as reason:
            followed, builder.why = None, f"the networks can't be followed, since {reason}"
        if followed and not (by_table and followed.builder.doubts):
            return followed
    if refusal:
        raise refusal
    return by_table or _Planned(builder, builder.parts(layers), namings)


def _by_table(
    large: View,
    small: View,
    family: str | None,
    layers: Layers,
    rules: tuple[str, str],
    heads: tuple[int | None, int | None],
) -> _Planned | None:
    views, namings = common_names(large, small)
    axes = common_family(*views, family)
    if axes is None:
        return None
    builder = FamilyBuilder(*views, *rules, axes, heads)
    return _Planned(builder, builder.parts(layers), namings)


def _by_following(large: View, small: View, layers: Layers, rules: tuple[str, str]) -> _Planned | None:
    views, namings = meet(large, small)
    one, other = (view.module for view in views)
    if one is None or other is None:
        return None
    builder = TracedBuilder(*views, *rules, (trace(one, large.image_size), trace(other, small.image_size)))
    return _Planned(builder, builder.parts(layers), namings)


def select_weights(large: Network, small: nn.Module, **options: Any) -> SelectionReport:
    """Selects weights of ``large`` and loads them into ``small`` in place.

    Args:
        large: module or state dict to take weights from.
        small: module to initialise; tensors that aren't selected keep their values.
        options: arguments of :func:`plan_selection`.

    Returns:
        The report; rows with a ``reason`` weren't touched.
    """
    plan = plan_selection(large, small, **options)
    report = plan.report()
    small.load_state_dict(plan.apply(), strict=False)
    return report


def _require_selected(parts: Sequence[Part], large: View, small: View) -> None:
    if not any(part.source and not part.reason and part.dims for part in parts):
        raise SelectionError(
            "nothing can be selected: no tensor of the small network has a counterpart in the large one "
            f"(large: {_summary(large)}; small: {_summary(small)}); take both from one family"
        )


def _summary(view: View) -> str:
    names = list(view.shapes)
    return f"{len(names)} tensors, {names[0]} first" if names else "no tensors"
