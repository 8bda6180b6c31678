# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import numpy as np
from PIL import Image

from scripts.benchmark.probes import fit


def test_pictures_are_cut_to_shapes_between_the_limits_out_of_what_they_show(tmp_path):
    rows, columns = np.mgrid[:60, :60]
    picture = np.stack([rows, columns, 0 * rows], axis=-1).astype(np.uint8)
    for place in range(30):
        (tmp_path / "in" / "ab"[place % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "in" / "ab"[place % 2] / f"{place}.png")
    fit.cut_copies(tmp_path / "in", tmp_path / "out", 0.5)
    copies = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "out").rglob("*.png"))]
    ratios = [copy.shape[1] / copy.shape[0] for copy in copies]
    assert len(copies) == 30 and 0.5 <= min(ratios) < 0.7 and 1.4 < max(ratios) <= 2
    for copy in copies:
        top, left = copy[0, 0, :2]
        assert 60 in copy.shape[:2]
        assert np.array_equal(copy, picture[top : top + copy.shape[0], left : left + copy.shape[1]])


def test_finished_runs_are_read_and_their_mean_is_printed(tmp_path, capsys):
    for way, value in zip(fit.FITS, (0.5, 0.7, 0.6), strict=True):
        for seed in (0, 1):
            out = tmp_path / f"set_{way}_{seed}"
            out.mkdir()
            student = dict.fromkeys(fit.METRICS, value + 0.2 * seed)
            (out / "metrics.json").write_text(json.dumps({"final": {"student": student}}))
    fit.main(["set", "--work", str(tmp_path), "--seeds", "2"])
    assert "| pad | 0.800 ± 0.141 | 0.800 ± 0.141 | 0.800 ± 0.141 |" in capsys.readouterr().out
