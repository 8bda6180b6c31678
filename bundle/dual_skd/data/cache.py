# SPDX-License-Identifier: Apache-2.0
"""Decoded images are kept: in memory where they fit and are soon read, else on disk."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import psutil
import torch
from monai.data import CacheDataset, Dataset, PersistentDataset
from monai.transforms import Compose

from dual_skd.data.reading.facts import spread
from dual_skd.data.reading.locators import path_of, split_locator
from dual_skd.errors import InputError
from dual_skd.options.choices import Cache
from dual_skd.utils.files import expanded
from dual_skd.utils.progress import bar
from dual_skd.utils.wording import counted

logger = logging.getLogger(__name__)

CACHES = get_args(Cache)
MEMORY_SHARE = 0.5  # of the free memory that decoded images may take; networks and the loader need the rest
PATIENCE = 45.0  # seconds that reading everything into memory may take before the first step
PROBES = 8  # images that size and time are measured on


def cached_dataset(
    records: Sequence[Mapping[str, Any]],
    transform: Compose,
    *,
    data: Sequence[Mapping[str, Any]] | None = None,
    cache: str = "auto",
    cache_dir: str | Path,
    settings: Mapping[str, Any],
    num_workers: int = 0,
) -> Dataset:
    """Chooses MONAI's data set that reads every file once, by the measured size and reading time of a few images.

    In memory (``CacheDataset``), all are read before the first step, in ``num_workers`` threads. On disk
    (``PersistentDataset``), an image is read when it is first asked for and its decoded form is kept in ``cache_dir``,
    also for later runs with the same settings; memory doesn't grow with the number of images, and training starts at
    once. Disk is chosen where the decoded images need more than half of the free memory, or more than 45 s to read.

    Args:
        records: with "image" and what else ``transform`` takes.
        transform: without randomness; augmentation comes after the cache.
        data: images that MONAI Label gives in place of the data set. ``records`` are made of them already, by
            :func:`dual_skd.serving.monai_label.dataset_of`, so they are not used here.
        cache: "auto", "memory", "disk" or "none".
        cache_dir: where decoded images are kept on disk. They are pictures of patients: keep and delete them as such.
        settings: what decides the result of ``transform``; images decoded under other settings aren't used.
        num_workers: threads that fill the memory.

    Raises:
        InputError: for an unknown ``cache``, or an image that can't be read.
    """
    if cache not in CACHES:
        raise InputError(f"cache is {cache!r}; use one of {', '.join(CACHES)}.")
    records = [dict(record) for record in records]
    if cache == "auto":
        cache = _choose(records, transform, max(num_workers, 1))
    if cache == "none":
        return Dataset(records, transform)
    if cache == "memory":
        return MemoryCache(records, transform, num_workers=max(num_workers, 1), progress=False, copy_cache=False)
    key = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]
    return DiskCache(records, transform, cache_dir=expanded(cache_dir) / key, hash_func=_record_key)


class MemoryCache(CacheDataset):
    """MONAI's data set, with our bar while it reads."""

    def _fill_cache(self, indices: Sequence[int] | None = None) -> list:
        with bar(None, "Reading images", len(self.data)) as self._bar:
            cache = super()._fill_cache(indices)
        del self._bar  # it can't be sent to another process, as the data set can
        return cache

    def _load_cache_item(self, idx: int) -> Any:
        item = super()._load_cache_item(idx)
        self._bar.update()
        return item


class DiskCache(PersistentDataset):
    """MONAI's data set, which reads an image anew where a process that was killed has left its decoded form in part."""

    def _cachecheck(self, item_transformed: Mapping[str, Any]) -> Any:
        try:
            return super()._cachecheck(item_transformed)
        except (RuntimeError, EOFError):
            path = self.cache_dir / f"{self.hash_func(item_transformed).decode()}{self.transform_hash}.pt"
            if not path.is_file():
                raise  # it is the image that can't be read
            logger.warning("%s is damaged; the image is read anew.", path)
            path.unlink()
            return super()._cachecheck(item_transformed)


def loader_workers(dataset: Dataset, num_workers: int) -> int:
    """Worker processes for a data set: none for images in memory, which other processes would only copy."""
    return 0 if isinstance(dataset, CacheDataset) else num_workers


def free_memory() -> int:
    """Bytes that this process may still take: of the machine, or of the container where that has a limit."""
    free = psutil.virtual_memory().available
    folder = Path("/sys/fs/cgroup")  # Linux containers, control groups version 2
    try:
        limit = (folder / "memory.max").read_text().strip()
        used = int((folder / "memory.current").read_text())
    except (OSError, ValueError):
        return free
    return min(free, int(limit) - used) if limit.isdigit() else free


def _choose(records: list, transform: Compose, threads: int) -> str:
    if not records:
        return "memory"
    probes = [records[place] for place in spread(len(records), PROBES)]
    started = time.perf_counter()
    size = max(_bytes(transform(dict(record))) for record in probes) * len(records)
    seconds = (time.perf_counter() - started) / len(probes) * len(records) / min(threads, os.cpu_count() or 1)
    # every process of a distributed run keeps its own images
    budget = MEMORY_SHARE * free_memory() / int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    cache = "memory" if size <= budget and (seconds <= PATIENCE or len(records) <= PROBES) else "disk"
    logger.log(
        logging.DEBUG if cache == "memory" else logging.INFO,  # pictures of patients on a disk are worth a line
        "%s %.2f GB (%.1f GB may be used) and about %.0f s to read: they are kept %s.",
        counted(len(records), "decoded image takes", "decoded images take"),
        size / 1e9,
        budget / 1e9,
        seconds,
        "in memory" if cache == "memory" else "on disk, each when it is first needed",
    )
    return cache


def _bytes(item: Any) -> int:
    if isinstance(item, torch.Tensor):
        return item.nelement() * item.element_size()
    return sum(_bytes(value) for value in item.values()) if isinstance(item, Mapping) else 0


def _record_key(record: Mapping[str, Any]) -> bytes:
    """Name of a record's decoded form: another file, or a changed one, has another name."""
    path, fragment = split_locator(record["image"])
    files = sorted(path.iterdir()) if path.is_dir() else [path_of(record["image"])]
    state = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    parts = [str(path), fragment, state, record.get("label")]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest().encode()
