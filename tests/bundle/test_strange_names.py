# SPDX-License-Identifier: Apache-2.0
"""A data set whose names act on terminals and spreadsheets, through every command."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dual_skd.cli.dispatch import main
from dual_skd.metrics.predictions import read_predictions

CLASSES = ['=HYPERLINK("http:evil","x")', "-", "a\x1b]0;pwn\x07\x1b[2J\nFORGED: all is well\x7f\x85\u202e"]
PATIENT = "@SUM(1)\x1b[31m\nFORGED\u2066"
FILE = "\x1b[2K\rFORGED\n{}.png"
ACTING = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


@pytest.fixture(scope="module")
def said() -> dict[str, str]:
    """What each command said."""
    return {}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("names") / "data"
    rng = np.random.default_rng(0)
    for k, name in enumerate(CLASSES):
        for n in range(12):
            folder = root / name / f"{PATIENT}{k}{n}"
            folder.mkdir(parents=True)
            values = rng.integers(0, 120, (24, 24)) + 60 * (np.arange(24) // 8 == k)
            Image.fromarray(values.astype(np.uint8)).save(folder / FILE.format(n))
    return root


@pytest.fixture
def command(capfd, data, tmp_path_factory, monkeypatch):
    """Runs a command, whose lines are those of the package alone."""
    monkeypatch.chdir(data.parent)

    def run(*words: object, code: int = 0) -> str:
        found = main([str(word) for word in words])
        shown = "".join(capfd.readouterr())
        assert found == code, shown
        assert not ACTING.search(shown), (words[0], ACTING.search(shown), shown)
        assert not [line for line in shown.split("\n") if line.lstrip().startswith("FORGED")], (words[0], shown)
        return shown

    return run


def cells_of(path: Path) -> list[str]:
    with path.open(newline="", encoding="utf-8") as file:
        return [cell for row in csv.reader(file) for cell in row]


def test_every_command_shows_and_keeps_such_names(command, data, tiny):
    files = {name: data.parent / name for name in ("clean.csv", "fix.csv", "found.json", "page.html")}
    broken = data / CLASSES[0] / (PATIENT + "00") / FILE.format("broken")
    broken.write_bytes(b"%PDF-1.7")
    shown = command(
        "check", data, "--clean-list", files["clean.csv"], "--fix-list", files["fix.csv"], "--json",
        files["found.json"], "--page", files["page.html"], code=1,
    )  # fmt: skip
    assert r"a\x1b]0;pwn\x07\x1b[2J\nFORGED: all is well\x7f\x85\u202e" in shown
    fixes = files["fix.csv"].read_text(encoding="utf-8")
    assert not ACTING.search(fixes.replace("\r\n", "\n")) and "\nFORGED" not in fixes
    broken.unlink()

    out = data.parent / "out"
    options = [f"--{name.replace('_', '-')}={value if isinstance(value, str) else json.dumps(value)}" for name, value
               in tiny.items() if name != "dataset_dir"]  # fmt: skip
    command("train", files["clean.csv"], "-o", out, *options, "--device", "cpu", "--num-workers", "0")
    classes = [record["label"] for record in json.loads((out / "datalist.json").read_text())["training"]]
    assert set(json.loads((out / "datalist.json").read_text())["labels"].values()) == set(CLASSES) and set(classes)
    command("evaluate", out, "--device", "cpu", "--num-workers", "0", "--no-report")
    table = read_predictions(out / "predictions_test.csv")
    assert set(table.class_names) == set(CLASSES) and set(table.columns["predicted"]) <= set(CLASSES)
    assert all(Path(image).is_file() for image in table.images)
    second = shutil.copytree(out, out.with_name("second"))
    command("compare", out, second)
    command("report", out, "--resamples", "50", "--no-speed")
    page = (out / "report" / "report.html").read_text(encoding="utf-8")
    assert "=HYPERLINK(&#34;http:evil&#34;" in page and "'=HYPERLINK" not in page and "&#39;=HYPERLINK" not in page
    answers = data.parent / "answers.csv"
    command("predict", data, "--model", out, "--csv", answers)
    images = sorted(data.rglob("*.png"))[:2]
    command("predict", *images, data / "none\x1b[2J", "--model", out, code=1)
    command("predict", *images, "--model", out, "--json")
    for path in (*out.rglob("*.csv"), answers, files["clean.csv"], files["fix.csv"]):
        risky = [cell for cell in cells_of(path) if re.match(r"[=+\-@\t\r](?!$)", cell)]
        assert not [cell for cell in risky if not re.fullmatch(r"-?[\d.]+(e-?\d+)?", cell)], (path, risky)


def test_errors_audit_and_select_show_such_names(command, data):
    command("train", data / "no\x1b[2J\nFORGED", "-o", "x", code=1)
    command("evaluate", data / CLASSES[2], code=1)
    command("\x1b[2J\nFORGED", code=2)
    with pytest.raises(SystemExit):
        command("train", "--\x1b[2J\nFORGED")
    bundle = data.parent / "bundle\x1b[2J\nFORGED"
    (bundle / "configs").mkdir(parents=True)
    (bundle / "configs" / "a\x1b[2J\nFORGED.json").write_text('{"\\u001b[2J\\nFORGED": "$print(1)"}')
    command("audit", bundle, code=1)
    command("select", "--large", data / "\x1b[2J\nFORGED.pt", "--small", "s.pt", "--out", "o.pt", code=1)
