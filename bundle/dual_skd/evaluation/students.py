# SPDX-License-Identifier: Apache-2.0
"""Small networks for a budget: proposed by their cost, ranked by a probe of their first features, shown and written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.utils import ensure_tuple_rep
from torch import nn

from dual_skd.data import load_records
from dual_skd.data.reading.facts import spread
from dual_skd.errors import InputError
from dual_skd.evaluation.report.speed import cpu_milliseconds
from dual_skd.metrics.estimates import LEVEL, Estimate
from dual_skd.networks.build import build_network
from dual_skd.networks.inspect import count_macs, count_parameters
from dual_skd.networks.shapes import Proposal, Shape, family_of, propose
from dual_skd.options import Training, read, resolved
from dual_skd.options.data import DataOptions
from dual_skd.selection import plan_selection
from dual_skd.selection.view import View, view_of
from dual_skd.training.parent import load_parent
from dual_skd.training.probe import ProbeImages, frozen_features, probe, read_probe_images
from dual_skd.utils.files import make_folder, replace_file, write_csv
from dual_skd.utils.progress import bar
from dual_skd.utils.wording import aligned

MOST = 12  # proposals for each budget
AXES = {  # of the plot: label and unit
    "parameters": ("million parameters", 1e6),
    "macs": ("million multiply-accumulates per image", 1e6),
    "milliseconds": ("ms per image on one CPU thread", 1),
}


@dataclass(frozen=True)
class Student:
    """A small network that was proposed.

    Attributes:
        name: of the network, as in :func:`~dual_skd.networks.build_network`.
        options: its ``small_options``.
        parameters: number of parameters.
        macs: multiply-accumulates for one image.
        milliseconds: median time for one image on one CPU thread; it varies with what else the computer does. With a
            budget of time, the time that was found to be within it.
        selected: share of its tensors that the large network gives.
        probe: macro AUC of its features before training, with an interval over patients; None without images.
    """

    name: str
    options: dict[str, Any]
    parameters: int
    macs: int
    milliseconds: float
    selected: float
    probe: Estimate | None = None


def propose_students(
    *,
    parameters: float | Sequence[float] | None = None,
    macs: float | Sequence[float] | None = None,
    milliseconds: float | Sequence[float] | None = None,
    dataset_dir: str | Path | None = None,
    **options: Any,
) -> list[Student]:
    """Proposes shapes of the small network within a budget.

    Args:
        parameters: budget of parameters, or several budgets. Give one of the three kinds.
        macs: budget of multiply-accumulates for an image.
        milliseconds: budget of the time for an image on one CPU thread.
        dataset_dir: your data, as for training. Some hundred of its training images rank the proposals; test and
            validation images aren't used.
        options: those of training that say which large network and which images: ``large``, ``large_options``,
            ``pretrained``, ``image_size``, ``spatial_dims``, ``patient_pattern``, ``seed`` and so on.

    Returns:
        the best by the probe first; without images the widest, as fewer whole layers start better than thinned ones
        (docs/method.md).

    Raises:
        InputError: not one kind of budget, nothing fits it, or the family, the data or the weights can't be used.

    Example:
        >>> students = propose_students(large="monai_resnet10", parameters=1e6, image_size=32)
        >>> students[0].options, students[0].parameters
        ({'layers': [1, 1, 1, 1], 'block_inplanes': [24, 48, 96, 192]}, 691802)
    """
    given = {"parameters": parameters, "macs": macs, "milliseconds": milliseconds}
    kinds = {kind: budget for kind, budget in given.items() if budget is not None}
    if len(kinds) != 1:
        raise InputError(
            f"Expected one kind of budget, found {', '.join(kinds) or 'none'}; give parameters, macs or ms."
        )
    ((kind, budget),) = kinds.items()
    budgets = [float(one) for one in (budget if isinstance(budget, Sequence) else [budget])]
    if not all(one > 0 for one in budgets):
        raise InputError(f"A budget is above 0, found {budgets}.")
    place = {} if dataset_dir is None else {"dataset_dir": dataset_dir}
    asked = resolved(read(Training, options | place))
    maker = _Maker(asked, kind)
    proposals = maker.proposals(budgets)
    images = None if dataset_dir is None else maker.images()
    large = maker.large(with_weights=images is not None)
    found = [maker.student(one, large, images) for one in bar(proposals, "Probing" if images else "Measuring")]
    return sorted(found, key=lambda one: -((one.probe and one.probe.value) or 0.0))


class _Maker:
    """Makes networks of the large one's family, as training with these options would."""

    def __init__(self, options: Training, kind: str) -> None:
        self.options, self.kind = options, kind
        self.shape = (1, *ensure_tuple_rep(options.image_size, options.spatial_dims))
        self.common = {"in_channels": 1, "spatial_dims": options.spatial_dims, "image_size": options.image_size}
        self.family = family_of(options.large, {"image_size": options.image_size} | options.large_options)

    def build(self, options: Mapping[str, Any]) -> nn.Module:
        options = self.common | self.options.large_options | dict(options)
        return build_network(self.options.large, num_classes=2, **options)

    def cost(self, shape: Shape) -> float:
        """What a shape takes of the budget."""
        options = self.family.options(shape.width, list(shape.depths))
        if self.kind == "milliseconds":
            return self.milliseconds(self.build(options))
        with torch.device("meta"):
            network = self.build(options)
        return count_parameters(network) if self.kind == "parameters" else count_macs(network, self.shape)

    def milliseconds(self, network: nn.Module) -> float:
        return cpu_milliseconds(network.eval(), self.shape)["milliseconds"]

    def proposals(self, budgets: Sequence[float]) -> list[Proposal]:
        """Proposals for every budget, the largest budget first."""
        found: dict[Shape, Proposal] = {}
        for budget in sorted(set(budgets), reverse=True):
            fitting = propose(self.family, self.cost, budget)
            found |= {one.shape: one for one in (fitting[place] for place in spread(len(fitting), MOST))}
        return list(found.values())

    def images(self) -> ProbeImages:
        """The images that rank the proposals."""
        if self.options.pretrained == "none":
            raise InputError("The images rank selected weights, and pretrained is 'none'; give weights, or no data.")
        how = {name: getattr(self.options, name) for name in DataOptions.model_fields}
        return read_probe_images(load_records(self.options.dataset_dir, **how), self.options)

    def large(self, *, with_weights: bool) -> View:
        """The large network, with its pretrained weights or with its shapes alone."""
        options = self.options
        found = load_parent(options.large, options.pretrained, options.large_options) if with_weights else None
        if found is not None:
            return found
        with torch.device("meta"):
            return view_of(self.build({}))

    def student(self, proposal: Proposal, large: View, images: ProbeImages | None) -> Student:
        """A proposal with its costs and, with images, its probe."""
        options = self.options
        torch.manual_seed(options.seed)  # of what isn't selected
        network = self.build(proposal.options).eval()
        plan = plan_selection(
            large, network, elements=options.selection_student or "uniform", layers=options.selection_layers,
            mode=options.selection_mode, seed=options.seed,
        )  # fmt: skip
        rows = plan.report()
        score = None
        if images is not None:
            network.load_state_dict(plan.apply(), strict=False)
            score = probe(frozen_features(network, images.images), images)
        return Student(
            options.large,
            options.large_options | proposal.options,
            count_parameters(network),
            count_macs(network, self.shape),
            proposal.cost if self.kind == "milliseconds" else self.milliseconds(network),
            sum(row.selected for row in rows) / len(rows),
            score,
        )


# --- shown and written ------------------------------------------------------------------------------------------------


def rows(students: Sequence[Student]) -> list[list[str]]:
    """Cells of the table: a line per student, in their order."""
    head = ["options", "parameters", "MACs", "ms", "selected", f"probe ({LEVEL:.0%} interval)"]
    found = [head if students[0].probe else head[:-1]]
    several = len({one.name for one in students}) > 1
    for one in students:
        line = [
            f"{one.name} " * several + _short(one.options),
            _million(one.parameters),
            _million(one.macs),
            f"{one.milliseconds:.1f}",
        ]
        line.append(f"{one.selected:.0%}")
        found.append([*line, _in_words(one.probe)] if one.probe else line)
    return found


def table(students: Sequence[Student]) -> list[str]:
    """The same as lines for a terminal."""
    head, *body = rows(students)
    numbered = [["", *head], *([str(number), *line] for number, line in enumerate(body, 1))]
    options = max(len(line[1]) for line in numbered)
    return aligned([[line[0], line[1].ljust(options), *line[2:]] for line in numbered])


def write_students(students: Sequence[Student], kind: str, folder: Path) -> None:
    """Writes ``students.csv``, and with probes the plot of the budget against them, ``students.svg``.

    Args:
        students: of :func:`propose_students`.
        kind: of the budget, a key of :data:`AXES`.
        folder: is made where it doesn't exist.
    """
    make_folder(folder)
    head = ["name", "options", "parameters", "macs", "milliseconds", "selected", "probe", "low", "high"]
    lines: list[list[Any]] = []
    for one in students:
        score = one.probe or Estimate(None)
        costs = [one.parameters, one.macs, one.milliseconds, one.selected]
        lines.append([one.name, json.dumps(one.options), *costs, score.value, score.low, score.high])
    write_csv(folder / "students.csv", [head, *lines])
    if students[0].probe:
        replace_file(folder / "students.svg", lambda draft: plot(students, kind, draft))


def plot(students: Sequence[Student], kind: str, path: Path) -> None:
    """The probe with its interval against the budget; numbers as in the table."""
    import matplotlib
    from matplotlib.figure import Figure

    from dual_skd.evaluation.report.drawing import GREY, PALETTE, STYLE

    label, unit = AXES[kind]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.8), layout="constrained")
        axes = figure.subplots()
        for number, one in enumerate(students, 1):
            score, cost = one.probe, getattr(one, kind) / unit
            if score is None or score.value is None:
                continue
            if score.low is not None and score.high is not None:
                axes.plot([cost, cost], [score.low, score.high], color=GREY, linewidth=0.8, zorder=1)
            axes.plot(cost, score.value, "o", color=PALETTE[1 if number == 1 else 0])
            axes.annotate(str(number), (cost, score.value), xytext=(5, 3), textcoords="offset points", fontsize=8)
        axes.set(xlabel=label, ylabel=f"probe: macro AUC before training, {LEVEL:.0%} interval")
        figure.savefig(path, format="svg", metadata={"Date": None})


def _short(options: Mapping[str, Any]) -> str:
    """Options in few characters: "depths 1,3,3,2 width 0.55"."""
    parts = ((name, ",".join(map(str, one)) if isinstance(one, list | tuple) else one) for name, one in options.items())
    return " ".join(f"{name} {value}" for name, value in parts)


def _million(count: float) -> str:
    return f"{count / 1e6:.3g} M"


def _in_words(score: Estimate) -> str:
    if score.value is None:
        return "–"
    return f"{score.value:.3f}" + ("" if score.low is None else f" ({score.low:.3f}-{score.high:.3f})")
