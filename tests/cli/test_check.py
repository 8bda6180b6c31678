# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
from collections import Counter
from functools import partial

import nibabel
import numpy as np
import pytest
from dicom_files import write_ct, write_dicom, write_picture
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.uid import SecondaryCaptureImageStorage

from dual_skd.cli.check import more_epochs, next_command
from dual_skd.cli.dispatch import main, parser_of
from dual_skd.data import DataList, load_records
from dual_skd.data.checking.findings import COLUMNS
from dual_skd.options import Training
from dual_skd.options.arguments import given
from dual_skd.utils.progress import bar


def run(*arguments: str) -> int:
    return main(["check", *map(str, arguments)])


def training_options(printed: str) -> dict[str, object]:
    """What training gets from the command that comes next, on the last line, once a shell has read it."""
    words = shlex.split(printed.splitlines()[-1].removeprefix("Next: "))
    assert words[:2] == ["dual-skd", "train"]
    assert words[words.index("-o") + 1] == "output"
    args = parser_of("train").parse([word for word in words[2:] if word not in ("-o", "output")])
    options = given(args, Training)
    options.pop("epochs", None)  # of the number of images, and not of what the check was told
    return options | ({"preset": args.preset} if args.preset else {})


def one_line(printed: str) -> str:
    """What was printed, with no line broken."""
    return " ".join(printed.split())


def picture(seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (16, 16), dtype=np.uint8)
    return Image.fromarray(coarse).resize((80, 80))


def write(root, split: str, label: str, seed: int) -> None:
    folder = root / split / label
    folder.mkdir(parents=True, exist_ok=True)
    picture(seed).save(folder / f"{seed}_{split}.png")


@pytest.fixture
def dataset(tmp_path):
    for seed in range(8):
        write(tmp_path / "d", "train" if seed < 4 else "test", "ab"[seed % 2], seed)
    return tmp_path / "d"


def test_a_clean_set_is_told_so_with_exit_code_0(dataset, tmp_path, capsys):
    assert run(dataset, "--json", tmp_path / "out" / "found.json", "--fix-list", tmp_path / "fix.csv") == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[-5:] == [
        "No errors and no warnings found: the set can be trained on.",
        "  page          --page FILE.html shows images of each class, and the findings.",
        f"  all findings  {tmp_path}/out/found.json",
        f"  fix list      {tmp_path}/fix.csv",
        f"Next: dual-skd train {dataset} -o output --epochs 300",  # of one step each
    ]
    table = [line.split() for line in printed.splitlines() if line.split()[:1] in (["train"], ["val"], ["test"])]
    assert table == [
        ["train", "2", "2", "4", "unknown"],
        ["test", "2", "2", "4", "unknown"],
    ]
    found = json.loads((tmp_path / "out" / "found.json").read_text())
    assert found["ok"] and found["counts"]["test"] == {"a": 2, "b": 2} and len(found["hash"]) == 64
    assert (tmp_path / "fix.csv").read_text().splitlines() == [",".join(COLUMNS)]


def test_leakage_and_contradicting_labels_end_with_exit_code_1(dataset, tmp_path, capsys):
    write(dataset, "test", "b", 0)  # the picture stands in train as "a"
    assert run(dataset, "--json", tmp_path / "found.json", "--fix-list", tmp_path / "fix.csv") == 1
    printed = capsys.readouterr().out
    assert "- 1 test image has a twin in train (1 exact, 0 near copies)." in printed
    assert "- 1 pair of twins has different labels." in printed
    assert printed.splitlines()[-1] == f"Next: dual-skd check {dataset} --clean-list clean.csv"
    assert printed.splitlines()[-2] == "  clean list    --clean-list FILE.csv writes one of what is left to train on."
    assert printed.splitlines()[-6].startswith("2 kinds of error (2 images) and 0 kinds of warning found: ")
    found = json.loads((tmp_path / "found.json").read_text())
    assert not found["ok"] and found["twins"][0]["twin"] == "train/a/0_train.png"
    with (tmp_path / "fix.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    leak = next(row for row in rows if row["kind"] == "twin_across_splits")
    assert (leak["image"], leak["split"], leak["label"], leak["severity"], leak["twin"]) == (
        "test/b/0_test.png",
        "test",
        "b",
        "error",
        "train/a/0_train.png",
    )
    assert rows == [{key: str(value) for key, value in one.items()} for one in found["offenders"]]


def test_without_the_twin_search_leaks_stay_unknown(dataset):
    write(dataset, "test", "b", 0)
    assert run(dataset, "--no-twins") == 0


def test_ten_offenders_are_shown_and_all_are_written(dataset, tmp_path, capsys):
    for index in range(13):
        (dataset / "train" / "a" / f"empty{index:02d}.png").touch()
    assert run(dataset, "--fix-list", tmp_path / "fix.csv") == 1
    printed = capsys.readouterr().out
    assert "- 13 image files are empty." in printed and "... and 3 more (--fix-list" in printed
    assert printed.count("(train, a): the file has 0 bytes") == 10
    assert "> Copy the file again from its source, or remove it." in printed
    assert len((tmp_path / "fix.csv").read_text().splitlines()) == 14


def test_the_report_is_the_same_each_time(dataset, capsys):
    write(dataset, "test", "b", 0), write(dataset, "test", "a", 1), (dataset / "test" / "a" / "x.png").touch()
    printed = []
    for _ in range(2):
        run(dataset, "--quiet")
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]


def test_the_error_output_stays_empty_where_it_is_no_terminal(dataset, capsys):
    run(dataset)
    assert capsys.readouterr().err == ""


def test_bars_are_shown_unless_quiet(dataset, terminal, monkeypatch):
    monkeypatch.setattr("dual_skd.data.reading.inspection.bar", partial(bar, stays=True))
    run(dataset)
    assert any(line.startswith("Opening images 100%") for line in terminal.screen())
    before = terminal.getvalue()
    run(dataset, "--quiet")
    assert terminal.getvalue() == before


def test_a_path_that_is_not_there_is_one_sentence_with_exit_code_1(tmp_path, capsys):
    assert run(tmp_path / "nowhere", "--json", tmp_path / "found.json", "--fix-list", tmp_path / "fix.csv") == 1
    message = capsys.readouterr().err
    assert message.startswith("Error: The data set") and message.count("\n") == 1
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["errors"] == [message.removeprefix("Error: ").strip()] and not found["ok"] and found["hash"] == ""
    assert "data_set" in (tmp_path / "fix.csv").read_text()


def test_what_training_refuses_does_not_hide_bad_files(tmp_path, capsys):
    write(tmp_path, "train", "a", 0)
    (tmp_path / "train" / "a" / "x.png").touch()
    assert run(tmp_path) == 1
    printed = " ".join(capsys.readouterr().out.split())  # lines are wrapped
    assert "one class only" in printed and "- 1 image file is empty." in printed


def test_tables_with_several_labels_are_checked_too(tmp_path, capsys):
    rows = ["image,oedema,effusion,split"]
    for seed in range(6):
        picture(seed).save(tmp_path / f"{seed}.png")
        rows.append(f"{seed}.png,{seed % 2},{int(seed > 2)},{'train' if seed < 4 else 'test'}")
    picture(1).save(tmp_path / "copy.png")
    rows.append("copy.png,0,0,test")
    (tmp_path / "datalist.csv").write_text("\n".join(rows))
    assert run(tmp_path, "--label-column", "oedema", "--label-column", "effusion") == 1
    printed = capsys.readouterr().out
    assert "copy.png (test): the same picture as 1.png, which is oedema" in printed
    assert "1.png (train, oedema): the same picture as copy.png, which is without label" in printed


def test_the_clean_list_of_a_table_with_several_labels_keeps_classes_and_images_without_any(tmp_path, capsys):
    rows = ["image,oedema,effusion"]
    for seed in range(8):
        picture(seed).save(tmp_path / f"{seed}.png")
        rows.append(f"{seed}.png,{int(seed % 4 == 0)},{int(seed % 4 == 1)}")
    (tmp_path / "datalist.csv").write_text("\n".join(rows))
    columns = ["oedema", "effusion"]
    options = [f"--label-column={name}" for name in columns]
    assert run(tmp_path, *options, "--clean-list", tmp_path / "clean.csv") == 0
    assert training_options(capsys.readouterr().out) == {
        "dataset_dir": str(tmp_path / "clean.csv"),
        "label_column": columns,
    }
    before, after = (
        load_records(path, label_column=columns, keep_twins=True) for path in (tmp_path, tmp_path / "clean.csv")
    )
    assert after.multi_label and after.class_names == ("oedema", "effusion") and after.splits == before.splits


def test_a_set_without_a_split_is_shown_as_one(tmp_path, capsys):
    for seed in range(4):
        (tmp_path / "ab"[seed % 2]).mkdir(exist_ok=True)
        picture(seed).save(tmp_path / "ab"[seed % 2] / f"{seed}.png")
    assert run(tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert ["all", "2", "2", "4", "unknown"] in [line.split() for line in lines]
    assert "  No split is given: training makes one." in lines


def test_archives_and_volumes_are_checked_too(tmp_path, capsys):
    images = np.stack([np.asarray(picture(seed)) for seed in range(6)])
    arrays = {f"{split}_images": images[i : i + 2] for i, split in ((0, "train"), (2, "val"), (4, "test"))}
    arrays |= {f"{split}_labels": np.array([[0], [1]]) for split in ("train", "val", "test")}
    arrays["val_images"] = images[:2]  # the training images again
    np.savez(tmp_path / "set.npz", **arrays)
    assert run(tmp_path / "set.npz") == 1
    printed = capsys.readouterr().out
    assert "- 2 val images have a twin in train (2 exact, 0 near copies)." in printed and "#val/0" in printed
    for place, label in enumerate("ab"):
        for index in range(3):
            (tmp_path / "v" / label).mkdir(parents=True, exist_ok=True)
            volume = np.random.default_rng(10 * place + index).normal(size=(12, 12, 12)).astype(np.float32)
            np.save(tmp_path / "v" / label / f"{index}.npy", volume)
    assert run(tmp_path / "v", "--spatial-dims", "3") == 0
    assert training_options(capsys.readouterr().out) == {"dataset_dir": str(tmp_path / "v"), "preset": ["volume"]}
    assert run(tmp_path / "v", "--fix-list", tmp_path / "fix.csv", "--no-twins") == 1
    printed = capsys.readouterr().out
    assert "6 images have other dimensions" in printed and "clean list" not in printed
    again = f"Next: dual-skd check {tmp_path / 'v'}"
    options = f"--fix-list {tmp_path / 'fix.csv'} --no-twins --spatial-dims 3"
    assert printed.splitlines()[-1] == f"{again} {options}"


def test_images_that_were_taken_for_volumes_are_checked_again_as_images(dataset, tmp_path, capsys):
    options = ["--spatial-dims", "3", "--image-size", "48", "48", "24", "--patient-pattern", "(x)"]
    assert run(dataset, *options, "--clean-list", tmp_path / "c.csv", "--page", tmp_path / "p.html") == 1
    *lines, last = capsys.readouterr().out.splitlines()
    assert "0 images are left" in lines[-1]
    assert last == (
        f"Next: dual-skd check {dataset} --page {tmp_path / 'p.html'} --clean-list {tmp_path / 'c.csv'} "
        "--spatial-dims 2 --patient-pattern '(x)'"
    )
    named = [line for line in lines if "(test, " in line or "(train, " in line]
    assert len(named) == 8 and sum(line.endswith(": the same") for line in named) == 7


def test_a_few_images_of_other_dimensions_say_nothing_of_the_set(dataset, capsys):
    volume = np.random.default_rng(0).normal(size=(12, 12, 12)).astype(np.float32)
    np.save(dataset / "train" / "a" / "volume.npy", volume)
    assert run(dataset) == 1
    assert capsys.readouterr().out.splitlines()[-1] == f"Next: dual-skd check {dataset} --clean-list clean.csv"


@pytest.mark.parametrize("spoilt", ["b", "ab"])
def test_a_clean_list_of_fewer_than_two_classes_is_not_trained_on(dataset, tmp_path, capsys, spoilt):
    for label in spoilt:
        for path in dataset.glob(f"*/{label}/*.png"):
            path.write_bytes(b"")
    assert run(dataset, "--clean-list", tmp_path / "clean.csv") == 1
    printed = capsys.readouterr().out
    assert f"{8 - 4 * len(spoilt)} images are left" in printed and "Next:" not in printed


def test_files_of_several_frames_are_checked_frame_by_frame(tmp_path, capsys):
    for number in range(6):
        frames = np.stack([np.asarray(picture(10 * number + frame)) for frame in range(3)])
        write_picture(tmp_path / "d" / "ab"[number % 2] / f"{number}.dcm", frames, NumberOfFrames=3)
    assert run(tmp_path / "d") == 1 and "give --frame" in capsys.readouterr().out
    assert run(tmp_path / "d", "--frame", "all") == 0
    printed = capsys.readouterr().out
    assert "frame 'all' is taken (18 images in all)" in printed and "ERRORS" not in printed
    clean = tmp_path / "d" / "clean.csv"
    assert run(tmp_path / "d", "--frame", "1", "--clean-list", clean) == 0
    with clean.open(newline="") as file:
        images = [row["image"] for row in csv.DictReader(file)]
    assert len(images) == 6 and all(image.endswith(".dcm#frame=1") for image in images)
    for frame, words in (("3", "so there is no frame 3"), ("some", "frame is 'some'")):
        assert run(tmp_path / "d", "--frame", frame) == 1 and words in capsys.readouterr().err


def test_a_result_that_cannot_be_written_is_one_sentence(dataset, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert run(dataset, "--json", tmp_path / "file" / "found.json") == 1
    assert "can't be written" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--page", "--json", "--fix-list", "--clean-list"])
def test_the_data_are_never_written_over(dataset, tmp_path, capsys, option):
    image = next(dataset.rglob("*.png"))
    table = tmp_path / "table.csv"
    table.write_text(f"image,label\n{image},a\n{[*dataset.rglob('*.png')][1]},b\n", encoding="utf-8")
    before = table.read_bytes(), image.read_bytes()
    (tmp_path / "link.csv").symlink_to(table)
    link = tmp_path / "link.csv"
    for data, target in ((dataset, image), (table, table), (table, image), (link, link), (link, table)):
        assert run(data, "--allow-outside", option, target) == 1 and "belongs to the data" in capsys.readouterr().err
    assert (table.read_bytes(), image.read_bytes()) == before
    assert run(dataset, "--json", tmp_path / "a", "--page", tmp_path / "a") == 1
    assert "name the same file" in capsys.readouterr().err and not (tmp_path / "a").exists()


def test_a_former_result_is_whole_until_the_new_one_is(dataset, tmp_path, capsys, monkeypatch):
    (tmp_path / "found.json").write_text("former")
    (tmp_path / "link.json").symlink_to(tmp_path / "found.json")
    with monkeypatch.context() as full:
        full.setattr(
            "dual_skd.utils.files.os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device"))
        )
        assert run(dataset, "--json", tmp_path / "found.json") == 1 and "No space left" in capsys.readouterr().err
    assert (tmp_path / "found.json").read_text() == "former"
    assert run(dataset, "--json", tmp_path / "link.json") == 0 and (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "found.json").read_text().startswith("{")


def test_the_clean_list_is_what_the_check_finds_no_error_in(tmp_path, capsys):
    for seed in range(12):
        write(tmp_path / "d", "train" if seed < 8 else "test", "ab"[seed % 2], seed)
    write(tmp_path / "d", "test", "a", 0)  # stands in train too, under the same label
    write(tmp_path / "d", "test", "b", 2)  # stands in train as "a"
    assert run(tmp_path / "d", "--clean-list", tmp_path / "clean.csv") == 1
    words = " ".join(capsys.readouterr().out.split())
    assert f"clean list {tmp_path}/clean.csv 11 images are left; " in words
    assert run(tmp_path / "clean.csv") == 0
    lines = (tmp_path / "clean.csv").read_text().splitlines()
    assert len(lines) == 1 + 11 and not any("/2_" in line for line in lines)


def test_remarks_of_decoders_on_files_that_they_read_are_not_shown(dataset, capfd):
    shutil.copy(
        get_testdata_file("JPEG-lossy.dcm"), dataset / "train" / "a"
    )  # 12 bits, on which GDCM writes of its first attempt
    run(str(dataset), "--no-twins")
    printed = capfd.readouterr()
    assert "No errors" in printed.out and printed.err == ""
    os.write(2, b"later")
    assert capfd.readouterr().err == "later"


@pytest.mark.parametrize("name", ["it's (Müller) [2]", "$HOME 2024", "-x", "2024_06", "site,b#3", "@eaDir"])
def test_the_training_command_can_be_pasted_and_has_the_options_of_the_check(tmp_path, monkeypatch, capsys, name):
    (tmp_path / "here" / name).mkdir(parents=True)
    rows = [f"{seed}_{seed}.png,{'ab'[seed % 2]}" for seed in range(6)]
    for row, seed in zip(rows, range(6), strict=True):
        picture(seed).save(tmp_path / "here" / name / row.split(",")[0])
    (tmp_path / "here" / name / "datalist.csv").write_text("\n".join(["image,1e3", *rows]))
    monkeypatch.chdir(tmp_path / "here")
    prefix = "./" if name[0] in "-$@" else ""
    options = ["--label-column", "1e3", "--patient-pattern", r"(\d)_", "--frame", "0", "--allow-outside"]
    assert run(f"{prefix}{name}", *options) == 0
    wanted = {"dataset_dir": f"{prefix}{name}", "label_column": "1e3", "patient_pattern": r"(\d)_"}
    found = training_options(capsys.readouterr().out.splitlines()[-1])
    assert found == wanted | {"frame": 0, "allow_outside": "true"}
    assert run(f"{prefix}{name}", *options, "--clean-list=-list.csv") == 0
    found = training_options(capsys.readouterr().out)
    assert found == {"dataset_dir": "./-list.csv"} and len(load_records(**found).train) > 0


def test_screenshots_among_ct_are_a_warning_that_names_them(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for place in range(20):
        split, label = ("train", "test")[place % 5 == 0], "ab"[place % 2]
        write_ct(tmp_path / split / label / f"{place}.dcm", rng.integers(-1000, 500, (32, 32)), PatientID=f"{place}")
    for place in range(3):
        shot = rng.integers(0, 255, (32, 32), dtype=np.uint8)
        path = tmp_path / "train" / "a" / f"shot{place}.dcm"
        write_dicom(path, shot, SOPClassUID=SecondaryCaptureImageStorage, PatientID=f"s{place}")
    assert run(tmp_path, "--quiet") == 0
    printed = capsys.readouterr().out
    assert "3 images have values that mean something else than those of the others" in printed
    assert all(f"shot{place}.dcm" in printed for place in range(3)) and "--window percentile" in printed


def test_doubtful_words_large_patients_and_spaces_are_warnings(tmp_path, capsys):
    rows = ["image,label,patient"]
    for seed in range(24):
        picture(seed).save(tmp_path / f"{seed}.png")
        rows.append(f"{seed}.png,{('a', 'b', 'unknown')[seed % 3]},{'K7' if seed < 15 else seed}")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    assert run(tmp_path / "t.csv") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("counts as a class; if it means that the label is missing") == 1
    assert "WARNINGS" in printed and "15 of 24 images are of one patient (K7) and stay together" in printed
    assert "images are test images" in printed and "4 kinds" not in printed
    assert run(tmp_path / "t.csv", "--class-map", "{'unknown': ''}") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "counts as a class" not in printed and "by --class-map 'unknown' is no label" in printed.lower()
    for split in ("train", "test"):
        write(tmp_path / "d", split, "Normal ", 1 + len(split))
        write(tmp_path / "d", split, "ill", 10 + len(split))
    assert run(tmp_path / "d") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "count as if they had none: 'test/Normal ', 'train/Normal '" in printed and "1 kind of warning" in printed


@pytest.mark.parametrize("dash", ["-", "_"])
def test_a_table_with_a_foreign_column_of_images_is_checked(tmp_path, capsys, dash):
    rows = ["Dateiname;Diagnosis;patient"]
    for seed in range(8):
        picture(seed).save(tmp_path / f"{seed}.png")
        rows.append(f"{seed}.png;{seed % 2};p{seed}")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    options = [f"--label{dash}column", "Diagnosis", f"--class{dash}map={{'1': 'ill', '0': 'well_1'}}"]
    for more in ([], [f"--image{dash}column", "Dateiname"]):
        assert run(tmp_path / "t.csv", *options, *more) == 0
        printed = capsys.readouterr().out
        assert "The column Dateiname of t.csv counts as image." in printed and "ill  well_1" in printed


@pytest.mark.parametrize(
    "labels, words",
    [
        ([20.74 + seed for seed in range(12)], "look like a measurement"),
        ([f"mask_{seed}.nii.gz" for seed in range(12)], "names of files, such as mask_0.nii.gz"),
    ],
)
@pytest.mark.parametrize("missing", [False, True])
def test_labels_that_can_not_be_classes_are_an_error(tmp_path, capsys, labels, words, missing):
    for seed in range(12):
        picture(seed).save(tmp_path / f"{seed}.png")
    rows = ["image,label,patient", *(f"{seed}.png,{label},{seed}" for seed, label in enumerate(labels))]
    rows += [f"gone.png,{labels[0]},p"] * missing
    (tmp_path / "t.csv").write_text("\n".join(rows))
    assert run(tmp_path / "t.csv", "--no-twins") == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert ("gone.png" in printed) == missing and words in printed


def test_a_clean_list_says_how_to_read_a_class_that_is_called_like_an_empty_cell(tmp_path, capsys):
    for seed in range(8):
        write(tmp_path / "d", "train", ("None", "tumour")[seed % 2], seed)
        write(tmp_path / "d", "test", ("None", "tumour")[seed % 2], 100 + seed)
    assert run(tmp_path / "d", "--clean-list", tmp_path / "clean.csv") == 0
    options = training_options(capsys.readouterr().out)
    assert options == {"dataset_dir": str(tmp_path / "clean.csv"), "class_map": {"None": "None"}}
    assert load_records(**options, keep_twins=True).class_names == ("None", "tumour")


def test_a_table_without_any_image_that_exists_is_refused_in_words(tmp_path, capsys):
    (tmp_path / "t.csv").write_text("image,label\n" + "".join(f"{place}.png,{place % 2}\n" for place in range(9)))
    assert run(tmp_path / "t.csv", "--quiet") == 1
    assert "the image 0.png does not exist" in "".join(capsys.readouterr())


def test_the_next_run_gets_a_folder_of_its_own(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for made, named in ((), "output"), (("output",), "output2"), (("output", "output2"), "output3"):
        for name in made:
            (tmp_path / name).mkdir(exist_ok=True)
        assert run(dataset, "--quiet", "--clean-list", tmp_path / "clean.csv") == 0
        assert f" -o {named}" in capsys.readouterr().out.splitlines()[-1]


def test_patients_that_only_file_names_hold_are_offered_and_never_taken(tmp_path, capsys):
    for seed in range(24):
        folder = tmp_path / "d" / ("train", "test")[seed % 2] / "ab"[seed // 2 % 2]
        folder.mkdir(parents=True, exist_ok=True)
        picture(seed).save(folder / f"person{100 + seed // 3}_{seed}.png")
    assert run(tmp_path / "d", "--page", tmp_path / "page.html") == 0
    printed = capsys.readouterr()
    offer = r'--patient-pattern "person(\d+)_"'
    assert "- No patients are known, so each image counts as one;" in printed.out and offer in printed.out
    assert offer not in printed.out.splitlines()[-1] and printed.err == ""
    assert r"person(\d+)_" in (tmp_path / "page.html").read_text()
    assert run(tmp_path / "d", *shlex.split(offer)) == 1
    assert "8 patients are in more than one split" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("images", "options", "epochs"),
    [
        ({"train": 300}, {}, 50),  # of which 204 are left to train on, 6 steps
        ({"train": 300, "test": 60}, {}, 50),
        ({"train": 300, "val": 60}, {}, 40),
        ({"train": 3000, "val": 60}, {}, None),
        ({"train": 100, "val": 60}, {"batch_size": 16, "epochs": 20}, 50),
    ],
)
def test_few_images_are_given_epochs_of_300_steps_or_more(images, options, epochs):
    assert more_epochs(Counter(images), Training(**options)).get("epochs") == epochs


def test_the_command_on_the_demo_is_the_one_of_the_pages():
    data = DataList("demo", ("a", "b"), {"train": [], "val": [], "test": []}, "")
    assert next_command(parser_of("check").parse(["demo"]), data, {}, Counter(train=9)).endswith("train demo -o output")


@pytest.mark.parametrize("place", ["a split", "a folder"])
def test_images_without_labels_are_checked_and_come_into_the_clean_list(dataset, tmp_path, capsys, place):
    more = dataset / "unlabelled" if place == "a split" else tmp_path / "more"
    more.mkdir()
    for seed in range(20, 23):
        picture(seed).save(more / f"{seed}.png")
    (more / "bad.png").write_bytes(b"words")
    words = [dataset, *(["--unlabelled", more] if place == "a folder" else [])]
    train = ["train", *map(str, words), "-o", str(tmp_path / "o"), "--epochs", "1"]
    assert main(train) == 1
    refusal = capsys.readouterr().err
    assert "bad.png: the content is plain text" in refusal and f"`dual-skd check {dataset}`, with this" in refusal
    assert ("images without labels, lists" in refusal) == (place == "a folder")
    clean = tmp_path / "clean.csv"
    assert run(*words, "--clean-list", clean) == 1
    said = capsys.readouterr().out
    assert (
        "bad.png (unlabelled): the content is plain text" in one_line(said)
        and "11 images are left; 1 image can't be used" in said
    )
    assert [line.split() for line in said.splitlines() if line.strip().startswith("unlabelled ")] == [
        ["unlabelled", "4", "unknown"]
    ]
    assert "unlabelled" not in training_options(said)
    data = load_records(clean)
    assert sorted(os.path.basename(one.image) for one in data.unlabelled) == ["20.png", "21.png", "22.png"]
    (more / "bad.png").unlink()
    assert run(*words) == 0
    assert training_options(capsys.readouterr().out).get("unlabelled") == (str(more) if place == "a folder" else None)


def test_images_without_labels_stay_in_the_clean_list_of_a_set_that_training_refuses(dataset, tmp_path, capsys):
    more = tmp_path / "more"
    more.mkdir()
    picture(20).save(more / "20.png")
    (more / "bad.png").write_bytes(b"words")
    files = sorted(path for path in dataset.rglob("*.png"))
    lines = [f"{path},{path.parent.name},{path.parent.parent.name}" for path in files]
    picture(21).save(tmp_path / "21.png")
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["image,label,split", *lines, "nothere.png,a,train", "21.png,,unlabelled"]))
    clean = tmp_path / "clean.csv"
    assert run(table, "--unlabelled", more, "--clean-list", clean) == 1
    said = capsys.readouterr().out
    assert "nothere.png" in said and "bad.png (unlabelled)" in one_line(said) and "10 images are left" in said
    assert sorted(os.path.basename(one.image) for one in load_records(clean).unlabelled) == ["20.png", "21.png"]
    (more / "20.png").unlink()
    (more / "bad.png").unlink()
    assert run(table, "--unlabelled", more, "--clean-list", clean) == 1
    said = capsys.readouterr().out
    assert "more holds no image" in one_line(said) and "nothere.png" in said and "9 images are left" in said


def test_a_mistyped_place_of_images_without_labels_is_no_fault_of_the_data(dataset, tmp_path, capsys):
    (tmp_path / "more").mkdir()
    assert run(dataset, "--unlabelled", tmp_path / "mroe", "--clean-list", tmp_path / "clean.csv") == 1
    said = capsys.readouterr()
    assert said.out == "" and "mroe does not exist; did you mean" in said.err and not (tmp_path / "clean.csv").exists()


@pytest.mark.parametrize("place", ["more/list.csv", "more"])
def test_the_table_of_images_without_labels_is_not_written_over(dataset, tmp_path, capsys, place):
    table = tmp_path / "more" / ("list.csv" if place.endswith("csv") else "datalist.csv")
    table.parent.mkdir()
    picture(20).save(tmp_path / "more" / "20.png")
    table.write_text("image,patient\n20.png,p\n")
    assert run(dataset, "--unlabelled", tmp_path / place, "--fix-list", table) == 1
    assert "belongs to the data, and would be written over" in capsys.readouterr().err
    assert table.read_text() == "image,patient\n20.png,p\n"


def test_images_without_labels_inside_the_data_are_not_called_left_out(dataset, capsys):
    picture(20).save(dataset / "20.png")
    assert run(dataset, "--unlabelled", dataset / "20.png") == 0
    said = capsys.readouterr().out
    assert "No errors and no warnings found" in said and "unlabelled" in said


def test_few_images_make_no_claim_on_the_dimensions_of_others(dataset, tmp_path, capsys):
    more = tmp_path / "more"
    more.mkdir()
    for seed in range(20):
        volume = np.random.default_rng(seed).random((8, 8, 8), dtype=np.float32)
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), more / f"{seed}.nii")
    assert run(dataset, "--unlabelled", more) == 1
    said = capsys.readouterr().out
    assert "1 kind of error (20 images)" in said and "--spatial-dims" not in said.splitlines()[-1]
