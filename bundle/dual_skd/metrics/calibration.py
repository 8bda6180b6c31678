# SPDX-License-Identifier: Apache-2.0
"""Calibrated probabilities: one temperature, fitted on validation logits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional

from dual_skd.metrics.classification import checked_logits
from dual_skd.metrics.probabilities import probabilities
from dual_skd.metrics.resampling import patient_numbers
from dual_skd.utils.former_names import renamed

BOUNDS = (0.05, 20.0)  # of the temperature; outside, probabilities are 0 and 1, or all equal, to any reader
PRIOR = 4.0  # strength of the prior around a temperature of 1, see fit_temperature
FEW = 30  # images or patients; of fewer the prior decides more than they do
_SMALLEST = 5e-7  # what a probability written as 0 is taken for: files of six decimals meant anything up to this
_HALVINGS = 60  # of the interval of log(1/T): far below what a double can tell apart
__getattr__ = renamed(
    __name__,
    ReliabilityBin="dual_skd.metrics.reliability_diagram.ReliabilityBin",
    reliability="dual_skd.metrics.reliability_diagram.reliability",
    wilson_interval="dual_skd.metrics.score_intervals.wilson_interval",
)


class Calibration(NamedTuple):
    """A fitted temperature and what it did to the images that it was fitted on.

    Attributes:
        temperature: logits are divided by it before softmax (or sigmoid).
        images: number of images.
        nll_before: mean negative log likelihood in nats at temperature 1.
        nll_after: the same at ``temperature``; never larger.
        patients: number of patients; an image without one counts for itself. None where none is known.
    """

    temperature: float
    images: int
    nll_before: float
    nll_after: float
    patients: int | None = None

    def __str__(self) -> str:
        """On what it rests, in a sentence for the log."""
        patients = "" if self.patients is None else f" of {self.patients} patients"
        few = self.images if self.patients is None else self.patients
        held = "; so few say little, so it is held near 1" if few < FEW else ""
        needed = round(self.temperature, 3) != 1
        nll = f"NLL {self.nll_after:.4f}" + (f", before {self.nll_before:.4f}" if needed else "; none was needed")
        return f"Temperature {self.temperature:.3f} from {self.images} images{patients}{held}: {nll}"


def fit_temperature(
    logits: Tensor,
    labels: Tensor,
    *,
    multi_label: bool = False,
    sharpen: bool = True,
    patients: Sequence[str] | None = None,
    prior: float = PRIOR,
) -> Calibration:
    """Fits the temperature T that calibrates logits, the closer to 1 the fewer images there are.

    With b = 1/T it minimises n L(b) + c (b - 1 - log b), convex in b. L is the mean negative log likelihood (Guo et al.
    2017, section 4.2), n the number of patients, or of images where no patients are known, and c is ``prior``: the
    posterior mode under a gamma prior of b with its own mode at 1. For c = 4 the penalty is 0 at T = 1, 0.8 nats at 2
    and 8.2 at 20, so a few images can't move T far, and many move it as if there were no prior. Equal logits in every
    row say nothing: T is 1. Where every image is right, or every one wrong, T goes as far from 1 as n can tell.

    c = 4 by simulation (``scripts/benchmark/probes/prior.py``): where T = 1 is right it spares 98 % of the NLL that one
    image costs (0.028 nats) and 81 % of that of 8 (0.016); where T = 2 is right, it costs nothing with 100 images
    (0.004 with and without it) and 0.0001 nats with 300. Twice as strong it would cost 0.001 with 100.

    Args:
        logits: (N, K), before softmax (or sigmoid), of images that the network was not trained on.
        labels: class indices (N,); with ``multi_label`` zeros and ones (N, K).
        multi_label: every label has a sigmoid of its own; one temperature serves all.
        sharpen: False keeps the temperature at 1 where less would fit better. New images are seldom easier than the few
            that it is fitted on (docs/experiments.md).
        patients: of each image, "" where it isn't known: images of one patient say little more than one of them.
        prior: strength of the prior; 0 is the plain maximum of the likelihood, within ``BOUNDS``.

    Returns:
        a :class:`Calibration` with a temperature within ``BOUNDS``.

    Raises:
        InputError: shapes don't match, no images, labels outside 0..K-1, or logits that aren't finite.

    Example:
        >>> logits = torch.tensor([[4.0, 0.0]] * 4)  # says 98 %, and is right 3 times of 4: log 3 were honest
        >>> round(fit_temperature(logits, torch.tensor([0, 0, 0, 1]), prior=0).temperature * math.log(3), 6)
        4.0
        >>> round(fit_temperature(logits, torch.tensor([0, 0, 0, 1])).temperature, 2)  # 4 images can't tell so much
        1.67
    """
    logits, labels = checked_logits(logits, labels, multi_label)
    if multi_label:
        # each label is a choice between the logits 0 and z
        pairs = torch.stack([torch.zeros_like(logits), logits], dim=-1).flatten(0, 1)
        targets = labels.long().flatten()
    else:
        pairs, targets = logits, labels
    spread = pairs - pairs.max(dim=1, keepdim=True).values  # the same probabilities, and exp never overflows
    truth = functional.one_hot(targets, pairs.shape[1]).double()
    known = patients is not None and any(patients)
    units = int(patient_numbers(patients, len(logits)).max()) + 1 if known else len(logits)
    temperature = max(_fitted(spread, truth, prior / units), 0.0 if sharpen else 1.0)
    return Calibration(
        temperature, len(logits), _nll(spread, truth, 1.0), _nll(spread, truth, temperature), units if known else None
    )


def logits_of(probabilities: ArrayLike, *, multi_label: bool = False) -> Tensor:
    """Logits of probabilities as a table of predictions holds them, up to a constant per image.

    Args:
        probabilities: (N, K), of softmax; with ``multi_label`` each of a sigmoid of its own.
        multi_label: see above.

    Returns:
        (N, K) in double precision. A probability of 0 counts as 5e-7, or as the smallest other one if that is less.
    """
    p = torch.as_tensor(probabilities, dtype=torch.float64)
    p = torch.where(p > 0, p, torch.where(p > 0, p, _SMALLEST).amin())
    return p.clamp_max(1 - _SMALLEST).logit() if multi_label else p.log()


def _fitted(spread: Tensor, truth: Tensor, prior: float) -> float:
    """Where the derivative of the penalised likelihood changes sign, by halving an interval of log(1/T) around 0."""
    low, high = (-math.log(bound) for bound in reversed(BOUNDS))
    for _ in range(_HALVINGS):
        inverse = math.exp(middle := (low + high) / 2)
        slope = ((probabilities(spread * inverse) - truth) * spread).sum(1).mean().item()  # of the NLL, by 1/T
        slope += prior * (1 - 1 / inverse)
        low, high = (middle if slope <= 0 else low), (middle if slope >= 0 else high)
    return min(max(math.exp(-(low + high) / 2), BOUNDS[0]), BOUNDS[1])


def _nll(spread: Tensor, truth: Tensor, temperature: float) -> float:
    return -((spread / temperature).log_softmax(1) * truth).sum(1).mean().item()
