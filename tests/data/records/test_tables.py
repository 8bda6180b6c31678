# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import unicodedata
import zipfile
from pathlib import Path

import pytest

from dual_skd.data.records.labels import LabelWords
from dual_skd.data.records.record import LeftOut
from dual_skd.data.records.rows import Row, Source
from dual_skd.data.records.table_rows import read_image_table
from dual_skd.data.records.tables import read_table
from dual_skd.errors import InputError
from dual_skd.options.data import ReadOptions
from dual_skd.utils.files import write_csv


@pytest.fixture
def here(tmp_path) -> Path:
    """A folder with the images img/0.png to img/5.png."""
    (tmp_path / "img").mkdir()
    for number in range(6):
        (tmp_path / "img" / f"{number}.png").touch()
    return tmp_path


def csv(here: Path, *lines: str, encoding: str = "utf-8", name: str = "t.csv") -> Path:
    (here / name).write_bytes("\n".join([*lines, ""]).encode(encoding))
    return here / name


def read(path: Path, label_column="label", image_column=None) -> Source:
    return read_image_table(read_table(path, image_column), ReadOptions(label_column=label_column), LabelWords())


def refused(path: Path, words: str, label_column="label") -> None:
    with pytest.raises(InputError, match=words) as caught:
        read(path, label_column)
    message = str(caught.value)
    assert str(path) in message and "\n" not in message


def test_columns_that_divide_the_images_into_a_few_groups_are_kept(here):
    lines = [f"img/{k}.png,{'ab'[k % 2]},{'fm'[k // 3]},{k % 2},scan{k},same" for k in range(6)]
    found = read(csv(here, "image,label,Sex,contrast,scan,house", *lines)).rows
    assert found[4].groups == (("Sex", "m"), ("contrast", "0"))
    entries = [{"image": f"img/{k}.png", "label": "a", "contrast": k % 2, "age": 30.5 + k % 2} for k in range(6)]
    (here / "t.json").write_text(json.dumps({"test": entries}))
    assert [row.groups for row in read(here / "t.json").rows[:2]] == [(("contrast", "0"),), (("contrast", "1"),)]


def test_all_columns_are_read(here):
    source = read(
        csv(here, "image,label,split,patient,site", "img/0.png, ill ,Training,p1,north", "img/1.png,well,val,,")
    )
    assert source.rows == (
        Row(str(here / "img/0.png"), ("ill",), "train", "p1", "north"),
        Row(str(here / "img/1.png"), ("well",), "val"),
    )


@pytest.mark.parametrize("column", ["patient_id", "PatientID", "subject", "Subject ID"])
def test_patients_are_found_under_other_names(here, column):
    source = read(csv(here, f"image,label,{column}", *(f"img/{k}.png,{'ab'[k % 2]},p{k // 3}" for k in range(6))))
    assert [row.patient for row in source.rows] == ["p0"] * 3 + ["p1"] * 3
    assert source.notes == (f"the column {column} of t.csv counts as patient",)
    assert not any(row.groups for row in source.rows)
    stated = read(csv(here, f"image,label,patient,{column}", "img/0.png,a,p,7", "img/1.png,b,q,8"))
    assert [row.patient for row in stated.rows] == ["p", "q"] and stated.notes == ()
    refused(
        csv(here, f"image,label,{column},patient id", "img/0.png,a,p,7"),
        f"no column patient, but several that may be meant: {column}, patient id; rename the right one to patient",
    )


@pytest.mark.parametrize("column", ["set", "Subset", "partition"])
def test_splits_are_found_under_other_names_by_their_words(here, column):
    source = read(csv(here, f"image,label,{column}", "img/0.png,a,Training", "img/1.png,b,test"))
    assert [row.split for row in source.rows] == ["train", "test"]
    assert source.notes == (f"the column {column} of t.csv counts as split",)
    others = read(csv(here, f"image,label,{column}", *(f"img/{k}.png,a,{['train', 'A'][k % 2]}" for k in range(4))))
    assert {row.split for row in others.rows} == {""} and others.notes == () and others.rows[1].groups[0][1] == "A"
    assert {row.split for row in read(csv(here, f"image,{column}", "img/0.png,test"), column).rows} == {""}
    refused(csv(here, f"image,label,{column},sets,set_", "img/0.png,a,val,val,test"), "no column split, but several")


@pytest.mark.parametrize("column", ["set", "subset", "data_split", "Split of data", "split", "usage"])
@pytest.mark.parametrize("third", ["dev", "Development", "validation"])
def test_a_column_of_two_splits_or_more_is_one_with_all_their_words(here, column, third):
    words = ["train", third, "test"]
    rows = read(csv(here, f"image,label,{column}", *(f"img/{k}.png,a,{words[k % 3]}" for k in range(6)))).rows
    assert [row.split for row in rows] == ["train", "val", "test"] * 2


@pytest.mark.parametrize("column", ["set", "data_split", "split"])
def test_a_word_that_is_no_split_beside_two_that_are_is_refused(here, column):
    lines = [f"img/{k}.png,a,{['train', 'test'][k % 2]}" for k in range(4)]
    refused(csv(here, f"image,label,{column}", *lines, "img/4.png,a,later"), "entry 5: unknown split 'later'")
    for empty in ("NA", ""):
        refused(csv(here, f"image,label,{column}", *lines, f"img/4.png,a,{empty}"), "1 of 5 images have no split")
    # without a name that says so, another word is a sign that no split is meant
    source = read(csv(here, "image,label,task", *lines, "img/4.png,a,walk"))
    assert {row.split for row in source.rows} == {""} and source.notes == ()


def test_a_column_of_folds_is_told_as_it_divides_nothing(here):
    lines = [f"img/{k}.png,a,{k % 3}" for k in range(6)]
    source = read(csv(here, "image,label,Fold", *lines))
    assert source.notes == ("the column Fold of t.csv doesn't divide the images; only a split does",)
    assert read(csv(here, "image,label,Fold,split", *(f"{line},test" for line in lines))).notes == ()


@pytest.mark.parametrize(
    "further, words",
    [
        ({"valid_set": [{"image": "img/4.png", "label": "a"}] * 2}, "the list valid_set holds 2 images and is none of"),
        (
            {"holdout": ["img/4.png"]},
            "the list holdout holds 1 image and is none of training, validation, test and unlabelled",
        ),
        ({"test": {"img/4.png": "a"}}, "test must be a list of images, found an object"),
    ],
)
def test_lists_of_images_that_are_no_split_are_refused(here, further, words):
    training = [{"image": f"img/{k}.png", "label": "ab"[k % 2]} for k in range(4)]
    (here / "t.json").write_text(json.dumps({"train": training, **further}))
    refused(here / "t.json", words)
    others = {"tags": ["x", "y"], "authors": [{"name": "A"}], "licence": "MIT", "modality": {"0": "CT"}, "numTest": 0}
    (here / "t.json").write_text(json.dumps({"train": training, "Dev ": training[:1], "test": [], **others}))
    with pytest.raises(InputError, match="0.png twice, with different splits"):
        read(here / "t.json")
    (here / "t.json").write_text(json.dumps({"train": training[1:], "Dev ": training[:1], "test": [], **others}))
    assert [row.split for row in read(here / "t.json").rows] == ["train"] * 3 + ["val"]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_case_quotes_blank_lines_and_bom_of_spreadsheets_are_understood(here, separator):
    lines = ["Image,LABEL,Notes", 'img/0.png,a,"x, y; z"', ",,", 'img/1.png,b,"two\nlines"', ""]
    lines = [
        line if '"' in line and separator == "," else line.replace(",", separator).replace(f"x{separator}", "x,")
        for line in lines
    ]
    source = read(csv(here, *lines, encoding="utf-8-sig"))
    assert [(Path(row.image).name, row.labels) for row in source.rows] == [("0.png", ("a",)), ("1.png", ("b",))]


@pytest.mark.parametrize(
    "columns, first, last, joined",
    [
        ("image,label,notes", '{},a,"fell', '{},a,tube 5"', 3),
        ("image,label,notes", '{},a,"fell', "{},a,unclosed", 5),
        ("image,notes,label", '{},"fell,a', '{},tube 5",a', 3),
        ("image,label", '{},"a', "{},b", 5),
        ("image;label;notes", '{};a;"fell', '{};a;tube 5"', 3),
    ],
)
def test_a_stray_quote_that_swallows_lines_is_refused_with_its_entry(here, columns, first, last, joined):
    separator = ";" if ";" in columns else ","
    rest = separator.join(["{}", "a", "x"][: len(columns.split(separator))])
    rows = [form.format(f"img/{k}.png") for k, form in enumerate([rest, first, rest, last, rest, rest])]
    refused(csv(here, columns, *rows), f"t.csv, entry 2: a quote joins {joined} lines of the table into one entry")


def test_quotes_and_line_breaks_that_are_meant_stay(here):
    report = '"The lungs are clear,\nno effusion, no nodule,\nheart of normal size."'
    lines = [
        f"img/0.png,a,{report}",
        'img/1.png,b,5" tube',
        'img/2.png,a,"5"" tube,\nfine"',
        'img/3.png,b,"two\n\nlines"',
    ]
    table = read_table(csv(here, "image,label,notes", *lines))
    assert [entry["notes"] for entry in table.entries] == [report[1:-1], '5" tube', '5" tube,\nfine', "two\n\nlines"]


@pytest.mark.parametrize("first", ["sep=;", "SEP=;\r", '"sep=;"'])
def test_the_line_that_names_the_separator_for_excel_is_understood(here, first):
    assert [row.labels for row in read(csv(here, first, "image;label", "img/0.png;a", "img/1.png;b,c")).rows] == [
        ("a",), ("b,c",)
    ]  # fmt: skip
    assert len(read(csv(here, "sep=|", "image|label", "img/0.png|a", "img/1.png|b")).rows) == 2


def test_paths_of_windows_absolute_paths_and_locators_are_found(here):
    (here / "set.npz").touch()
    (here / "a#b.png").touch()
    lines = [
        "img\\0.png,a",
        f"{here}/img/1.png,b",
        "./img//2.png,a",
        "set.npz#train/3,b",
        "img#1.2.840.1,a",
        "a#b.png,b",
    ]
    found = [row.image for row in read(csv(here, "image,label", *lines)).rows]
    expected = ["img/0.png", "img/1.png", "img/2.png", "set.npz#train/3", "img#1.2.840.1", "a#b.png"]
    assert found == [f"{here}/{name}" for name in expected]


def test_images_outside_the_folder_of_the_table_are_taken_on_request(here):
    (here / "lists").mkdir()
    table = csv(here / "lists", "image,label", "../img/0.png,a", f"{here}/img/1.png,b")
    refused(table, "entry 1: the image ../img/0.png lies outside .*lists.* give --allow-outside")
    source = read_image_table(read_table(table), ReadOptions(allow_outside=True), LabelWords())
    assert [Path(row.image).resolve().name for row in source.rows] == ["0.png", "1.png"]


def test_repeated_entries_count_once_and_are_told(here):
    source = read(csv(here, "image,label,patient", "img/0.png,a,p", "img/1.png,b,q", "./img/0.png,a,p"))
    assert len(source.rows) == 2
    assert source.notes == ("1 repeated entry of t.csv counts once, for example 0.png",)


@pytest.mark.parametrize("other", ["mask/../img/0.png", "img/../img/0.png", "pictures/0.png", "pictures/../img/0.png"])
def test_one_file_under_two_names_is_one_image(here, other):
    (here / "mask").mkdir()
    (here / "pictures").symlink_to(here / "img", target_is_directory=True)
    source = read(csv(here, "image,label", "img/0.png,a", "img/1.png,b", f"{other},a"))
    assert len(source.rows) == 2 and "1 repeated entry of t.csv counts once, for example 0.png" in source.notes
    refused(csv(here, "image,label", "img/0.png,a", f"{other},b"), "0.png twice, with different labels")


def test_a_link_and_another_frame_of_a_file_are_images_of_their_own(here):
    (here / "img" / "copy.png").symlink_to(here / "img" / "0.png")
    (here / "set.npz").touch()
    lines = ["img/0.png,a", "img/copy.png,b", "set.npz#train/1,a", "img/../set.npz#train/2,b", "img#1.2,a", "img#1.3,b"]
    assert len(read(csv(here, "image,label", *lines)).rows) == 6


@pytest.mark.parametrize(
    "second, words",
    [
        ("b,train,p,s", "0.png twice, with different labels .a in entry 1, b in entry 3."),
        ("a,test,p,s", "with different splits .train in entry 1, test in entry 3."),
        ("a,train,,s", "with different patients .p in entry 1, none in entry 3."),
        ("a,train,p,t", "with different sites .s in entry 1, t in entry 3."),
    ],
)
def test_entries_that_contradict_each_other_are_refused(here, second, words):
    lines = ["image,label,split,patient,site", "img/0.png,a,train,p,s", "img/1.png,b,train,q,s", f"img/0.png,{second}"]
    refused(csv(here, *lines), words)


def test_multi_label_tables_have_a_column_per_label_or_joined_names(here):
    flags = csv(here, "image,X,y", "img/0.png,1,0", "img/1.png,0,1.0", "img/2.png,yes,true", "img/3.png,,0")
    source = read(flags, ["x", "y"])
    assert source.multi_label and source.class_names == ("x", "y")
    assert [row.labels for row in source.rows] == [("x",), ("y",), ("x", "y"), ()]
    joined = read(csv(here, "image,label", "img/0.png,x", "img/1.png,y", "img/2.png,x| y"))
    assert joined.multi_label and [row.labels for row in joined.rows] == [("x",), ("y",), ("x", "y")]


@pytest.mark.parametrize("empty", ["", " ", "NA", "#N/A", "nan", "|", "NA|"])
def test_an_empty_cell_has_no_label_also_beside_joined_ones_but_an_empty_list_says_none_of_them(here, empty):
    source = read(csv(here, "image,label", "img/0.png,x", f"img/1.png,{empty}", "img/2.png,x|y", f"img/3.png,{empty}"))
    assert [row.labels for row in source.rows] == [("x",), ("x", "y")]
    assert source.notes == ("2 images without a label in t.csv were left out",)
    entries = [{"image": f"img/{k}.png", "label": label} for k, label in enumerate((["x"], [], empty, None))]
    for content in (entries, {"labels": {"0": "x", "1": "y"}, "training": entries}):
        (here / "t.json").write_text(json.dumps(content))
        assert [row.labels for row in read(here / "t.json").rows] == [("x",), ()]


@pytest.mark.parametrize("declared", [{}, {"labels": {"0": "a", "1": "b"}}])
@pytest.mark.parametrize("labels", [[[0], [1]], [[1], [0]], [[0], [1, 0]], [[2.0], [1.0]]])
def test_a_list_of_one_number_is_no_flag_unless_there_is_one_class(here, labels, declared):
    entries = [{"image": f"img/{k}.png", "label": label} for k, label in enumerate(labels)]
    (here / "t.json").write_text(json.dumps({**declared, "training": entries}))
    refused(here / "t.json", rf"entry 1: the label \[{labels[0][0]}\] may be .* write {labels[0][0]} for the number")
    flags = [{"image": f"img/{k}.png", "label": [k % 2]} for k in range(4)]
    (here / "t.json").write_text(json.dumps({"labels": {"0": "a"}, "training": flags}))
    assert [row.labels for row in read(here / "t.json").rows] == [(), ("a",)] * 2


def test_a_json_list_keeps_its_classes_splits_and_what_was_left_out(here):
    left_out = [{"image": str(here / "img/5.png"), "label": 1, "split": "test", "twin": "t", "exact": True}]
    content = {
        "labels": ["well", "ill"],
        "training": [{"image": "img/0.png", "label": 0}, {"image": "img/1.png", "label": 1}],
        "test": [{"image": "img/2.png", "label": 1, "site": "s"}],
        "left_out": left_out,
    }
    (here / "d.json").write_text(json.dumps(content))
    source = read(here / "d.json")
    assert source.class_names == ("well", "ill") and source.left_out == (
        LeftOut(str(here / "img/5.png"), 1, twin="t", exact=True, split="test"),
    )
    assert [(row.labels, row.split, row.site) for row in source.rows] == [
        (("well",), "train", ""),
        (("ill",), "train", ""),
        (("ill",), "test", "s"),
    ]
    (here / "d.json").write_text(json.dumps([{"image": "img/0.png", "label": "a"}]))
    assert [row.labels for row in read(here / "d.json").rows] == [("a",)]


def test_missing_images_are_counted_and_the_first_is_named(here):
    refused(csv(here, "image,label", "img/0.png,a", "img/7.png,b"), "entry 2: the image img/7.png does not exist in")
    refused(
        csv(here, "image,label", "x.png,a", "y.png,b", "img/0.png,a"), "entry 1: the image x.png .*1 more of 3 don't"
    )


@pytest.mark.parametrize(
    "lines, words",
    [
        (["path,label", "img/9.png,a"], "no column image; columns found: path, label; rename path to image"),
        (["image,Diagnosis", "img/0.png,a"], "no column label; .*rename Diagnosis to label .* or give --label-column"),
        (["image,age", "img/0.png,7"], "no column label; columns found: image, age.$"),
        (["image,label"], "lists no images"),
        ([], "is empty; expected a line of column names"),
        (["image,label", ",a"], "entry 1: the image path is empty"),
        (["image,label", "img/0.png,"], "lists 1 image, none with a label in label"),
        (
            ["image,label,split", "img/0.png,a,later"],
            "entry 1: unknown split 'later'; use train, val, test or unlabelled",
        ),
        (["image,label,split", "img/0.png,a,test", "img/1.png,a,"], "1 of 2 images have no split; give all or none"),
        (["image,label", "img/0.png,a,b"], "entry 1: 3 fields where the first line names 2 columns"),
        (["image,label,label", "img/0.png,a,b"], "has two columns label"),
        (["image,label", "img/0.png\0,a"], "does not exist|line contains NUL"),
        (["image,label", '"img/0.png,a', "img/1.png,b"], "entry 1: a quote joins 2 lines of the table"),
    ],
)
def test_tables_that_can_not_be_used_say_why(here, lines, words):
    refused(csv(here, *lines), words)


def test_other_encodings_and_kinds_of_files_are_told(here):
    refused(csv(here, "image,label", "img/0.png,größer", encoding="cp1252"), "isn't in UTF-8.* save it as CSV UTF-8")
    refused(csv(here, "image,label", "img/0.png,a", encoding="utf-16"), "save it as CSV UTF-8")
    for name in ("t.xlsx", "t.csv", "t.json"):  # the third and second are workbooks all the same
        with zipfile.ZipFile(here / name, "w") as book:
            book.writestr("xl/workbook.xml", "")
        refused(here / name, "its content is an Excel workbook; save the sheet as CSV UTF-8")
    (here / "t.csv").write_text("<!DOCTYPE html><title>Please sign in</title>")
    refused(here / "t.csv", "its content is a web page")
    (here / "t.csv").write_text("BMI,label\n20,a\n")  # begins like a bitmap
    refused(here / "t.csv", "no column image; columns found: BMI, label")
    for content, words in (
        ("{broken", "can't be read as JSON"),
        ("3", "must hold a list of images"),
        ('{"images": []}', "list named training .* found: images"),
        ("[[1]]", "each image must be an object"),
        ("[" * 100_000, "can't be read as JSON"),
    ):
        (here / "t.json").write_text(content)
        refused(here / "t.json", words)
    flags = [{"image": "img/0.png", "label": [1, 0]}, {"image": "img/1.png", "label": [1, 0, 1]}]
    (here / "t.json").write_text(json.dumps({"labels": ["a", "b"], "training": flags}))
    refused(here / "t.json", "entry 2: 3 label flags for 2 classes")
    refused(csv(here, "image,x,y", "img/0.png,1,2"), "the label y must be 0 or 1, found '2'", ["x", "y"])


@pytest.mark.parametrize("given", ["effusion,nodule", "['effusion', 'nodule']"])
def test_several_columns_in_one_word_are_told_how_to_be_given(here, given):
    path = csv(here, "image,effusion,nodule", "img/0.png,1,0")
    refused(path, "several columns are given one by one, --label-column A --label-column B", given)


@pytest.mark.parametrize("column", ["Dateiname", "path", "Case", "image "])
def test_the_column_of_images_is_known_by_its_files(here, column):
    lines = [f"img/{k}.png;{'ab'[k % 2]};p{k // 2}" for k in range(6)]
    source = read(csv(here, f"{column};label;patient", *lines))
    assert [Path(row.image).name for row in source.rows] == [f"{k}.png" for k in range(6)]
    told = f"the column {column} of t.csv counts as image"
    assert source.notes == ((told,) if column.strip() != "image" else ())
    entries = [{column: f"img/{k}.png", "label": "ab"[k % 2]} for k in range(6)]
    (here / "t.json").write_text(json.dumps(entries))
    assert len(read(here / "t.json").rows) == 6


def test_most_files_have_to_be_there_for_a_column_to_be_known_by_them(here):
    lines = [f"img/{k + 3}.png,a,img" for k in range(6)]
    refused(csv(here, "Datei,label,folder", *lines), "entry 4: the image img/6.png does not exist")
    words = "no column image; .* or give --image-column Datei; few or none of its cells name image files"
    refused(csv(here, "Datei,label,folder", *lines[1:]), words)


@pytest.mark.parametrize("scan", ["img/{}.png", "{}.dcm", "img/scan {}", "img\\{}.PNG"])
def test_another_column_of_file_names_beside_the_one_whose_files_exist_is_a_doubt(here, scan):
    (here / "mask").mkdir()
    for k in range(12):
        (here / "mask" / f"{k}.png").touch()
    lines = [f"{scan.format(k if k < 5 else f'x{k}')},mask/{k}.png,a,1/2/2020,img/,p{k}" for k in range(12)]
    path = csv(here, "scan,mask,label,date,folder,patient", *lines)
    (doubt,) = read(path).doubts
    assert "the column mask of t.csv counts as image as its files exist, and scan looks like file names too" in doubt
    assert read(path, image_column="mask").doubts == ()
    alone = csv(here, "mask,label,date,folder,patient", *(line.partition(",")[2] for line in lines))
    assert read(alone).doubts == () and len(read(alone).rows) == 12


def test_of_several_columns_of_files_the_user_names_one(here):
    lines = [f"img/{k}.png,img/{5 - k}.png,a" for k in range(6)]
    refused(csv(here, "scan,mask,label", *lines), "several that name files: scan, mask; give --image-column")
    path = csv(here, "scan,mask,label", *lines)
    assert [Path(row.image).name for row in read(path, image_column="Mask").rows] == [f"{5 - k}.png" for k in range(6)]
    # a column that is called image is the one, whatever else holds files, unless another is named
    path = csv(here, "image,mask,label", *lines)
    assert Path(read(path).rows[0].image).name == "0.png"
    named = read(path, image_column="mask")
    assert Path(named.rows[0].image).name == "5.png" and named.notes == ("the column mask of t.csv counts as image",)
    with pytest.raises(InputError, match="no column masks; columns found: scan, mask, label; rename mask to masks"):
        read_table(csv(here, "scan,mask,label", *lines), "masks")


def test_columns_of_0_and_1_without_a_label_are_offered(here):
    lines = [f"img/{k}.png,{k % 2},{k % 3 % 2},{k}" for k in range(6)]
    words = r"no column label; .* age; oedema, effusion hold 0 and 1: .*--label-column A --label-column B"
    refused(csv(here, "image,oedema,effusion,age", *lines), words)


@pytest.mark.parametrize("on_disk, in_table", [("NFD", "NFC"), ("NFC", "NFD")])
def test_accents_that_are_stored_in_two_ways_name_one_file(here, on_disk, in_table):
    disk, name = (unicodedata.normalize(form, "Köln/Müller_0.png") for form in (on_disk, in_table))
    (here / disk).parent.mkdir()
    (here / disk).touch()
    source = read(csv(here, "image,label", f"{name},a", f"{name.replace('/', chr(92))},a", "img/0.png,b"))
    assert [row.image for row in source.rows] == [str(here / disk), str(here / "img/0.png")]
    assert read(csv(here, "Datei,label", f"{name},a")).rows[0].image == str(here / disk)


def test_a_file_in_other_capital_letters_is_a_hint(here):
    (here / "img" / "SCAN.PNG").touch()
    words = r"the image img/scan.png does not exist in .* \(there is img/SCAN.PNG, with other capital letters\)"
    refused(csv(here, "image,label", "img/scan.png,a", "img/0.png,b"), words)


def test_several_images_per_case_are_told(here):
    (here / "t.json").write_text(json.dumps([{"image": ["img/0.png", "img/1.png"], "label": "a"}]))
    refused(here / "t.json", r"entry 1: one image per case is taken, found \['img/0.png', 'img/1.png'\]")


def test_words_for_no_value_are_empty_cells_in_every_column(here):
    words = ["p", "NA", "?", "unknown", "-", "p"]
    lines = [f"img/{k}.png,{'ab'[k % 2]},{word},{word},{word}" for k, word in enumerate(words)]
    source = read(csv(here, "image,label,patient,site,scanner", *lines))
    assert [row.patient for row in source.rows] == [row.site for row in source.rows] == ["p", "", "", "", "", "p"]
    assert [row.groups for row in source.rows] == [(("scanner", word),) for word in ("p", "", "", "", "-", "p")]
    assert source.notes == ("NA, ?, unknown, - as patient in t.csv stands for none (4 images)",)
    splits = [f"img/{k}.png,a,{'train' if k else 'NA'}" for k in range(6)]
    refused(csv(here, "image,label,split", *splits), "1 of 6 images have no split")
    splits = [f"img/{k}.png,a,nan" for k in range(6)]
    assert {row.split for row in read(csv(here, "image,label,split", *splits)).rows} == {""}


def test_spellings_of_one_site_or_group_are_joined_and_told(here):
    words = ["Bonn", "bonn", "Bonn", *(unicodedata.normalize(form, "Köln") for form in ("NFC", "NFD")), "BONN"]
    lines = [f"img/{k}.png,a,{word},{'fFmMff'[k]}" for k, word in enumerate(words)]
    source = read(csv(here, "image,label,site,Sex", *lines))
    assert [row.site for row in source.rows] == ["Bonn"] * 3 + [words[3]] * 2 + ["Bonn"]
    assert [row.groups[0][1] for row in source.rows] == list("ffmmff")
    assert [note.split(":")[0] for note in source.notes] == [
        "spellings of one site in t.csv are joined",
        "spellings of one Sex in t.csv are joined",
    ]


def test_entries_that_spell_a_patient_in_two_ways_do_not_contradict_each_other(here):
    lines = ["img/0.png,a,7,x", "img/0.png,a,007,X", "img/1.png,b,NA,x", "img/1.png,b,,x"]
    source = read(csv(here, "image,label,patient,site", *lines))
    assert [row.patient for row in source.rows] == ["7", ""]


@pytest.mark.parametrize("name", ["Patient\N{NO-BREAK SPACE}", "PATIENT", "patient\N{ZERO WIDTH SPACE}"])
def test_column_names_are_known_in_any_spelling(here, name):
    assert read(csv(here, f"Image\N{ZERO WIDTH SPACE},LABEL,{name}", "img/0.png,a,p")).rows[0].patient == "p"


def test_numbers_of_another_column_are_those_that_the_list_declares(here):
    entries = [{"image": f"img/{k}.png", "grade": 1 + k % 2} for k in range(6)]
    (here / "t.json").write_text(json.dumps({"labels": {"1": "well", "2": "ill"}, "training": entries}))
    assert [row.labels for row in read(here / "t.json", "grade").rows] == [("well",), ("ill",)] * 3


def test_the_column_of_few_words_is_offered_as_label(here):
    lines = [f"img/{k}.png,{['ill', 'well'][k % 2]},{20 + k}" for k in range(6)]
    refused(csv(here, "image,Diagnose,age", *lines), "no column label; .* give --label-column Diagnose if that is the")


@pytest.mark.parametrize("name", ["it's 0 -a;'-b.png", "'=1.png", "a;'+b.png"])
def test_an_image_with_apostrophes_in_its_name_is_found_in_a_table_of_the_users_own(here, name):
    (here / name).touch()
    found = read(csv(here, "image,label", f'"{name}",a', "img/1.png,b"))
    assert [Path(row.image).name for row in found.rows] == [name, "1.png"]


def test_an_apostrophe_that_tables_get_is_taken_off_and_others_stay(here):
    for name in ("-b.png", "'=c.png"):
        (here / name).touch()
    write_csv(here / "t.csv", [["image", "label"], ["-b.png", "=1+1"], ["'=c.png", "it's"]])
    assert [Path(row.image).name for row in read(here / "t.csv").rows] == ["-b.png", "'=c.png"]
    assert [entry["label"] for entry in read_table(here / "t.csv").entries] == ["=1+1", "it's"]
    found = read_table(csv(here, "image,label", "img/1.png,'-0.5", "img/2.png,''"))
    assert [entry["label"] for entry in found.entries] == ["'-0.5", "''"]  # numbers are never written so


def test_a_name_that_may_mean_two_images_is_refused(here):
    for name in ("-b.png", "'-b.png"):
        (here / name).touch()
    refused(csv(here, "image,label", "'-b.png,a", "img/1.png,b"), "may be the image of that name or -b.png")
