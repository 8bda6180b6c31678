# SPDX-License-Identifier: Apache-2.0
"""How a report names its metrics, and what each of them says to who doesn't compute them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dual_skd.evaluation.pages.frame import RESEARCH
from dual_skd.evaluation.pages.markup import element
from dual_skd.utils.wording import first_few

METRICS = {
    "macro_auc": "macro AUC (one against the rest)",
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "f1": "macro F1",
    "average_precision": "mean average precision",
    "nll": "negative log likelihood, nats",
    "brier": "Brier score",
    "ece": "expected calibration error, 15 equal bins",
    "ece_equal_mass": "expected calibration error, bins of equal count",
}
CLASS_METRICS = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "f1": "F1",
    "average_precision": "average precision",
}
KEY = {
    "macro_auc": "macro AUC",
    "balanced_accuracy": "balanced accuracy",
    "nll": "negative log likelihood (NLL)",
    "ece": "expected calibration error (ECE)",
}
MOST_NAMED = 6  # classes in a headline


def meaning(metric: str, classes: int, multi_label: bool) -> str:
    """What a metric says, in a sentence or two; "" for one without."""
    even = math.log(2 if multi_label else classes)
    return {
        "macro_auc": "Take an image of a class and one of the others: how often the first gets the higher probability "
                     "for it. The mean over the classes; 0.5 is guessing, 1 is perfect.",
        "balanced_accuracy": "The share of right answers, the mean over " + ("images with and without each label."
                             if multi_label else "the classes: a rare class counts as much as a frequent one."),
        "nll": "How well the probabilities fit the truth; sure and wrong costs most. 0 is perfect, "
               f"giving every answer the same probability costs {even:.2f}.",
        "ece": "How far the stated probability is from how often the answer is right, on average. "
               "0 is perfect, 0.05 is five percentage points. Chance alone makes it larger than 0; the interval "
               "takes that off, so it reaches lower than the number.",
        "accuracy": "The share of right answers, each " + ("label" if multi_label else "image") + " counting alike.",
        "f1": "Found and not overcalled at once: the harmonic mean of sensitivity and PPV, the mean over the classes.",
        "average_precision": "The mean PPV over all sensitivities, the mean over the classes; it falls with rare ones.",
        "brier": "The squared distance of the probabilities from the truth. 0 is perfect.",
        "ece_equal_mass": "The same with as many images in each bin.",
    }.get(metric, "")  # fmt: skip


def task(names: Sequence[str], multi_label: bool) -> str:
    """What is to be told apart, as a question."""
    if len(names) > MOST_NAMED:
        return f"Which of {len(names)} {'labels' if multi_label else 'classes'} ({first_few(names)})?"
    if multi_label:
        return f"Which of these are there: {', '.join(names)}?"
    return f"Which is it: {' or '.join([', '.join(names[:-1]), names[-1]] if names[1:] else names)}?"


def measured(analysis: Mapping[str, Any]) -> str:
    """Which images were measured: "120 test images of 63 patients", or "90 images of 41 patients (hospital_b)"."""
    own = {"test": "test images", "validation": "validation images"}
    kind = own.get(analysis["data"]["section"])
    patients = analysis["patients"]
    known = f"{patients['known']} patients" if patients["known"] else "unknown patients"
    more = " or more" if patients["known"] and patients["images_without"] else ""
    name = "" if kind else f" ({analysis['split']})"
    return f"{analysis['images']} {kind or 'images'} of {known}{more}{name}"


def headline(analysis: Mapping[str, Any]) -> list[str]:
    """The result in sentences: how many answers were right, of which classes, and within which limits."""
    names, cells, images = analysis["class_names"], analysis["confusion"], analysis["images"]
    accuracy, units = analysis["metrics"]["overall"]["accuracy"], analysis["metrics"]["patients"]
    if analysis["multi_label"]:
        right = sum(row[0] + row[3] for row in cells)
        said = [f"{right} of {images * len(names)} labels were answered right ({accuracy['value']:.1%})."]
    else:
        right = sum(row[k] for k, row in enumerate(cells))
        said = [f"{right} of {images} images were answered right ({accuracy['value']:.1%})."]
    if accuracy["low"] is None:
        said.append(sentence(accuracy["reason"]))
    else:
        unknown = analysis["patients"]["images_without"]
        alone = f"each of {unknown} images taken for a patient of its own,"
        limits = f"{accuracy['low']:.1%} to {accuracy['high']:.1%}"
        level = f"{analysis['settings']['level']:.0%}"
        said.append(f"With {alone if unknown else f'{units} patients'} the {level} interval is {limits}.")
    if not analysis["multi_label"] and len(names) <= MOST_NAMED:
        each = (f"{names[k]} {row[k]} of {sum(row)}" for k, row in enumerate(cells) if sum(row))
        most = max(range(len(names)), key=lambda k: sum(cells[k]))
        said.append(f"By class: {', '.join(each)}.")
        said.append(f"Calling every image {names[most]} would be right for {sum(cells[most])} of {images}.")
    return said


def sentence(words: str) -> str:
    """Words of ours with a capital letter and a full stop; the name of a file in front stays as it is."""
    first = words.split(" ")[0]
    return f"{words if '.' in first else words[:1].upper() + words[1:]}." if words else ""


def warnings_of(*, optimistic: bool, unfinished: str = "") -> list[str]:
    """The warnings of a page.

    Args:
        optimistic: whether the images chose the model.
        unfinished: the warning that its training hasn't come to its end.
    """
    chose = "These images chose the model, so the numbers are optimistic."
    return [RESEARCH, *([element("b", unfinished)] if unfinished else []), *[chose] * optimistic]
