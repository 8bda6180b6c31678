# SPDX-License-Identifier: Apache-2.0
"""Pages and cards from Jinja2 templates, in which every value is text unless it is :class:`markupsafe.Markup`."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from dual_skd import __version__
from dual_skd.metrics.estimates import Estimate
from dual_skd.utils.wording import metric_words

# what no document may hold, and what turns the direction of the text after it, so that a name reads as another
_CONTROL = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
# counts in reasons; other digits may belong to the name of a class
_COUNTS = re.compile(
    r"\d+(?= independent ob|% of the resamples| validation (?:images|patients) of it| of the rest| independent ones)"
)


class Table(NamedTuple):
    """A table of a page: its head, and rows whose first cell names them.

    A cell is text, a number, an :class:`~dual_skd.metrics.estimates.Estimate`, or an estimate with a remark.
    """

    head: Sequence[Any]
    rows: Iterable[Sequence[Any]]


class Notes:
    """Footnotes of a table: the reasons why numbers are missing or special, each given once.

    Reasons that differ only in their counts are one note, with the smallest and the largest of each count.
    """

    def __init__(self) -> None:
        self._kinds: dict[tuple[str, ...], list[list[int]]] = {}

    def mark(self, reason: str) -> str:
        """The sign that leads to a reason; "" for none."""
        if not reason:
            return ""
        words = tuple(_COUNTS.split(reason))
        self._kinds.setdefault(words, []).append([int(digits) for digits in _COUNTS.findall(reason)])
        return self._sign(list(self._kinds).index(words))

    def lines(self) -> list[tuple[str, str]]:
        """All signs with their reasons."""
        lines = []
        for place, (words, numbers) in enumerate(self._kinds.items()):
            spans = [
                f"{min(of)} to {max(of)}" if min(of) < max(of) else str(of[0]) for of in zip(*numbers, strict=True)
            ]
            reason = "".join(part for pair in zip(words, [*spans, ""], strict=True) for part in pair)
            lines.append((self._sign(place), reason))
        return lines

    def _sign(self, place: int) -> str:
        return chr(ord("a") + place) if place < 26 else str(place + 1)


def clean(value: Any) -> Any:
    """Text without the characters that HTML and SVG may not hold, and without those that turn its direction."""
    return value if isinstance(value, Markup) else _CONTROL.sub("\ufffd", str(value))


def markdown(value: Any) -> Markup:
    """Text that Markdown, and the HTML that it becomes, take as text."""
    if isinstance(value, Markup):
        return value
    plain = html.escape(" ".join(clean(value).split()), quote=False)
    return Markup("".join(f"\\{sign}" if sign in "\\`*_[]|#!" else sign for sign in plain))  # noqa: S704


def number(value: float | None, digits: int | None = None) -> str:
    """A number for a table; a dash where there is none.

    Args:
        value: the number.
        digits: behind the point; by default 3, and fewer from 10 on, where more would only seem exact.
    """
    if value is None:
        return "–"
    if digits is None:
        digits = 3 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{round(value, digits) + 0.0:.{digits}f}"  # without -0.000


def percent(value: float | None, digits: int = 1) -> str:
    """A share in percent; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}%}"


def sentence(words: str) -> str:
    """Words with a capital letter and a full stop; the name of a file in front stays as it is."""
    first = words.split(" ")[0]
    return f"{words if '.' in first else words[:1].upper() + words[1:]}." if words else ""


def image_file(pixels: np.ndarray, *, side: int | None = None, kind: str = "PNG") -> bytes:
    """Pixels (H, W) or (H, W, 3), uint8, as a PNG or JPEG file, reduced to ``side`` pixels along the longer side."""
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    if side is not None:
        image.thumbnail((side, side))
    image.save(buffer, kind, optimize=True, quality=85)
    return buffer.getvalue()


def data_uri(file: bytes) -> str:
    """A PNG or JPEG file as the address of an image that the page itself holds."""
    kind = "jpeg" if file.startswith(b"\xff\xd8") else "png"
    return f"data:image/{kind};base64,{base64.b64encode(file).decode('ascii')}"


def today() -> str:
    """The date in UTC."""
    return datetime.now(timezone.utc).date().isoformat()


def render(template: str, **context: Any) -> str:
    """A page, or a part of one, from a template in the folder ``templates``; a Markdown file where it ends in ``.md``.

    All of them know the ``version`` of this package, and the date when the page is ``written``.

    Raises:
        jinja2.UndefinedError: the template needs a name that the context lacks.
    """
    return (
        (_MARKDOWN if template.endswith(".md") else _HTML)
        .get_template(template)
        .render(version=__version__, written=today(), **context)
    )


def _environment(as_text: Callable[[Any], Any]) -> Environment:
    """Templates whose values go through ``as_text``, and are escaped for HTML unless that gives Markup."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")), autoescape=True, finalize=as_text,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    made.filters |= {one.__name__: one for one in (number, percent, sentence, data_uri, metric_words)}
    made.tests |= {
        "estimate": lambda value: isinstance(value, Estimate),
        "remarked": lambda value: isinstance(value, tuple),
    }
    made.globals["Notes"] = Notes
    return made


_HTML, _MARKDOWN = _environment(clean), _environment(markdown)
