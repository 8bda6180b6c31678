# SPDX-License-Identifier: Apache-2.0
"""Pieces of an HTML page. Every string is escaped unless it is already :class:`Markup`."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# what no document may hold, and what turns the direction of the text after it, so that a name reads as another
_CONTROL = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
# counts in reasons; other digits may belong to the name of a class
_COUNTS = re.compile(r"\d+(?= independent observations|% of the resamples| validation images of it| of the rest)")
_EMPTY_ELEMENTS = ("img", "meta", "br", "hr")


class Markup(str):
    """A string that is HTML already."""


def clean(value: Any) -> str:
    """Text without the characters that neither HTML nor SVG may hold, and without those that turn its direction."""
    return _CONTROL.sub("\ufffd", str(value))


def text(value: Any) -> Markup:
    """HTML of any value; that of :class:`Markup` is itself."""
    return value if isinstance(value, Markup) else Markup(html.escape(clean(value), quote=True))


def join(parts: Iterable[Any]) -> Markup:
    """HTML of several values, one after the other."""
    return Markup("".join(text(part) for part in parts))


def element(tag: str, *children: Any, **attributes: Any) -> Markup:
    """An element; ``class_`` is written ``class``, ``aria_label`` ``aria-label``.

    Example:
        >>> element("p", "a < b", class_="note")
        '<p class="note">a &lt; b</p>'
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{text(value)}"' for name, value in attributes.items() if value != ""
    )
    if tag in _EMPTY_ELEMENTS:
        return Markup(f"<{tag}{written}>")
    return Markup(f"<{tag}{written}>{join(children)}</{tag}>")


def paragraph(*sentences: Any, **attributes: Any) -> Markup:
    """Sentences that aren't empty, in one paragraph; nothing where all are."""
    kept = [sentence for sentence in sentences if sentence]
    spaced = [part for sentence in kept for part in (sentence, " ")][:-1]
    return element("p", *spaced, **attributes) if kept else Markup("")


def table(head: Sequence[Any], rows: Iterable[Sequence[Any]], caption: str = "") -> Markup:
    """A table that scrolls within itself on a narrow screen; the first cell of a row names it."""
    lines = element("tr", *(element("th", cell, scope="col", class_=_long(cell)) for cell in head))
    body = [
        element(
            "tr",
            element("th", cells[0], scope="row", class_=_long(cells[0])),
            *(element("td", cell, class_=_long(cell)) for cell in cells[1:]),
        )
        for cells in rows
    ]
    many = "dense" if len(head) > 5 else ""  # then an interval stands below its number
    inside = element("table", element("thead", lines), element("tbody", *body), class_=many)
    label = clean(caption) if caption else " ".join(clean(cell) for cell in head)
    return join([paragraph(caption, class_="caption"), scrolling(inside, label)])


def scrolling(content: Markup, label: str) -> Markup:
    """Content that may be wider than the page, and then moves within itself, also by the keyboard."""
    return element("div", content, class_="scroll", tabindex="0", role="region", aria_label=label)


def _long(cell: Any) -> str:
    """Class of a cell: words that wrap, or a few that stay in one line."""
    return "words" if not isinstance(cell, Markup) and len(str(cell)) > 20 else ""


def details(summary: str, content: Markup) -> Markup:
    """Content that unfolds."""
    return element("details", element("summary", summary), content)


def number(value: float | None, digits: int = 3) -> str:
    """A number for a table; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


class Notes:
    """Footnotes of a table: the reasons why numbers are missing or special, each said once.

    Reasons that differ only in their counts are one note, with the smallest and the largest of each count.
    """

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, ...], list[list[int]]] = {}

    def mark(self, reason: str) -> Markup:
        """The sign that leads to a reason."""
        words = tuple(_COUNTS.split(reason))
        self._kinds.setdefault(words, []).append([int(digits) for digits in _COUNTS.findall(reason)])
        return element("sup", self._sign(list(self._kinds).index(words)))

    def paragraphs(self) -> Markup:
        """All reasons with their signs."""
        lines = []
        for place, (words, numbers) in enumerate(self._kinds.items()):
            spans = [
                f"{min(of)} to {max(of)}" if min(of) < max(of) else str(of[0]) for of in zip(*numbers, strict=True)
            ]
            reason = "".join(part for pair in zip(words, [*spans, ""], strict=True) for part in pair)
            lines.append(join([element("sup", self._sign(place)), " ", reason]))
        return join(paragraph(line, class_="note") for line in lines)

    def _sign(self, place: int) -> str:
        return chr(ord("a") + place) if place < 26 else str(place + 1)


def estimate(one: Mapping[str, Any] | None, digits: int = 3, notes: Notes | None = None) -> Markup:
    """A value with its interval, or the reason why one of them is missing: beside it, or as a note."""
    if one is None:
        return Markup("–")
    mark = Markup("") if notes is None or not one["reason"] else notes.mark(one["reason"])
    beside = element("small", one["reason"]) if notes is None and one["reason"] else Markup("")
    if one["value"] is None:
        parts = [join(["–", mark])]
    else:
        parts = [join([element("span", number(one["value"], digits), class_="value"), mark])]
    if one["low"] is not None:
        limits = f"{number(one['low'], digits)} to {number(one['high'], digits)}"
        parts.append(element("span", limits, class_="limits"))
    return Markup(" ".join(part for part in (*parts, beside) if part))


def picture(file: bytes, alternative: str, width: int, **attributes: Any) -> Markup:
    """An image held by the page itself, of a PNG or JPEG file."""
    kind = "jpeg" if file.startswith(b"\xff\xd8") else "png"
    source = f"data:image/{kind};base64," + base64.b64encode(file).decode("ascii")
    return element("img", src=Markup(source), alt=alternative, width=str(width), **attributes)
