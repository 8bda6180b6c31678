# SPDX-License-Identifier: Apache-2.0
"""The tables of a report, from its analysis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dual_skd.evaluation.analysis import Analysis
from dual_skd.evaluation.analysis.run_facts import Data, Efficiency, Run, StageSelection, Training
from dual_skd.evaluation.pages.rendering import Table, number, percent
from dual_skd.evaluation.report.metric_names import CLASS_METRICS, KEY_METRICS, METRICS, meaning
from dual_skd.metrics.estimates import Estimate
from dual_skd.metrics.subgroups import Subgroup
from dual_skd.utils.wording import first_few, metric_words


def label_counts(analysis: Analysis) -> Table:
    """Of several labels per image, the right and wrong answers of each."""
    head = ["label", "true negatives", "false positives", "false negatives", "true positives"]
    return Table(head, [[name, *row] for name, row in zip(analysis.class_names, analysis.confusion, strict=True)])


def confusions(analysis: Analysis) -> list[tuple[str, str, int]]:
    """True class, predicted class and number of images of the wrong answers, the most frequent first."""
    names = analysis.class_names
    wrong = [
        (names[true], names[called], count)
        for true, row in enumerate(analysis.confusion)
        for called, count in enumerate(row)
        if count and called != true
    ]
    return sorted(wrong, key=lambda one: -one[2])


def metrics(analysis: Analysis) -> Table:
    """Every metric of all images."""
    overall = analysis.metrics.overall
    rows = [
        [label, (overall[name], _absent_classes(name, analysis)),
         "see above" if name in KEY_METRICS else meaning(name, analysis)]
        for name, label in METRICS.items() if name in overall
    ]  # fmt: skip
    return Table(["metric", "value and interval", "what it says"], rows)


def _absent_classes(metric: str, analysis: Analysis) -> str:
    """Which classes a mean over classes is without, as there is no image of them."""
    of_class = {"balanced_accuracy": "sensitivity", "f1": "f1"}.get(metric)
    if of_class is None or (metric == "balanced_accuracy" and analysis.multi_label):  # has the specificity, too
        return ""
    values = zip(analysis.class_names, analysis.metrics.per_class, strict=True)
    absent = [name for name, one in values if one[of_class].value is None]
    return f"without {first_few(absent)}: no image of {'it' if len(absent) == 1 else 'them'}" if absent else ""


def classes(analysis: Analysis) -> Table:
    """The metrics of each class against the rest."""
    names = [name for name in CLASS_METRICS if name in analysis.metrics.per_class[0]]
    columns = (analysis.class_names, analysis.class_images, analysis.metrics.per_class)
    rows = [[name, count, *(of_class[one] for one in names)] for name, count, of_class in zip(*columns, strict=True)]
    return Table(["class", "images", *(CLASS_METRICS[name] for name in names)], rows)


def operating_points(analysis: Analysis) -> Table:
    """Thresholds, what they did on the validation images, and what they do here."""
    rows: list[list[Any]] = []
    for point in analysis.operating_points:
        rule = "Youden" if point.wanted is None else f"sensitivity ≥ {point.wanted:.0%}"
        chosen, found = point.chosen, point.metrics
        if chosen is None or found is None:
            rows.append([point.class_name, rule, Estimate(None, reason=point.reason), *["–"] * 5])
            continue
        there = f"{chosen.positives}, {chosen.sensitivity:.3f} / {chosen.specificity:.3f}"
        here = (found[name] for name in ("sensitivity", "specificity", "ppv", "npv"))
        rows.append([point.class_name, rule, f"{chosen.threshold:.4f}", there, *here])
    on_validation = "on validation: images of it, sensitivity / specificity"
    return Table(["class", "rule", "threshold", on_validation, "sensitivity", "specificity", "PPV", "NPV"], rows)


def calibration(analysis: Analysis) -> Table:
    """Calibration metrics before and after the temperature."""
    before, after = analysis.calibration.before.metrics, analysis.calibration.after.metrics
    rows = [[METRICS[name], *("–" if one is None else one[name] for one in (before, after))]
            for name in before or after or {}]  # fmt: skip
    return Table(["metric", "before", "after"], rows)


def prediction_sets(analysis: Analysis) -> Table:
    """Coverage and size of the prediction sets."""
    sets = analysis.prediction_sets
    per_class = zip(analysis.class_names, sets.coverage_per_class, strict=True)
    return Table(["", "value"], [
        ["stated coverage", percent(sets.stated, 0)],
        ["observed coverage", sets.coverage],
        ["mean number of classes in a set", sets.mean_size],
        ["sets of one class", percent(sets.single)],
        *([f"coverage of {name}", number(value)] for name, value in per_class),
    ])  # fmt: skip


def groups(column: str, found: Sequence[Subgroup]) -> Table:
    """The groups of a column, each measured by itself."""
    names = [name for name in (*METRICS, "sensitivity", "specificity") if name in found[0].metrics.overall]
    care = any(group.too_small for group in found)
    rows = [
        [group.name, group.images, group.patients, *(group.metrics.overall[name] for name in names),
         *[group.too_small] * care]
        for group in found
    ]  # fmt: skip
    titles = (METRICS.get(name, name) for name in names)
    return Table([column, "images", "patients", *titles, *["read with care"] * care], rows)


def measured_classes(analysis: Analysis) -> Table:
    """Images measured, by class."""
    counts = zip(analysis.class_names, analysis.class_images, strict=True)
    return Table(["class", f"images measured ({analysis.split})"], list(counts))


def splits(data: Data) -> Table:
    """Images and patients of the splits of the training run."""
    head = ["split of the run", "images", "patients", "images without a known patient", *data.classes]
    return Table(head, [[name, one.images, one.patients, one.images_without_patient, *one.class_images]
                        for name, one in data.splits.items()])  # fmt: skip


def twins(data: Data) -> tuple[int, int]:
    """Numbers of exact and of near copies of training images that were left out."""
    return sum(one.exact for one in data.twins.values()), sum(one.near for one in data.twins.values())


def with_twins(data: Data) -> Table:
    """Metrics with and without the images that have a twin in training."""
    without, including = data.without_twins or {}, data.with_twins or {}
    rows = [[METRICS.get(name, name), number(without.get(name)), number(value)] for name, value in including.items()]
    return Table(["metric", "without twins", "with twins"], rows)


def skipped(files: Sequence[Mapping[str, Any]]) -> Table:
    """Files that could not be used, and why."""
    return Table(["file", "problem"], [[one.get("image", ""), one.get("problem", "")] for one in files])


def epochs(training: Training) -> Table:
    """Validation metrics of each epoch and network."""
    curves = [(f"{network} {metric_words(name)}", values)
              for network, of_network in training.series.items() for name, values in of_network.items()]  # fmt: skip
    rows = [[epoch, *(number(values[place]) for _, values in curves)] for place, epoch in enumerate(training.epochs)]
    return Table(["epoch", *(title for title, _ in curves)], rows)


def stages(found: Sequence[StageSelection]) -> Table:
    """Selected weights by network and stage."""
    head = ["network: stage", "tensors from the large network", "numbers", "mean share of the squared norm",
            "why others are not"]  # fmt: skip
    rows = [
        [f"{one.network}: {one.stage}", f"{one.selected} of {one.tensors}",
         f"{one.selected_parameters:,} of {one.parameters:,}", percent(one.norm_share), "; ".join(one.reasons)]
        for one in found
    ]  # fmt: skip
    return Table(head, rows)


def tensors(rows: Sequence[Mapping[str, str]]) -> Table:
    """All rows of ``selection_report.csv``."""
    columns = {"name": "tensor", "network": "network"} | {
        name: name.replace("_", " ") for name in ("source", "shape", "source_shape", "norm_share", "reason", "note")
    }
    return Table(list(columns.values()), [[row.get(name) or "" for name in columns] for row in rows])


def networks(found: Efficiency) -> Table:
    """Size and speed of each network."""
    speed, rows = found.speed or {}, []
    for role, one in found.networks.items():
        time = speed.get(role, {}).get("milliseconds")
        rows.append([
            role, one.architecture or "", millions(one.parameters), share_of_large(found, "parameters", role),
            millions(one.macs), share_of_large(found, "macs", role), number(time, 1),
        ])  # fmt: skip
    head = ["network", "architecture", "parameters", "of the large", "MACs per image", "of the large", "CPU ms"]
    return Table(head, rows)


def millions(count: float | None) -> str:
    """A large number, such as 4.01 M."""
    if count is None:
        return "–"
    return f"{count / 1e6:.2f} M" if count >= 1e5 else f"{count:,}"


def share_of_large(found: Efficiency, size: str, role: str = "student") -> str:
    """Parameters or MACs of a network as a share of the large network's."""
    count, whole = (getattr(found.networks.get(one), size, None) for one in (role, "large"))
    return percent(count / whole) if count and whole else "–"


def run(analysis: Analysis) -> Table:
    """When, where and with what the run was made."""
    made = analysis.run
    return Table(["", "value"], [
        ["started", made.started],
        ["finished", made.finished or "not finished"],
        ["device", made.device],
        ["seconds of training", number(made.total_seconds, 0)],
        ["seed", made.seed],
        ["SHA-256 of the data list", analysis.data.hash or "–"],
        ["versions", ", ".join(f"{name} {version}" for name, version in made.versions.items())],
    ])  # fmt: skip


def settings(made: Run) -> Table:
    """All options of the training, without paths."""
    return Table(["setting", "value"], list(made.settings.items()))
