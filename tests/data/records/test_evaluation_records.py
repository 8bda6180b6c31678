# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from dicom_files import write_ct
from PIL import Image

from dual_skd.data import find_images, load_evaluation_records, load_records, paths_of, save_split, write_demo
from dual_skd.data.reading.reader import read_image
from dual_skd.errors import InputError

NAMES = ("a", "b")


def picture(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (16, 16), dtype=np.uint8)
    Image.fromarray(coarse).resize((80, 80)).save(path)
    return path


def folders(root: Path, seeds: range) -> Path:
    """A folder per class, without splits; the patient is the number in the name."""
    for seed in seeds:
        picture(root / NAMES[seed % 2] / f"person{seed}_1.png", seed)
    return root


def table(path: Path, entries: list[tuple]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "label", "split", "patient"])
        writer.writerows(entries)
    return path


@pytest.fixture
def run(tmp_path) -> Path:
    """datalist.json of a run that was trained on 20 images of the folder ``own``."""
    own = folders(tmp_path / "own", range(20))
    return save_split(load_records(own, patient_pattern=r"person(\d+)"), tmp_path / "run" / "datalist.json")


def evaluated(run: Path, dataset_dir=None, **options) -> list[str]:
    data = load_evaluation_records(run, dataset_dir, class_names=NAMES, **options)
    return paths_of(data.splits[options.get("split", "test")])


def test_without_a_data_set_or_with_its_own_the_run_is_measured_on_its_own_split(run, tmp_path):
    own = load_records(tmp_path / "own", patient_pattern=r"person(\d+)")
    for given in (None, tmp_path / "own"):
        assert evaluated(run, given) == paths_of(own.test)
        assert evaluated(run, given, split="val") == paths_of(own.val)


def test_the_training_images_are_known_through_links(run, tmp_path):
    (tmp_path / "linked").symlink_to(tmp_path / "own")
    assert evaluated(run, tmp_path / "linked") == evaluated(run)
    seen, held_out = load_records(run, keep_twins=True).train[0], picture(tmp_path / "own" / "a" / "new.png", 99)
    entries = [(str(image).replace("/own/", "/linked/"), "a", "", "") for image in (seen["image"], held_out)]
    listed = table(tmp_path / "linked.csv", entries)
    assert evaluated(run, listed, keep_twins=True) == [entries[1][0]]


@pytest.mark.parametrize("frame", ["middle", "all"])
@pytest.mark.parametrize("series", [False, True])
def test_the_files_and_series_of_the_training_frames_are_known(tmp_path, frame, series):
    generator = np.random.default_rng(0)
    entries = []
    for number in range(10):
        name = f"{number}" if series else f"{number}.npy"
        if series:
            for k in range(3):
                place = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "ImagePositionPatient": [0, 0, 3.0 * k]}
                tags = {"PatientID": name, "SeriesInstanceUID": f"1.2.{number}", "InstanceNumber": k + 1, **place}
                write_ct(tmp_path / "d" / name / f"{k}.dcm", generator.integers(0, 99, (16, 16)), **tags)
        else:
            (tmp_path / "d").mkdir(exist_ok=True)
            np.save(tmp_path / "d" / name, generator.random((16, 16, 6), dtype=np.float32))
        entries.append((name, NAMES[number % 2], "", ""))
    listed = table(tmp_path / "d" / "datalist.csv", entries)
    with_frames = save_split(load_records(listed, frame=frame, keep_twins=True), tmp_path / "run" / "datalist.json")
    assert evaluated(with_frames, listed, frame=frame) == evaluated(with_frames)


def test_a_table_beside_the_training_images_is_a_data_set_of_its_own(run, tmp_path):
    held_out = picture(tmp_path / "own" / "more" / "new.png", 99)
    listed = table(tmp_path / "own" / "held_out.csv", [("more/new.png", "a", "", "")])
    assert evaluated(run, listed) == [str(held_out)]


def test_of_an_external_set_the_test_split_is_taken_or_all(run, tmp_path):
    other = folders(tmp_path / "other", range(30, 36))
    assert len(evaluated(run, other)) == 6
    entries = [(path, path.parent.name, "test" if "30" in path.name else "train", "") for path in other.rglob("*.png")]
    listed = table(tmp_path / "other.csv", entries)
    assert [Path(path).name for path in evaluated(run, listed)] == ["person30_1.png"]
    with pytest.raises(InputError, match="has splits but no val images"):
        evaluated(run, listed, split="val")


def test_copies_of_training_images_are_left_out_and_said(run, tmp_path):
    trained = load_evaluation_records(run, class_names=NAMES).train
    other = folders(tmp_path / "other", range(30, 34))
    shutil.copy(trained[0]["image"], other / "a" / "copy.png")
    data = load_evaluation_records(run, other, class_names=NAMES)
    assert "copy.png" not in {Path(path).name for path in paths_of(data.test)} and len(data.test) == 4
    assert any("twin" in note for note in data.notes)
    (left_out,) = data.left_out
    assert left_out["image"] == str(other / "a" / "copy.png") and left_out["twin"] == trained[0]["image"]
    assert left_out["split"] == "test" and left_out["exact"]
    kept = load_evaluation_records(run, other, class_names=NAMES, keep_twins=True)
    assert len(kept.test) == 5 and data.twins_searched and not kept.twins_searched


def test_images_that_the_run_left_out_come_with_its_own_split(tmp_path):
    own = folders(tmp_path / "own", range(20))
    shutil.copytree(own, tmp_path / "d" / "train")
    folders(tmp_path / "d" / "test", range(50, 54))
    shutil.copy(own / "a" / "person0_1.png", tmp_path / "d" / "test" / "a" / "copy.png")
    run = save_split(load_records(tmp_path / "d"), tmp_path / "run" / "datalist.json")
    data = load_evaluation_records(run, class_names=NAMES)
    assert len(data.test) == 4 and [Path(r["image"]).name for r in data.left_out] == ["copy.png"]
    assert load_evaluation_records(run, class_names=NAMES, split="val").left_out == [] and data.twins_searched


def test_a_split_file_whose_patients_were_mixed_is_refused(run):
    content = json.loads(run.read_text())
    content["test"][0]["patient"] = content["training"][0]["patient"]
    run.write_text(json.dumps(content))
    with pytest.raises(InputError, match="1 patient has images in both train and test"):
        evaluated(run)


def test_patient_ids_of_dicom_headers_count_too(run, tmp_path):
    patient = load_evaluation_records(run, class_names=NAMES).train[0]["patient"]
    noise = np.random.default_rng(5).integers(0, 900, (2, 80, 80))
    for label, name, pixels in zip(NAMES, (patient, "other"), noise, strict=True):
        write_ct(tmp_path / "new" / label / "1.dcm", pixels, PatientID=name)
    with pytest.raises(InputError, match=f"1 patient .for example {patient}. was in the training data"):
        evaluated(run, tmp_path / "new")
    assert len(evaluated(run, tmp_path / "new", patient_pattern="")) == 2


def test_a_class_that_the_external_set_lacks_is_told(run, tmp_path):
    picture(tmp_path / "new" / "a" / "1.png", 91)
    notes = load_evaluation_records(run, tmp_path / "new", class_names=NAMES).notes
    assert "there are no test images of b, so some metrics can't be computed" in notes


@pytest.mark.parametrize("options", [{"keep_twins": True}, {"twin_search": "never"}, {}])
def test_images_that_the_model_was_trained_on_are_never_measured(tmp_path, options):
    images = [picture(tmp_path / f"{n}.png", n) for n in range(24)]
    own = load_records(table(tmp_path / "own.csv", [(i, "ab"[n % 2], "", "") for n, i in enumerate(images[:20])]))
    save_split(own, tmp_path / "run" / "datalist.json")
    trained = {record["image"] for record in own.train + own.val}
    listed = [(i, "ab"[n % 2], "", "") for n, i in enumerate(images) if str(i) != own.train[0]["image"]]
    load = partial(load_evaluation_records, tmp_path / "run" / "datalist.json", class_names=NAMES, **options)
    found = load(table(tmp_path / "other.csv", listed))
    assert set(paths_of(found.test)) == {str(i) for i in images} - trained
    assert any("were left out, as this model was trained on them" in note for note in found.notes)
    with pytest.raises(InputError, match="only images that this model was trained on"):
        load(table(tmp_path / "old.csv", [(r["image"], "ab"[r["label"]], "", "") for r in own.train[1:]]))


def test_patients_of_the_training_data_are_refused_but_those_of_its_test_split_are_not(run, tmp_path):
    own = load_evaluation_records(run, class_names=NAMES)
    for records, shared in ((own.train, True), (own.val, True), (own.test, False)):
        image = picture(tmp_path / "new.png", 77)
        listed = table(tmp_path / "new.csv", [(image, "a", "", records[0]["patient"])])
        if shared:
            with pytest.raises(InputError, match=f"1 patient .for example {records[0]['patient']}. was in the train"):
                evaluated(run, listed)
        else:
            assert evaluated(run, listed) == [str(image)]


def test_numbers_of_another_coding_are_no_places_where_classes_are_called_by_numbers(tmp_path):
    images = [picture(tmp_path / f"{n}.png", n) for n in range(24)]
    own = load_records(table(tmp_path / "own.csv", [(i, 1 + n % 2, "", "") for n, i in enumerate(images[:12])]))
    save_split(own, tmp_path / "run" / "datalist.json")
    other = table(tmp_path / "other.csv", [(i, n % 2, "", "") for n, i in enumerate(images[12:])])
    with pytest.raises(InputError, match="labels that this model doesn't know: 0; it was trained on 1, 2"):
        load_evaluation_records(tmp_path / "run" / "datalist.json", other, class_names=own.class_names)


def test_what_can_not_be_evaluated_is_said(run, tmp_path):
    other = folders(tmp_path / "other", range(30, 32))
    (other / "b").rename(other / "c")
    two = table(tmp_path / "two.csv", [(other / "a" / "person30_1.png", "a|b", "", "")])
    for options, words in (
        ({"split": "train"}, "split is 'train'; evaluate on 'test' or 'val'"),
        ({"dataset_dir": other}, "labels that this model doesn't know: c; it was trained on a, b"),
        ({"dataset_dir": "demo"}, "wasn't trained on the demo data"),
        ({"dataset_dir": two}, "images with several labels, but this model gives one"),
        ({"dataset_dir": tmp_path / "nowhere"}, "does not exist"),
    ):
        with pytest.raises(InputError, match=words):
            evaluated(run, **options)


def test_a_run_without_test_images_asks_for_others(tmp_path):
    own = folders(tmp_path / "own", range(20))
    run = save_split(load_records(own, test_fraction=0.0), tmp_path / "datalist.json")
    with pytest.raises(InputError, match="no test images; give another data set"):
        evaluated(run)
    assert evaluated(run, split="val")


def test_images_to_predict_are_found_in_a_folder_a_table_or_one_by_one(tmp_path):
    root = folders(tmp_path / "images", range(4))
    everything = [str(path) for path in sorted(root.rglob("*.png"))]
    assert find_images(root) == everything
    assert find_images(everything[0]) == everything[:1]
    listed = table(tmp_path / "list.csv", [(everything[2], "a", "", "")])
    assert find_images(listed) == [everything[2]]
    assert find_images(write_demo(tmp_path / "demo", counts={"test": 3}) / "images")[0].endswith(".dcm")


def test_junk_is_passed_over_and_tables_need_no_labels(tmp_path):
    root = folders(tmp_path / "images", range(2))
    for name in (".DS_Store", "__MACOSX/._x.png", "readme.txt"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()
    assert len(find_images(root)) == 2
    (root / "list.csv").write_text("image\na/person0_1.png\nb\\person1_1.png\n")
    assert [Path(path).name for path in find_images(root / "list.csv")] == ["person0_1.png", "person1_1.png"]


def test_series_dicom_trees_and_parts_of_files_are_found(tmp_path):
    for uid in ("1.2.1", "1.2.2"):
        for number in range(2):
            tags = dict(SeriesInstanceUID=uid, InstanceNumber=number)
            write_ct(tmp_path / "exam" / f"{uid}_{number}.dcm", np.zeros((4, 4)), **tags)
    (tmp_path / "exam" / "labels.csv").write_text("SeriesInstanceUID,label\n1.2.1,a\n")
    both = [f"{tmp_path / 'exam'}#1.2.1", f"{tmp_path / 'exam'}#1.2.2"]
    assert find_images(tmp_path / "exam", 3) == both, "labels are not used, so unlabelled images count too"
    assert find_images(tmp_path / "exam" / "labels.csv", 3) == both
    assert len(find_images(tmp_path / "exam")) == 4
    assert find_images(both[1], 3) == [both[1]]
    np.savez(tmp_path / "s.npz", test_images=np.zeros((2, 8, 8)))
    assert find_images(tmp_path / "s.npz") == [f"{tmp_path}/s.npz#test/0", f"{tmp_path}/s.npz#test/1"]
    assert find_images(f"{tmp_path}/s.npz#test/1") == [f"{tmp_path}/s.npz#test/1"]


def test_a_place_without_images_to_predict_is_said(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no image")
    for given, words in (
        ("empty", "holds no images"),
        ("notes.txt", "is plain text"),
        ("gone", "does not exist"),
    ):
        with pytest.raises(InputError, match=words):
            find_images(tmp_path / given)


def test_a_model_of_other_classes_than_the_run_is_refused(run, tmp_path):
    with pytest.raises(InputError, match="isn't the model of that run"):
        load_evaluation_records(run, class_names=("b", "a"))


def test_the_demo_is_no_answer_for_a_model_of_other_images(run, tmp_path):
    with pytest.raises(InputError, match="wasn't trained on the demo data"):
        find_images("demo", demo_dir=tmp_path / "demo", trained_on=run)
    assert len(find_images("demo", demo_dir=tmp_path / "demo", trained_on=tmp_path / "none.json")) == 120


@pytest.mark.parametrize("spelling", ["00{}", "{}.0", " {}\N{ZERO WIDTH SPACE}"])
def test_a_patient_of_the_training_data_is_known_in_any_spelling(run, tmp_path, spelling):
    own = load_evaluation_records(run, class_names=NAMES)
    known, free = own.train[0]["patient"], own.test[0]["patient"]
    image = picture(tmp_path / "new.png", 77)
    listed = table(tmp_path / "new.csv", [(image, "a", "", spelling.format(known))])
    with pytest.raises(InputError, match="1 patient .for example .*, there .*. was in the training") as caught:
        evaluated(run, listed)
    assert f"{spelling.format(known).strip()}, there {known}" in str(caught.value)
    assert evaluated(run, table(tmp_path / "new.csv", [(image, "a", "", spelling.format(free))])) == [str(image)]


def test_nobody_in_two_data_sets_is_not_one_patient(tmp_path):
    own = [(picture(tmp_path / f"{n}.png", n), "ab"[n % 2], "", "unknown" if n % 3 else f"p{n}") for n in range(20)]
    run = save_split(load_records(table(tmp_path / "own.csv", own)), tmp_path / "run" / "datalist.json")
    new = [(picture(tmp_path / f"{n}.png", n), "a", "", "UNKNOWN") for n in range(20, 24)]
    assert len(evaluated(run, table(tmp_path / "new.csv", new))) == 4


def test_the_column_of_images_to_predict_is_known_by_its_files_or_named(tmp_path):
    root = folders(tmp_path / "images", range(2))
    (root / "list.csv").write_text("Datei;Maske\na/person0_1.png;b/person1_1.png\n")
    with pytest.raises(InputError, match="several that name files: Datei, Maske"):
        find_images(root / "list.csv")
    assert find_images(root / "list.csv", image_column="Maske") == [str(root / "b" / "person1_1.png")]
    (root / "list.csv").write_text("Datei;Nummer\na/person0_1.png;1\n")
    assert find_images(root / "list.csv") == [str(root / "a" / "person0_1.png")]


def test_pictures_under_foreign_names_are_found_and_what_is_none_is_told(tmp_path, caplog):
    folder = tmp_path / "phone"
    folder.mkdir()
    picture = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    picture.save(folder / "a.png")
    picture.save(folder / "b", "PNG")
    picture.save(folder / "c.webp")
    picture.save(folder / "._d", "PNG")
    (folder / "report.pdf").write_bytes(b"%PDF-1.7 " + bytes(99))
    found = find_images(folder)
    assert [Path(path).name for path in found] == ["a.png", "b", "c.webp"]
    assert "2 files that are no images were left out" in caplog.text and "report.pdf" in caplog.text
    assert read_image(found[0])[0].shape == (8, 8)
    for path, words in zip(found[1:], ("let its name end with .png", "the content is WebP"), strict=True):
        with pytest.raises(InputError, match=words):
            read_image(path)


def test_an_image_of_a_table_that_is_missing_is_left_for_the_reader_to_tell(tmp_path):
    picture(tmp_path / "a.png", 0)
    (tmp_path / "t.csv").write_text("image\na.png\nb.png\n")
    found = find_images(tmp_path / "t.csv")
    assert [Path(path).name for path in found] == ["a.png", "b.png"]
    with pytest.raises(InputError, match="b.png does not exist"):
        read_image(found[1])
