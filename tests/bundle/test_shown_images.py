# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

import dual_skd
from dual_skd.api.shown_images import ShownImages
from dual_skd.data import image_transforms, load_records
from dual_skd.data.augment import AugmentBatch
from dual_skd.errors import InputError


def test_the_training_images_shown_are_those_of_the_first_step(run, tiny, tmp_path, monkeypatch):
    seen = []
    prepare = AugmentBatch.__call__
    monkeypatch.setattr(AugmentBatch, "__call__", lambda *given, **how: seen.append(prepare(*given, **how)) or seen[-1])
    run("train.json", output_dir=str(tmp_path / "run"), seed=3, **tiny)
    images, labels = seen[0]
    before = torch.get_rng_state()

    shown = dual_skd.show_batch(**tiny, seed=3, count=5)

    assert torch.equal(shown.images, images[:5]) and shown.images.shape == (5, 1, 32, 32)
    assert shown.titles == [("interstitial", "nodule", "normal")[label] for label in labels[:5]]
    assert torch.equal(torch.get_rng_state(), before)
    more = dual_skd.show_batch(**tiny, seed=3, count=50)
    assert torch.equal(more.images[:8], images) and len(more.images) == len(more.titles) == 24
    assert not torch.equal(dual_skd.show_batch(**tiny, seed=4, count=5).images, images[:5])


def test_images_of_another_split_are_spread_over_it_and_unchanged(demo):
    shown = dual_skd.show_batch(demo, split="test", count=3, image_size=[40, 32], window="zscore", keep_twins=True)
    records = load_records(demo, keep_twins=True).test
    transform = image_transforms(image_size=[40, 32], window="zscore", fit="pad")
    expected = [transform({"image": records[place]["image"]})["image"] for place in (0, 4, 8)]
    assert torch.equal(shown.images, torch.stack(expected))
    assert repr(shown).startswith("3 images of 40 x 32 pixels, values from -")


def test_pictures_are_the_values_from_black_to_white():
    images = torch.tensor([-1.0, 0.0, 1.0, 0.5]).reshape(1, 1, 2, 2)
    assert ShownImages(images, ["a"]).pictures()[0].tolist() == [[0, 128], [255, 191]]
    assert ShownImages(3 * images, ["a"]).pictures()[0].tolist() == [[0, 128], [255, 191]]
    html = ShownImages(torch.cat([images, -images]), ["<a>", "b"])._repr_html_()
    found = [Image.open(io.BytesIO(base64.b64decode(one))) for one in re.findall(r"base64,([^\"]*)", html)]
    assert [np.asarray(one).tolist() for one in found] == [[[0, 128], [255, 191]], [[255, 128], [0, 64]]]
    assert "&lt;a&gt;" in html and "<a>" not in html


def test_of_volumes_the_middle_slices_stand_upright():
    volume = torch.full((4, 6, 2), -1.0)
    volume[3, 5, 1] = 1.0  # right, front, head
    volume[2, 3, 1] = 0.0  # the middle of all slices
    volume[2, 5, 1] = volume[3, 3, 1] = 0.6
    (picture,) = ShownImages(volume[None, None], [""]).pictures()
    assert picture.shape == (6, 4 + 4 + 6)
    axial, coronal, sagittal = picture[:, :4], picture[:2, 4:8], picture[:2, 8:]
    assert axial[0, 0] == 255 and axial[0, 1] == axial[2, 0] == 204 and axial[2, 1] == 128
    assert coronal[0, :2].tolist() == [204, 128] and sagittal[0, :3].tolist() == [204, 0, 128]
    assert picture[2:, 4:].max() == 0


def test_what_cannot_be_shown_is_said_in_a_sentence(demo, tmp_path):
    with pytest.raises(InputError, match=r"^Unknown split 'tset' \(did you mean test\?\); valid: train, val, test\.$"):
        dual_skd.show_batch(demo, split="tset")
    with pytest.raises(InputError, match="count is 0; expected"):
        dual_skd.show_batch(demo, count=0)
    with pytest.raises(InputError, match=r"Unknown option image_sise \(did you mean image_size\?"):
        dual_skd.show_batch(demo, image_sise=96)
    for label in "ab":
        (tmp_path / label).mkdir()
        for place in range(2):
            noise = np.random.default_rng(place + 2 * (label == "b")).integers(0, 255, (9, 9), np.uint8)
            Image.fromarray(noise).save(tmp_path / label / f"{place}.png")
    with pytest.raises(InputError, match="has no val images; choose another split"):
        dual_skd.show_batch(tmp_path, split="val", val_fraction=0.0)
