# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image

from dual_skd.cli.dispatch import main
from dual_skd.serving.predictor import predict
from dual_skd.utils.files import DRAFT_SUFFIX


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "folder").mkdir()
    for name in ("a.png", "folder/b.png", "folder/c.png"):
        Image.fromarray(rng.integers(0, 255, (20, 20), dtype=np.uint8)).save(tmp_path / name)
    return [str(tmp_path / name) for name in ("a.png", "folder/b.png", "folder/c.png")]


def test_a_line_per_image_and_folders_are_searched(make_model, files, tmp_path, capsys):
    path = make_model()
    assert main(["predict", files[0], str(tmp_path / "folder"), "--model", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    for line, found in zip(lines, predict(files, model=path), strict=True):
        assert line.startswith(f"{found.image}: {found.label} (ill {found.probabilities['ill']:.3f}, well ")
        assert f"uncertainty {found.uncertainty:.3f}" in line


def test_without_a_model_nothing_is_said_of_a_patient(files, capsys):
    assert main(["predict", files[0]]) != 0
    said = capsys.readouterr()
    assert not said.out and "knows no patients" in said.err and "--model demo" in said.err
    assert main(["predict", files[0], "--model", "demo"]) == 0
    assert "interstitial" in capsys.readouterr().out


@pytest.mark.parametrize("frame, found", [("all", [0, 1, 2]), ("middle", [1]), (2, [2])])
def test_of_files_with_several_frames_those_the_model_was_trained_on_are_taken(
    make_model, tmp_path, capsys, frame, found
):
    pages = [Image.fromarray(values) for values in np.random.default_rng(0).integers(0, 255, (3, 20, 20), np.uint8)]
    pages[0].save(tmp_path / "cine.tif", save_all=True, append_images=pages[1:])
    for number in found:
        pages[number].save(tmp_path / f"{number}.png")
    assert main(["predict", str(tmp_path / "cine.tif"), "--json", "--model", str(make_model(frame=frame))]) == 0
    answers = [json.loads(line)["probabilities"] for line in capsys.readouterr().out.splitlines()]
    wanted = predict([tmp_path / f"{number}.png" for number in found], model=make_model())
    for answer, of_page in zip(answers, wanted, strict=True):
        assert answer == pytest.approx(of_page.probabilities)


def test_json_has_all_fields_and_a_bad_file_is_named_and_ends_with_1(make_model, files, tmp_path, capsys):
    (tmp_path / "folder" / "c.png").write_bytes(b"cut")
    assert main(["predict", *files, "--json", "--model", str(make_model())]) == 1
    first, _, bad = map(json.loads, capsys.readouterr().out.splitlines())
    assert sum(first["probabilities"].values()) == pytest.approx(1) and first["problem"] == ""
    assert bad["image"] == files[2] and "c.png can't be read" in bad["problem"] and bad["label"] == ""
    assert main(["predict", files[2], "--model", str(make_model())]) == 1
    assert "not used: " in capsys.readouterr().out


def test_a_path_that_does_not_exist_is_one_sentence_and_the_others_are_answered(make_model, files, tmp_path, capsys):
    missing = str(tmp_path / "nothing.png")
    assert main(["predict", files[0], missing, files[1], "--model", str(make_model())]) == 1
    lines = sorted(capsys.readouterr().out.splitlines())
    assert [line.split(":")[0] for line in lines] == sorted([files[0], missing, files[1]])
    (of_missing,) = [line for line in lines if line.startswith(missing)]
    assert "not used: " in of_missing and "does not exist" in of_missing


def test_an_image_of_another_kind_than_training_had_is_a_line_that_says_why(make_model, files, capsys):
    expected = {"hounsfield": True, "images": 24}
    words = ["predict", files[0], "--model", str(make_model(window=[40.0, 400.0], expected=expected))]
    assert main(words) == 1
    assert "a.png: not used: " in (said := capsys.readouterr().out) and "aren't Hounsfield units" in said
    assert main([*words, "--unexpected-input", "accept"]) == 0
    assert "uncertainty" in capsys.readouterr().out


def test_a_table_is_that_of_inference_and_counts_what_cannot_be_used(make_model, files, tmp_path, capsys):
    (tmp_path / "folder" / "c.png").write_bytes(b"cut")
    path = make_model()
    assert main(["predict", *files, "--csv", str(tmp_path / "t" / "a.csv"), "--model", str(path)]) == 1
    said = capsys.readouterr().out
    assert said.startswith(f"Predicted: {tmp_path / 't' / 'a.csv'}\n") and "3, 2 answered, 1 not" in said
    with (tmp_path / "t" / "a.csv").open(newline="") as file:
        first, _, bad = csv.DictReader(file)
    assert float(first["p_ill"]) == pytest.approx(predict(files[0], model=path).probabilities["ill"], rel=1e-6)
    assert bad["predicted"] == "" and "c.png can't be read" in bad["problem"]


def test_a_table_does_not_take_the_place_of_an_image_or_the_model(make_model, files, tmp_path, capsys):
    path = make_model()
    (tmp_path / "list.csv").write_text(f"image\n{files[0]}\n")
    (tmp_path / "link.csv").symlink_to(files[1])
    for taken, whose in ((files[1], "images"), (path, "model"), ("list.csv", "images"), ("link.csv", "images")):
        before = (tmp_path / taken).read_bytes()
        asked = [*files[:2], str(tmp_path / "list.csv")]
        assert main(["predict", *asked, "--csv", str(tmp_path / taken), "--model", str(path)]) == 1
        assert f"{taken} belongs to the {whose}, and would be written over" in capsys.readouterr().err
        assert (tmp_path / taken).read_bytes() == before
    assert not list(tmp_path.rglob(f"*{DRAFT_SUFFIX}"))
