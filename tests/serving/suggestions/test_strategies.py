# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from dual_skd.errors import InputError
from dual_skd.serving.suggestions.strategies import Answers, GradientEmbeddings, rank

# two unsure images of one kind, two of another, and one that the network is sure of
P = np.array([[0.6, 0.4], [0.6, 0.4], [0.55, 0.45], [0.55, 0.45], [0.999, 0.001]])
H = np.array([[3.0, 0.0], [3.0, 0.0], [0.0, 2.0], [0.0, 2.0], [3.0, 0.0]])


def images(found) -> list[int]:
    return [choice.image for choice in found]


def test_distances_are_those_of_the_gradients_that_autograd_computes():
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(6, 4)) for _ in range(2)]
    layers = [torch.nn.Linear(4, 3, bias=False, dtype=torch.float64) for _ in range(2)]
    logits = [layer(torch.from_numpy(h)) for layer, h in zip(layers, features, strict=True)]
    p = [one.softmax(1).detach().numpy() for one in logits]
    label = torch.from_numpy(np.mean(p, axis=0).argmax(axis=1))
    gradients = []
    for row in range(6):
        loss = sum(torch.nn.functional.cross_entropy(one[row : row + 1], label[row : row + 1]) for one in logits)
        parts = torch.autograd.grad(loss, [layer.weight for layer in layers], retain_graph=True)
        gradients.append(torch.cat([part.flatten() for part in parts]))
    wanted = torch.stack(gradients).numpy()
    found = GradientEmbeddings(Answers(p, features))
    assert found.squares == pytest.approx((wanted**2).sum(axis=1))
    for row in range(6):
        assert found.squared_distances(row) == pytest.approx(((wanted - wanted[row]) ** 2).sum(axis=1), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_badge_takes_one_of_each_kind_before_it_repeats_itself(seed):
    found = rank("badge", Answers([P], [H]), 2, seed=seed)
    assert found[0].image == 0 and found[0].score == pytest.approx(0.4 * 2**0.5 * 3) and found[0].nearest is None
    assert found[1].image in (2, 3, 4)  # the sure one is far from the first as well, and rarely drawn
    assert found[1].nearest == 0


def test_badge_draws_by_the_squared_distance():
    p = np.array([[0.5, 0.5]] * 3)
    h = np.array([[2.0, 0.0], [1.0, 0.0], [0.0, 0.0]])  # gradients of length 2a, a and 0: distances a and 2a
    second = Counter(rank("badge", Answers([p], [h]), 2, seed=seed)[1].image for seed in range(2000))
    assert second[2] / 2000 == pytest.approx(4 / 5, abs=0.03) and second[1] + second[2] == 2000


def test_a_second_network_that_answers_otherwise_makes_an_image_worth_more():
    student = np.array([[0.95, 0.05], [0.95, 0.05]])
    other = np.array([[0.95, 0.05], [0.2, 0.8]])
    ones = np.ones((2, 3))
    alone, both = (
        GradientEmbeddings(Answers([student], [ones])),
        GradientEmbeddings(Answers([student, other], [ones] * 2)),
    )
    assert alone.squares[0] == alone.squares[1]
    # together they say the first class: 0.575; its residuals are (0.05, 0.05) and (0.8, 0.8), squared times |h|^2 = 3
    assert both.squares == pytest.approx([3 * 4 * 0.05**2, 3 * 2 * (0.05**2 + 0.8**2)])


def test_disagreement_is_the_jensen_shannon_divergence_in_bits():
    student, other = np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([[0.5, 0.5], [0.5, 0.5]])
    first, second = rank("disagreement", Answers([student, other]), 2)
    # H(3/4, 1/4) = 0.811278, less the mean of H(1, 0) = 0 and H(1/2, 1/2) = 1
    assert (first.image, second.image) == (1, 0)
    assert first.score == pytest.approx(0.811278 - 0.5, abs=1e-6) and second.score == pytest.approx(0)


def test_uncertainty_is_the_entropy_of_the_student_alone():
    student = np.array([[0.9, 0.1], [0.5, 0.5], [0.7, 0.3]])
    found = rank("uncertainty", Answers([student, student[::-1]]), 3)
    assert images(found) == [1, 2, 0] and found[0].score == pytest.approx(1)


def test_with_several_labels_per_image_each_is_a_yes_or_no():
    p = np.array([[0.5, 0.5], [0.9, 0.1], [0.9, 0.6]])
    found = rank("badge", Answers([p], [np.ones((3, 1))], multi_label=True), 3)
    assert found[0].image == 0
    assert sorted(round(choice.score, 4) for choice in found) == pytest.approx([0.1414, 0.4123, 0.7071], abs=1e-4)


def test_of_copies_one_is_chosen_and_of_patients_one_image():
    answers = Answers([P], [H])
    alone = images(rank("badge", answers, 9, copies={0: [1], 1: [0], 2: [3], 3: [2]}))
    assert len(alone) == 3 and len({(0, 0, 2, 2, 4)[image] for image in alone}) == 3
    by_patient = rank("uncertainty", answers, 9, patients=["a", "b", "b", "c", "a"])
    assert images(by_patient) == [2, 3, 0]


def test_chance_is_the_same_for_a_seed_and_another_for_another():
    answers = Answers([np.full((30, 2), 0.5)])
    assert images(rank("random", answers, 30, seed=1)) == images(rank("random", answers, 30, seed=1))
    assert images(rank("random", answers, 30, seed=1)) != images(rank("random", answers, 30, seed=2))
    assert sorted(images(rank("random", answers, 30))) == list(range(30))


def test_what_cannot_be_ordered_is_said():
    with pytest.raises(InputError, match=r"Unknown strategy 'bagde' \(did you mean badge\?\)"):
        rank("bagde", Answers([P], [H]), 1)
    with pytest.raises(InputError, match=r"needs the second network, models/auxiliary.pt"):
        rank("disagreement", Answers([P]), 1)
