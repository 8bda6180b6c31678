# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dual_skd.errors import InputError
from dual_skd.normalisation import RenewNorm, renew_statistics


def batches(count: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [3 + 2 * torch.randn(4, 3, 5, 5, generator=generator) for _ in range(count)]


def never():
    raise AssertionError("read a batch")
    yield


def test_statistics_are_the_plain_means_over_the_batches():
    norm, images = nn.BatchNorm2d(3), batches()
    norm(torch.zeros(4, 3, 5, 5))  # forgotten
    assert renew_statistics([norm], images) == 12
    torch.testing.assert_close(norm.running_mean, torch.stack([b.mean((0, 2, 3)) for b in images]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([b.var((0, 2, 3)) for b in images]).mean(0))


def test_modes_and_momenta_stay_and_dropout_is_off():
    network = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm2d(3, momentum=0.3), nn.BatchNorm2d(3)).train()
    network[2].eval()
    renew_statistics([network], batches())
    assert [m.training for m in network.modules()] == [True, True, True, False]
    assert network[1].momentum == 0.3
    torch.testing.assert_close(network[1].running_mean, torch.stack([b.mean((0, 2, 3)) for b in batches()]).mean(0))
    assert network[2].running_mean.abs().max() < 1e-5  # of what the layer before really gives


def test_each_network_gets_its_own_and_one_without_statistics_reads_nothing():
    networks = [nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)) for _ in range(2)]
    renew_statistics(networks, batches())
    for network in networks:
        alone = [network[0](b).mean((0, 2, 3)) for b in batches()]
        torch.testing.assert_close(network[1].running_mean, torch.stack(alone).mean(0))
    assert renew_statistics([nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)], never()) == 0


def test_a_failure_leaves_the_modes_as_they_were():
    network = nn.Sequential(nn.BatchNorm2d(3)).train()
    with pytest.raises(RuntimeError):
        renew_statistics([network], [torch.zeros(2, 4, 5, 5)])
    assert network.training and network[0].momentum == 0.1


@pytest.fixture
def dataset() -> list[dict]:
    return [{"image": torch.full((3, 2, 2), float(number))} for number in range(10)]


def epochs(handler: RenewNorm, norm: nn.BatchNorm2d) -> list[float]:
    """The running mean after each of two epochs; it is -1 where nobody changed it."""
    found = []
    for epoch in (1, 2):
        norm.running_mean.fill_(-1)
        handler(SimpleNamespace(state=SimpleNamespace(epoch=epoch, max_epochs=2)))
        found.append(norm.running_mean[0].item())
    return found


def test_the_handler_renews_after_the_last_epoch_or_after_every_one(dataset):
    norm = nn.BatchNorm2d(3)
    assert epochs(RenewNorm([norm], dataset, images=100, batch_size=5), norm) == [-1, 4.5]
    assert epochs(RenewNorm([norm], dataset, images=100, batch_size=5, every_epoch=True), norm) == [4.5, 4.5]
    assert epochs(RenewNorm([norm], dataset, images=0, batch_size=5), norm) == [-1, -1]


def test_the_draw_depends_on_the_seed_alone_and_leaves_the_global_generator_alone(dataset):
    norm = nn.BatchNorm2d(3)

    def drawn(seed: int) -> list[float]:
        return epochs(RenewNorm([norm], dataset, images=4, batch_size=2, every_epoch=True, seed=seed), norm)

    state = torch.random.get_rng_state()
    first = drawn(0)
    assert first[0] == first[1] == drawn(0)[0]
    assert len({drawn(seed)[0] for seed in range(5)}) > 1
    assert torch.equal(torch.random.get_rng_state(), state)


def test_what_does_not_fit_is_refused(dataset):
    with pytest.raises(InputError, match="norm_images is -1"):
        RenewNorm([], dataset, images=-1, batch_size=2)
    with pytest.raises(InputError, match="freeze_norm keeps the statistics that norm_images would replace"):
        RenewNorm([], dataset, images=8, batch_size=2, frozen=True)
