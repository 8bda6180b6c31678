# SPDX-License-Identifier: Apache-2.0
"""The model card: what the model is for, what it was made of and how well it does, as Markdown.

In the form that Hugging Face reads, with the topics of CLAIM 2024 (Tejani et al. 2024, Radiology: Artificial
Intelligence 6:e240300) that a run can answer, and those that only its authors can.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dual_skd.evaluation.pages.markup import clean, number
from dual_skd.evaluation.report.origin import commands
from dual_skd.evaluation.report.words import METRICS
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


def model_card(analysis: Mapping[str, Any], *, version: str, written: str, explained: bool = False) -> str:
    """The card of an analysis.

    Args:
        analysis: of :func:`dual_skd.evaluation.analysis.analyse`.
        version: of this package.
        written: date.
        explained: whether the page shows single images with maps.

    Returns:
        Markdown; no names of files or patients.
    """
    data, run = analysis["data"], analysis["run"]
    parts = [
        "---\nlibrary_name: monai\npipeline_tag: image-classification\nlicense: unknown\n"
        "tags:\n- medical\n- dual-skd\n---\n",
        "# Model card: light image classifier from a large network\n",
        f"Written {written} by dual-skd {version} from the files of a run. The licence is yours to state: code and "
        "ImageNet weights of the default network are Apache-2.0, your images may ask for another.\n",
        f"**{_escaped(run['unfinished'])}**\n" if run["unfinished"] else "",
        "## Intended use\n",
        "Research on image classification with the classes "
        + _list(analysis["class_names"])
        + ". Not a medical device: no clinical decision may rest on it. What it is for, and for whom, is for its "
        "authors to write here.\n",
        "## Limits\n",
        _bullets(_limits(analysis)),
        "## Model\n",
        _table(["network", "architecture", "parameters", "MACs per image"], _networks(analysis)),
        f"Input {_escaped(analysis['efficiency']['input_shape'] or 'unknown')}; probabilities are "
        f"{analysis['calibration']['predictions_are']}.\n",
        "## Data\n",
        _table(["split", "images", "patients", "images without a known patient"],
               [[name, one["images"], one["patients"], one["images_without_patient"]]
                for name, one in data["splits"].items()]),
        f"Twins of training images left out: {_twins(data)}. "
        f"Files skipped: {data['skipped_files']}. SHA-256 of the data list: {_escaped(data['hash'] or 'unknown')}.\n",
        f"## Metrics on {analysis['images']} images ({_escaped(analysis['split'])})\n",
        _table(["metric", f"value ({analysis['settings']['level']:.0%} interval)"], _overall(analysis)),
        _table(["class", "images", "AUC (DeLong)", "sensitivity", "specificity"], _classes(analysis)),
        "## CLAIM 2024\n",
        "What the run answers:\n",
        _bullets(f"**{topic}**: {answer}" for topic, answer in answered(analysis, explained)),
        "Open, for the authors:\n",
        _bullets(f"**{topic}**" + (f": {hint}" if hint else "") for topic, hint in OPEN),
        "## How to make it again\n",
        "```\n" + commands(analysis) + "\n```\n",
        "Versions: " + _list(f"{name} {version}" for name, version in run["versions"].items()) + ".\n",
    ]  # fmt: skip
    return "\n".join(parts)


def answered(analysis: Mapping[str, Any], explained: bool = False) -> list[tuple[str, str]]:
    """Topics of CLAIM 2024 that the run answers, with the answer in Markdown."""
    data, run, settings = analysis["data"], analysis["run"], analysis["run"]["settings"]
    patients, training, points = analysis["patients"], analysis["training"], analysis["operating_points"]

    def setting(*names: str) -> str:
        known = [f"{name} {settings[name]}" for name in names if name in settings]
        return _escaped(", ".join(known)) or "not recorded"

    selected = [row for row in analysis["selection"]["stages"] if row["network"] == "student"]
    weights = sum(row["selected_parameters"] for row in selected), sum(row["parameters"] for row in selected)
    disjoint = "patients" if data["splits"]["training"]["patients"] else "images: patients aren't known"
    groups = list(analysis["subgroups"]["columns"])
    so_far = " so far" if run["unfinished"] else ""
    return [
        ("Technology", "deep learning: image classification by a light network that starts from selected weights of a "
                       "large one and is trained with self-knowledge distillation"),
        ("Preprocessing", setting("spatial_dims", "image_size", "window", "spacing", "fit")),
        ("Selection of subsets", setting("train_fraction") + f"; {data['skipped_files']} unusable files"),
        ("Partitions", f"disjoint at the level of {disjoint}; " + setting("val_fraction", "test_fraction", "folds")),
        ("Model", setting("large", "small", "method")),
        ("Software", _list(f"{name} {version}" for name, version in run["versions"].items()) or "not recorded"),
        ("Initial weights", f"{weights[0]:,} of {weights[1]:,} numbers of the student are from the large network, see "
                            "selection_report.csv" if selected else "see selection_report.csv"),
        ("Training", setting("epochs", "batch_size", "learning_rate", "weight_decay", "loss", "seed")),
        ("Choice of the model", f"epoch {training['best_epoch']}, "
                                + (f"the last{so_far}" if training["key_metric"] == LAST else
                                   f"the best{so_far} by {_escaped(training['key_metric'])} on validation images")
                                if training["epochs"] else "not recorded"),
        ("Ensembles", "none: the student alone is used"),
        ("Metrics", "discrimination, calibration, operating points and prediction sets, in report.html"),
        ("Uncertainty", f"{analysis['settings']['resamples']} bootstrap resamples of whole patients, areas by DeLong"
                        + (f"; {_escaped(patients['reason'])}" if patients["reason"] else "")),
        ("Operating point", "chosen on validation images" if any(point["chosen"] for point in points)
                            else _escaped(points[0]["reason"])),
        ("Robustness and subgroups", "groups by " + _list(groups) if groups
                                     else _escaped(analysis["subgroups"]["reason"])),
        ("Explanations", "maps of single images, in report.html" if explained else "none were made"),
        ("Internal or external test", "another data set than that of the training" if data["external"]
                                      else "a part of the same data set as the training: no external test"),
        ("Failure analysis", "the confusion matrix and the surest wrong answers, in report.html"),
    ]  # fmt: skip


def _limits(analysis: Mapping[str, Any]) -> list[str]:
    data, patients = analysis["data"], analysis["patients"]
    small = [
        f"{_escaped(column)} {_escaped(group['name'])}: {_escaped(group['too_small'])}"
        for column, groups in analysis["subgroups"]["columns"].items()
        for group in groups if group["too_small"]
    ]  # fmt: skip
    found = [
        "Predictive values hold for the share of the classes among the images measured, and for no other.",
        "" if data["external"] else "Nothing is known of images from elsewhere than those of the training.",
        "The images measured chose the model: the numbers are optimistic." if data["optimistic"] else "",
        f"{_escaped(patients['reason'].capitalize())}." if patients["reason"] else "",
        f"Groups too small to say much: {'; '.join(small)}." if small else "",
        *(f"No number for {_escaped(name)}: {_escaped(one['reason'])}."
          for name, one in analysis["metrics"]["overall"].items() if one["value"] is None),
    ]  # fmt: skip
    return [sentence for sentence in found if sentence]


def _twins(data: Mapping[str, Any]) -> str:
    count = sum(sum(one.values()) for one in data["twins"].values())
    return str(count) if count or data["twins_searched"] else "unknown, as no search for them is recorded"


def _networks(analysis: Mapping[str, Any]) -> list[list[Any]]:
    return [
        [role, one["architecture"] or "", f"{one['parameters'] or 0:,}", f"{one['macs'] or 0:,}"]
        for role, one in analysis["efficiency"]["networks"].items()
    ]


def _overall(analysis: Mapping[str, Any]) -> list[list[Any]]:
    overall = analysis["metrics"]["overall"]
    return [[label, _estimate(overall[name])] for name, label in METRICS.items() if name in overall]


def _classes(analysis: Mapping[str, Any]) -> list[list[Any]]:
    return [
        [name, count, _estimate(area), _estimate(of_class["sensitivity"]), _estimate(of_class["specificity"])]
        for name, count, area, of_class in zip(
            analysis["class_names"], analysis["class_images"], analysis["delong"]["per_class"],
            analysis["metrics"]["per_class"], strict=True)
    ]  # fmt: skip


def _estimate(one: Mapping[str, Any]) -> str:
    if one["value"] is None:
        return one["reason"]
    limits = one["reason"] if one["low"] is None else f"{number(one['low'])} to {number(one['high'])}"
    return f"{number(one['value'])} ({limits})"


# --- Markdown ---------------------------------------------------------------------------------------------------------


def _escaped(value: Any) -> str:
    """Text that Markdown and the HTML that it becomes take as text."""
    plain = html.escape(" ".join(clean(value).split()), quote=False)
    return "".join(f"\\{sign}" if sign in "\\`*_[]|#!" else sign for sign in plain)


def _list(values: Iterable[Any]) -> str:
    return ", ".join(_escaped(value) for value in values)


def _bullets(sentences: Iterable[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *([_escaped(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"
