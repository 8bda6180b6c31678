# SPDX-License-Identifier: Apache-2.0
"""Running statistics of batch normalisation that fit the trained weights and images without augmentation."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import RandomSampler

from dual_skd.distributed import average_statistics, several_processes
from dual_skd.errors import InputError
from dual_skd.momentum import unwrap
from dual_skd.trainer import plain

logger = logging.getLogger(__name__)


@torch.no_grad()
def renew_statistics(networks: Sequence[nn.Module], batches: Iterable[Tensor]) -> int:
    """Replaces the running statistics of batch normalisation by the means over some batches; modes stay as they were.

    In training they are exponential means over a few dozen augmented batches, most of them seen by earlier weights
    (precise batch normalisation: Wu & Johnson 2021, arXiv 2105.07576).

    Args:
        networks: seen through the wrappers of DDP and compile; those without batch normalisation stay as they are.
        batches: images (N, C, H, W[, D]), mixed: statistics within a batch of one class lack the spread of classes.

    Returns:
        the number of images; 0 if no network has running statistics, and then no batch was read.
    """
    networks = [unwrap(network) for network in networks]
    modes = {module: module.training for network in networks for module in network.modules()}
    layers = [m for m in modes if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not layers:
        return 0
    momenta = [layer.momentum for layer in layers]
    for network in networks:
        network.eval()  # no dropout
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean
        layer.train()
    images = 0
    try:
        for batch in batches:
            images += len(batch)
            for network in networks:
                network(batch)
        if several_processes():
            average_statistics(networks)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        for module, training in modes.items():
            module.training = training
    return images


class RenewNorm:
    """Handler that gives networks new running statistics before they are evaluated and kept: :func:`renew_statistics`.

    It belongs before the validation among the trainer's handlers. The images and their order depend on the seed alone,
    so a resumed training ends with the same bits.

    Args:
        networks: student, and an auxiliary that moves.
        dataset: training images without augmentation, dictionaries with ``image``.
        images: how many of them, drawn once; 0 leaves the running statistics as they are.
        batch_size: at least 2.
        device: of the networks.
        frozen: whether batch normalisation is to keep the statistics it was selected with.
        every_epoch: True where any epoch may be the one that is kept; else it is done after the last one only.
        seed: of the draw; a different one per process.
        num_workers: of the loader.

    Raises:
        InputError: a negative number of images, or any number of them with ``frozen``.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        dataset: Sequence[Any],
        *,
        images: int,
        batch_size: int,
        device: str | torch.device = "cpu",
        frozen: bool = False,
        every_epoch: bool = False,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        if images < 0:
            raise InputError(f"norm_images is {images}; give a number of training images, 0 for none.")
        if images and frozen:
            raise InputError("freeze_norm keeps the statistics that norm_images would replace; set one of them to 0.")
        self.networks, self.dataset, self.images, self.batch_size = networks, dataset, images, batch_size
        self.device, self.every_epoch, self.seed, self.num_workers = device, every_epoch, seed, num_workers

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if self.images and (self.every_epoch or engine.state.epoch == engine.state.max_epochs):
            images = renew_statistics(self.networks, self._batches())
            logger.info("Batch normalisation has the statistics of %d training images without augmentation.", images)

    def _batches(self) -> Iterable[Tensor]:
        count = min(self.images, len(self.dataset))
        generator = torch.Generator().manual_seed(self.seed)
        loader = DataLoader(
            self.dataset,
            batch_size=self.batch_size,
            sampler=RandomSampler(self.dataset, num_samples=count, generator=generator),
            generator=generator,  # leaves the global one alone
            drop_last=count > self.batch_size,  # a batch counts as one, however small
            num_workers=self.num_workers,
        )
        for batch in loader:
            yield plain(batch[Keys.IMAGE]).to(self.device)
