# SPDX-License-Identifier: Apache-2.0
"""The pictures of the benchmark are those of the numbers beside them, and name everything in words."""

from __future__ import annotations

import re

import numpy as np
import pytest

from scripts import ROOT
from scripts.benchmark import pictures
from scripts.benchmark.names import DATA, ROWS
from scripts.benchmark.plan import PLAN, RESULTS, read_plan
from scripts.benchmark.results import Results
from scripts.benchmark.tables import headline

PAGE = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
PICTURES = sorted(RESULTS.glob("*.svg"))


@pytest.fixture(scope="module")
def results():
    return Results(RESULTS, read_plan(PLAN))


def test_every_row_and_data_set_has_a_name_in_words(results):
    rows = results.plan["rows"].keys() | {line["row"] for line in results.lines}
    assert rows <= ROWS.keys()
    assert {results.whole(data) for data in results.plan["data"]} <= DATA.keys()
    assert len(set(ROWS.values())) == len(ROWS)


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.stem)
def test_a_picture_is_that_of_the_numbers_beside_it(results, picture):
    text = picture.read_text(encoding="utf-8")
    again = "python -m scripts.benchmark.report makes tables and pictures anew"
    assert pictures.digest(results) in text, again
    assert not re.search(r"/(tmp|home|root|work)/|<dc:date>|20\d\d-\d\d-\d\d", text)
    shown = " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", text))
    assert not [row for row in results.plan["rows"] if "_" in row and row in shown]
    assert "better" in shown and len(text) < 200_000


def test_tables_are_those_of_the_numbers_beside_them(results):
    text = (RESULTS / "tables.md").read_text(encoding="utf-8")
    assert results.digest() in text, "python -m scripts.benchmark.report makes tables and pictures anew"


def test_the_pages_show_every_picture_once_and_no_other():
    details = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    shown = re.findall(r"\]\(results/(\w+)\.svg\)", PAGE + details)
    assert sorted(shown) == [path.stem for path in PICTURES]
    assert set(pictures.FORESTS) <= set(shown)


def test_the_pages_have_the_table_of_the_numbers(results):
    text = "\n".join(headline(results))
    assert text in PAGE and text.count("\n") == 1 + len(results.plan["headline"])
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text in readme or "<!-- results -->" not in readme


def test_a_digest_tells_other_numbers(results, tmp_path):
    def of(line: str) -> str:
        (tmp_path / "benchmark.csv").write_text(line)
        return Results(tmp_path, results.plan).digest()

    first = of("a")
    assert of("b") != first == of("a")
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions" / "x.npz").write_bytes(b"0")
    assert of("a") != first


def test_a_picture_is_written_alike_twice_with_its_colours_for_a_dark_page(results):
    pytest.importorskip("matplotlib")
    pair = ("brain_mri", 0.1, "coupled", "single")  # of ten seeds, so that more of them change nothing
    with pictures._style():
        one, two = (pictures._svg(pictures.forest(results, "Title", [pair]), "x") for _ in range(2))
        assert pictures.forest(results, "Title", [("brain_mri_224", 0.1, "frozen", "single")]) is None
    assert one == two and "Brain MRI, 219 images (10 seeds)" in one
    used = set(re.findall(r"(?:fill|stroke): (#\w{6})", one.split("</style>", 1)[1]))
    assert {pictures.INK, pictures.BETTER} <= used <= pictures.DARK.keys()
    for light, dark in pictures.DARK.items():
        assert f'[style*="fill: {light}"]{{fill:{dark}!important}}' in one


def test_the_side_of_better_is_the_right_one(results):
    pytest.importorskip("matplotlib")
    with pictures._style():
        figure = pictures.forest(results, "Title", [("brain_mri", 0.1, "coupled", "single")])
    limits = {axis.get_title(): axis.get_xlim() for axis in figure.axes}
    assert np.diff(limits["AUC"]) > 0 > np.diff(limits["NLL"])
    assert limits["AUC"] == limits["balanced accuracy"] and limits["NLL"] == limits["NLL, calibrated"]


def test_the_times_of_the_runtimes_are_those_of_the_page(tmp_path):
    times = dict(pictures.read_runtimes())
    assert times["large network, PyTorch"][0] > times["student, ONNX"][0] > times["student, ONNX, int8"][0]
    (tmp_path / "page.md").write_text("no table")
    with pytest.raises(pictures.InputError, match="has no table that begins with 'batch 1, 1 thread'"):
        pictures.read_runtimes(tmp_path / "page.md")
