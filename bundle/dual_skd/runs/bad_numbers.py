# SPDX-License-Identifier: Apache-2.0
"""NaN and infinite numbers in training: finds them, names their files, and undoes what they changed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from dual_skd.options.choices import BadNumber
from dual_skd.runs.distributed import several_processes
from dual_skd.utils.former_names import renamed

BAD_NUMBER_POLICIES = get_args(BadNumber)
SEARCH_SECONDS = 10  # for the names of files, after a bad number


def is_finite(tensors: Iterable[Tensor | None]) -> Tensor:
    """Whether all values of all tensors are finite: a tensor () of bool, so the device need not be waited for."""
    checks = [torch.isfinite(tensor).all() for tensor in tensors if tensor is not None and tensor.is_floating_point()]
    return torch.stack(checks).all() if checks else torch.tensor(True)


def gradient_norm(optimizers: Iterable[Optimizer]) -> Tensor:
    """Euclidean norm, as a tensor (), of all gradients that the next step would use; NaN or infinite if any is."""
    gradients = [
        parameter.grad
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter.grad is not None
    ]
    return torch.nn.utils.get_total_norm(gradients)


def in_any_process(bad: bool, device: torch.device | None) -> bool:
    """Whether ``bad`` is true in any process of a distributed run: all must do the same, or they hang."""
    if not several_processes():
        return bad
    flag = torch.tensor(float(bad), device=device)
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag)


def files_of(batchdata: Any, image: Tensor, dataset: Any = None) -> list[str]:
    """Files of a batch: those with bad numbers, or all when every image is finite; empty where they aren't known.

    Args:
        batchdata: what the loader gave. Its MetaTensors know their files; of others the equal images of the data set
            are looked for, for at most :data:`SEARCH_SECONDS`.
        image: (N, C, H, W[, D]) as the network sees it.
        dataset: what the loader reads, a MONAI data set with its records in ``data``.
    """
    original = batchdata.get("image") if isinstance(batchdata, Mapping) else None
    if not isinstance(original, Tensor) or len(original) != len(image):
        return []
    finite = torch.isfinite(image).flatten(1).all(1).tolist()
    wanted = [place for place, good in enumerate(finite) if not good] or list(range(len(finite)))
    names = getattr(original, "meta", {}).get("filename_or_obj", [])
    if isinstance(names, list) and len(names) == len(image):
        return [str(names[place]) for place in wanted]
    return _look_up([original[place].cpu().nan_to_num() for place in wanted], dataset)


def _look_up(images: list[Tensor], dataset: Any) -> list[str]:
    records = getattr(dataset, "data", None)
    found: list[str] = []
    if not isinstance(records, Sequence):
        return []
    started = time.perf_counter()
    for place, record in enumerate(records):
        if len(found) == len(images) or time.perf_counter() - started > SEARCH_SECONDS:
            break
        name = record.get("image") if isinstance(record, Mapping) else None
        if isinstance(name, str):
            image = torch.as_tensor(dataset[place]["image"]).cpu().nan_to_num()
            found += [name for other in images if torch.equal(image, other)][:1]
    return found


def tensorboard_scalars(output: Mapping[str, Any]) -> dict[str, float]:
    """Scalars of one iteration of :class:`dual_skd.DualModelTrainer` for TensorBoard."""
    names = {"train_loss": "loss", "train_loss_unlabelled": "loss_unlabelled", "gradient_norm": "gradient_norm"}
    values = {name: output.get(key) for name, key in names.items()}
    return {name: torch.as_tensor(value).item() for name, value in values.items() if value is not None}


class Buffers:
    """A copy of networks' buffers: batch normalisation takes up a batch in the forward pass, before any check.

    Args:
        networks: whose buffers are kept; None is passed over.
    """

    def __init__(self, networks: Iterable[nn.Module | None]) -> None:
        self._buffers = [buffer for network in networks if network is not None for buffer in network.buffers()]
        self._kept = [buffer.clone() for buffer in self._buffers]

    @torch.no_grad()
    def restore(self) -> None:
        """Puts the copies back."""
        for buffer, kept in zip(self._buffers, self._kept, strict=True):
            buffer.copy_(kept)


__getattr__ = renamed(__name__, curves="tensorboard_scalars")
