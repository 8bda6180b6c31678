# SPDX-License-Identifier: Apache-2.0
"""Measures what the prior of the temperature costs and saves, on logits whose right temperature is known.

    python -m scripts.benchmark.probes.prior [--repeats 100]

Two logits per image are drawn from N(0, 3^2), and the label from their softmax at the true temperature. A line per true
temperature and number of images: by strength of the prior (0: the plain maximum of the likelihood), how much NLL the
fitted temperature loses on new images against the true one, in nats, and after a slash the 97.5 % quantile of the
fitted temperatures. As in training, the temperature isn't taken below 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch

from dual_skd.metrics import fit_temperature
from scripts.markdown import table_head, table_row

TRUE_TEMPERATURES = (1.0, 2.0)
IMAGES = (1, 4, 8, 16, 30, 100, 300)
STRENGTHS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)
TEST_IMAGES = 100_000  # that the loss is measured on


def loss(true: float, generator: torch.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Temperatures, and the NLL that each loses on new images against the true one."""
    margin = 3 * 2**0.5 * torch.randn(TEST_IMAGES, generator=generator, dtype=torch.float64)
    right = (margin / true).sigmoid()
    grid = torch.logspace(np.log10(0.05), np.log10(20), 400, dtype=torch.float64)
    nll = [-(right * (margin / t).sigmoid().log() + (1 - right) * (-margin / t).sigmoid().log()).mean() for t in grid]
    return grid.numpy(), np.array(nll) - min(nll).item()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=100, help="draws per line (default: 100)")
    repeats = parser.parse_args(arguments).repeats
    generator = torch.Generator().manual_seed(0)
    print(*table_head(["true T", "images", *(f"c = {strength:g}" for strength in STRENGTHS)]), sep="\n")
    for true in TRUE_TEMPERATURES:
        grid, lost = loss(true, generator)
        for images in IMAGES:
            found = np.empty((repeats, len(STRENGTHS)))
            for row in found:
                logits = 3 * torch.randn(images, 2, generator=generator, dtype=torch.float64)
                labels = torch.multinomial((logits / true).softmax(1), 1, generator=generator)[:, 0]
                row[:] = [fit_temperature(logits, labels, sharpen=False, prior=c).temperature for c in STRENGTHS]
            cost = np.interp(found, grid, lost).mean(axis=0)
            high = np.quantile(found, 0.975, axis=0)
            cells = (f"{nll:.4f} / {quantile:.2f}" for nll, quantile in zip(cost, high, strict=True))
            print(table_row([f"{true:g}", str(images), *cells]))


if __name__ == "__main__":
    main()
