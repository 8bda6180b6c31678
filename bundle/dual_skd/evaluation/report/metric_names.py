# SPDX-License-Identifier: Apache-2.0
"""How a report names its metrics, and what each of them says."""

from __future__ import annotations

import math

from dual_skd.evaluation.analysis import Analysis

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
    "auc": "AUC",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "f1": "F1",
    "average_precision": "average precision",
}
KEY_METRICS = {  # at the top of the page
    "macro_auc": "macro AUC",
    "balanced_accuracy": "balanced accuracy",
    "nll": "negative log likelihood (NLL)",
    "ece": "expected calibration error (ECE)",
}


def meaning(metric: str, analysis: Analysis) -> str:
    """What a metric says, in a sentence or two."""
    several = analysis.multi_label
    even = math.log(2 if several else len(analysis.class_names))
    return {
        "macro_auc": "Take an image of a class and one of the others: how often the first gets the higher probability "
                     "for it. The mean over the classes; 0.5 is guessing, 1 is perfect.",
        "balanced_accuracy": "The share of right answers, the mean over " + ("images with and without each label."
                             if several else "the classes: a rare class counts as much as a frequent one."),
        "nll": "How well the probabilities fit the truth; sure and wrong costs most. 0 is perfect, "
               f"giving every answer the same probability costs {even:.2f}.",
        "ece": "How far the stated probability is from how often the answer is right, on average. "
               "0 is perfect, 0.05 is five percentage points. Chance alone makes it larger than 0; the interval "
               "takes that off, so it reaches lower than the number.",
        "accuracy": "The share of right answers, each " + ("label" if several else "image") + " counting the same.",
        "f1": "Found and not overcalled at once: the harmonic mean of sensitivity and PPV, the mean over the classes.",
        "average_precision": "The mean PPV over all sensitivities, the mean over the classes; it falls with rare ones.",
        "brier": "The squared distance of the probabilities from the truth. 0 is perfect.",
        "ece_equal_mass": "The same with as many images in each bin.",
    }[metric]  # fmt: skip
