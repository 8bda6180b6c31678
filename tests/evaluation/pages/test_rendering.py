# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from jinja2 import TemplateNotFound, UndefinedError
from markupsafe import Markup

from dual_skd.evaluation.pages import rendering
from dual_skd.evaluation.pages.rendering import Notes, Table, clean, data_uri, markdown, render, sentence
from dual_skd.metrics.estimates import Estimate

MACROS = rendering._HTML.get_template("macros.html").module
EVIL = "\"><script>alert('x')</script>"


def test_every_value_of_a_template_is_text_but_markup():
    page = render("result.html", title=EVIL, tables=[Table([EVIL, Markup("<b>y</b>")], [[EVIL, EVIL]])], plots=[])
    assert "<script" not in page and page.count("&lt;script&gt;") == 5 and "<b>y</b>" in page
    picture = MACROS.picture(b"png", EVIL, 10)
    assert picture.startswith('<img src="data:image/png;base64,cG5n" alt="&#34;&gt;&lt;script&gt;')


def test_a_name_that_a_template_needs_and_does_not_get_is_an_error():
    with pytest.raises(UndefinedError, match="'title' is undefined"):
        render("result.html", tables=[], plots=[])
    with pytest.raises(TemplateNotFound):
        render("none.html")


def test_characters_that_no_document_may_hold_are_replaced():
    assert clean("a\x00b\x1bc\ud800\n") == "a\ufffdb\ufffdc\ufffd\n"
    assert "a\ufffdb" in render("result.html", title="a\x00b", tables=[], plots=[])


def test_characters_that_turn_the_direction_of_text_are_replaced():
    for turning in map(chr, (0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))):
        assert clean(f"scan{turning}gnp.exe") == "scan\ufffdgnp.exe" == markdown(f"scan{turning}gnp.exe")
    assert clean("\u05d0\u0628 \u200d\u2019") == "\u05d0\u0628 \u200d\u2019"  # letters of any direction stay


def test_text_is_text_in_markdown_too():
    assert markdown("a|b\n# *c* <d> [e](f) `g`") == "a\\|b \\# \\*c\\* &lt;d&gt; \\[e\\](f) \\`g\\`"


def test_an_estimate_shows_its_interval_or_the_reason():
    whole = MACROS.estimate(Estimate(0.51234, 0.4, 0.6))
    assert whole == '<span class="value">0.512</span> <span class="limits">0.400 to 0.600</span>'
    assert MACROS.estimate(Estimate(None, reason="no image of <b>")) == "– <small>no image of &lt;b&gt;</small>"
    assert MACROS.estimate(Estimate(1.0, reason="one patient")).endswith("1.000</span> <small>one patient</small>")


def test_reasons_that_differ_in_counts_only_are_one_note():
    notes = Notes()
    for n in (21, 42):
        shown = MACROS.estimate(Estimate(1.0, 0.8, 1.0, f"for {n} independent observations"), notes)
        assert shown == '<span class="value">1.000</span><sup>a</sup> <span class="limits">0.800 to 1.000</span>'
    for reason in ("no image of T2", "no image of T1"):  # digits of a name aren't counts
        notes.mark(reason)
    said = ["for 21 to 42 independent observations", "no image of T2", "no image of T1"]
    assert notes.lines() == list(zip("abc", said, strict=True))


def test_a_table_scrolls_within_its_frame_and_has_its_notes_below():
    rows = [["a", Estimate(None, reason="why")], ["b", (Estimate(0.5), "without c")], ["c" * 21, 7]]
    page = MACROS.table(Table(["name", "value"], rows), footnotes=True)
    assert 'tabindex="0" role="region" aria-label="name value"><table>' in page
    assert page.index("</table></div>") < page.index('<p class="note"><sup>a</sup> why</p>')
    assert '<td><span class="value">0.500</span> <small>without c</small></td>' in page
    assert f'<th scope="row" class="words">{"c" * 21}</th><td>7</td>' in page
    assert 'aria-label="<b>"' not in MACROS.table(Table(["x"], []), "<b>")


def test_sentences_begin_with_a_capital_unless_a_file_does():
    assert [sentence(words) for words in ("no image", "run.json is bad", "")] == ["No image.", "run.json is bad.", ""]


def test_pictures_are_part_of_the_page():
    assert data_uri(b"png") == "data:image/png;base64,cG5n" and data_uri(b"\xff\xd8").startswith("data:image/jpeg;")
