# SPDX-License-Identifier: Apache-2.0
"""Decisions from probabilities: thresholds and their curves, prediction sets, answers for the surest images only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dual_skd.evaluation.analysis.calibration import Tempered
from dual_skd.evaluation.analysis.predictions import Predictions
from dual_skd.evaluation.run_files import RunFiles
from dual_skd.metrics.binomial import CONFIDENCE
from dual_skd.metrics.curves import Curve
from dual_skd.metrics.design_effect import fewest_effective
from dual_skd.metrics.estimates import Estimate
from dual_skd.metrics.likelihood_ratio import likelihood_ratios
from dual_skd.metrics.net_benefit import DecisionCurve, decision_curve
from dual_skd.metrics.operating_point import OperatingPoint, choose_operating_point, too_few
from dual_skd.metrics.resampling import patient_numbers
from dual_skd.metrics.uncertainty import decisions, fit_conformal, prediction_sets, risk_coverage, set_coverage

RISK_POINTS = 200  # of the risk-coverage curve
NEARLY_ALL = 0.95  # share of prediction sets of one size from which they say nothing more than that


@dataclass(frozen=True)
class ClassThreshold:
    """The threshold of a class, chosen on the validation images, and what it does on those measured."""

    class_name: str
    wanted: float | None  # the sensitivity asked for; None for the largest sensitivity + specificity
    confidence: float | None = None  # that new images have it; None where it is asked of the validation images alone
    chosen: OperatingPoint | None = None  # with what it did on the validation images
    # of the images measured: sensitivity, specificity, ppv, npv and the likelihood ratios lr_positive, lr_negative
    metrics: dict[str, Estimate] | None = None
    reason: str = ""  # why there is none


@dataclass(frozen=True)
class PredictionSets:
    """Sets of classes that can't be ruled out, see :func:`~dual_skd.metrics.uncertainty.fit_conformal`."""

    alpha: float  # share of images whose set may miss the label
    coverage: Estimate | None = None  # share of sets that hold it; None where there are no sets
    reason: str = ""  # why there are none, or what is special about them
    on_average: float | None = None  # coverage at least, on average over calibrations
    least: float | None = None  # coverage that 5 % of such calibrations have less of
    independent: int = 0  # images that the validation images count for in it: a patient's together as one
    remark: str = ""  # that the sets keep less than they promise, or say nothing, and why
    method: str = ""
    validation_images: int = 0  # that the rule rests on
    mean_size: Estimate | None = None
    single: float | None = None  # share of sets of one class
    sizes: Sequence[int] = ()  # number of sets of 1, 2, ... K classes
    coverage_per_class: Sequence[Estimate] = ()  # without a value for a class without images


@dataclass(frozen=True)
class RiskCoverage:
    """Errors among the images answered, the surest first."""

    coverage: list[float]  # share of images answered
    risk: list[float]  # share of errors among them
    risk_at: dict[str, float]  # at some shares, such as "90%"
    aurc: float  # area under the curve
    excess: float  # of that area over the one with all right answers first


@dataclass(frozen=True)
class ClassCurve:
    """The curve of one class, see :class:`~dual_skd.metrics.curves.Curve`."""

    class_name: str
    x: list[float]
    y: list[float]
    grid: list[float]
    low: list[float]
    high: list[float]
    reason: str


@dataclass(frozen=True, kw_only=True)
class ClassDecisionCurve(DecisionCurve):
    """The decision curve of one class."""

    class_name: str


def thresholds(
    predictions: Predictions, forms: Tempered, files: RunFiles, sensitivity: float
) -> tuple[ClassThreshold, ...]:
    """Three thresholds of every class: the largest sensitivity + specificity, and a sensitivity that is asked for, of
    the validation images and with confidence of new ones."""
    rules = ((None, None), (sensitivity, None), (sensitivity, CONFIDENCE))
    return tuple(
        _threshold(predictions, forms, files, k, *rule) for k in predictions.frequent_classes() for rule in rules
    )


def _threshold(
    predictions: Predictions, forms: Tempered, files: RunFiles, k: int, wanted: float | None, confidence: float | None
) -> ClassThreshold:
    name = predictions.class_names[k]
    if forms.validation is None or files.validation is None:
        return ClassThreshold(name, wanted, confidence, reason=f"no threshold: {forms.reason}")
    asked: dict[str, Any] = {"sensitivity": wanted, "confidence": confidence, "patients": files.validation_patients}
    validation, truth = forms.validation, files.validation.labels
    p, labels, names, positive = predictions.probabilities, predictions.labels, predictions.class_names, k
    if predictions.multi_label:  # each label is a question of its own, with the answers no and yes
        validation, truth, p, labels = _no_and_yes(validation[:, k]), truth[:, k], _no_and_yes(p[:, k]), labels[:, k]
        names, positive = [f"not {name}", name], 1
    if few := too_few(truth == positive, scores=validation[:, positive], unit=files.unit.name, **asked):
        return ClassThreshold(name, wanted, confidence, reason=f"no threshold: {few}")
    point = choose_operating_point(validation, truth, positive=positive, **asked)
    question = Predictions(p, labels, predictions.patients, names, False, predictions.settings)
    names_of = ("sensitivity", "specificity", "ppv", "npv")
    shares = question.intervals(metrics=names_of, operating_point=point).overall
    ratios = likelihood_ratios(
        point.predict(p[:, positive]), labels == positive, predictions.patients, level=predictions.settings.level
    )
    found = {metric: shares[metric] for metric in names_of} | {
        f"lr_{side}": getattr(ratios, side) for side in ("positive", "negative")
    }
    return ClassThreshold(name, wanted, confidence, point, found)


def _no_and_yes(p: np.ndarray) -> np.ndarray:
    return np.stack([1 - p, p], axis=1)


def confusion_of(predictions: Predictions) -> list[list[int]]:
    """Images by true class (rows) and predicted class; with several labels a row tn, fp, fn, tp per label."""
    p, labels, classes = predictions.probabilities, predictions.labels, len(predictions.class_names)
    if predictions.multi_label:
        truth, called = labels > 0, p > 0.5
        cells = (~truth & ~called, ~truth & called, truth & ~called, truth & called)
        return np.stack([cell.sum(axis=0) for cell in cells], axis=1).tolist()
    return np.bincount(labels * classes + p.argmax(axis=1), minlength=classes**2).reshape(classes, classes).tolist()


def sets_of(predictions: Predictions, forms: Tempered, files: RunFiles, alpha: float) -> PredictionSets:
    """Prediction sets by a rule of the validation images; ``alpha`` is that of the evaluation, where it had sets."""
    alpha = ((files.metrics.get(files.split) or {}).get("prediction_sets") or {}).get("alpha", alpha)
    if files.multi_label or forms.validation is None:
        reason = forms.reason or "there are none with several labels per image"
        return PredictionSets(alpha, reason=f"no prediction sets: {reason}")
    validation: Any = files.validation
    rule = fit_conformal(forms.validation, validation.labels, alpha=alpha)
    sets = prediction_sets(predictions.probabilities, rule)
    found: dict[str, Any] = set_coverage(sets, predictions.labels)
    sizes = sets.sum(axis=1)
    independent = fewest_effective(patient_numbers(files.validation_patients, rule.images))
    held = sets[np.arange(len(sets)), predictions.labels]
    coverage = predictions.share_interval(held)
    least = rule.least_coverage(independent)
    remarks = [_not_kept(coverage, least, files.unit.many)]
    if not rule.reason:
        remarks.append(_says_nothing(sizes, sets.shape[1], forms.validation, validation.labels, alpha, files.unit.many))
    return PredictionSets(
        alpha,
        coverage=coverage,
        reason=rule.why_full(files.unit.name),
        on_average=1 - alpha,
        least=least,
        independent=independent,
        remark=". ".join(filter(None, remarks)),
        method=rule.method,
        validation_images=rule.images,
        mean_size=predictions.mean_interval(sizes),
        single=found["single"],
        sizes=np.bincount(sizes, minlength=sets.shape[1] + 1)[1:].tolist(),
        coverage_per_class=[
            predictions.share_interval(held, positive)
            if positive.any()
            else Estimate(None, reason=f"no image of {name}")
            for name, positive in ((name, predictions.positives(k)) for k, name in enumerate(predictions.class_names))
        ],
    )


def _not_kept(coverage: Estimate, least: float | None, units: str) -> str:
    """In words that the coverage is less than chance in the calibration explains; "" where it isn't."""
    if coverage.high is None or least is None or coverage.high >= least:
        return ""
    return (
        f"These sets don't keep their promise: they hold the true class for {coverage.value:.1%} of these {units}, "
        f"which differ from the validation {units}"
    )


def _says_nothing(sizes: np.ndarray, classes: int, p: np.ndarray, labels: np.ndarray, alpha: float, units: str) -> str:
    """In words that nearly all sets are of one size, and why; "" where they aren't."""
    alone, full = float((sizes == 1).mean()), float((sizes == classes).mean())
    if full >= NEARLY_ALL:
        return f"{full:.0%} of the sets hold every class, so they rule nothing out"
    if alone < NEARLY_ALL:
        return ""
    right = float((p.argmax(axis=1) == labels).mean())
    said = f"{alone:.0%} of the sets hold one class alone, so they say no more than the answer itself"
    if right < 1 - alpha:
        return said
    return f"{said}: on the validation {units} it was right for {right:.0%}, and {1 - alpha:.0%} are asked of the sets"


def risk_coverage_of(predictions: Predictions) -> RiskCoverage:
    """The risk-coverage curve, at :data:`RISK_POINTS` places at most."""
    confidence, right = decisions(predictions.probabilities, predictions.labels, predictions.multi_label)
    errors = (~right).mean(axis=1)
    curve = risk_coverage(1 - confidence.mean(axis=1), errors)
    shown = np.unique(np.linspace(0, len(errors) - 1, min(len(errors), RISK_POINTS)).round().astype(int))
    answered = {share: max(int(np.ceil(share * len(errors))), 1) for share in (1, 0.9, 0.8, 0.5)}
    return RiskCoverage(
        coverage=[round(float(value), 5) for value in curve.coverage[shown]],
        risk=[round(float(value), 5) for value in curve.risk[shown]],
        risk_at={f"{share:.0%}": float(curve.risk[count - 1]) for share, count in answered.items()},
        aurc=curve.aurc,
        excess=curve.excess,
    )


def curves_of(predictions: Predictions, curve: Callable[..., Curve]) -> tuple[ClassCurve, ...]:
    """The ROC or precision-recall curve of each class, its band from a quarter of the resamples."""
    names = predictions.class_names
    return tuple(
        ClassCurve(names[k], *curve(predictions.probabilities[:, k], predictions.positives(k), predictions.patients,
                                    name=names[k], **predictions.options(share=4)))
        for k in predictions.frequent_classes()
    )  # fmt: skip


def decision_curves_of(predictions: Predictions) -> tuple[ClassDecisionCurve, ...]:
    """The decision curve of each class against the rest, its band from a quarter of the resamples."""
    names = predictions.class_names
    return tuple(
        ClassDecisionCurve(class_name=names[k], **asdict(decision_curve(
            predictions.probabilities[:, k], predictions.positives(k), predictions.patients, name=names[k],
            **predictions.options(share=4))))
        for k in predictions.frequent_classes()
    )  # fmt: skip
