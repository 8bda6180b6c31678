# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from dicom_files import write_dicom
from PIL import Image

import dual_skd
from dual_skd.cli.dispatch import main
from dual_skd.data import load_records, save_split
from dual_skd.errors import InputError

STUDY = "1.2.826.0.1.3680043.8.498.7"


def picture(path: Path, seed: int, shift: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 200, (16, 16), dtype=np.uint8) + np.uint8(shift)
    Image.fromarray(coarse).resize((64, 64)).save(path)
    return path


@pytest.fixture
def run(tmp_path, make_model) -> Path:
    """The folder of a run with student and auxiliary, whose patients are p0 to p7."""
    rows = ["image,label,split,patient"]
    for k in range(8):
        picture(tmp_path / "data" / f"{k}.png", k)
        rows.append(f"{k}.png,{('ill', 'well')[k % 2]},{('train', 'train', 'val', 'test')[k // 2]},p{k}")
    (tmp_path / "data" / "list.csv").write_text("\n".join(rows))
    folder = tmp_path / "run"
    save_split(load_records(tmp_path / "data" / "list.csv"), folder / "datalist.json")
    make_model(0, folder / "models")
    other = make_model(1, tmp_path / "other")
    shutil.copy(other, folder / "models" / "auxiliary.pt")
    return folder


@pytest.fixture
def new(tmp_path) -> Path:
    """Six images without labels, of two of which there is a copy, and what must not be suggested."""
    folder = tmp_path / "new"
    for k in range(6):
        picture(folder / f"u{k}.png", 100 + k)
    picture(folder / "u0_copy.png", 100)
    picture(folder / "u1_brighter.png", 101, shift=20)
    shutil.copy(tmp_path / "data" / "0.png", folder / "of_training.png")
    shutil.copy(tmp_path / "data" / "7.png", folder / "of_test.png")
    (folder / "bad.png").write_text("no picture")
    return folder


def names(found) -> list[str]:
    return [Path(row["image"]).name for row in found.suggestions]


def test_no_copy_and_no_image_of_the_run_is_suggested(run, new):
    found = dual_skd.suggest(run, unlabelled=new)
    chosen = {name.split("_")[0].removesuffix(".png") for name in names(found)}
    assert chosen == {f"u{k}" for k in range(6)} and len(found.suggestions) == 6
    assert [row["rank"] for row in found.suggestions] == list("123456")
    assert list(found.problems) == [str(new / "bad.png")] and "can't be read" in found.problems[str(new / "bad.png")]
    assert "2 images were left out because of a twin among the images that have labels" in " ".join(repr(found).split())
    assert "4 images have a near-duplicate among the others; of such, one is chosen" in " ".join(repr(found).split())


def test_the_table_holds_what_predict_says(run, new):
    found = dual_skd.suggest(run, unlabelled=new, strategy="disagreement", number=3)
    assert list(found.suggestions[0]) == [
        "rank", "image", "patient", "images", "score", "disagreement", "uncertainty", "predicted", "p_ill", "p_well",
        "nearest",
    ]  # fmt: skip
    said = {one.image: one for one in dual_skd.predict([row["image"] for row in found.suggestions], model=run)}
    for row in found.suggestions:
        one = said[row["image"]]
        assert float(row["p_ill"]) == pytest.approx(one.probabilities["ill"], abs=1e-5)
        assert float(row["disagreement"]) == pytest.approx(one.disagreement, abs=1e-5)
        assert row["predicted"] == one.label
    scores = [float(row["score"]) for row in found.suggestions]
    assert scores == sorted(scores, reverse=True)
    rest = dual_skd.predict([str(path) for path in sorted(new.glob("u?.png"))], model=run)
    assert scores[0] == pytest.approx(max(one.disagreement for one in rest), abs=1e-4)


def test_the_worklist_names_files_and_dicom_studies(run, new, tmp_path):
    values = np.random.default_rng(9).integers(0, 4000, (64, 64)).astype(np.uint16)
    tags = {"Modality": "MR", "PatientID": "q1", "StudyInstanceUID": STUDY, "AccessionNumber": "A17"}
    write_dicom(new / "scan.dcm", values, **tags)
    found = dual_skd.suggest(run, unlabelled=new, unexpected_input="accept")
    assert found.worklist.read_text().splitlines() == [row["image"] for row in found.suggestions]
    with found.studies.open() as file:
        (row,) = csv.DictReader(file)
    place = 1 + names(found).index("scan.dcm")
    assert row == {"rank": str(place), "StudyInstanceUID": STUDY, "AccessionNumber": "A17", "PatientID": "q1",
                   "image": str(new / "scan.dcm")}  # fmt: skip
    (new / "scan.dcm").unlink()
    assert dual_skd.suggest(run, unlabelled=new).studies is None


def test_of_patients_all_images_are_in_the_worklist_and_those_of_test_patients_in_none(run, new):
    table = new / "table.csv"
    patients = {"u0": "q0", "u1": "q0", "u2": "q1", "u3": "", "u4": "p7", "u5": "p0"}  # p7 is tested on
    table.write_text("image,patient\n" + "".join(f"{name}.png,{who}\n" for name, who in patients.items()))
    found = dual_skd.suggest(run, unlabelled=table, per="patient")
    assert sorted(row["patient"] for row in found.suggestions) == ["", "p0", "q0", "q1"]
    assert {row["patient"]: row["images"] for row in found.suggestions}["q0"] == "2"
    assert len(found.worklist.read_text().splitlines()) == 5
    assert "1 image without a label was left out, as 1 patient of them (for example p7)" in " ".join(
        repr(found).split()
    )


def test_the_pattern_of_the_run_names_the_patients_of_a_strange_folder(run, new):
    (run / "run.json").write_text(json.dumps({"config": {"patient_pattern": r"(p\d)_"}}))
    for k, name in enumerate(("p7_x", "p0_x", "p9_x", "p9_y")):  # p7 is tested on
        picture(new.parent / "more" / f"{name}.png", 200 + k)
    found = dual_skd.suggest(run, unlabelled=new.parent / "more", per="patient")
    assert {row["patient"]: row["images"] for row in found.suggestions} == {"p0": "1", "p9": "2"}


def test_a_given_pattern_names_the_patients_of_a_run_that_knows_none(run, new):
    split = (run / "datalist.json").read_text()
    for k in range(8):
        split = split.replace(f'"p{k}"', '""').replace(f"{k}.png", f"p{k}_0.png")
        picture(new.parent / "data" / f"p{k}_0.png", k)
    (run / "datalist.json").write_text(split)
    for k, name in enumerate(("p7_x", "p0_x")):
        picture(new.parent / "more" / f"{name}.png", 200 + k)
    assert len(dual_skd.suggest(run, unlabelled=new.parent / "more").suggestions) == 2
    assert names(dual_skd.suggest(run, unlabelled=new.parent / "more", patient_pattern=r"(p\d)_")) == ["p0_x.png"]


def test_the_page_shows_each_image_and_no_folder_above_it(run, new, tmp_path):
    page = dual_skd.suggest(run, unlabelled=new, number=4).page.read_text()
    assert page.count("<img ") == 4 and page.count("data:image/jpeg") == 4
    assert str(tmp_path) not in page and "label what you see" in page and "<script" not in page


def test_volumes_are_suggested_too(tmp_path, make_model):
    nib = pytest.importorskip("nibabel")
    rng = np.random.default_rng(0)
    for k in range(7):
        place = tmp_path / ("new" if k > 3 else "data") / f"{k}.nii.gz"
        place.parent.mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(rng.random((20, 20, 20), np.float32), np.eye(4)), place)
    rows = [f"{k}.nii.gz,{('ill', 'well')[k % 2]},{('train', 'test')[k // 2]}" for k in range(4)]
    (tmp_path / "data" / "list.csv").write_text("\n".join(["image,label,split", *rows]))
    data = load_records(tmp_path / "data" / "list.csv", spatial_dims=3, val_fraction=0.0)
    save_split(data, tmp_path / "run" / "datalist.json")
    make_model(0, tmp_path / "run" / "models", spatial_dims=3)
    found = dual_skd.suggest(tmp_path / "run", unlabelled=tmp_path / "new")
    assert sorted(names(found)) == ["4.nii.gz", "5.nii.gz", "6.nii.gz"]
    assert all(row["disagreement"] == "" for row in found.suggestions)  # there is no second network
    assert 'class="wide"' in found.page.read_text()


def test_the_images_without_labels_of_the_run_are_taken_where_no_others_are_given(run, new):
    split = json.loads((run / "datalist.json").read_text())
    split["unlabelled"] = [{"image": str(new / f"u{k}.png"), "patient": f"q{k}"} for k in (4, 5)]
    (run / "datalist.json").write_text(json.dumps(split))
    assert sorted(names(dual_skd.suggest(run))) == ["u4.png", "u5.png"]
    (new / "one").mkdir()
    (new / "u2.png").rename(new / "one" / "u2.png")
    assert names(dual_skd.suggest(run, unlabelled=new / "one")) == ["u2.png"]


def test_the_command_says_where_everything_is(run, new, capsys):
    assert main(["suggest", str(run), "--unlabelled", str(new), "--number", "2"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "2 images of 8, by badge" in said and "suggestions.html" in said and "worklist.txt" in said
    record = json.loads((run / "suggestions" / "suggestions.json").read_text())
    assert record["strategy"] == "badge" and record["candidates"] == 8


@pytest.mark.parametrize(
    "words, said",
    [
        (["--unlabelled", "nowhere"], "does not exist"),
        ([], "has no images without labels; give the folder of some as unlabelled"),
        (["--unlabelled", "new", "--strategy", "bald"], "Unknown strategy 'bald'"),
        (["--unlabelled", "new", "--per", "patient"], "no image without a label has a known patient"),
        (["--unlabelled", "data"], "Each image without a label is a training, validation or test image"),
        (["--unlabelled", "broken"], "None of 1 image can be used"),
        (["--unlabelled", "copies"], "Every image of copies that can be used has a near duplicate"),
    ],
)
def test_what_is_wrong_is_one_sentence(run, new, tmp_path, capsys, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "copies").mkdir()
    shutil.copy(new / "bad.png", tmp_path / "broken" / "bad.png")
    shutil.copy(new / "of_training.png", tmp_path / "copies" / "one.png")
    assert main(["suggest", str(run), *words]) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") <= 2, error


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    assert main(["suggest", str(tmp_path / "nothing"), "--unlabelled", str(tmp_path)]) == 1
    assert "There is no folder" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"There is no .*suggestions\.csv; `dual-skd suggest OUT"):
        dual_skd.SuggestionResult(tmp_path)
