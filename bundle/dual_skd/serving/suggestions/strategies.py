# SPDX-License-Identifier: Apache-2.0
"""Orders images without labels by what their labels would teach: active learning from a pool (Settles 2009).

``badge``, the default, is BADGE (Ash et al. 2020, arXiv 1906.03671). Each image has a gradient embedding: the gradient
of the loss by the weights of the last layer, for the label that the networks themselves would give. It is long where
they are unsure, and its direction tells what kind of image it is. Sampling by k-means++ (Arthur and Vassilvitskii
2007) then gives images that are unsure and unlike each other. Uncertainty alone repeats itself, and a core set (Sener
and Savarese 2018) looks at diversity alone.

Here the model is the pair. Both networks get the label that they would give together, so that the embedding is long
too where one of them answers otherwise: query by committee (Seung et al. 1992).

``disagreement`` is the Jensen-Shannon divergence of the two, which is the BALD score of a committee (Houlsby et al.
2011). ``uncertainty`` is the entropy of the student. ``random`` is the control.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dual_skd.errors import InputError, choose
from dual_skd.metrics.uncertainty import disagreement, predictive_entropy


@dataclass(frozen=True)
class Answers:
    """What M networks, the student first, say about N images.

    Attributes:
        probabilities: of each network (N, K).
        features: what enters its last layer (N, F); None where they weren't asked for.
        multi_label: each class has a probability of its own.
    """

    probabilities: Sequence[np.ndarray]
    features: Sequence[np.ndarray] | None = None
    multi_label: bool = False

    def of(self, places: Sequence[int]) -> Answers:
        """The answers for some of the images."""
        features = None if self.features is None else [one[places] for one in self.features]
        return Answers([one[places] for one in self.probabilities], features, self.multi_label)


class Choice(NamedTuple):
    """An image that was chosen.

    Attributes:
        image: its place among the images, from 0.
        score: by which it was judged, higher is more.
        nearest: place in the list of the most similar image chosen before it, from 0; None for the first, and where
            images weren't compared.
    """

    image: int
    score: float
    nearest: int | None


class GradientEmbeddings:
    """The gradients of the cross-entropy by the last layers of all networks, which are never written out.

    Of one network it is (p - y) h^T (Ash et al. 2020, equation 1), with the features h and the label y that has the
    highest mean probability. Products and distances follow from those of p - y and of h.

    Args:
        answers: with features.
    """

    def __init__(self, answers: Answers) -> None:
        mean = np.mean(answers.probabilities, axis=0)
        label = mean > 0.5 if answers.multi_label else np.eye(mean.shape[1])[mean.argmax(axis=1)]
        self._residuals = [np.asarray(p, dtype=float) - label for p in answers.probabilities]
        self._features = [np.asarray(h, dtype=float) for h in answers.features or ()]
        self.squares = sum(
            (a * a).sum(axis=1) * (h * h).sum(axis=1) for a, h in zip(self._residuals, self._features, strict=True)
        )

    def squared_distances(self, index: int) -> np.ndarray:
        """Of all embeddings (N,) from that of one image."""
        product = sum((a @ a[index]) * (h @ h[index]) for a, h in zip(self._residuals, self._features, strict=True))
        return np.maximum(self.squares + self.squares[index] - 2 * product, 0)


class _Picker:
    """Chooses the highest score.

    Attributes:
        scores: of the images (N,), higher is more.
        nearest: place in the list of the chosen image that each is most like (N,), -1 where they aren't compared.
    """

    def __init__(self, scores: np.ndarray) -> None:
        self.scores = scores
        self.nearest = np.full(len(scores), -1)

    def next(self, candidates: np.ndarray) -> int:
        """One of the candidates (places of images)."""
        return int(candidates[self.scores[candidates].argmax()])

    def add(self, index: int, place: int) -> None:
        """Notes that an image has been chosen, and its place in the list."""


class _Badge(_Picker):
    """Chooses by k-means++: the longest embedding first, then by the squared distance from those chosen."""

    def __init__(self, answers: Answers, rng: np.random.Generator) -> None:
        self._embeddings, self._rng = GradientEmbeddings(answers), rng
        super().__init__(np.sqrt(self._embeddings.squares))
        self._distance = np.full(len(self.scores), np.inf)

    def next(self, candidates: np.ndarray) -> int:
        weights = self._distance[candidates]
        total = weights.sum()
        if not 0 < total < np.inf:  # the first, or all are like one that is chosen
            return super().next(candidates)
        return int(self._rng.choice(candidates, p=weights / total))

    def add(self, index: int, place: int) -> None:
        distance = self._embeddings.squared_distances(index)
        self.nearest[distance < self._distance] = place
        self._distance = np.minimum(self._distance, distance)


def _disagreement(answers: Answers, rng: np.random.Generator) -> _Picker:
    if len(answers.probabilities) < 2:
        raise InputError(
            "Strategy disagreement needs the second network, models/auxiliary.pt, which isn't there; use badge or "
            "uncertainty."
        )
    one, other = answers.probabilities
    return _Picker(disagreement(one, other, multi_label=answers.multi_label))


def _uncertainty(answers: Answers, rng: np.random.Generator) -> _Picker:
    return _Picker(predictive_entropy(answers.probabilities[0], multi_label=answers.multi_label))


def _random(answers: Answers, rng: np.random.Generator) -> _Picker:
    return _Picker(rng.random(len(answers.probabilities[0])))


STRATEGIES: dict[str, Callable[[Answers, np.random.Generator], _Picker]] = {
    "badge": _Badge,
    "disagreement": _disagreement,
    "uncertainty": _uncertainty,
    "random": _random,
}


def rank(
    strategy: str,
    answers: Answers,
    number: int,
    *,
    seed: int = 0,
    copies: Mapping[int, Sequence[int]] | None = None,
    patients: Sequence[str] | None = None,
) -> list[Choice]:
    """The images to label, the first one first.

    Args:
        strategy: one of :data:`STRATEGIES`.
        answers: of the networks; ``badge`` needs their features.
        number: how many; fewer where there are no more.
        seed: of ``badge`` and ``random``.
        copies: image -> the images that show the same picture, which aren't chosen beside it.
        patients: N names; with them at most one image of each patient is chosen, and stands for all of them.

    Raises:
        InputError: there is no such strategy, or it needs a second network and there is none.

    Example:
        >>> p = np.array([[0.9, 0.1], [0.5, 0.5], [0.4, 0.6]])
        >>> [choice.image for choice in rank("uncertainty", Answers([p]), 2)]
        [1, 2]
    """
    picker = choose(STRATEGIES, strategy, "strategy")(answers, np.random.default_rng(seed))
    left = np.ones(len(picker.scores), dtype=bool)
    of_patient = None if patients is None else np.array(patients)
    chosen: list[Choice] = []
    while len(chosen) < number and left.any():
        index = picker.next(left.nonzero()[0])
        nearest = int(picker.nearest[index])
        together = [index] if of_patient is None else (of_patient == of_patient[index]).nonzero()[0].tolist()
        for one in together:
            picker.add(one, len(chosen))
            left[[one, *(copies or {}).get(one, ())]] = False
        chosen.append(Choice(index, float(picker.scores[index]), None if nearest < 0 else nearest))
    return chosen
