# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import doctest

import numpy as np
import pytest
from sklearn import metrics

from dual_skd.metrics import curves
from dual_skd.metrics.curves import precision_recall_curve, roc_curve


def scores(images: int = 80, decimals: int = 1):
    random = np.random.default_rng(0)
    positive = random.random(images) < 0.4
    return np.round(random.normal(size=images) + positive, decimals), positive


def test_the_examples_are_true():
    assert doctest.testmod(curves).failed == 0


def test_points_are_those_of_scikit_learn_also_with_ties():
    found, positive = scores()
    x, y, _ = metrics.roc_curve(positive, found, drop_intermediate=False)
    curve = roc_curve(found, positive, resamples=20)
    np.testing.assert_allclose((curve.x, curve.y), (x, y), atol=1e-5)
    precision, recall, _ = metrics.precision_recall_curve(positive, found)
    curve = precision_recall_curve(found, positive, resamples=20)
    np.testing.assert_allclose((curve.x, curve.y), (recall[:-1][::-1], precision[:-1][::-1]), atol=1e-5)


@pytest.mark.parametrize("draw", [roc_curve, precision_recall_curve])
def test_the_band_holds_the_curve_and_is_wider_when_images_come_in_patients(draw):
    found, positive = scores(decimals=6)
    found, positive = np.repeat(found, 4), np.repeat(positive, 4)  # four images of each patient that say the same
    alone = draw(found, positive, resamples=200)
    whole = draw(found, positive, [f"p{image // 4}" for image in range(len(found))], resamples=200)
    width = [np.mean(np.subtract(curve.high, curve.low)) for curve in (alone, whole)]
    assert 1.6 < width[1] / width[0] < 2.4  # the square root of 4
    assert (np.array(whole.low) <= np.array(whole.high)).all()
    middle = len(whole.grid) // 2
    own = np.interp(whole.grid[middle], whole.x, whole.y)
    assert whole.low[middle] <= own <= whole.high[middle]


def test_long_curves_are_thinned_and_keep_their_ends():
    random = np.random.default_rng(1)
    positive = random.random(3000) < 0.5
    curve = roc_curve(random.random(3000), positive, resamples=2)
    assert len(curve.x) == curves.CURVE_POINTS
    assert (curve.x[0], curve.y[0], curve.x[-1], curve.y[-1]) == (0, 0, 1, 1)


def test_what_is_not_defined_has_a_reason():
    found = np.array([0.1, 0.2, 0.3])
    assert roc_curve(found, np.zeros(3, bool), name="mass").reason == "no image of mass"
    assert precision_recall_curve(found, np.ones(3, bool), name="mass").reason == "every image is of mass"
    one = roc_curve(found, np.array([0, 1, 1]), ["p", "p", "p"])
    assert one.reason == "no band: all images are of one patient" and one.grid == [] and one.x
    few = roc_curve(found, np.array([0, 0, 1]))
    assert few.reason == "no band: too few patients with or without it"
