# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import unicodedata

import pytest

from dual_skd.utils.spelling import (
    bare,
    is_empty_cell,
    is_missing,
    key_of,
    known,
    known_group,
    known_patient,
    one_spelling,
    spellings_of_one,
)

# what pandas.read_csv takes for missing (pandas 2.3, STR_NA_VALUES), without "-1.#IND" and its like, which are numbers
OF_PANDAS = ["", "#N/A", "#N/A N/A", "#NA", "-NaN", "-nan", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan",
             "null"]  # fmt: skip


NBSP, ZWSP, NFD = "\N{NO-BREAK SPACE}", "\N{ZERO WIDTH SPACE}", unicodedata.normalize("NFD", "Ödem")


@pytest.mark.parametrize(
    "spellings",
    [
        ["lung cancer", "Lung  Cancer", " lung_cancer ", f"lung{NBSP}cancer", f"lung{ZWSP} cancer"],
        ["T-cell", "t\N{NON-BREAKING HYPHEN}cell", "T\N{EN DASH}Cell", "T\N{SOFT HYPHEN}-cell", "T\N{MINUS SIGN}cell"],
        ["Ödem", NFD, "ödem", "\N{ZERO WIDTH NO-BREAK SPACE}ÖDEM"],
        ["7", "7.0", "007", " 7.00 ", "\N{FULLWIDTH DIGIT SEVEN}", "\N{LEFT-TO-RIGHT MARK}7"],
        ["0", "000", "0.0"],
        ["3", "\N{ARABIC-INDIC DIGIT THREE}", "\N{EXTENDED ARABIC-INDIC DIGIT THREE}", "\N{DEVANAGARI DIGIT THREE}.0"],
        ["P1-20", "p\N{BENGALI DIGIT ONE}-\N{THAI DIGIT TWO}0", "P\N{MATHEMATICAL BOLD DIGIT ONE}-20"],
        ["Straße", "STRASSE", "strasse"],
        ["ﬁbrosis", "Fibrosis"],
    ],
)  # fmt: skip
def test_what_a_person_takes_for_one_word_has_one_key(spellings):
    assert len({key_of(word) for word in spellings}) == 1
    assert spellings_of_one(["other", *spellings]) == spellings


@pytest.mark.parametrize(
    "words", [["P1-2", "P12", "P1.2", "P1 2"], ["1.2", "1.20", "12"], ["7", "-7", "70", "7a"], ["a", "ä", "b"]]
)
def test_other_words_have_other_keys(words):
    assert (
        len({key_of(word) for word in words}) == len(words)
        and spellings_of_one(words) == []
        and one_spelling(words) == {}
    )


def test_the_commonest_spelling_stands_for_all():
    assert one_spelling(["p1", "P1", "P1", "q", "07", "7"]) == {"p1": "P1", "P1": "P1", "07": "07", "7": "07"}


def test_column_names_have_a_bare_form():
    names = ("Patient ID", "patient_id", "PatientID", "patient-id", f"patient{NBSP}id")
    assert {bare(name) for name in names} == {"patientid"}


@pytest.mark.parametrize(
    "word", [*OF_PANDAS, "na", "unknown", "UNKNOWN", " - ", "\N{EN DASH}", "?", "none", "n.a.", ZWSP]
)
def test_words_for_a_missing_value_are_known(word):
    assert is_missing(word) and known(word) == known_patient(word) == ""


def test_words_that_mean_something_are_not_missing():
    for word in ("normal", "no finding", "0", "nodule", "Nan Liu", "negative", "anonymous1", "P-"):
        assert not is_missing(word) and known_patient(f" {word} ") == known_group(word) == word
    assert known_patient("ANONYMOUS") == known_patient("de-identified") == "" and known("anonymous") == "anonymous"


def test_an_empty_cell_is_what_pandas_and_excel_write_and_no_more():
    assert all(map(is_empty_cell, [*OF_PANDAS, "#VALUE!", " nan ", "\N{ZERO WIDTH SPACE}"]))
    assert not any(map(is_empty_cell, ["none", "unknown", "-", "?", "no", "Na"]))
    assert known_group("none") == "none" and known_group("-") == "-" and known_group("None") == known_group("?") == ""
