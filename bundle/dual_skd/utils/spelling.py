# SPDX-License-Identifier: Apache-2.0
"""When two words mean the same, and when one means that nothing is known: for labels, patients, sites and columns."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

# what programs write where nothing is known, in any column; compared as :func:`key_of` compares words
_MISSING = ("", "na", "n/a", "n.a.", "#na", "#n/a", "#n/a n/a", "<na>", "nan", "-nan", "#value!", "#ref!", "#null!",
            "#name?", "#div/0!", "null", "none", "nil", "nat", "missing", "unknown", "unbekannt", "not available", "-",
            "--", "---", "?", "??", "???", ".", "..", "...")  # fmt: skip
# what programs that take names out of files leave in their place
_NOBODY = ("anon", "anonym", "anonymous", "anonymized", "anonymised", "anonymisiert", "anonymize", "anonymise",
           "deidentified", "de-identified", "pseudonymized", "pseudonymised", "removed", "redacted", "deleted",
           "no name", "noname", "no id", "noid")  # fmt: skip
# cells that Excel and pandas write or read as missing, letter by letter
_EMPTY_CELLS = ("", "NA", "N/A", "n/a", "#N/A", "#NA", "#N/A N/A", "<NA>", "NaN", "nan", "-NaN", "-nan", "NaT", "None",
                "NULL", "null", "#VALUE!", "#REF!", "#NULL!", "#NAME?", "#DIV/0!")  # fmt: skip


@lru_cache(maxsize=2**17)
def key_of(word: str) -> str:
    """The key that words share which a person takes for one.

    Without regard to capital letters, how an accent or a width is stored (NFKC), kinds and number of spaces, the
    underscore in place of one, kinds of dashes, the script of digits, and characters that can't be seen. A whole number
    counts by its value: ``7``, ``7.0`` and ``007`` are one. Letters, dashes and points keep their place:
    ``P1-2`` isn't ``P12``.
    """
    word = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", word).casefold())
    letters = (_plain(letter) for letter in word.replace("\N{MINUS SIGN}", "-").replace("_", " "))
    word = " ".join("".join(letters).split())
    number = re.fullmatch(r"(-?)0*([0-9]+)(?:\.0+)?", word)
    return number[1] + number[2] if number else word


def _plain(letter: str) -> str:
    if letter.isspace():
        return " "
    kind = unicodedata.category(letter)
    if kind == "Nd":
        return str(unicodedata.decimal(letter))
    return "-" if kind == "Pd" else "" if kind in ("Cf", "Cc") else letter


def bare(name: str) -> str:
    """A column name without case, spaces and marks."""
    return "".join(letter for letter in key_of(name) if letter.isalnum())


def one_spelling(words: Iterable[str]) -> dict[str, str]:
    """Every word that has another spelling among the words -> the commonest of them, the first one of equals."""
    spellings: dict[str, Counter[str]] = {}
    for word, count in Counter(words).items():
        spellings.setdefault(key_of(word), Counter())[word] += count
    several = [found for found in spellings.values() if len(found) > 1]
    return {word: found.most_common(1)[0][0] for found in several for word in found}


def spellings_of_one(words: Iterable[str]) -> list[str]:
    """The spellings of the first word that has several among the words, none if no word has."""
    joined = one_spelling(words)
    return [word for word in joined if joined[word] == next(iter(joined.values()))]


def is_missing(word: str) -> bool:
    """Tells whether a word stands for an unknown value: "", NA, nan, unknown, - and the like, in any spelling."""
    return key_of(word) in _MISSING


def known(word: str) -> str:
    """The word without spaces at its ends, "" where it stands for an unknown value."""
    return "" if is_missing(word) else word.strip()


def known_patient(word: str) -> str:
    """The same for a patient's id, "" also where an anonymiser wrote its own word in place of each."""
    return "" if key_of(word) in _NOBODY else known(word)


def known_group(word: str) -> str:
    """The same for a group of images: "none", "nil" and dashes may be one, such as that without contrast medium."""
    means_something = key_of(word) in ("none", "nil", "-", "--", "---")
    return word.strip() if means_something and not is_empty_cell(word) else known(word)


def is_empty_cell(word: str) -> bool:
    """Tells whether a cell is empty, or holds what Excel or pandas write for an empty one, letter by letter.

    Narrower than :func:`is_missing`: a class may well be called "none", "unknown" or "-".
    """
    return word.strip() in _EMPTY_CELLS or key_of(word) == ""
