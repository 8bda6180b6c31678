# SPDX-License-Identifier: Apache-2.0
"""The model card: what the model is for, what it was made of and how well it does, as Markdown.

In the form that Hugging Face reads, with the topics of CLAIM 2024 (Tejani et al. 2024, Radiology: Artificial
Intelligence 6:e240300) that a run can answer, and those that only its authors can.
"""

from __future__ import annotations

from dual_skd.evaluation.analysis import Analysis
from dual_skd.evaluation.pages.rendering import Table, render
from dual_skd.evaluation.report import tables
from dual_skd.evaluation.report.commands import commands
from dual_skd.evaluation.report.metric_names import METRICS
from dual_skd.runs.recorder import LAST

OPEN = (
    ("Clinical background and role", "which question is asked of whom, and what follows from the answer"),
    ("Aim and hypothesis", "fixed before the test images were looked at"),
    ("Prospective or retrospective", ""),
    ("Data sources", "places, dates, how patients were found"),
    ("Inclusion and exclusion", "of patients and images; what the files show stands under Data"),
    ("De-identification", "how, and by whom"),
    ("Image acquisition", "devices, protocols, settings"),
    ("Reference standard", "what the labels rest on, why, and who gave them, with what training"),
    ("Agreement of raters", "between and within"),
    ("Sample size", "how it was planned"),
    ("Demographic and clinical characteristics", "of the patients of each split"),
    ("Registration and protocol", ""),
    ("Limits, and what they mean for practice", ""),
    ("Availability", "of data, software and weights; licence of each"),
    ("Funding and interests", ""),
)


def model_card(analysis: Analysis, *, version: str, written: str, explained: bool = False) -> str:
    """The card of an analysis, in Markdown; it names no file and no patient.

    Args:
        analysis: of :func:`dual_skd.evaluation.analysis.analyse`.
        version: of this package.
        written: date.
        explained: whether the page shows single images with maps.
    """
    sizes = [(role, one.architecture or "", f"{one.parameters or 0:,}", f"{one.macs or 0:,}")
             for role, one in analysis.efficiency.networks.items()]  # fmt: skip
    overall, twins = analysis.metrics.overall, sum(tables.twins(analysis.data))
    values = [(label, overall[name]) for name, label in METRICS.items() if name in overall]
    head, rows = tables.classes(analysis)
    _, splits = tables.splits(analysis.data)
    return render(
        "model_card.md",
        analysis=analysis,
        version=version,
        written=written,
        limits=limits(analysis),
        networks=Table(["network", "architecture", "parameters", "MACs per image"], sizes),
        splits=Table(["split", "images", "patients", "images without a known patient"], [row[:4] for row in splits]),
        twins=twins if twins or analysis.data.twins_searched else "unknown, as no search for them is recorded",
        metrics=Table(["metric", f"value ({analysis.settings.level:.0%} interval)"], values),
        classes=Table(head[:5], [row[:5] for row in rows]),
        answered=answered(analysis, explained),
        open=OPEN,
        commands=commands(analysis),
    )


def answered(analysis: Analysis, explained: bool = False) -> list[tuple[str, str]]:
    """Topics of CLAIM 2024 that the run answers, with the answers."""
    data, training, points = analysis.data, analysis.training, analysis.operating_points
    options, reason = analysis.run.settings, analysis.patients.reason

    def setting(*names: str) -> str:
        return ", ".join(f"{name} {options[name]}" for name in names if name in options) or "not recorded"

    selected = [one for one in analysis.selection.stages if one.network == "student"]
    weights, of_all = (sum(getattr(one, name) for one in selected) for name in ("selected_parameters", "parameters"))
    from_large = f"{weights:,} of {of_all:,} numbers of the student are from the large network, "
    disjoint = "patients" if data.splits["training"].patients else "images: patients aren't known"
    groups = ", ".join(analysis.subgroups.columns)
    so_far = " so far" if analysis.run.unfinished else ""
    rule = f"the last{so_far}" if training.key_metric == LAST else (
        f"the best{so_far} by {training.key_metric} on validation images")  # fmt: skip
    return [
        ("Technology", "deep learning: image classification by a light network that starts from selected weights of a "
                       "large one and is trained with self-knowledge distillation"),
        ("Preprocessing", setting("spatial_dims", "image_size", "window", "spacing", "fit")),
        ("Selection of subsets", f"{setting('train_fraction')}; {data.skipped_files} unusable files"),
        ("Partitions", f"disjoint at the level of {disjoint}; {setting('val_fraction', 'test_fraction', 'folds')}"),
        ("Model", setting("large", "small", "method")),
        ("Software", ", ".join(f"{name} {one}" for name, one in analysis.run.versions.items()) or "not recorded"),
        ("Initial weights", f"{from_large if selected else ''}see selection_report.csv"),
        ("Training", setting("epochs", "batch_size", "learning_rate", "weight_decay", "loss", "seed")),
        ("Choice of the model", f"epoch {training.best_epoch}, {rule}" if training.epochs else "not recorded"),
        ("Ensembles", "none: the student alone is used"),
        ("Metrics", "discrimination, calibration, operating points and prediction sets, in report.html"),
        ("Uncertainty", f"{analysis.settings.resamples} bootstrap resamples of whole patients, areas by DeLong"
                        + (f"; {reason}" if reason else "")),
        ("Operating point", "chosen on validation images" if any(one.chosen for one in points) else points[0].reason),
        ("Robustness and subgroups", f"groups by {groups}" if groups else analysis.subgroups.reason),
        ("Explanations", "maps of single images, in report.html" if explained else "none were made"),
        ("Internal or external test", "another data set than that of the training" if data.external
                                      else "a part of the same data set as the training: no external test"),
        ("Failure analysis", "the confusion matrix and the surest wrong answers, in report.html"),
    ]  # fmt: skip


def limits(analysis: Analysis) -> list[str]:
    """What the numbers can't say, in sentences."""
    small = [
        f"{column} {group.name}: {group.too_small}"
        for column, groups in analysis.subgroups.columns.items()
        for group in groups if group.too_small
    ]  # fmt: skip
    undefined = [(name, one.reason) for name, one in analysis.metrics.overall.items() if one.value is None]
    reason = analysis.patients.reason
    found = [
        "Predictive values hold for the share of the classes among the images measured, and for no other.",
        "" if analysis.data.external else "Nothing is known of images from elsewhere than those of the training.",
        "The images measured chose the model: the numbers are optimistic." if analysis.data.optimistic else "",
        f"{reason.capitalize()}." if reason else "",
        f"Groups too small to say much: {'; '.join(small)}." if small else "",
        *(f"No number for {name}: {why}." for name, why in undefined),
    ]
    return [one for one in found if one]
