# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import json

import numpy as np
from PIL import Image

from dual_skd.data import cli


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    return cli.main(parser.parse_args([str(argument) for argument in arguments]))


def write(root, split: str, label: str, seed: int) -> None:
    folder = root / split / label
    folder.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (16, 16), dtype=np.uint8)
    Image.fromarray(coarse).resize((80, 80)).save(folder / f"{seed}_{split}.png")


def test_a_clean_set_is_told_so_with_exit_code_0(tmp_path, capsys):
    for seed in range(8):
        write(tmp_path / "d", "train" if seed < 4 else "test", "ab"[seed % 2], seed)
    assert run(tmp_path / "d", "--json", tmp_path / "out" / "found.json") == 0
    assert "No errors found." in capsys.readouterr().out
    found = json.loads((tmp_path / "out" / "found.json").read_text())
    assert found["ok"] and found["counts"]["test"] == {"a": 2, "b": 2} and len(found["hash"]) == 64


def test_leakage_and_contradicting_labels_end_with_exit_code_1(tmp_path, capsys):
    for seed in range(8):
        write(tmp_path / "d", "train" if seed < 4 else "test", "ab"[seed % 2], seed)
    write(tmp_path / "d", "test", "b", 0)  # the picture stands in train as "a"
    assert run(tmp_path / "d", "--json", tmp_path / "found.json") == 1
    printed = capsys.readouterr().out
    assert "ERROR    1 test images have a twin in train (1 exact, 0 near copies)" in printed
    assert "ERROR    1 pairs of twins have different labels" in printed
    found = json.loads((tmp_path / "found.json").read_text())
    assert not found["ok"] and found["twins"][0]["twin"] == "train/a/0_train.png"


def test_a_path_that_is_not_there_is_one_sentence_with_exit_code_1(tmp_path, capsys):
    assert run(tmp_path / "nowhere", "--json", tmp_path / "found.json") == 1
    message = capsys.readouterr().err
    assert message.startswith("Error: The data set") and message.count("\n") == 1
    assert json.loads((tmp_path / "found.json").read_text())["errors"]
