# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from full_disk import fill_disk, needs_full
from monai.data import DataLoader, Dataset
from PIL import Image

from dual_skd.data import cache as caching
from dual_skd.data.cache import DiskCache, MemoryCache, cached_dataset, free_memory, loader_workers
from dual_skd.data.reading.preprocessing import image_transforms
from dual_skd.errors import InputError, input_error_behind, sentence_of

SETTINGS = {"spatial_dims": 2, "image_size": 8, "window": "percentile"}


@pytest.fixture
def records(tmp_path) -> list[dict]:
    found = []
    for place in range(20):
        Image.fromarray(np.random.default_rng(place).integers(0, 256, (16, 16), dtype=np.uint8)).save(
            tmp_path / f"{place}.png"
        )
        found.append({"image": str(tmp_path / f"{place}.png"), "label": place % 2, "patient": ""})
    return found


def build(records, tmp_path, **options):
    options = {"cache_dir": tmp_path / "cache", "settings": SETTINGS} | options
    return cached_dataset(records, image_transforms(2, 8, with_label=True), **options)


def test_few_images_are_kept_in_memory(records, tmp_path):
    dataset = build(records, tmp_path)
    assert type(dataset) is MemoryCache and loader_workers(dataset, 3) == 0
    Path(records[0]["image"]).unlink()
    assert dataset[0]["image"].shape == (1, 8, 8) and dataset[3]["label"] == 1


def test_images_that_do_not_fit_are_kept_on_disk_and_read_once(records, tmp_path, monkeypatch):
    monkeypatch.setattr(caching, "free_memory", lambda: 2 * 20 * 8 * 8 * 4 - 1)  # one byte less than they need
    dataset = build(records, tmp_path)
    assert type(dataset) is DiskCache and loader_workers(dataset, 3) == 3
    before = dataset[6]["image"]
    stored = Path(records[6]["image"])
    content = stored.read_bytes()
    state = stored.stat()
    stored.write_bytes(content[:-20] + bytes(20))  # another content under the same name, size and time
    os.utime(stored, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert np.array_equal(build(records, tmp_path)[6]["image"], before)


@pytest.mark.parametrize("left", [0, 10, 500])
def test_what_a_killed_process_left_half_written_is_read_anew(records, tmp_path, left):
    wanted = build(records, tmp_path, cache="disk")[0]["image"]
    (stored,) = (tmp_path / "cache").rglob("*.pt")
    whole = stored.read_bytes()
    stored.write_bytes(whole[:left])
    assert np.array_equal(build(records, tmp_path, cache="disk")[0]["image"], wanted)
    assert len(stored.read_bytes()) == len(whole)
    Path(records[1]["image"]).write_bytes(b"no image")
    with pytest.raises(Exception) as caught:
        build(records, tmp_path, cache="disk")[1]
    assert "1.png" in str(input_error_behind(caught.value))


def test_memory_one_byte_larger_is_enough(records, tmp_path, monkeypatch):
    label = 8  # bytes of the label's tensor
    monkeypatch.setattr(caching, "free_memory", lambda: 2 * 20 * (8 * 8 * 4 + label))
    assert type(build(records, tmp_path)) is MemoryCache


def test_reading_that_would_take_long_goes_to_disk_at_once(records, tmp_path, monkeypatch):
    monkeypatch.setattr(caching, "MAX_READING_SECONDS", 0.0)
    assert type(build(records, tmp_path)) is DiskCache


def test_a_changed_file_or_setting_is_read_anew(records, tmp_path):
    first = build(records, tmp_path, cache="disk")[0]["image"]
    other = cached_dataset(
        records,
        image_transforms(2, 4, with_label=True),
        cache="disk",
        cache_dir=tmp_path / "cache",
        settings=SETTINGS | {"image_size": 4},
    )
    assert other[0]["image"].shape == (1, 4, 4)
    Image.fromarray(np.zeros((16, 20), np.uint8)).save(records[0]["image"])
    assert not np.array_equal(build(records, tmp_path, cache="disk")[0]["image"], first)


def test_each_kind_can_be_asked_for(records, tmp_path):
    kinds = {"memory": MemoryCache, "disk": DiskCache, "none": Dataset}
    for name, kind in kinds.items():
        dataset = build(records, tmp_path, cache=name)
        assert type(dataset) is kind and len(dataset) == 20 and dataset[1]["image"].shape == (1, 8, 8)
    with pytest.raises(InputError, match="use one of auto, memory, disk, none"):
        build(records, tmp_path, cache="ram")
    assert len(build([], tmp_path)) == 0


def test_a_damaged_file_is_named(records, tmp_path):
    path = Path(records[0]["image"])
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(Exception) as caught:
        build(records, tmp_path)
    assert str(path) in str(input_error_behind(caught.value))


def test_the_free_memory_is_that_of_this_machine():
    assert 10**7 < free_memory() < 10**14


def test_the_size_of_all_images_is_guessed_from_the_last_of_them_too(records, tmp_path, monkeypatch):
    seen = []
    transform = image_transforms(2, 8, with_label=True)
    images = records[:15]  # of which every first would be the first eight
    monkeypatch.setattr(caching, "free_memory", lambda: 0)
    cached_dataset(
        images, lambda record: seen.append(record["image"]) or transform(record), cache_dir=tmp_path, settings=SETTINGS
    )
    assert len(seen) == 8 and seen[0] == images[0]["image"] and seen[-1] == images[14]["image"]


@pytest.mark.parametrize("content", [b"hello", b"", bytes(900), "hello", {"label": 1}, {"image": "hello"}])
def test_a_file_that_holds_no_image_is_read_anew(records, tmp_path, content, caplog):
    wanted = build(records, tmp_path, cache="disk")[0]["image"]
    (stored,) = (tmp_path / "cache").rglob("*.pt")
    stored.write_bytes(content) if isinstance(content, bytes) else torch.save(content, stored)
    for warnings in (1, 1):  # it is written anew as well
        assert np.array_equal(build(records, tmp_path, cache="disk")[0]["image"], wanted)
        assert caplog.text.count("is damaged; the image is read again") == warnings


def test_a_flipped_byte_is_read_anew(records, tmp_path, caplog):
    wanted = build(records, tmp_path, cache="disk")[0]
    (stored,) = (tmp_path / "cache").rglob("*.pt")
    whole = stored.read_bytes()
    values = whole.index(wanted["image"].numpy().tobytes())  # where torch.load alone would see another image
    stored.write_bytes(whole[:values] + bytes([whole[values] ^ 255]) + whole[values + 1 :])
    caplog.clear()
    assert np.array_equal(build(records, tmp_path, cache="disk")[0]["image"], wanted["image"])
    assert "is damaged" in caplog.text


@pytest.mark.skipif(os.name != "posix", reason="permissions are others elsewhere")
def test_nobody_else_may_read_pictures_of_patients(records, tmp_path):
    former = os.umask(0)
    try:
        build(records, tmp_path, cache="disk")[0]
    finally:
        os.umask(former)
    (stored,) = (tmp_path / "cache").rglob("*.pt")
    modes = [path.stat().st_mode & 0o777 for path in (stored, stored.parent, stored.parent.parent)]
    assert modes == [0o600, 0o700, 0o700] and os.listdir(stored.parent) == [stored.name]


@needs_full
def test_a_full_disk_is_one_sentence(records, tmp_path, monkeypatch):
    dataset = build(records[:1], tmp_path, cache="disk")
    fill_disk(monkeypatch)
    for read in (lambda: dataset[0], lambda: next(iter(DataLoader(dataset, num_workers=1)))):
        with pytest.raises(Exception) as caught:
            read()
        sentence = sentence_of(caught.value)
        assert sentence and "can't be written" in sentence and "\n" not in sentence
        assert not list((tmp_path / "cache").rglob("*.*"))
