# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import doctest

from dual_skd.evaluation.pages import markup
from dual_skd.evaluation.pages.markup import Markup, Notes, clean, element, estimate, join, paragraph, picture, table


def test_the_example_is_true():
    assert doctest.testmod(markup).failed == 0


def test_every_string_is_escaped_but_markup():
    assert element("td", '<script>"x"', Markup("<b>y</b>")) == "<td>&lt;script&gt;&quot;x&quot;<b>y</b></td>"
    assert element("p", title='"><script>') == '<p title="&quot;&gt;&lt;script&gt;"></p>'
    assert join(["a&b", Markup("&amp;")]) == "a&amp;b&amp;"
    assert "<script>" not in table(["<script>"], [["<script>", "<script>"]], "<script>")


def test_characters_that_no_document_may_hold_are_replaced():
    assert clean("a\x00b\x1bc\ud800\n") == "a\ufffdb\ufffdc\ufffd\n"


def test_characters_that_turn_the_direction_of_text_are_replaced():
    for turning in map(chr, (0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))):
        assert clean(f"scan{turning}gnp.exe") == "scan\ufffdgnp.exe"
    assert clean("\u05d0\u0628 \u200d\u2019") == "\u05d0\u0628 \u200d\u2019"  # letters of any direction stay


def test_an_estimate_shows_its_interval_or_the_reason():
    whole = {"value": 0.51234, "low": 0.4, "high": 0.6, "reason": ""}
    assert "0.512" in estimate(whole) and "0.400 to 0.600" in estimate(whole)
    none = {"value": None, "low": None, "high": None, "reason": "no image of <b>"}
    assert estimate(none) == "– <small>no image of &lt;b&gt;</small>"
    lone = {"value": 1.0, "low": None, "high": None, "reason": "one patient"}
    assert "1.000" in estimate(lone) and "one patient" in estimate(lone)


def test_reasons_that_differ_in_counts_only_are_one_note():
    notes = Notes()
    limits = [{"value": 1.0, "low": 0.8, "high": 1.0, "reason": f"for {n} independent observations"} for n in (21, 42)]
    said = '<span class="value">1.000</span><sup>a</sup> <span class="limits">0.800 to 1.000</span>'
    assert [estimate(one, notes=notes) for one in limits] == [said] * 2
    for reason in ("no image of T2", "no image of T1"):  # digits of a name aren't counts
        estimate({"value": None, "low": None, "high": None, "reason": reason}, notes=notes)
    said = notes.paragraphs()
    for line in (
        "a</sup> for 21 to 42 independent observations<",
        "b</sup> no image of T2<",
        "c</sup> no image of T1<",
    ):
        assert line in said


def test_empty_sentences_leave_no_paragraph_and_pictures_are_part_of_the_page():
    assert paragraph("", "") == "" and paragraph("a", "", "b") == "<p>a b</p>"
    assert picture(b"png", 'x"', 10) == '<img src="data:image/png;base64,cG5n" alt="x&quot;" width="10">'
