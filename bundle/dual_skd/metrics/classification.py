# SPDX-License-Identifier: Apache-2.0
"""Classification metrics from logits, as pure functions in float64 on the CPU."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import get_args

import torch
from torch import Tensor
from torch.nn import functional

from dual_skd.errors import InputError
from dual_skd.options.choices import Metric

ECE_BINS = 15
METRICS = get_args(Metric)


def classification_metrics(logits: Tensor, labels: Tensor, *, multi_label: bool = False) -> dict[str, float | None]:
    """All metrics of one set of predictions.

    Args:
        logits: (N, K), before softmax (or sigmoid).
        labels: class indices (N,); with ``multi_label`` zeros and ones (N, K).
        multi_label: every label is a yes or no of its own. Then accuracy, balanced accuracy, F1 and AUC are means
            over the K labels at a threshold of 0.5, and the others treat each label as one binary prediction.

    Returns:
        ``accuracy``; ``balanced_accuracy``, mean recall of the classes present; ``macro_auc``, one class against the
        rest, None when a class has no image or no counter-example; ``f1``, mean of the classes that are there or
        predicted, None where none is; ``ece`` (Guo 2017, 15 equal bins of the largest probability); ``nll`` in nats;
        ``brier`` (Brier 1950: squared error summed over the classes, 0 to 2; a mean over labels with ``multi_label``).

    Raises:
        InputError: shapes don't match, there is nothing to measure, labels outside 0..K-1, or logits aren't finite.
    """
    logits, labels = checked(logits, labels, multi_label)
    if multi_label:
        return _multi_label_metrics(logits, labels)
    log_p = functional.log_softmax(logits, dim=1)
    p = log_p.exp()
    confidence, predicted = p.max(dim=1)
    one_hot = functional.one_hot(labels, logits.shape[1]).double()
    hits = (predicted == labels).double()
    predicted_one_hot = functional.one_hot(predicted, logits.shape[1]).double()
    support = one_hot.sum(0)
    recall = (one_hot * predicted_one_hot).sum(0)[support > 0] / support[support > 0]
    return {
        "accuracy": hits.mean().item(),
        "balanced_accuracy": recall.mean().item(),
        "macro_auc": _mean(area_under_roc(p[:, k], one_hot[:, k]) for k in range(logits.shape[1])),
        "f1": _f1(one_hot, predicted_one_hot),
        "ece": calibration_error(confidence, hits),
        "nll": functional.nll_loss(log_p, labels).item(),
        "brier": (p - one_hot).square().sum(1).mean().item(),
    }


def _multi_label_metrics(logits: Tensor, labels: Tensor) -> dict[str, float | None]:
    p = logits.sigmoid()
    predicted = (p > 0.5).double()
    hits = (predicted == labels).double()
    recalls = []
    for column, hit in zip(labels.T, hits.T, strict=True):
        recalls += [torch.stack([hit[column == side].mean() for side in column.unique()]).mean()]
    return {
        "accuracy": hits.mean().item(),
        "balanced_accuracy": torch.stack(recalls).mean().item(),
        "macro_auc": _mean(area_under_roc(p[:, k], labels[:, k]) for k in range(logits.shape[1])),
        "f1": _f1(labels, predicted),
        "ece": calibration_error(torch.maximum(p, 1 - p).flatten(), hits.flatten()),
        "nll": functional.binary_cross_entropy_with_logits(logits, labels).item(),
        "brier": (p - labels).square().mean().item(),
    }


def area_under_roc(scores: Tensor, positive: Tensor) -> float | None:
    """Area under the ROC curve: how often a positive scores above a negative, ties counting half (Hanley 1982).

    Args:
        scores: (N,).
        positive: (N,), 1 for positives, 0 for negatives.

    Returns:
        a number from 0 to 1; None without positives or without negatives.
    """
    positive = positive.bool()
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return None
    _, rank_of, counts = scores.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    mid_ranks = last - (counts.double() - 1) / 2  # equal scores share the mean of their ranks
    rank_sum = mid_ranks[rank_of][positive].sum().item()
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def calibration_error(confidence: Tensor, correct: Tensor, *, bins: int = ECE_BINS) -> float:
    """Expected calibration error: |accuracy - confidence| averaged over equal-width bins (Guo 2017).

    Args:
        confidence: (N,), probability of the predicted class.
        correct: (N,), 1 where the prediction is right.
        bins: number of bins of [0, 1].
    """
    edges = torch.linspace(0, 1, bins + 1, dtype=confidence.dtype)
    index = (torch.bucketize(confidence, edges, right=True) - 1).clamp(0, bins - 1)
    gaps = torch.zeros(bins, dtype=torch.float64).index_add_(0, index, (correct - confidence).double())
    return (gaps.abs().sum() / len(confidence)).item()  # bin weight n_b / N times the bin's mean gap


def mean_logits(one: Tensor, other: Tensor, *, multi_label: bool = False) -> Tensor:
    """Logits whose softmax (or sigmoid) is the mean of the two networks' probabilities, without leaving log space."""
    if multi_label:
        yes = torch.logaddexp(functional.logsigmoid(one), functional.logsigmoid(other))
        return yes - torch.logaddexp(functional.logsigmoid(-one), functional.logsigmoid(-other))
    return torch.logaddexp(functional.log_softmax(one, 1), functional.log_softmax(other, 1)) - math.log(2)


def _f1(truth: Tensor, predicted: Tensor) -> float | None:
    """Mean over the classes that are there or predicted; None without any, as with several labels there may be none."""
    both, either = (truth * predicted).sum(0), truth.sum(0) + predicted.sum(0)
    return _mean((2 * both / either)[either > 0].tolist())


def _mean(values: Iterable[float | None]) -> float | None:
    each = list(values)
    known = [value for value in each if value is not None]
    return sum(known) / len(known) if known and len(known) == len(each) else None


def checked(logits: Tensor, labels: Tensor, multi_label: bool) -> tuple[Tensor, Tensor]:
    """Returns logits and labels on the CPU, float64 and int64 (float64 with ``multi_label``), or says what is wrong."""
    logits = torch.as_tensor(logits).detach().to("cpu", torch.float64)
    labels = torch.as_tensor(labels).detach().to("cpu")
    wanted = logits.shape if multi_label else logits.shape[:1]
    if not multi_label and labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if logits.ndim != 2 or labels.shape != wanted or not len(logits):
        raise InputError(
            f"Metrics need logits (N, K) and labels {'(N, K)' if multi_label else '(N,)'} of at least one image, found "
            f"{tuple(logits.shape)} and {tuple(labels.shape)}; check the data set and multi_label."
        )
    if not logits.isfinite().all():
        raise InputError(
            f"{int((~logits.isfinite()).any(1).sum())} of {len(logits)} predictions are not finite numbers: the "
            "training has diverged; lower learning_rate, or check the images for empty or constant ones."
        )
    if multi_label:
        return logits, labels.double()
    labels = labels.long()
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise InputError(
            f"Labels go from {int(labels.min())} to {int(labels.max())}, but the network has {logits.shape[1]} "
            "classes; check class_names against the data set."
        )
    return logits, labels
