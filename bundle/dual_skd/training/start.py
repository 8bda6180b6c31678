# SPDX-License-Identifier: Apache-2.0
"""The first weights of a student and auxiliary pair: selected from one large pretrained network."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from dual_skd.errors import InputError, SelectionError
from dual_skd.networks.inspect import classifier_of, unwrap
from dual_skd.selection import SelectionPlan, SelectionReport, plan_selection
from dual_skd.selection.view import View
from dual_skd.training.parent import load_parent
from dual_skd.utils.files import write_text

logger = logging.getLogger(__name__)

SCRATCH = "scratch"


class Pair(NamedTuple):
    """Student and auxiliary as they are before the first step.

    Attributes:
        student: the light network.
        auxiliary: the second, or None.
        summary: per network: ``rule``, ``selected`` and ``tensors`` (numbers of tensors), ``verified`` (the axes are
            consistent), and ``check``, the verdict in words, where it was computed.
    """

    student: nn.Module
    auxiliary: nn.Module | None
    summary: dict[str, dict[str, Any]]


class _Choice(NamedTuple):
    """How one network starts."""

    network: nn.Module
    rule: str
    layers: Any
    seed: int


def initialise_pair(
    student: nn.Module,
    auxiliary: nn.Module | None = None,
    *,
    large: str,
    large_options: Mapping[str, Any] | None = None,
    pretrained: str = "wheel",
    selection_student: str = "uniform",
    selection_auxiliary: str | None = "complement",
    layers: Any = "first",
    layers_auxiliary: Any = None,
    mode: str = "structured",
    check: str = "strict",
    image_size: Sequence[int] | None = None,
    seed: int = 0,
    report_path: str | Path | None = None,
    teach: Callable[[nn.Module], None] | None = None,
) -> Pair:
    """Initialises student and auxiliary with weights selected from one large pretrained network, in place.

    Classifiers are not selected, because their classes differ. They start as PyTorch initialises a linear layer: small
    enough that the selected features decide from the first step. Two equal rules give equal networks, classifier
    included; then the auxiliary is the ordinary mean teacher.

    Args:
        student: the light network.
        auxiliary: the second light network of the same architecture, or None.
        large: name of the large network, as in :func:`dual_skd.networks.build_network`.
        large_options: its options.
        pretrained: where its weights come from, as in :func:`dual_skd.networks.pretrained.load_pretrained`.
        selection_student: element rule of :func:`dual_skd.selection.plan_selection`, or ``scratch``: random weights.
        selection_auxiliary: the same for the auxiliary; None leaves it as it is given, and ``teacher`` to ``teach``.
        layers: the student's layer rule.
        layers_auxiliary: the auxiliary's, where the student has fewer blocks than the large network; None: ``layers``.
        mode: ``structured``, or ``reference`` for the published index rule.
        check: ``strict`` computes whether the weights fit together where no table of axes says so, and refuses those
            that don't (:meth:`dual_skd.selection.SelectionPlan.check`); ``off`` takes them. Mode ``reference`` isn't
            checked.
        image_size: (H, W[, D]) of the images, for networks that don't state what they take.
        seed: of the rule ``random``; the auxiliary's is ``seed + 1``.
        report_path: CSV of every tensor of both networks, with a first column ``network``.
        teach: gives an auxiliary ``teacher`` its weights, see :func:`dual_skd.training.teacher.load_teacher`.

    Raises:
        InputError: weights can't be loaded.
        SelectionError: they can't be selected for this architecture, or don't fit together.
    """
    choices = {"student": _Choice(student, selection_student, layers, seed)}
    if auxiliary is not None and selection_auxiliary not in (None, "teacher"):
        layers = layers if layers_auxiliary is None else layers_auxiliary
        choices["auxiliary"] = _Choice(auxiliary, selection_auxiliary, layers, seed + 1)
    selects = any(choice.rule != SCRATCH for choice in choices.values())
    view = load_parent(large, pretrained, large_options or {}) if selects else None
    plans = _select(choices, view, mode, image_size, checks=check == "strict" and mode == "structured")
    reports = {role: plan and plan.report() for role, plan in plans.items()}
    summary = {role: _summary(role, choices[role], report, large) for role, report in reports.items()}
    for role, plan in plans.items():
        if plan is not None and plan.checked is not None:
            summary[role]["check"] = str(plan.checked)
    if report_path is not None:
        _write_reports(Path(report_path), reports)
        _log(summary, large, report_path)
    if auxiliary is not None and selection_auxiliary == "teacher" and teach is not None:
        teach(auxiliary)
    return Pair(student, auxiliary, summary)


def _select(
    choices: Mapping[str, _Choice],
    view: View | None,
    mode: str,
    image_size: Sequence[int] | None,
    *,
    checks: bool,
) -> dict[str, SelectionPlan | None]:
    """Gives every network its weights; the plan is None where they stay random."""
    plans: dict[str, SelectionPlan | None] = {}
    student = choices["student"]
    for role, choice in choices.items():
        network = unwrap(choice.network)
        if choice.rule == SCRATCH or view is None:
            plans[role] = None
        elif role == "auxiliary" and choice[1:3] == student[1:3] and choice.rule != "random":
            network.load_state_dict(unwrap(student.network).state_dict())
            plans[role] = plans["student"]
        else:
            plan = plan_selection(
                view, network, elements=choice.rule, layers=choice.layers, seed=choice.seed, mode=mode,
                image_size=image_size,
            )  # fmt: skip
            if checks and not plan.verified:
                _require_consistent(plan, role)
            network.load_state_dict(plan.apply(), strict=False)
            classifier_of(network)[1].reset_parameters()
            plans[role] = plan
    return plans


def _require_consistent(plan: SelectionPlan, role: str) -> None:
    """Refuses weights that don't fit together, or that are doubted and can't be checked."""
    found = plan.check()
    doubt = f" ({plan.doubts[0]})" if plan.doubts else ""
    remedy = (
        "Choose a small network of the large one's shape (fewer blocks, or a width that divides it), start from random "
        "weights (--method scratch), or take them as they are (--selection-check off)."
    )
    if found.verdict == "inconsistent":
        raise SelectionError(
            f"The weights selected for the {role} don't fit together{doubt}. Checked: {found}. {remedy}"
        )
    if plan.doubts and not found.consistent:
        raise SelectionError(
            f"Nothing shows that the weights selected for the {role} fit together{doubt}. Checked: {found}. {remedy}"
        )
    logger.log(logging.INFO if plan.verified else logging.WARNING, "Weights of the %s checked: %s.", role, found)


def _summary(role: str, choice: _Choice, report: SelectionReport | None, large: str) -> dict[str, Any]:
    if report is None:
        return {"rule": SCRATCH, "selected": 0, "tensors": len(choice.network.state_dict()), "verified": True}
    selected = sum(row.selected for row in report)
    if 2 * selected < len(report):
        raise InputError(
            f"Only {selected} of {len(report)} tensors of the {role} have a counterpart in {large}, the others would "
            f"stay random; take small and large from one family, or choose the selection {SCRATCH}."
        )
    return {"rule": choice.rule, "selected": selected, "tensors": len(report), "verified": report.verified}


def _log(summary: Mapping[str, Mapping[str, Any]], large: str, report_path: str | Path) -> None:
    parts = [
        f"{role} {of['selected']} of {of['tensors']} tensors (rule {of['rule']})"
        if of["selected"]
        else f"{role} random"
        for role, of in summary.items()
    ]
    if any(of["selected"] for of in summary.values()):
        logger.info("First weights, from %s: %s; the table of all tensors is %s.", large, ", ".join(parts), report_path)
    else:
        logger.info("First weights: %s.", ", ".join(parts))


def _write_reports(path: Path, reports: Mapping[str, SelectionReport | None]) -> None:
    """Writes one table for both networks: the tables of the selection under one line of names."""
    lines: list[str] = []
    for role, report in reports.items():
        if report is not None:
            table = report.write(path, extra={"network": role}).read_text(encoding="utf-8").splitlines(keepends=True)
            lines += table[1:] if lines else table
    write_text(path, "".join(lines) or "network,name,source,reason\n")
