# SPDX-License-Identifier: Apache-2.0
"""Whether the predicted risk of a class is right: calibration slope, calibration in the large, observed to expected.

Each class is measured against the rest, and each of several labels by itself (Cox 1958, Biometrika 45:562; Van Calster
et al. 2016, J Clin Epidemiol 74:167, and 2019, BMC Medicine 17:230; Steyerberg 2019, Clinical Prediction Models).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from dual_skd.metrics.estimates import LEVEL, NO_VARIANCE, Estimate
from dual_skd.metrics.recalibration import SMALLEST, fit_logistic, log_probabilities, too_few_patients
from dual_skd.metrics.reliability_diagram import bin_edges, bin_numbers
from dual_skd.metrics.resampling import patient_numbers
from dual_skd.metrics.score_intervals import normal_quantile, wilson_interval
from dual_skd.metrics.validation import checked_class_names, checked_predictions
from dual_skd.utils.wording import counted

CURVE_BINS = 10  # at most, of a calibration curve
IMAGES_PER_BIN = 10  # at least
_WIDEST = 50.0  # half width of an interval on the scale of log odds, beyond which it says nothing
_NOTHING = 1e-9  # standard errors below it are rounding


@dataclass(frozen=True)
class RiskBin:
    """A point of a calibration curve: images of about the same predicted risk.

    Attributes:
        images: how many there are.
        risk: their mean predicted risk.
        observed: share of them that are of the class.
        low: lower limit of its 95 % interval (Wilson 1927), with the effective number of images.
        high: upper limit.
    """

    images: int
    risk: float
    observed: float
    low: float
    high: float


@dataclass(frozen=True)
class RiskCalibration:
    """Calibration of the risk of one class.

    Attributes:
        class_name: the class, against all others.
        events: number of its images.
        event_patients: number of patients with one; an image without a known patient counts as one.
        slope: of the logit of the risk; below 1 risks are too extreme, above 1 too moderate.
        intercept: calibration in the large, the intercept with the logit of the risk as offset; above 0 risks are too
            low, below 0 too high.
        observed_expected: events divided by the sum of the risks; above 1 risks are too low.
        curve: the calibration curve, in order of the risk.
    """

    class_name: str
    events: int
    event_patients: int
    slope: Estimate
    intercept: Estimate
    observed_expected: Estimate
    curve: tuple[RiskBin, ...]


def risk_calibration(
    probabilities: np.ndarray,
    labels: np.ndarray,
    patients: Sequence[Hashable] | None = None,
    *,
    classes: Sequence[int] | None = None,
    class_names: Sequence[str] | None = None,
    multi_label: bool = False,
    level: float = LEVEL,
) -> tuple[RiskCalibration, ...]:
    """Calibration of the risk of each class against the rest.

    Intervals are of robust variances over patients with the normal distribution: those of slope and intercept on their
    own scale, that of observed / expected on its logarithm. Without enough patients on a side there is none of them.

    Args:
        probabilities: (N, K), rows that sum to 1; with ``multi_label`` each number by itself.
        labels: class indices (N,); with ``multi_label`` zeros and ones (N, K).
        patients: patient of each image, "" for an unknown one, which then stands for itself. None: images stand for
            themselves.
        classes: indices of the classes to measure; None for all.
        class_names: in the order of the probabilities.
        multi_label: every label is a yes or no of its own.
        level: of the intervals of slope, intercept and observed / expected.

    Raises:
        InputError: probabilities, labels or patients that can't be.

    Example:
        >>> risk = np.array([0.2, 0.4] * 100)
        >>> ill = np.arange(200) % 20 < 6  # 3 of 10 on either side
        >>> found = risk_calibration(np.stack([1 - risk, risk], axis=1), ill.astype(int))[1]
        >>> round(found.observed_expected.value, 6), found.events
        (1.0, 60)
    """
    p, labels = checked_predictions(probabilities, labels, multi_label)
    names, units = checked_class_names(class_names, p.shape[1]), patient_numbers(patients, len(p))
    found = []
    for k in range(p.shape[1]) if classes is None else classes:
        there = labels[:, k] > 0 if multi_label else labels == k
        rest = 1 - p[:, k] if multi_label else np.delete(p, k, axis=1).sum(axis=1)  # 1 - p would round it
        found.append(_of_class(names[k], p[:, k], rest, there, units, level))
    return tuple(found)


def _of_class(
    name: str, risk: np.ndarray, rest: np.ndarray, there: np.ndarray, units: np.ndarray, level: float
) -> RiskCalibration:
    if reasons := too_few_patients(there[:, None], units, [name]):
        slope = intercept = ratio = Estimate(None, reason=reasons[0])
    else:
        log_p = log_probabilities(np.stack([rest, risk], axis=1))
        ends = int(((risk <= 0) | (rest <= 0)).sum())
        those = counted(ends, "risk is", "risks are")
        note = f"{those} exactly 0 or 1, taken for {SMALLEST:.7f} or less away from it" if ends else ""
        slope, intercept = (_fitted(log_p, there, units, level, note, slope=which) for which in (True, False))
        ratio = _observed_expected(risk, there, units, level)
    events, patients = int(there.sum()), len(np.unique(units[there]))
    return RiskCalibration(name, events, patients, slope, intercept, ratio, _curve(risk, there, units))


def _fitted(
    log_p: np.ndarray, there: np.ndarray, units: np.ndarray, level: float, note: str, *, slope: bool
) -> Estimate:
    """Slope, or intercept with the logit as offset."""
    fitted = fit_logistic(log_p, there.astype(int), units, slope=slope)
    if fitted is None:
        no_intercept = "no intercept: nearly every risk is 0 or 1, and right or wrong as a whole"
        return Estimate(None, reason=_why_no_slope(log_p[:, 1] - log_p[:, 0]) if slope else no_intercept)
    value = fitted.slope if slope else float(fitted.intercepts[1])
    error = float(np.sqrt(fitted.covariance[-1, -1]))
    if error < _NOTHING:
        return Estimate(value, reason=NO_VARIANCE)
    half = normal_quantile(level) * error
    if half > _WIDEST:
        return Estimate(value, reason="no interval: the risks are so near 0 and 1 that the likelihood is nearly flat")
    return Estimate(value, value - half, value + half, note)


def _why_no_slope(logit: np.ndarray) -> str:
    if np.ptp(logit) < 1e-9:
        return "no slope: every image has the same risk"
    return "no slope: the risk tells all images of the class from all others, or from all but ties"


def _observed_expected(risk: np.ndarray, there: np.ndarray, units: np.ndarray, level: float) -> Estimate:
    """Observed / expected, its interval on the log scale: the robust one of a Poisson model with log E as offset."""
    if not risk.any():
        return Estimate(None, reason="no risk is above 0")
    ratio, patients = float(there.sum() / risk.sum()), int(units.max()) + 1
    sums = np.bincount(units, weights=there - ratio * risk)
    variance = patients / (patients - 1) * float(sums @ sums) / float(there.sum()) ** 2
    if variance < _NOTHING**2:
        return Estimate(ratio, reason=NO_VARIANCE)
    factor = float(np.exp(normal_quantile(level) * np.sqrt(variance)))
    return Estimate(ratio, ratio / factor, ratio * factor)


def _curve(risk: np.ndarray, there: np.ndarray, units: np.ndarray) -> tuple[RiskBin, ...]:
    """Observed shares in bins of equal mass, at least :data:`IMAGES_PER_BIN` images each but for ties.

    Images of one patient within a bin resemble each other: the shares have the effective number of images, by one
    design effect for all bins (Rao and Scott 1992, Biometrics 48:577).
    """
    edges = bin_edges(risk, min(CURVE_BINS, max(len(risk) // IMAGES_PER_BIN, 1)), equal_mass=True)
    place = bin_numbers(risk, edges)
    count = np.bincount(place, minlength=len(edges) - 1)
    mean, share = (np.bincount(place, weights=values, minlength=len(count)) / np.maximum(count, 1)
                   for values in (risk, there))  # fmt: skip
    off = there - share[place]
    sums = np.bincount(units * len(count) + place, weights=off)
    effect = max(float(sums @ sums) / float(off @ off), 1.0) if off.any() else 1.0
    return tuple(
        RiskBin(n, risk_there, observed, *wilson_interval(observed * n / effect, n / effect))
        for n, risk_there, observed in zip(count.tolist(), mean.tolist(), share.tolist(), strict=True) if n
    )  # fmt: skip
