# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from dual_skd.data.reading import numpy_files
from dual_skd.data.reading.numpy_files import npz_array
from dual_skd.errors import InputError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    numpy_files._mapped.cache_clear()
    return tmp_path / "cache"


def write(path: Path, images: np.ndarray) -> Path:
    np.savez_compressed(path, train_images=images, train_labels=np.arange(len(images)))
    return path


def test_many_threads_share_one_unpacked_array(tmp_path, cache):
    images = np.random.default_rng(0).integers(0, 255, (50, 8, 6)).astype(np.uint8)
    path = write(tmp_path / "a.npz", images)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda index: np.array(npz_array(path, "train_images")[index]), range(50)))
    assert np.array_equal(found, images)
    assert [file.name for file in cache.rglob("*") if file.is_file()] == ["train_images.npy"]


def test_one_image_does_not_take_the_memory_of_all(tmp_path):
    path = write(tmp_path / "a.npz", np.zeros((400, 128, 128), np.uint8))
    tracemalloc.start()
    np.array(npz_array(path, "train_images")[7])
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (
        isinstance(npz_array(path, "train_images"), np.memmap) and not npz_array(path, "train_images").flags.writeable
    )
    assert used < 4 * 2**20  # of 6.25: it is copied in blocks


def test_a_changed_file_is_unpacked_again(tmp_path):
    path = write(tmp_path / "a.npz", np.zeros((3, 4, 4), np.uint8))
    assert npz_array(path, "train_images").max() == 0
    write(path, np.ones((3, 4, 4), np.uint8))
    os.utime(path, ns=(1, 1))
    assert npz_array(path, "train_images").min() == 1


def test_damaged_files_and_missing_arrays_are_refused_by_name_and_leave_nothing_behind(tmp_path, cache):
    path = write(tmp_path / "a.npz", np.random.default_rng(0).integers(0, 255, (9, 30, 30)).astype(np.uint8))
    with pytest.raises(InputError, match="val_images in .*a.npz, found train_images, train_labels"):
        npz_array(path, "val_images")
    content = bytearray(path.read_bytes())
    content[3000] ^= 255
    (tmp_path / "flipped.npz").write_bytes(content)
    (tmp_path / "short.npz").write_bytes(content[:4000])
    (tmp_path / "text.npz").write_bytes(b"no archive")
    np.savez(tmp_path / "object.npz", train_images=np.array([{"a": 1}], dtype=object))
    for name in ("flipped", "short", "text", "object"):
        with pytest.raises(InputError, match=f"{name}.npz"):
            npz_array(tmp_path / f"{name}.npz", "train_images")
    assert {file.name for file in cache.rglob("*") if file.is_file()} <= {"train_images.npy"}


def test_a_full_disk_is_told_before_it_is_filled(tmp_path, monkeypatch):
    path = write(tmp_path / "a.npz", np.zeros((3, 4, 4), np.uint8))
    usage = numpy_files.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(numpy_files.shutil, "disk_usage", lambda where: usage._replace(free=10))
    with pytest.raises(InputError, match="a.npz takes .* XDG_CACHE_HOME"):
        npz_array(path, "train_images")
