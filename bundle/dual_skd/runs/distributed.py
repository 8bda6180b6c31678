# SPDX-License-Identifier: Apache-2.0
"""Training in several processes: joins them, reads the data once, keeps networks equal, ends without hanging."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.utils.data.distributed import DistributedSampler

from dual_skd.errors import InputError
from dual_skd.utils.former_names import renamed

T = TypeVar("T")

RANK_ZERO_TIMEOUT = timedelta(days=1)  # for reading the data; if rank 0 dies, the others end at once


def several_processes() -> bool:
    """Whether this is one of several training processes."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def init_processes(device: str | torch.device, *, timeout_minutes: float = 10.0) -> None:
    """Joins the processes of a run, by NCCL on CUDA and by gloo elsewhere.

    Args:
        device: where this process computes; on CUDA one device per process.
        timeout_minutes: how long a process waits for another one before it ends the run.

    Raises:
        InputError: the environment isn't that of a launcher, or the others didn't come.
    """
    missing = [name for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise InputError(
            f"{', '.join(missing)} not set in the environment, so the other processes can't be found; start with "
            "`torchrun --nproc_per_node=N -m monai.bundle run ...`, or leave multi_gpu_train.json out."
        )
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    with lost_process_named():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(minutes=timeout_minutes))


@contextmanager
def lost_process_named() -> Iterator[None]:
    """Names a lost process in one sentence, where PyTorch reports a broken or silent connection.

    Raises:
        InputError: in place of the error of gloo or NCCL.
    """
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        who = f"process {os.environ.get('RANK', '?')} of {os.environ.get('WORLD_SIZE', '?')} (counted from 0)"
        reason = str(error).strip().splitlines()[0].split("] ", 1)[-1].split(". ")[0]
        raise InputError(
            f"Another process of this run has ended or doesn't answer, so {who} ends too ({reason}); "
            "the cause stands in the other's log. Start the command again: last.pt of output_dir has the last state."
        ) from error


def on_rank_zero(function: Callable[..., T], **arguments: Any) -> T:
    """Calls a function on rank 0 alone and gives all processes its result, or its ``InputError``.

    So the data are read once, demo data and caches are written once, and all processes have the same lists.
    """
    if not several_processes():
        return function(**arguments)
    slow_group: Any = dist.new_group(backend="gloo", timeout=RANK_ZERO_TIMEOUT)
    answer: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            answer[0] = function(**arguments)
        except InputError as error:
            answer[1] = error
    with lost_process_named():
        dist.broadcast_object_list(answer, 0, group=slow_group)
    dist.destroy_process_group(slow_group)
    if answer[1] is not None:
        raise answer[1]
    return answer[0]


class SetEpoch:
    """Handler of the trainer that sets the epoch of a distributed sampler; without it every epoch has the same order.

    MONAI's engines do this only where the loader holds the sampler itself, not inside another one.

    Args:
        sampler: the training loader's sampler.
    """

    def __init__(self, sampler: DistributedSampler[Any]) -> None:
        self.sampler = sampler

    def attach(self, engine: Engine) -> None:
        """Registers the handler at the start of every epoch."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        self.sampler.set_epoch(engine.state.epoch)


def indices_of_rank(count: int) -> range:
    """Indices, of ``count`` images, that this process evaluates: each index in one process, none repeated.

    Raises:
        InputError: there are fewer images than processes.
    """
    rank, world = (dist.get_rank(), dist.get_world_size()) if several_processes() else (0, 1)
    if 0 < count < world:
        raise InputError(
            f"{count} validation images can't be divided among {world} processes; start fewer processes "
            "(--nproc_per_node), or give more validation images (val_fraction)."
        )
    return range(rank, count, world)


def items_of_rank(items: Sequence[T], sampler: Iterable[int] | None) -> list[T]:
    """The items that this process reads, in the order in which it reads them; all of them without a sampler."""
    return list(items) if sampler is None else [items[place] for place in sampler]


class RandomPerProcess(nn.Module):
    """Gives a module other random numbers in every process, while the global generators stay equal.

    So processes augment differently, and a checkpoint needs the state of one generator alone. Only the CPU's generator
    differs between processes.

    Args:
        module: draws from the CPU's global generator.
        rank: number of the process.
    """

    def __init__(self, module: nn.Module, rank: int) -> None:
        super().__init__()
        self.module = module
        self.rank = rank

    def forward(self, *args: Any) -> Any:
        seed = int(torch.randint(2**48, ()))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed + self.rank)
            return self.module(*args)


def parallel(network: nn.Module, *, learns: bool = True, sync_batch_norm: bool | None = None) -> nn.Module:
    """Wraps a network for training in several processes.

    Args:
        network: on the device of this process.
        learns: whether it has gradients, which DistributedDataParallel averages; the auxiliary of EMA has none.
        sync_batch_norm: normalise with the statistics of all processes' images. PyTorch can do that on CUDA alone;
            default: there. Elsewhere each process normalises with its own images, and :func:`average_statistics` keeps
            the running statistics equal.

    Returns:
        the network for the trainer. Buffers aren't exchanged in forward passes: validation shares differ in length.
    """
    device = next(network.parameters()).device
    on_cuda = device.type == "cuda"
    if on_cuda if sync_batch_norm is None else sync_batch_norm:
        from timm.layers import convert_sync_batchnorm  # torch's own would lose the activations inside timm's layers

        network = convert_sync_batchnorm(network)
    if not learns:
        return network
    known = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # its name before 2.14
    options: dict[str, Any] = {"device_ids": [device] if on_cuda else None, name: False}
    return DistributedDataParallel(network, **options)


def _mean(tensors: Iterable[Tensor]) -> None:
    """Replaces floating-point tensors by their means over all processes, in one exchange per data type."""
    by_type: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        by_type.setdefault(tensor.dtype, []).append(tensor)
    for group in by_type.values():
        together = torch.cat([tensor.flatten() for tensor in group])
        dist.all_reduce(together)
        together /= dist.get_world_size()
        for tensor, mean in zip(group, together.split([tensor.numel() for tensor in group]), strict=True):
            tensor.copy_(mean.view_as(tensor))


@torch.no_grad()
def average_gradients(optimizer: Optimizer) -> None:
    """Replaces the gradients of an optimiser's parameters by their mean over all processes."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    _mean(parameter.grad for parameter in parameters if parameter.grad is not None)


@torch.no_grad()
def average_statistics(networks: Iterable[nn.Module | None]) -> None:
    """Replaces the running statistics of batch normalisation by their means over all processes, in training layers.

    The mean of the processes' variances lacks the variance of their means: as an estimate it is that of a batch as
    large as one process's share. SyncBatchNorm's statistics are those of all processes already.
    """
    layers = [layer for network in networks if network is not None for layer in network.modules()]
    _mean(
        statistic
        for layer in layers
        if isinstance(layer, _BatchNorm) and not isinstance(layer, nn.SyncBatchNorm) and layer.training
        for statistic in (layer.running_mean, layer.running_var)
        if statistic is not None
    )


@torch.no_grad()
def broadcast_networks(networks: Iterable[nn.Module | None]) -> None:
    """Gives all processes rank 0's parameters and buffers: equal seeds don't give equal bits on every device."""
    for network in networks:
        if network is not None:
            for tensor in network.state_dict().values():
                dist.broadcast(tensor, 0)


__getattr__ = renamed(
    __name__,
    meet="init_processes",
    by_first="on_rank_zero",
    own_places="indices_of_rank",
    own_share="items_of_rank",
    DrawnPerProcess="RandomPerProcess",
)
