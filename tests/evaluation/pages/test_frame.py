# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re

import pytest

from dual_skd.evaluation.pages.frame import RESEARCH, cards, document, figure, figures, gallery, sections
from dual_skd.evaluation.pages.markup import Markup, element, picture
from dual_skd.evaluation.pages.style import STYLE


def test_a_document_is_whole_and_says_what_wrote_it():
    page = document("a < b", [element("p", "x")], version="1.2", about="of today", warnings=[RESEARCH, "Beware."])
    assert page.startswith("<!DOCTYPE html>") and "<title>a &lt; b</title>" in page and "<h1>a &lt; b</h1>" in page
    assert '<meta name="generator" content="dual-skd 1.2">' in page and f"{RESEARCH} Beware.</p>" in page
    assert "default-src 'none'" in page
    assert "warning" not in document("a", [], version="1").split("</style>")[1]


def test_the_style_knows_the_dark_and_paper():
    assert "@media (prefers-color-scheme:dark)" in STYLE and "@media print" in STYLE and "@page" in STYLE
    assert STYLE.count("{") == STYLE.count("}")
    assert "http" not in STYLE and "url(" not in STYLE and "@import" not in STYLE


def contrast(one: str, other: str) -> float:
    """Contrast ratio of WCAG 2.2 of two sRGB colours."""

    def luminance(colour: str) -> float:
        parts = [int(colour[1 + 2 * k : 3 + 2 * k], 16) / 255 for k in range(3)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_letters_and_lines_have_the_contrast_that_wcag_asks_for():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    light, dark = (
        dict(re.findall(r"--(\w+):(#\w{6})", block)) for block in re.findall(r":root\{(.*?)\}", STYLE, re.DOTALL)[:2]
    )
    light["page"] = "#ffffff"
    for colours in (light, dark):
        for ground in ("page", "wash"):
            assert all(contrast(colours[name], colours[ground]) >= 4.5 for name in ("ink", "soft", "link", "alarm"))
            assert all(contrast(colours[f"c{k}"], colours[ground]) >= 3 for k in range(1, 7))


def test_on_paper_long_tables_and_galleries_go_on_on_the_next_page():
    printed = STYLE[STYLE.index("@media print") :]
    whole = re.findall(r"[{}]\n?([^{}]+)\{break-inside:avoid\}", printed)
    kept = [one for selectors in whole for one in selectors.split(",")]
    assert {"figure", "tr", ".case"} <= set(kept) and not {".scroll", ".cases", ".plots", "table"} & set(kept)
    assert "thead{display:table-header-group}" in printed


def test_sections_are_linked_and_pieces_hold_what_they_are_given():
    both = sections([("one", "One & only", Markup("<p>1</p>")), ("two", "Two", Markup(""))])
    assert '<a href="#one">One &amp; only</a>' in both and '<section id="one"><h2>One &amp; only</h2><p>1</p>' in both
    assert cards([("AUC", "0.9", ""), ("ECE", "0.1", "off by a tenth")]).count("<p>") == 1
    assert "<b>ROC &lt;</b> up is better" in figure(Markup("<svg></svg>"), "ROC <", "up is better")
    assert figures([]) == ""
    three = gallery([([picture(b"", "a", 8)] * 3, ["words", ""])])
    assert three.count('class="pair"') == 2 and three.count("<img") == 3 and three.count("<p>") == 1
