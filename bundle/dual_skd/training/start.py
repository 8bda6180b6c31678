# SPDX-License-Identifier: Apache-2.0
"""The start of a student and auxiliary pair: weights selected from one large pretrained network."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from dual_skd.errors import InputError
from dual_skd.networks.inspect import classifier_of, unwrap
from dual_skd.networks.pretrained import load_network
from dual_skd.selection import SelectionReport, plan_selection
from dual_skd.selection.view import View, view_of

logger = logging.getLogger(__name__)

SCRATCH = "scratch"


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
    seed: int = 0,
    report_path: str | Path | None = None,
) -> dict[str, dict[str, Any]]:
    """Gives student and auxiliary weights selected from one large pretrained network, in place.

    Classifiers are not selected (their classes differ): where weights are selected the classifier starts as PyTorch
    initialises a linear layer, small enough that the selected features decide from the first step. Two equal rules give
    equal networks, classifier included: then the auxiliary is the ordinary mean teacher.

    Args:
        student: the light network.
        auxiliary: the second light network of the same architecture, or None.
        large: name of the large network, as in :func:`dual_skd.networks.build_network`.
        large_options: its options.
        pretrained: where its weights come from, as in :func:`dual_skd.networks.pretrained.load_pretrained`.
        selection_student: an element rule of :func:`dual_skd.selection.plan_selection`, or ``scratch`` for random
            weights.
        selection_auxiliary: the same for the auxiliary; None or ``teacher`` leaves it as it is given.
        layers: the student's layer rule.
        layers_auxiliary: the auxiliary's layer rule; None for the student's. It matters where ``student`` has fewer
            blocks than the large network.
        mode: ``structured``, or ``reference`` for the published index rule.
        seed: of the rule ``random``; the auxiliary's is ``seed + 1``.
        report_path: CSV of every tensor of both networks, with a first column ``network``.

    Returns:
        per network: ``rule``, ``selected`` and ``tensors`` (numbers of tensors), ``verified`` (named axes known).

    Raises:
        InputError: weights can't be loaded; SelectionError: they can't be selected for this architecture.
    """
    rules = {"student": (student, selection_student, layers, seed)}
    if auxiliary is not None and selection_auxiliary not in (None, "teacher"):
        of_auxiliary = layers if layers_auxiliary is None else layers_auxiliary
        rules["auxiliary"] = (auxiliary, selection_auxiliary, of_auxiliary, seed + 1)
    view = None
    if any(rule != SCRATCH for _, rule, _, _ in rules.values()):
        found = load_network(large, pretrained, large_options or {})
        view = found and view_of(found[0]).with_values(found[1])
    summary: dict[str, dict[str, Any]] = {}
    reports: dict[str, Any] = {}
    for who, (network, rule, blocks, rule_seed) in rules.items():
        if rule == SCRATCH or view is None:
            summary[who] = {"rule": SCRATCH, "selected": 0, "tensors": len(network.state_dict()), "verified": True}
        elif who == "auxiliary" and (rule, blocks) == (selection_student, layers) and rule != "random":
            unwrap(network).load_state_dict(unwrap(student).state_dict())
            summary[who], reports[who] = dict(summary["student"]), reports["student"]
        else:
            report = _select_into(network, view, elements=rule, layers=blocks, seed=rule_seed, mode=mode)
            reports[who] = report
            selected = sum(row.selected for row in report)
            if 2 * selected < len(report):
                raise InputError(
                    f"Only {selected} of {len(report)} tensors of the {who} have a counterpart in {large}, the others "
                    f"would stay random; take small and large from one family, or choose the selection {SCRATCH}."
                )
            summary[who] = {"rule": rule, "selected": selected, "tensors": len(report), "verified": report.verified}
    if report_path is not None:
        _write_reports(Path(report_path), reports)
        _say(summary, large, report_path)
    return summary


def _say(summary: Mapping[str, Mapping[str, Any]], large: str, report_path: str | Path) -> None:
    """One sentence for the log."""
    parts = [
        f"{who} {of['selected']} of {of['tensors']} tensors (rule {of['rule']})" if of["selected"] else f"{who} random"
        for who, of in summary.items()
    ]
    if any(of["selected"] for of in summary.values()):
        logger.info("First weights, from %s: %s; the table of all tensors is %s.", large, ", ".join(parts), report_path)
    else:
        logger.info("First weights: %s.", ", ".join(parts))


def _select_into(network: nn.Module, large: View, **options: Any) -> SelectionReport:
    small = unwrap(network)
    plan = plan_selection(large, small, **options)
    small.load_state_dict(plan.apply(), strict=False)
    classifier_of(small)[1].reset_parameters()
    return plan.report()


def _write_reports(path: Path, reports: Mapping[str, Any]) -> None:
    """One table for both networks: the tables of the selection, one below the other under one line of names."""
    lines: list[str] = []
    for who, report in reports.items():
        table = report.write(path, extra={"network": who}).read_text(encoding="utf-8").splitlines(keepends=True)
        lines += table[1:] if lines else table
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines) or "network,name,source,reason\n", encoding="utf-8")
