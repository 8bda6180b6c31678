# SPDX-License-Identifier: Apache-2.0
"""The metrics of one evaluation from its logits, in float64 on the CPU."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dual_skd.errors import InputError
from dual_skd.metrics.definitions import METRICS
from dual_skd.metrics.reliability_diagram import ECE_BINS, bin_edges, bin_numbers
from dual_skd.metrics.validation import checked_columns, checked_labels
from dual_skd.metrics.weighted import Ranking, WeightedMetrics

__all__ = ["METRICS", "area_under_roc", "calibration_error", "checked_logits", "classification_metrics", "mean_logits"]


def classification_metrics(logits: Tensor, labels: Tensor, *, multi_label: bool = False) -> dict[str, float | None]:
    """The metrics :data:`~dual_skd.metrics.definitions.METRICS` of one set of predictions.

    Args:
        logits: (N, K), before softmax (or sigmoid).
        labels: class indices (N,); with ``multi_label`` zeros and ones (N, K).
        multi_label: every label is a yes or no of its own. Then accuracy, balanced accuracy, F1 and AUC are means
            over the K labels at a threshold of 0.5, and the others treat each label as one binary prediction.

    Returns:
        ``accuracy``; ``balanced_accuracy``, mean recall of the classes present; ``macro_auc``, one class against the
        rest, None when a class has no image or no counter-example; ``f1``, mean of the classes that are there or
        predicted, None where none is; ``ece`` (Guo 2017, 15 equal bins of the largest probability); ``nll`` in nats;
        ``brier`` (squared error of the risk of one of two classes, 0 to 1; of more the sum over the classes, 0 to 2,
        Brier 1950; with ``multi_label`` the mean over the labels, 0 to 1).

    Raises:
        InputError: shapes don't match, there is nothing to measure, labels outside 0..K-1, or logits aren't finite.
    """
    logits, labels = checked_logits(logits, labels, multi_label)
    if multi_label:
        p = logits.sigmoid()
        log_likelihood = functional.logsigmoid(torch.where(labels > 0, logits, -logits))
    else:
        log_p = logits.log_softmax(1)
        p, log_likelihood = log_p.exp(), log_p.gather(1, labels[:, None])
    measure = WeightedMetrics(p.numpy(), labels.numpy(), log_likelihood=log_likelihood.numpy(), multi_label=multi_label)
    found = measure(np.ones((1, len(p)))).overall
    return {name: found[name].item() if np.isfinite(found[name]) else None for name in METRICS}


def area_under_roc(scores: Tensor, positive: Tensor) -> float | None:
    """Area under the ROC curve: how often a positive scores above a negative, ties counting half (Hanley 1982).

    Args:
        scores: (N,).
        positive: (N,), 1 for positives, 0 for negatives.

    Returns:
        a number from 0 to 1; None without positives or without negatives.
    """
    columns = checked_columns(scores=scores.detach().cpu().numpy(), positive=positive.detach().cpu().numpy())
    area, *_ = Ranking(columns[0], columns[1] > 0)(np.ones((1, len(columns[0]))))
    return area.item() if np.isfinite(area) else None


def calibration_error(confidence: Tensor, correct: Tensor, *, bins: int = ECE_BINS) -> float:
    """Expected calibration error: |accuracy - confidence| averaged over equal-width bins (Guo 2017).

    Args:
        confidence: (N,), probability of the predicted class.
        correct: (N,), 1 where the prediction is right.
        bins: number of bins of [0, 1].
    """
    sure, right = (np.asarray(values.detach().cpu(), dtype=float) for values in (confidence, correct))
    edges = bin_edges(sure, bins)
    gaps = np.bincount(bin_numbers(sure, edges), weights=right - sure)
    return float(np.abs(gaps).sum() / len(sure))  # bin weight n_b / N times the bin's mean gap


def mean_logits(one: Tensor, other: Tensor, *, multi_label: bool = False) -> Tensor:
    """Logits whose softmax (or sigmoid) is the mean of the two networks' probabilities, without leaving log space."""
    if multi_label:
        yes = torch.logaddexp(functional.logsigmoid(one), functional.logsigmoid(other))
        return yes - torch.logaddexp(functional.logsigmoid(-one), functional.logsigmoid(-other))
    return torch.logaddexp(functional.log_softmax(one, 1), functional.log_softmax(other, 1)) - math.log(2)


def checked_logits(logits: Tensor, labels: Tensor, multi_label: bool) -> tuple[Tensor, Tensor]:
    """Logits in float64 and labels as integers, both on the CPU.

    Raises:
        InputError: they don't fit together, a logit isn't finite, or a label isn't one of the classes.
    """
    logits = torch.as_tensor(logits).detach().to("cpu", torch.float64)
    labels = torch.as_tensor(labels).detach().to("cpu")
    if not multi_label and labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    whole = torch.from_numpy(checked_labels(labels.numpy(), tuple(logits.shape), multi_label))
    if not logits.isfinite().all():
        raise InputError(
            f"{int((~logits.isfinite()).any(1).sum())} of {len(logits)} predictions are not finite numbers: the "
            "training has diverged; lower learning_rate, or check the images for empty or constant ones."
        )
    return logits, whole
