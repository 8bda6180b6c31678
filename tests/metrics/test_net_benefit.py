# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import doctest
from statistics import NormalDist

import numpy as np
import pytest

from dual_skd.errors import InputError
from dual_skd.metrics import net_benefit as module
from dual_skd.metrics.net_benefit import THRESHOLDS, decision_curve

# dcurves 1.1.7 (Python), the predictions of sixty(): dca(data=DataFrame(dict(y=positive, p=scores)), outcome="y",
# modelnames=["p"], thresholds=np.array([.05, .1, .25, .5, .75]))
DCURVES = {
    0.05: (0.390351, 0.385965), 0.1: (0.35, 0.351852), 0.25: (0.294444, 0.222222), 0.5: (0.133333, -0.166667),
    0.75: (0.116667, -1.333333),
}  # fmt: skip


def sixty() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    positive = (random.random(60) < 0.4).astype(int)
    return np.round(np.clip(0.25 + 0.4 * positive + 0.25 * random.normal(size=60), 0.01, 0.99), 3), positive


def test_the_examples_are_true():
    assert doctest.testmod(module).failed == 0


def test_it_is_that_of_dcurves():
    found = decision_curve(*sixty(), thresholds=list(DCURVES), resamples=5)
    benefit, treat_all = zip(*DCURVES.values(), strict=True)
    assert found.net_benefit == pytest.approx(benefit, abs=1e-5) and found.treat_all == pytest.approx(
        treat_all, abs=1e-5
    )
    assert found.thresholds == list(DCURVES) and found.prevalence == pytest.approx(25 / 60)


def test_an_image_at_the_threshold_is_acted_on():
    # 3 of 4 are at 0.25 or above: 1 true, 2 false; 1/4 - 2/4 * 1/3
    found = decision_curve([0.25, 0.25, 0.5, 0.1], [0, 1, 0, 0], thresholds=[0.25])
    assert found.net_benefit == [pytest.approx(1 / 4 - 2 / 4 / 3, abs=1e-5)]


def test_calibrated_normal_scores_have_the_net_benefit_of_the_closed_form():
    random, images, normal = np.random.default_rng(3), 200_000, NormalDist()
    positive = random.random(images) < 0.3
    scores = random.normal(size=images) + 1.5 * positive
    p = 1 / (1 + np.exp(-(1.5 * (scores - 0.75) + np.log(0.3 / 0.7))))
    found = decision_curve(p, positive, thresholds=[0.1, 0.3, 0.6], resamples=2)
    for t, benefit, treat_all in zip(found.thresholds, found.net_benefit, found.treat_all, strict=True):
        cut = (np.log(t / (1 - t)) - np.log(0.3 / 0.7)) / 1.5 + 0.75
        expected = 0.3 * (1 - normal.cdf(cut - 1.5)) - 0.7 * (1 - normal.cdf(cut)) * t / (1 - t)
        assert benefit == pytest.approx(expected, abs=0.004)
        assert benefit > max(treat_all, 0)  # a calibrated risk is worth something at every threshold


def test_the_band_holds_the_curve_and_is_wider_when_images_come_in_patients():
    scores, positive = sixty()
    scores, positive = np.repeat(scores, 4), np.repeat(positive, 4)
    alone = decision_curve(scores, positive, resamples=300)
    whole = decision_curve(scores, positive, [f"p{image // 4}" for image in range(240)], resamples=300)
    width = [np.mean(np.subtract(curve.high, curve.low)) for curve in (alone, whole)]
    assert 1.6 < width[1] / width[0] < 2.4  # the square root of 4
    assert all(np.less_equal(whole.low, whole.net_benefit)) and all(np.less_equal(whole.net_benefit, whole.high))
    assert len(whole.low) == len(THRESHOLDS) == 99
    # at 50 % it is a mean of 1, -1 and 0 over patients: the normal interval is near
    gain = np.where(scores[::4] >= 0.5, np.where(positive[::4], 1, -1), 0)
    half = 1.96 * gain.std() / np.sqrt(60)
    assert (whole.high[49] - whole.low[49]) / 2 == pytest.approx(half, rel=0.15)


def test_what_is_not_defined_has_a_reason():
    assert decision_curve([0.1, 0.2], [0, 0], name="mass").reason == "no image of mass"
    one = decision_curve([0.1, 0.8], [0, 1], ["p", "p"])
    assert one.reason == "no band: all images are of one patient" and one.net_benefit and not one.low
    everyone = decision_curve([0.1, 0.8], [1, 1], thresholds=[0.5])
    assert (everyone.treat_all, everyone.net_benefit) == ([1.0], [0.5])


@pytest.mark.parametrize(
    ("scores", "thresholds"), [([-0.1, 0.5], [0.5]), ([0.1, 1.5], [0.5]), ([0.1, 0.5], [0.0, 0.5]), ([0.1, 0.5], []),
                               ([0.1, 0.5], [0.5, 0.2])],
)  # fmt: skip
def test_what_is_no_probability_is_refused(scores, thresholds):
    with pytest.raises(InputError, match="Expected probabilities from 0 to 1 and thresholds that ascend"):
        decision_curve(scores, [0, 1], thresholds=thresholds)
