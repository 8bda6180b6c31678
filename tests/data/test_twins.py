# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from dual_skd.data.demo import chest_xray, head_volume
from dual_skd.data.twins import TwinFinder


def save_xray(path: Path, seed: int) -> str:
    """Saves a generated X-ray and returns its path."""
    Image.fromarray((chest_xray("normal", anatomy_seed=seed) // 16).astype(np.uint8)).save(path)
    return str(path)


def test_records_with_a_twin_are_left_out_and_say_of_which(tmp_path):
    known = [{"image": save_xray(tmp_path / f"known{seed}.png", seed)} for seed in (1, 2)]
    copy, other, small = (
        {"image": save_xray(tmp_path / name, seed), "label": 0}
        for name, seed in (("copy.png", 2), ("other.png", 3), ("small.png", 1))
    )
    Image.open(small["image"]).resize((100, 100)).save(small["image"])
    finder = TwinFinder([record["image"] for record in [*known, copy, other, small]])
    kept, left_out = finder.drop_twins([copy, other, small], known)
    assert kept == [other]
    assert left_out[0] == {**copy, "twin": known[1]["image"], "similarity": 1.0, "exact": True}
    assert left_out[1]["twin"] == known[0]["image"] and not left_out[1]["exact"] and left_out[1]["similarity"] < 1


def test_volumes_have_twins_too(tmp_path):
    paths = []
    for index, volume in enumerate([head_volume("normal", anatomy_seed=s) for s in (1, 2, 3, 1)]):
        paths.append(str(tmp_path / f"{index}.npy"))
        noise = np.random.default_rng(0).normal(0, 5, volume.shape) if index == 3 else 0
        np.save(paths[-1], (volume + noise).astype(np.float32))
    twins = TwinFinder(paths, spatial_dims=3).twins(paths, paths)
    assert [(t.image, t.twin, t.exact) for t in twins] == [(paths[0], paths[3], False)]
    assert "3 spatial axes where 2" in next(iter(TwinFinder(paths[:1]).unreadable.values()))
