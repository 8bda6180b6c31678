# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ast
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dual_skd.data import load_evaluation_records, load_records, save_split
from dual_skd.data.records.labels import LabelWords, as_option, doubtful_words, map_offered, refuse_no_classes
from dual_skd.data.records.rows import Row, Source
from dual_skd.errors import InputError
from dual_skd.options import read
from dual_skd.options.data import ReadOptions

ARABIC = {ord("0") + n: 0x660 + n for n in range(10)}  # digits of the Arabic script


@pytest.fixture
def here(tmp_path) -> Path:
    """A folder with the images 0.png to 59.png."""
    for number in range(60):
        pixels = np.random.default_rng(number).integers(0, 255, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return tmp_path


def table(here: Path, labels: list, name: str = "t.csv", column: str = "label") -> Path:
    lines = [f"image,{column}", *(f"{number}.png,{label}" for number, label in enumerate(labels))]
    (here / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return here / name


def load(where: Path, **options):
    return load_records(where, **{"keep_twins": True, "val_fraction": 0, "test_fraction": 0, **options})


def named(data, split: str = "train") -> dict[str, str]:
    return {Path(record["image"]).stem: data.class_names[record["label"]] for record in data.splits[split]}


def refused(*words: str, **options) -> str:
    with pytest.raises(InputError) as caught:
        load(**options)
    for word in words:
        assert word in str(caught.value), str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def pasted(message: str) -> dict:
    """The class map of a message, as a shell and Python read it."""
    (text,) = [shlex.split(part)[0] for part in message.split("--class-map ")[1:]]
    return ast.literal_eval(text.removesuffix("."))


@pytest.fixture
def run(here) -> Path:
    """datalist.json of a run on images 0 to 19 in folders abnormal and normal."""
    for number in range(20):
        folder = here / "own" / ("abnormal", "normal")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (here / f"{number}.png").rename(folder / f"{number}.png")
    return save_split(load(here / "own", val_fraction=0.15, test_fraction=0.2), here / "run" / "datalist.json")


def external(run: Path, labels: list, **options):
    lines = [f"{20 + number}.png,{label}" for number, label in enumerate(labels)]
    (run.parent.parent / "e.csv").write_text("\n".join(["image,label", *lines]), encoding="utf-8")
    names = ("abnormal", "normal")
    return load_evaluation_records(run, run.parent.parent / "e.csv", class_names=names, keep_twins=True, **options)


# ----------------------------------------------------------------------------------------------------------- evaluation


@pytest.mark.parametrize("one, zero", [("1", "0"), ("1.0", "0.0"), ("2", "1")])
def test_numbers_are_none_of_the_names_of_a_model_and_the_map_is_offered(run, one, zero):
    with pytest.raises(InputError, match="numbers as labels .* classes have names .abnormal, normal.") as caught:
        external(run, [one, zero] * 5)
    offer = pasted(str(caught.value))
    assert offer == {one: "abnormal", zero: "normal"}
    for class_map in (offer, str(offer), json.dumps(offer), {1 if one == "1" else one: "abnormal", zero: "normal"}):
        data = external(run, [one, zero] * 5, class_map=class_map)
        assert named(data, "test") == {str(20 + n): ("abnormal", "normal")[n % 2] for n in range(10)}


def test_numbers_of_an_archive_are_none_of_the_names_either(run):
    images = np.random.default_rng(0).integers(0, 255, (6, 8, 8), dtype=np.uint8)
    labels = np.array([[0], [1]] * 3)
    np.savez(run.parent / "m.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    with pytest.raises(InputError, match="numbers as labels"):
        load_evaluation_records(run, run.parent / "m.npz", class_names=("abnormal", "normal"))
    options = {"class_map": {"0": "normal", "1": "abnormal"}, "keep_twins": True}
    data = load_evaluation_records(run, run.parent / "m.npz", class_names=("abnormal", "normal"), **options)
    assert [record["label"] for record in data.test] == [1, 0] * 3


@pytest.mark.parametrize("labels", [{"0": "normal", "1": "abnormal"}, ["normal", "abnormal"]])
@pytest.mark.parametrize("text", [int, str])
def test_numbers_that_the_list_itself_names_need_no_map(run, labels, text):
    root = run.parent.parent
    entries = [{"image": f"{20 + n}.png", "label": text(n % 2)} for n in range(8)]
    (root / "e.json").write_text(json.dumps({"labels": labels, "test": entries, "training": entries[:0]}))
    data = load_evaluation_records(run, root / "e.json", class_names=("abnormal", "normal"), keep_twins=True)
    assert named(data, "test") == {str(20 + n): ("normal", "abnormal")[n % 2] for n in range(8)}


def test_spellings_of_a_name_are_offered_and_words_that_are_only_near_are_not(run):
    with pytest.raises(InputError, match="labels that this model doesn't know: ABNORMAL, Normal, subnormal;") as caught:
        external(run, ["ABNORMAL", "Normal", "subnormal"])
    assert pasted(str(caught.value)) == {"ABNORMAL": "abnormal", "Normal": "normal", "subnormal": "..."}
    with pytest.raises(InputError, match=r"class_map has \.\.\. for 'subnormal', where a class name is still"):
        external(run, ["ABNORMAL", "Normal", "subnormal"], class_map=pasted(str(caught.value)))
    data = external(run, ["ABNORMAL", "Normal", "gesund", "x"], class_map={"normal": "normal", "gesund": "normal",
                                                                          "abnormal": "abnormal", "x": ""})  # fmt: skip
    assert list(named(data, "test").values()) == ["abnormal", "normal", "normal"]
    assert "1 image without a label in e.csv was left out" in data.notes


def test_a_class_map_of_training_holds_for_the_runs_own_images_and_for_others_only_when_said(here):
    own = table(here, ["1", "0", "None"] * 8)
    class_map = {"1": "ill", "0": "well", "None": "well"}
    path = save_split(load(own, class_map=class_map, test_fraction=0.25, val_fraction=0.2), here / "run/datalist.json")
    assert json.loads(path.read_text())["labels"] == {"0": "ill", "1": "well"}
    again = load_evaluation_records(path, own, class_names=("ill", "well"))
    assert again.test == load_evaluation_records(path, class_names=("ill", "well")).test and len(again.test) == 6
    (here / "e.csv").write_text("image,label\n" + "".join(f"{n}.png,{n % 2}\n" for n in range(30, 40)))
    with pytest.raises(InputError, match="isn't the data of this run") as caught:
        load_evaluation_records(path, here / "e.csv", class_names=("ill", "well"))
    assert pasted(str(caught.value)) == {"1": "ill", "0": "well"}
    data = load_evaluation_records(path, here / "e.csv", class_names=("ill", "well"), keep_twins=True,
                                   class_map={"1": "well", "0": "ill"})  # fmt: skip
    assert named(data, "test") == {str(n): ("ill", "well")[n % 2] for n in range(30, 40)}


# ------------------------------------------------------------------------------------------------------------- training


def test_a_class_map_names_numbers_and_joins_languages(here):
    labels = ["0", "1", "Normal", "gesund", "krank"] * 4
    class_map = {"0": "normal", "1": "ill", "NORMAL": "normal", "Gesund": "normal", "krank": "ill"}
    data = load(table(here, labels), class_map=class_map)
    assert data.class_names == ("ill", "normal") and data.class_map == class_map
    assert named(data) == {str(n): class_map.get(label, "normal") for n, label in enumerate(labels)}
    assert any("by --class-map '0' is normal, '1' is ill" in note for note in data.notes)


def test_a_class_map_names_class_folders_archives_and_columns_too(here):
    for name, folder in (("0.png", "gesund"), ("1.png", "Normal "), ("2.png", "krank"), ("3.png", "x")):
        (here / "d" / folder).mkdir(parents=True)
        (here / name).rename(here / "d" / folder / name)
    data = load(here / "d", class_map={"gesund": "normal", "normal": "normal", "x": ""})
    assert named(data) == {"0": "normal", "1": "normal", "2": "krank"}
    assert "1 image without a label was left out" in data.notes
    (here / "f.csv").write_text("image,Erguss,effusion,x\n4.png,1,0,0\n5.png,0,1,0\n6.png,0,0,1\n")
    options = {"label_column": ["Erguss", "effusion", "x"], "class_map": {"Erguss": "effusion"}}
    flags = load(here / "f.csv", **options)
    assert flags.class_names == ("effusion", "x")
    assert [record["label"] for record in flags.train] == [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]


def test_words_of_the_map_that_no_label_has_are_told_or_refused(here):
    listed = table(here, ["gesund", "krank"] * 5)
    refused("class_map names 'gesnd'", "but 'gesund' is one", where=listed, class_map={"gesnd": "normal"})
    data = load(listed, class_map={"krank": "ill", "malade": "ill"})
    assert any("is 'malade', which --class-map names" in note for note in data.notes)
    # no typing error: the word begins otherwise, and may be another class
    assert load(table(here, ["normal", "ill"] * 5), class_map={"abnormal": "ill"}).class_names == ("ill", "normal")


@pytest.mark.parametrize(
    "mapped, there",
    [("stage 2", "stage 3"), ("T1", "T1a"), ("grade II", "grade III"), ("type A", "type B"), ("BIRADS_4", "BIRADS_5")],
)
def test_words_that_differ_in_a_number_or_letter_are_other_classes_and_no_typing_errors(here, mapped, there):
    data = load(table(here, ["first", there] * 5), class_map={"first": "early", mapped: "early"})
    assert sorted(data.class_names) == sorted(["early", there])
    assert f"no label of {data.source} is {mapped!r}, which --class-map names" in data.notes
    wrong = there[0] + there[2] + there[1] + there[3:]  # two letters changed places
    if len(there) > 3:
        refused(f"names {wrong!r}", f"but {there!r} is one", where=here / "t.csv", class_map={wrong: "x"})


@pytest.mark.parametrize("given", ["abnormal", "[1, 2]", "{'a': None}", "{'a': 'b|c'}", {"a": ["b"]}, "{'a': "])
def test_what_is_no_class_map_is_refused(given):
    with pytest.raises(InputError, match="class_map is .* such as "):
        LabelWords(read(ReadOptions, {"class_map": given}).class_map)


def test_two_names_for_one_word_are_refused():
    with pytest.raises(InputError, match="gives '07' two classes, 'a' and 'b'"):
        LabelWords({"7": "a", "07": "b"})


@pytest.mark.parametrize("name", ["it's", 'the "b"', "$HOME `x`", "a!b", "lung\N{NO-BREAK SPACE}cancer", "Ödem"])
def test_an_offered_map_survives_the_shell(name):
    option = as_option({name: name})
    assert ast.literal_eval(shlex.split(option)[1]) == {name: name}


@pytest.mark.parametrize(
    "spellings",
    [
        ("lung cancer", "lung\N{NO-BREAK SPACE}cancer"),
        ("normal", "normal\N{ZERO WIDTH SPACE}"),
        ("lung cancer", "lung  cancer"),
        ("T-cell", "T\N{NON-BREAKING HYPHEN}cell"),
        ("no_finding", "no finding"),
    ],
)
def test_labels_that_differ_in_what_can_not_be_seen_are_refused_and_the_offered_map_joins_them(here, spellings):
    listed = table(here, [*spellings, "other"] * 4)
    message = refused("differ only in capital letters, spaces, dashes", where=listed)
    assert load(listed, class_map=pasted(message)).class_names == tuple(sorted(["other", min(spellings)]))


@pytest.mark.parametrize("word", ["NA", "#N/A", "nan", "NaN", "<NA>", "None", "null", "N/A", "#VALUE!"])
def test_cells_that_excel_and_pandas_write_for_a_missing_label_have_none(here, word):
    data = load(table(here, ["a", "b", word] * 4))
    assert data.class_names == ("a", "b") and "4 images without a label in t.csv were left out" in data.notes
    assert load(table(here, ["a", "b", word] * 4), class_map={word: "c"}).class_names == ("a", "b", "c")
    assert load(table(here, ["a", "b", word] * 4), class_names=["a", "b", word]).class_counts() == [4, 4, 4]
    folders = here / "d"
    for number, name in enumerate(("a", word.replace("/", "_"))):
        (folders / name).mkdir(parents=True)
        (here / f"{number}.png").rename(folders / name / f"{number}.png")
    assert len(load(folders).class_names) == 2  # a folder is no empty cell


@pytest.mark.parametrize("word", ["none", "unknown", "-"])
def test_words_that_may_be_a_class_are_one_and_are_told_with_what_leaves_them_out(here, word):
    data = load(table(here, ["a", "b", word] * 4))
    assert word in data.class_names
    (doubt,) = data.doubts
    assert doubt in data.notes and f"{word!r} in" in doubt and pasted(doubt) == {word: ""}
    assert load(table(here, ["a", "b", word] * 4), class_map=pasted(doubt)).class_names == ("a", "b")


def test_one_class_beside_missing_labels_says_so(here):
    refused("one class only (tumour) (6 images without", where=table(here, ["tumour", "None"] * 6))


def test_empty_cells_of_label_columns_are_counted(here):
    (here / "f.csv").write_text("image,x,y\n0.png,1,\n1.png,NaN,1\n2.png,1,0\n")
    data = load(here / "f.csv", label_column=["x", "y"])
    assert [record["label"] for record in data.train] == [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
    assert "2 of 6 cells of labels in f.csv are empty and count as 0" in data.notes


# ------------------------------------------------------------------------------------------------ what can't be a class


@pytest.mark.parametrize(
    "labels, words",
    [
        ([f"{20.74 + n}" for n in range(60)], "measurement or a count, with 60 values from 20.74 to 79.74 for 60"),
        ([f"{20 + n},5" for n in range(60)], "measurement"),
        ([f"{20 + n}".translate(ARABIC) for n in range(60)], "measurement or a count, with 60 values from 20 to 79"),
        ([n * 37 % 91 for n in range(60)], "measurement or a count, with 60 values"),
        ([n % 45 for n in range(60)], "measurement or a count, with 45 values from 0 to 44"),
        ([f"{n % 25 / 10}" for n in range(60)], "measurement or a count, with 25 values from 0 to 2.4"),
        ([f"labels/mask_{n:02d}.nii.gz" for n in range(60)], "names of files, such as labels/mask_00.nii.gz"),
        (["mask_0.png", "mask_1.png"] * 30, "names of files"),
        ([f"subject {n}" for n in range(60)], "look like names of single images or patients"),
        ([f"subject {n % 40}" for n in range(60)], "40 different ones for 60"),
    ],
)
def test_labels_that_can_not_be_classes_are_refused(here, labels, words):
    rows = [f'{n}.png,"{label}"' for n, label in enumerate(labels)]
    (here / "t.csv").write_text("\n".join(["image,label", *rows]))
    refused(words, "--label-column", where=here / "t.csv")


@pytest.mark.parametrize(
    "labels",
    [
        [f"class {n}" for n in range(9)],  # tiny
        list(range(9)),
        [n % 10 for n in range(60)],  # digits
        [n % 30 for n in range(60)],  # two of each
        [f"{n % 11 / 2}" for n in range(60)],  # scores in half steps
        [("a", "b")[n % 2] if n < 50 else f"rare {n}" for n in range(60)],  # ten classes of one image in a larger set
        ["scan.png is blurred", "fine"] * 30,
    ],
)
def test_real_classes_are_taken(here, labels):
    assert len(load(table(here, labels)).train) == len(labels)


def test_a_class_map_makes_classes_of_a_measurement(here):
    ages = [20 + n for n in range(60)]
    names = {str(age): "old" if age > 50 else "young" for age in ages}
    assert load(table(here, ages), class_map=names).class_counts() == [29, 31]


def of_patients(label: str, patient: str, images: int) -> list[Row]:
    """Rows of 12 labels and patients in turn."""
    return [Row(f"/{n}.png", (f"{label}{n % 12}",), patient=patient and f"{patient}{n % 12}") for n in range(images)]


def test_classes_of_one_patient_and_many_images_each_are_taken_with_a_doubt():
    for rows, doubts in ((of_patients("species", "p", 120), 1), (of_patients("k", "", 120), 0)):
        source = Source(Path("/"), "a set", tuple(rows))
        refuse_no_classes(rows, source)
        assert len(doubtful_words(rows, source)) == doubts
    (doubt,) = doubtful_words(rows := of_patients("species", "p", 120), Source(Path("/"), "a set", tuple(rows)))
    assert doubt.startswith("the 12 classes (species0, species1, species10 ...) have 12 patients in all")


@pytest.mark.parametrize("rows", [of_patients("p", "P", 120), of_patients("k", "p", 12), of_patients("", "p", 120)])
def test_ids_of_patients_and_a_value_of_each_are_no_classes_unless_the_user_lists_them(rows):
    source = Source(Path("/"), "a set", tuple(rows))
    with pytest.raises(InputError, match="12 different ones for 12 patients|12 values from 0 to 11 for 12 patients"):
        refuse_no_classes(rows, source)
    refuse_no_classes(rows, source, [row.labels[0] for row in rows[:12]])


def test_a_dozen_species_of_one_animal_each_are_loaded_and_a_list_of_them_settles_it(here):
    rows = "".join(f"{n}.png,species{n % 12},{n % 12}\n" for n in range(60))
    (here / "t.csv").write_text(f"image,label,patient\n{rows}")
    data = load(here / "t.csv")
    assert data.num_classes == 12 and any("12 classes" in doubt for doubt in data.doubts)
    ids = here / "i.csv"
    ids.write_text(f"image,label,patient\n{rows.replace('species', '')}")
    refused("12 values from 0 to 11", where=ids)
    assert load(ids, class_names=[str(n) for n in range(12)]).num_classes == 12


def test_many_numbers_with_few_images_each_are_told(here):
    (doubt,) = load(table(here, [n % 25 for n in range(60)])).doubts
    assert doubt.startswith("the labels are 25 different numbers, with 2 images each on the average")
    assert load(table(here, [n % 6 for n in range(60)])).doubts == []


def test_offers_have_as_many_places_as_there_are_numbers():
    assert map_offered(["0", "1"], ["a", "b"]) == "--class-map \"{'1': 'a', '0': 'b'}\""
    assert map_offered(["0", "1", "2"], ["a", "b"]) == "--class-map \"{'0': '...', '1': '...', '2': '...'}\""
    assert map_offered(["2"], ["a", "b"], {"1": "a"}) == "--class-map \"{'1': 'a', '2': '...'}\""
    assert map_offered(["0"], ["1", "2"]) == "--class-map \"{'0': '...'}\""


def test_classes_that_a_list_declares_are_taken_unless_they_are_files(here):
    entries = [{"image": f"{n}.png", "label": n} for n in range(12)]
    (here / "d.json").write_text(json.dumps({"labels": [f"k{n}" for n in range(12)], "training": entries}))
    assert len(load(here / "d.json").class_names) == 12  # such as a run of an earlier version
    entries = [{"image": f"{n}.png", "label": f"./labelsTr/{n}.nii.gz"} for n in range(12)]
    (here / "d.json").write_text(json.dumps({"labels": {"0": "background", "1": "tumour"}, "training": entries}))
    refused("the labels are names of files, such as ./labelsTr/0.nii.gz", where=here / "d.json")


def test_a_class_map_of_a_run_says_nothing_of_other_data_that_it_does_not_concern(here):
    path = save_split(
        load(table(here, ["gesund", "krank"] * 10), class_map={"gesund": "well", "krank": "ill"}, test_fraction=0.2),
        here / "run" / "datalist.json",
    )
    (here / "e.csv").write_text("image,label\n" + "".join(f"{n}.png,{('well', 'ill')[n % 2]}\n" for n in range(30, 40)))
    data = load_evaluation_records(path, here / "e.csv", class_names=("ill", "well"), keep_twins=True)
    assert not any("class_map" in note for note in data.notes) and data.class_map == {}
    (here / "e.csv").write_text("image,label\n30.png,gesunde\n31.png,ill\n")
    with pytest.raises(InputError, match="doesn't know: gesunde"):
        load_evaluation_records(path, here / "e.csv", class_names=("ill", "well"))


def test_a_long_list_of_unknown_labels_is_cut(run):
    with pytest.raises(InputError, match=r"x19 and 10 more; it was trained on abnormal, normal") as caught:
        external(run, [f"x{n:02d}" for n in range(30)][::-1], label_column="label")
    assert len(pasted(str(caught.value))) == 20


def test_a_folder_that_is_called_unknown_is_a_class_without_a_word(here):
    for number, name in enumerate(("none", "unknown", "a")):
        (here / "d" / name).mkdir(parents=True)
        (here / f"{number}.png").rename(here / "d" / name / f"{number}.png")
    data = load(here / "d")
    assert data.class_names == ("a", "none", "unknown") and data.doubts == []


def test_digits_of_another_script_are_those_of_the_same_number(here):
    three = "\N{ARABIC-INDIC DIGIT THREE}"
    listed = table(here, ["3", three, "4"] * 4)
    message = refused("differ only in", r"'3' and '\u0663'", where=listed)
    assert load(listed, class_map=pasted(message)).class_names == ("3", "4")
    lines = [f"{n}.png,{'ab'[n % 2]},{('7', chr(0x667))[n] if n < 2 else n + 10}" for n in range(20)]
    (here / "p.csv").write_text("\n".join(["image,label,patient", *lines]), encoding="utf-8")
    assert len({record["patient"] for record in load(here / "p.csv").train}) == 19


@pytest.mark.parametrize("label", [-1, -0.5, {"a": 1}, [["a"]], float("inf"), [-1.5, "a"]])
def test_a_label_of_a_json_file_that_names_no_class_is_refused_with_its_entry(here, label):
    entries = [{"image": f"{n}.png", "label": label if n == 5 else "ab"[n % 2]} for n in range(8)]
    (here / "t.json").write_text(json.dumps(entries))
    refused(str(here / "t.json"), "entry 6", "can't be a label", where=here / "t.json")


def test_no_label_of_a_json_file_is_an_empty_cell_and_true_is_a_word(here):
    labels = ["True", True, False, "False", float("nan"), None, "True", False]
    (here / "t.json").write_text(json.dumps([{"image": f"{n}.png", "label": one} for n, one in enumerate(labels)]))
    data = load(here / "t.json")
    assert data.class_names == ("False", "True") and sorted(named(data)) == ["0", "1", "2", "3", "6", "7"]
    assert load(table(here, ["-1", "1", "-1"])).class_names == ("-1", "1")  # a text, as every cell of such a table is


@pytest.mark.parametrize("field", ["image", "label", "patient", "more"])
def test_half_a_letter_in_a_json_file_is_refused(here, field):
    (here / "t.json").write_text(json.dumps([{"image": "0.png", "label": "a", field: "x\ud800"}]))
    refused(str(here / "t.json"), "can't be read as JSON", "surrogates", where=here / "t.json")
