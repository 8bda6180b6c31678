# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import gamma
from torch.nn import functional

from dual_skd.errors import InputError
from dual_skd.metrics import calibration_error, classification_metrics
from dual_skd.metrics.calibration import (
    BOUNDS,
    PRIOR,
    Calibration,
    fit_temperature,
    logits_of,
)
from dual_skd.metrics.probabilities import probabilities
from dual_skd.metrics.reliability_diagram import reliability
from dual_skd.metrics.score_intervals import wilson_interval


def drawn(temperature: float, n: int = 4000, classes: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels drawn from their softmax at a temperature: the temperature to be found is known."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    labels = torch.multinomial((logits / temperature).softmax(1), 1, generator=generator)[:, 0]
    return logits, labels


def test_logits_are_divided_by_the_temperature():
    logits = torch.tensor([[2 * math.log(3), 0.0]])
    assert probabilities(logits, 2.0)[0].tolist() == pytest.approx([0.75, 0.25])
    assert probabilities(logits)[0].tolist() == pytest.approx([0.9, 0.1])
    assert probabilities(logits, 2.0, multi_label=True)[0].tolist() == pytest.approx([0.75, 0.5])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_labels_were_drawn_with_is_found(temperature):
    fitted = fit_temperature(*drawn(temperature))
    assert fitted.temperature == pytest.approx(temperature, rel=0.08)
    assert fitted.images == 4000 and fitted.nll_after <= fitted.nll_before


@pytest.mark.parametrize("temperature", [0.5, 2.5])
def test_without_sharpening_only_a_softer_temperature_is_taken(temperature):
    free, bound = fit_temperature(*drawn(temperature)), fit_temperature(*drawn(temperature), sharpen=False)
    assert bound == (free if temperature > 1 else free._replace(temperature=1.0, nll_after=free.nll_before))


@pytest.mark.parametrize("prior", [0, PRIOR, 20])
def test_the_temperature_is_the_minimum_that_a_general_optimiser_finds(prior):
    logits, labels = drawn(2.5, n=60)

    def objective(log_t: float) -> float:  # of the likelihood and the density of a gamma distribution of 1/T
        likelihood = 60 * functional.cross_entropy(logits / math.exp(log_t), labels).item()
        return likelihood - gamma.logpdf(math.exp(-log_t), prior + 1, scale=1 / prior) if prior else likelihood

    found = minimize_scalar(objective, bounds=(-3, 3), method="bounded", options={"xatol": 1e-10})
    fitted = fit_temperature(logits, labels, prior=prior)
    assert fitted.temperature == pytest.approx(math.exp(found.x), rel=1e-6)
    assert prior or fitted.nll_after == pytest.approx(found.fun / 60, rel=1e-12)
    assert fitted.nll_before == pytest.approx(classification_metrics(logits, labels)["nll"], rel=1e-12)
    assert fitted.nll_after == pytest.approx(classification_metrics(logits / fitted.temperature, labels)["nll"])


def test_an_overconfident_pair_of_logits_becomes_the_share_that_is_right():
    logits, labels = torch.tensor([[4.0, 0.0]] * 4).double(), torch.tensor([0, 0, 0, 1])
    fitted = fit_temperature(logits, labels, prior=0)
    assert (logits / fitted.temperature).softmax(1)[0, 0].item() == pytest.approx(0.75, abs=1e-9)


def test_several_labels_share_the_temperature_of_their_sigmoids():
    generator = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(3000, 4, generator=generator, dtype=torch.float64)
    labels = torch.bernoulli((logits / 2).sigmoid(), generator=generator)
    fitted = fit_temperature(logits, labels, multi_label=True)
    assert fitted.temperature == pytest.approx(2, rel=0.08) and fitted.images == 3000
    wanted = functional.binary_cross_entropy_with_logits(logits / fitted.temperature, labels).item()
    assert fitted.nll_after == pytest.approx(wanted, rel=1e-9)
    one = fit_temperature(logits[:, :1], labels[:, :1], multi_label=True)
    two = fit_temperature(torch.cat([torch.zeros(3000, 1), logits[:, :1]], 1), labels[:, 0])
    assert one.temperature == pytest.approx(two.temperature)  # a sigmoid is a softmax of two


def test_constant_predictions_keep_temperature_one():
    labels = torch.tensor([0, 1, 2, 0])
    for row, prior in product(([0.0, 0.0, 0.0], [7.0, 7.0, 7.0]), (0, PRIOR)):
        fitted = fit_temperature(torch.tensor([row] * 4), labels, prior=prior)
        assert fitted.temperature == 1 and fitted.nll_before == fitted.nll_after == pytest.approx(math.log(3))


def test_a_constant_prediction_of_one_class_becomes_the_frequency():
    logits = torch.tensor([[2.0, 0.0]] * 10).double()
    fitted = fit_temperature(logits, torch.tensor([0] * 9 + [1]), prior=0)
    assert (logits / fitted.temperature).softmax(1)[0, 0].item() == pytest.approx(0.9, abs=1e-9)


@pytest.mark.parametrize("wrong", [False, True])
@pytest.mark.parametrize("n", [1, 10, 25])
def test_where_every_image_is_right_or_wrong_the_number_of_images_limits_the_temperature(n, wrong):
    logits, labels = torch.tensor([[3.0, 0.0]] * n), torch.full((n,), int(wrong))
    inverse = 1 / fit_temperature(logits, labels).temperature
    share = 1 / (1 + math.exp(-3 * inverse))  # of the class that is said to be there
    assert n * 3 * (share - (not wrong)) == pytest.approx(PRIOR * (1 / inverse - 1), abs=1e-6)  # both derivatives
    assert 1 / inverse > 1 if wrong else 1 / inverse < 1
    confident = fit_temperature(20 * logits, torch.zeros(n))
    assert confident.temperature == pytest.approx(1)  # sure and right: nothing to sharpen
    assert fit_temperature(logits, labels, prior=0).temperature == pytest.approx(BOUNDS[int(wrong)])


@pytest.mark.parametrize("images", [1, 4, 8])
@pytest.mark.parametrize("sharpen", [False, True])
def test_a_few_images_do_not_move_the_temperature_far(images, sharpen):
    worst = fit_temperature(
        torch.tensor([[3.0, 0.0]] * images), torch.tensor([1] + [0] * (images - 1)), sharpen=sharpen
    )
    assert worst.temperature < 1.7 and worst.images == images  # 20.0 of a single image without the prior
    calm = [fit_temperature(*drawn(1, n=images, seed=s), sharpen=sharpen).temperature for s in range(200)]
    assert 0.6 < np.quantile(calm, 0.025) and np.quantile(calm, 0.975) < 1.8


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 3.0])
def test_many_images_leave_nothing_of_the_prior(temperature):
    logits, labels = drawn(temperature, n=20_000)
    plain, held = (fit_temperature(logits, labels, prior=prior).temperature for prior in (0, PRIOR))
    assert held == pytest.approx(plain, rel=1e-3) and held != plain


def test_images_of_one_patient_count_once():
    logits, labels = drawn(3, n=60)
    alone = fit_temperature(logits, labels)
    twice = fit_temperature(logits.repeat(2, 1), labels.repeat(2), patients=[f"p{n}" for n in range(60)] * 2)
    assert twice.temperature == pytest.approx(alone.temperature) and (twice.images, twice.patients) == (120, 60)
    one = fit_temperature(logits, labels, patients=["p"] * 60)
    assert 1 < one.temperature < alone.temperature and one.patients == 1
    mixed = fit_temperature(logits, labels, patients=["p"] * 10 + [""] * 50)
    assert mixed.patients == 51
    assert fit_temperature(logits, labels, patients=[""] * 60) == alone and alone.patients is None
    with pytest.raises(InputError, match="one patient per image"):
        fit_temperature(logits, labels, patients=["p"])


def test_it_says_on_how_many_images_it_rests():
    assert str(Calibration(1.2149, 90, 0.5, 0.25, 45)) == (
        "Temperature 1.215 from 90 images of 45 patients: NLL 0.2500, before 0.5000"
    )
    assert str(Calibration(1.0, 90, 0.5, 0.5)) == "Temperature 1.000 from 90 images: NLL 0.5000; none was needed"
    assert "from 29 images; so few say little, so it is held near 1: NLL" in str(Calibration(1.2, 29, 0.5, 0.25))
    assert "from 900 images of 3 patients; so few" in str(Calibration(1.2, 900, 0.5, 0.25, 3))
    assert "held" not in str(Calibration(1.2, 30, 0.5, 0.25))


@settings(max_examples=80)
@given(st.integers(1, 12), st.integers(2, 4), st.integers(0, 10**6), st.sampled_from([1e-6, 1.0, 1e4]), st.booleans())
def test_any_logits_have_a_bounded_temperature_that_is_no_worse_than_one(n, classes, seed, scale, multi_label):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, classes, generator=generator)
    shape = (n, classes) if multi_label else (n,)
    labels = torch.randint(0, 2 if multi_label else classes, shape, generator=generator)
    fitted = fit_temperature(logits, labels, multi_label=multi_label)
    assert BOUNDS[0] <= fitted.temperature <= BOUNDS[1]
    assert fitted.nll_after <= fitted.nll_before + 1e-12 and math.isfinite(fitted.nll_before)


def test_logits_that_cannot_be_calibrated_are_refused():
    with pytest.raises(InputError, match="not finite"):
        fit_temperature(torch.tensor([[float("nan"), 0.0]]), torch.tensor([0]))
    with pytest.raises(InputError, match="at least one image"):
        fit_temperature(torch.zeros(0, 2), torch.zeros(0))


def test_bins_of_equal_width_count_average_and_add_up_to_the_calibration_error():
    confidence = np.array([0.05, 0.3, 0.5, 0.55, 0.7, 1.0])
    correct = np.array([0, 1, 0, 1, 1, 1])
    bins = reliability(confidence, correct, bins=4)
    assert [(found.low, found.high, found.count) for found in bins] == [
        (0, 0.25, 1), (0.25, 0.5, 1), (0.5, 0.75, 3), (0.75, 1, 1),
    ]  # fmt: skip
    assert bins[2].confidence == pytest.approx(1.75 / 3) and bins[2].accuracy == pytest.approx(2 / 3)
    gap = sum(found.count * abs(found.accuracy - found.confidence) for found in bins) / 6
    wanted = calibration_error(torch.from_numpy(confidence), torch.from_numpy(correct), bins=4)
    assert gap == pytest.approx(wanted)
    empty = reliability([0.9], [1], bins=2)[0]
    assert empty.count == 0 and empty[3:] == (None,) * 4


def test_bins_of_equal_mass_hold_equal_numbers_and_never_part_equal_confidences():
    generator = np.random.default_rng(0)
    bins = reliability(generator.uniform(0.3, 1, 100), generator.integers(0, 2, 100), bins=10, equal_mass=True)
    assert [found.count for found in bins] == [10] * 10
    assert all(found.low <= found.confidence <= found.high for found in bins)
    tied = reliability([0.5] * 6 + [0.6, 0.7], [0, 1] * 4, bins=4, equal_mass=True)
    assert [found.count for found in tied] == [6, 2] and tied[0].accuracy == 0.5
    (same,) = reliability([0.5] * 4, [0, 1, 1, 1], bins=3, equal_mass=True)
    assert same.count == 4 and same.accuracy == 0.75


def test_the_interval_of_a_bin_is_wilsons():
    # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29
    for successes, count, low, high in (
        (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718),
    ):  # fmt: skip
        assert wilson_interval(successes, count) == pytest.approx((low, high), abs=5e-5)
    assert wilson_interval(5, 5)[1] == 1
    (found,) = reliability([0.4] * 20, [0] * 20, bins=1)
    assert (found.accuracy_low, found.accuracy_high) == pytest.approx((0, 0.1611), abs=5e-5)


def test_confidences_that_are_none_are_refused():
    for confidence, correct in (([0.5], [1, 0]), ([], []), ([1.5], [1]), ([float("nan")], [1])):
        with pytest.raises(InputError):
            reliability(confidence, correct)


@pytest.mark.parametrize("multi_label", [False, True])
def test_written_probabilities_have_logits_and_0_is_finite(multi_label):
    logits = torch.randn(20, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    p = probabilities(logits, multi_label=multi_label)
    again = logits_of(p.numpy(), multi_label=multi_label)
    torch.testing.assert_close(probabilities(again, multi_label=multi_label), p)
    written = logits_of([[0.0, 1.0], [1e-9, 1 - 1e-9]], multi_label=multi_label)
    assert written.isfinite().all() and written[0, 0] <= written[1, 0]  # 0 is never more than what is written beside it
    assert logits_of([[0.0, 1.0]], multi_label=multi_label)[0, 0].exp() == pytest.approx(5e-7)
