# SPDX-License-Identifier: Apache-2.0
"""The frame of a page: document, sections with their contents, cards of numbers, figures with an explanation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from dual_skd.evaluation.pages.markup import Markup, element, join, paragraph
from dual_skd.evaluation.pages.style import STYLE

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
RESEARCH = "For research only, not a medical device: no clinical decision may rest on it."


def document(
    title: str,
    body: Iterable[Markup],
    *,
    version: str,
    heading: str = "",
    about: str = "",
    warnings: Sequence[str] = (),
) -> str:
    """An HTML document, whole in one file.

    Args:
        title: of the window and of a bookmark, which has to be known among others: task, run, data and date.
        body: what stands below the warnings.
        version: of this package; the page carries it as its generator.
        heading: the largest line of the page; "" takes the title.
        about: a line in small letters below it: what the page is of, and when it was written.
        warnings: sentences in one box; without any there is no box.
    """
    head = [
        Markup('<meta charset="utf-8">'),
        element("meta", http_equiv="Content-Security-Policy", content=Markup(POLICY)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="generator", content=f"dual-skd {version}"),
        element("title", title),
        Markup(f"<style>{STYLE}</style>"),
    ]
    top = [element("h1", heading or title), paragraph(about, class_="note"), paragraph(*warnings, class_="warning")]
    html = element("html", element("head", *head), element("body", element("main", *top, *body)), lang="en")
    return f"<!DOCTYPE html>\n{html}\n"


def sections(parts: Sequence[tuple[str, str, Markup]]) -> Markup:
    """Sections below their contents.

    Args:
        parts: key, which links lead to, heading and content of each.
    """
    links = (element("a", name, href=f"#{key}") for key, name, _ in parts)
    shown = (element("section", element("h2", name), inside, id=key) for key, name, inside in parts)
    return join([element("nav", *links, aria_label="Sections"), *shown])


def how(*sentences: Any) -> Markup:
    """How a table is read, or what its numbers mean: small letters below it."""
    return paragraph(*sentences, class_="how")


def cards(entries: Iterable[tuple[str, Any, Any]]) -> Markup:
    """The main numbers, each in a box.

    Args:
        entries: name, value, and a sentence that says what it tells; "" for none.
    """
    boxes = (element("div", element("b", name), value, paragraph(said), class_="card") for name, value, said in entries)
    return element("div", *boxes, class_="cards")


def figure(drawing: Markup, title: str, explanation: str) -> Markup:
    """A drawing with its title and with how it is read."""
    return element("figure", drawing, element("figcaption", element("b", title), " ", explanation))


def figures(drawn: Sequence[Markup]) -> Markup:
    """Figures beside each other where there is room; nothing where there are none."""
    return element("div", *drawn, class_="plots") if drawn else Markup("")


def gallery(items: Iterable[tuple[Sequence[Markup], Sequence[Any]]]) -> Markup:
    """Pictures with their words, in a grid.

    Args:
        items: pictures of one box, two in a line, and the paragraphs below them.
    """
    boxes = []
    for pictures, words in items:
        pairs = (element("div", *pictures[place : place + 2], class_="pair") for place in range(0, len(pictures), 2))
        boxes.append(element("div", *pairs, *(paragraph(one) for one in words), class_="case"))
    return element("div", *boxes, class_="cases")
