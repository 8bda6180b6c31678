# SPDX-License-Identifier: Apache-2.0
"""Caches of decoded images: in memory where they fit and are read quickly, else on disk."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import psutil
import torch
from monai.data import CacheDataset, Dataset, PersistentDataset
from monai.transforms import Compose
from monai.utils import convert_to_tensor

from dual_skd.data.paired_dataset import PairedDataset
from dual_skd.data.reading.facts import spread
from dual_skd.data.reading.locators import path_of, split_locator
from dual_skd.errors import InputError
from dual_skd.options.choices import Cache
from dual_skd.utils.files import expanded, make_folder, remove_drafts, replace_file
from dual_skd.utils.progress import bar
from dual_skd.utils.tensor_files import read_tensors, save_tensors
from dual_skd.utils.wording import counted

logger = logging.getLogger(__name__)

CACHES = get_args(Cache)
MEMORY_SHARE = 0.5  # of the free memory that decoded images may take; networks and the loader need the rest
MAX_READING_SECONDS = 45.0  # for reading all images into memory before the first step
OLD_DRAFT_SECONDS = 3600.0  # runs may share a folder; none writes so long on one image
PROBED_IMAGES = 8  # on which size and time are measured


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
    """Builds a data set that decodes every file once.

    In memory (``CacheDataset``), all images are read before the first step, in ``num_workers`` threads. On disk
    (``PersistentDataset``), an image is decoded at its first use and stored in ``cache_dir``, also for later runs with
    the same settings. "auto" measures a few images. It takes the disk where all of them need more than half of the
    free memory, or more than 45 s to read.

    Args:
        records: with "image" and what else ``transform`` takes.
        transform: without randomness; augmentation comes after the cache.
        data: images from MONAI Label, not used here: :func:`dual_skd.serving.monai_label.labelled_data` has made
            ``records`` of them.
        cache: "auto", "memory", "disk" or "none".
        cache_dir: folder of decoded images. They are pictures of patients: keep and delete them as such.
        settings: everything that affects the result of ``transform``; other settings have their own subfolder.
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
    folder = make_folder(expanded(cache_dir), private=True)
    key = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]
    folder = make_folder(folder / key, private=True)
    remove_drafts(folder, older_than=OLD_DRAFT_SECONDS)
    return DiskCache(records, transform, cache_dir=folder, hash_func=_record_key)


class MemoryCache(CacheDataset):
    """MONAI's data set in memory, with our progress bar."""

    def _fill_cache(self, indices: Sequence[int] | None = None) -> list:
        with bar(None, "Reading images", len(self.data)) as self._bar:
            cache = super()._fill_cache(indices)
        del self._bar  # a bar can't be sent to the loader's processes
        return cache

    def _load_cache_item(self, idx: int) -> Any:
        item = super()._load_cache_item(idx)
        self._bar.update()
        return item


class DiskCache(PersistentDataset):
    """MONAI's data set on disk, in files for the user alone; an image whose file is damaged is decoded again."""

    def _cachecheck(self, item_transformed: Mapping[str, Any]) -> Any:
        path = self.cache_dir / f"{self.hash_func(item_transformed).decode()}.pt"
        if path.is_file():
            with contextlib.suppress(ValueError):
                found = read_tensors(path)
                if isinstance(found, dict) and isinstance(found.get("image"), torch.Tensor):
                    return found
            logger.warning("%s is damaged; the image is read again.", path)
        decoded = self._pre_transform(copy.deepcopy(item_transformed))
        stored = convert_to_tensor(decoded, convert_numeric=False)
        # not synchronised, which takes longer than decoding: what a power failure damages is noticed
        replace_file(path, partial(save_tensors, stored), private=True, synchronise=False)
        return decoded


def loader_workers(dataset: Any, num_workers: int) -> int:
    """Number of worker processes: none for images in memory, which other processes would only copy."""
    parts = [dataset.labelled, dataset.unlabelled] if isinstance(dataset, PairedDataset) else [dataset]
    return 0 if all(isinstance(part, CacheDataset) for part in parts) else num_workers


def free_memory() -> int:
    """Free bytes of the machine, or of the container where that has a limit."""
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
    probes = [records[place] for place in spread(len(records), PROBED_IMAGES)]
    started = time.perf_counter()
    size = max(_bytes(transform(dict(record))) for record in probes) * len(records)
    seconds = (time.perf_counter() - started) / len(probes) * len(records) / min(threads, os.cpu_count() or 1)
    # every process of a distributed run keeps its own images
    budget = MEMORY_SHARE * free_memory() / int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    cache = "memory" if size <= budget and (seconds <= MAX_READING_SECONDS or len(records) <= PROBED_IMAGES) else "disk"
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
    """Hash of a record's locator, label, and the size and time of its files."""
    path, fragment = split_locator(record["image"])
    files = sorted(path.iterdir()) if path.is_dir() else [path_of(record["image"])]
    state = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    parts = [str(path), fragment, state, record.get("label")]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest().encode()
