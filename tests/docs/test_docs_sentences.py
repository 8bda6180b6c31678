# SPDX-License-Identifier: Apache-2.0
"""Pages are read aloud by people in a hurry: no sentence is long, and most are short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WRITTEN = {"options.md", "commands.md", "tables.md", "api.md"}  # by scripts, from help and numbers
PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "bundle" / "docs").glob("*.md")]
    if path.name not in WRITTEN
)
LONGEST, MEAN = 35, 20  # words
TRANSLATED = re.compile(
    r"\b(?:(?:is|are) (?:told|said)|whoever|alike|for who|of one's own|anew|but for)\b", re.IGNORECASE
)


def sentences(page: str) -> list[str]:
    """The sentences of a Markdown page; code, tables, headings and what scripts wrote are none."""
    prose = re.sub(r"```.*?```|<!--.*?-->", "\n\n", page, flags=re.DOTALL)
    found: list[str] = []
    for part in re.split(r"\n\s*\n|\n(?=\s*(?:[*+-]|\d+\.) )", prose):
        if part.strip() and not part.lstrip("\n").startswith(("|", "#", "!", "<", "---", "    ")):
            plain = re.sub(r"`[^`]*`", "code", re.sub(r"\]\([^)]*\)", "]", part))
            found += re.split(r"(?<=[.!?])\s+", " ".join(plain.split()))
    return [one for one in found if len(one.split()) > 2]


def test_a_sentence_ends_where_a_reader_would_end_it():
    page = "# Title\n\nOne is short. Is `a b c d` one word?\n\n| a | b c d |\n\n* This [goes on](a b)\n  here and on.\n"
    assert sentences(page) == ["One is short.", "Is code one word?", "* This [goes on] here and on."]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_sentence_is_long_and_most_are_short(page):
    lengths = {one: len(one.split()) for one in sentences(page.read_text(encoding="utf-8"))}
    assert not [one for one, words in lengths.items() if words > LONGEST]
    assert sum(lengths.values()) / max(len(lengths), 1) < MEAN


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_has_no_words_that_sound_translated(page):
    assert not TRANSLATED.findall(re.sub(r"`[^`]*`", "code", page.read_text(encoding="utf-8")))
