# SPDX-License-Identifier: Apache-2.0
"""What several processes need beyond one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from ignite.engine import Engine, Events
from torch.utils.data.distributed import DistributedSampler

T = TypeVar("T")


class SetEpoch:
    """Handler of the trainer that tells a distributed sampler the epoch; without it every epoch has the same order.

    Args:
        sampler: the training loader's sampler.
    """

    def __init__(self, sampler: DistributedSampler) -> None:
        self.sampler = sampler

    def attach(self, engine: Engine) -> None:
        """Registers the handler at the start of every epoch."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        self.sampler.set_epoch(engine.state.epoch)


def own_share(items: Sequence[T], sampler: Iterable[int] | None) -> list[T]:
    """The items that this process reads, in the order in which it reads them; all of them without a sampler."""
    return list(items) if sampler is None else [items[place] for place in sampler]
