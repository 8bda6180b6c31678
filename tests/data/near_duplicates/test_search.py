# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dual_skd.data.near_duplicates import search as searching
from dual_skd.data.near_duplicates import signature_cache
from dual_skd.data.near_duplicates.search import finder_if_wanted
from dual_skd.errors import InputError


@pytest.fixture
def images(tmp_path) -> list[str]:
    """Four pictures, of which the last is a copy of the first."""
    for number, seed in enumerate((0, 1, 2, 0)):
        coarse = np.random.default_rng(seed).integers(0, 256, (16, 16), dtype=np.uint8)
        Image.fromarray(coarse).resize((80, 80)).save(tmp_path / f"{number}.png")
    return [str(tmp_path / f"{number}.png") for number in range(4)]


def search(images: list[str], how: str, notes: list[str]):
    return finder_if_wanted(images, spatial_dims=2, search=how, command="`dual-skd check D`", notes=notes)


def test_many_images_are_searched_only_if_most_are_known_or_it_is_asked_for(images, monkeypatch, caplog):
    monkeypatch.setattr(searching, "AUTO_MAX_IMAGES", 2)
    monkeypatch.setattr(signature_cache, "count_stored", lambda images, spatial_dims: 1)
    notes: list[str] = []
    with caplog.at_level(logging.WARNING):
        assert search(images, "auto", notes) is None
    assert "4 images were not searched for copies" in notes[0] and "3 of them would have to be decoded" in notes[0]
    assert "`dual-skd check D`" in notes[0] and notes[0] in caplog.text
    assert search(images, "always", notes) is not None
    monkeypatch.setattr(signature_cache, "count_stored", lambda images, spatial_dims: 2)
    assert search(images, "auto", notes) is not None and len(notes) == 1


def test_a_search_that_is_not_wanted_is_told(images):
    notes: list[str] = []
    assert search(images, "never", notes) is None
    assert notes == ["4 images were not searched for copies across the splits (twin_search is never)"]


def test_an_image_that_can_not_be_read_ends_the_search(images, tmp_path):
    Path(images[1]).write_bytes(b"no picture")
    with pytest.raises(InputError, match="1.png"):
        search(images, "auto", [])
