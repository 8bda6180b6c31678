# SPDX-License-Identifier: Apache-2.0
"""Calibration of the risk, against statsmodels 0.15.0.

``GLM(ill, x, family, offset).fit(cov_type="cluster", cov_kwds={"groups": patient}, tol=1e-14)``: Binomial with the
logit as covariate (slope) or as offset (intercept), and Poisson with the logarithm of the risk as offset (of which
observed / expected is the exponential).
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from dual_skd.metrics.risks import SMALLEST, risk_calibration

# images, images per patient, spread, shift, stretch -> events; slope, intercept, observed / expected with limits
REFERENCES = {
    (200, 1, 2.0, 0.0, 1.0): (87, [
        (1.0705816113679463, 0.7572456999475387, 1.3839175227883538),
        (-0.3553844865500346, -0.6826140737988555, -0.028154899301213676),
        (0.8753305043858646, 0.7679492017778625, 0.9977267899160399),
    ]),
    (240, 3, 1.5, -0.8, 0.6): (79, [
        (0.5402078084934807, 0.32264870577048627, 0.7577669112164751),
        (-0.9431649981335222, -1.1652452122543269, -0.7210847840127175),
        (0.6533844302483263, 0.5836492393725716, 0.7314516748961474),
    ]),
    (400, 4, 2.5, -1.5, 1.4): (136, [
        (1.6478739935378879, 1.3217477135891602, 1.9740002734866156),
        (-1.180894147847074, -1.3879027654910474, -0.9738855302031005),
        (0.6682787386087822, 0.6053986804911101, 0.7376898676327771),
    ]),
}  # fmt: skip


def drawn(images, per_patient, spread, shift, stretch):
    """Risks, outcomes and patients by a formula, the same in every version of NumPy."""
    place = np.arange(images)
    patient = place // per_patient
    logit = spread * np.sin(place**2 * 0.7) + 0.8 * np.cos(patient * 1.3)
    true = 1 / (1 + np.exp(-(stretch * logit + shift)))
    ill = (place * 0.6180339887498949 + patient * 0.37) % 1 < true
    return 1 / (1 + np.exp(-logit)), ill.astype(int), patient.tolist()


def of_two(risk, ill, patients=None, **options):
    return risk_calibration(np.stack([1 - risk, risk], axis=1), ill, patients, class_names=["well", "ill"], **options)


@pytest.mark.parametrize("case", REFERENCES)
def test_slope_intercept_and_observed_to_expected_are_those_of_statsmodels(case):
    events, expected = REFERENCES[case]
    risk, ill, patients = drawn(*case)
    well, found = of_two(risk, ill, patients)
    assert (found.class_name, found.events, well.events) == ("ill", events, case[0] - events)
    assert found.event_patients == len({one for one, there in zip(patients, ill, strict=True) if there})
    three = (found.slope, found.intercept, found.observed_expected)
    np.testing.assert_allclose([(one.value, one.low, one.high) for one in three], expected, rtol=0, atol=1e-8)
    assert {one.reason for one in three} == {""}
    # of two classes the other one has the same slope, and the intercept with the opposite sign
    assert well.slope.value == pytest.approx(found.slope.value, abs=1e-10)
    assert (well.intercept.value, well.intercept.low) == pytest.approx((-found.intercept.value, -found.intercept.high))


def test_each_class_and_each_label_is_the_question_of_that_class_against_the_rest():
    risk, ill, patients = drawn(240, 3, 1.5, -0.8, 0.6)
    alone = of_two(risk, ill, patients)[1]
    p = np.stack([0.3 * (1 - risk), risk, 0.7 * (1 - risk)], axis=1)
    labels = np.where(ill, 1, np.where(np.arange(240) % 2, 0, 2))
    (found,) = risk_calibration(p, labels, patients, classes=[1], class_names=["a", "ill", "b"])
    each = risk_calibration(np.stack([risk, 1 - risk], axis=1), np.stack([ill, 1 - ill], axis=1), patients,
                            class_names=["ill", "well"], multi_label=True)  # fmt: skip
    for other in (found, each[0]):
        assert other.class_name == "ill" and other.events == alone.events
        for name in ("slope", "intercept", "observed_expected"):
            np.testing.assert_allclose(getattr(other, name).low, getattr(alone, name).low, rtol=1e-9)


def test_a_wider_level_gives_wider_limits():
    risk, ill, patients = drawn(240, 3, 1.5, -0.8, 0.6)
    found, wide = of_two(risk, ill, patients)[1], of_two(risk, ill, patients, level=0.99)[1]
    ratio = stats.norm.ppf(0.995) / stats.norm.ppf(0.975)
    assert wide.slope.high - wide.slope.low == pytest.approx(ratio * (found.slope.high - found.slope.low))
    logs = [np.log(one.observed_expected.high / one.observed_expected.low) for one in (wide, found)]
    assert logs[0] == pytest.approx(ratio * logs[1])


def test_risks_that_are_told_apart_are_the_same_or_are_0_and_1_are_named():
    ill = np.repeat([0, 1], 20)
    apart = of_two(np.linspace(0.1, 0.9, 40), ill)[1]
    assert apart.slope.value is None and apart.slope.reason.startswith("no slope: the risk tells all images")
    assert apart.intercept.value is not None and apart.observed_expected.value == pytest.approx(1)
    ties = np.where(ill, 0.7, 0.3)
    ties[[0, 39]] = 0.5  # a tie alone between the two doesn't give the slope an end
    assert of_two(ties, ill)[1].slope.value is None
    constant = of_two(np.full(40, 0.25), ill)[1]
    assert constant.slope.reason == "no slope: every image has the same risk"
    assert constant.intercept.value == pytest.approx(np.log(3)) and constant.observed_expected.value == 2
    risk, ill, _ = drawn(200, 1, 2.0, 0.0, 1.0)
    whole = risk.copy()
    whole[[3, 4]] = 0, 1
    found, clipped = of_two(whole, ill)[1], of_two(np.clip(whole, SMALLEST, 1 - SMALLEST), ill)[1]
    assert found.slope.reason == "2 risks are exactly 0 or 1, taken for 0.0000005 or less away from it"
    assert found.slope.value == pytest.approx(clipped.slope.value, rel=1e-5)
    assert np.isfinite([found.slope.low, found.intercept.value, found.intercept.high]).all()


def test_without_ten_patients_on_both_sides_there_are_no_numbers():
    risk, ill = np.linspace(0.2, 0.8, 60), np.array([0] * 51 + [1] * 9)
    well, found = of_two(risk, ill)
    assert found.slope.reason == found.observed_expected.reason == "9 patients with ill, at least 10 are needed"
    assert well.intercept.reason == "9 patients without well, at least 10 are needed"
    assert found.slope.value is None and found.events == 9 and found.curve
    enough = np.array([0] * 40 + [1] * 20)
    patients = [f"p{place}" for place in range(40)] + ["one", "two"] * 10
    assert of_two(risk, enough, patients)[1].slope.reason == "2 patients with ill, at least 10 are needed"
    none = of_two(np.zeros(60), enough)[1]
    assert none.observed_expected.reason == "no risk is above 0" and none.slope.value is None


def test_the_curve_has_the_shares_of_equal_bins_with_wilsons_limits():
    risk, ill, _ = drawn(200, 1, 2.0, 0.0, 1.0)
    curve = of_two(risk, ill)[1].curve
    order = np.argsort(risk)
    assert [point.images for point in curve] == [20] * 10
    for point, members in zip(curve, np.array_split(order, 10), strict=True):
        assert point.risk == pytest.approx(risk[members].mean()) and point.observed == ill[members].mean()
        exact = stats.binomtest(int(ill[members].sum()), 20).proportion_ci(0.95, method="wilson")
        assert (point.low, point.high) == pytest.approx((exact.low, exact.high), abs=1e-12)
    few = of_two(risk[:35], ill[:35])[1].curve
    assert [point.images for point in few] == [12, 11, 12]


def test_the_curves_limits_are_as_wide_as_those_of_one_image_per_patient_where_all_of_his_are_alike():
    risk, ill, _ = drawn(200, 1, 2.0, 0.0, 1.0)
    one = of_two(risk, ill)[1].curve
    four = of_two(np.repeat(risk, 4), np.repeat(ill, 4), np.repeat(np.arange(200), 4).tolist())[1].curve
    taken_for_others = of_two(np.repeat(risk, 4), np.repeat(ill, 4))[1].curve
    for first, second, third in zip(one, four, taken_for_others, strict=True):
        assert second.images == 80
        assert (first.low, first.high) == pytest.approx((second.low, second.high), abs=1e-12)
        assert third.high - third.low < second.high - second.low


def test_patients_who_all_say_the_same_and_a_flat_likelihood_have_no_interval():
    pairs = [f"patient {image // 2}" for image in range(40)]
    found = of_two(np.full(40, 0.25), np.arange(40) % 2, pairs)[1]  # one of either class in each patient
    assert found.intercept.value == pytest.approx(np.log(3)) and found.observed_expected.value == 2
    assert found.intercept.low is None and "no variance" in found.intercept.reason
    assert found.observed_expected.low is None and "no variance" in found.observed_expected.reason
    called, ill = (
        np.repeat([0.0, 1.0], [488, 12]),
        np.r_[np.zeros(485), np.ones(3), np.zeros(3), np.ones(9)].astype(int),
    )
    sure = of_two(called, ill)[1].intercept  # its sandwich limits would be -62,802 and 62,798
    assert sure.value == pytest.approx(np.log(12 / 488) / 2, rel=1e-3)
    assert sure.low is None and sure.reason.startswith("no interval: the risks are so near 0 and 1")
