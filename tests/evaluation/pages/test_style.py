# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
from pathlib import Path

import pytest

from dual_skd.evaluation.pages import rendering

STYLE = Path(rendering.__file__).with_name("templates").joinpath("style.css").read_text(encoding="utf-8")


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
