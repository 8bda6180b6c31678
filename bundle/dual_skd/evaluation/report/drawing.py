# SPDX-License-Identifier: Apache-2.0
"""What the plots of a report share: colours and type, figures with words, and their forms as files and SVG."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from markupsafe import Markup
from matplotlib.figure import Figure

from dual_skd.evaluation.pages.rendering import clean
from dual_skd.utils.files import replace_file, write_text

# of Okabe and Ito 2008 (Color Universal Design), most contrast first; the last three darker, for 3:1 on white
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#C26A9B", "#B57B00", "#2A93D0", "#000000")
DASHES = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)))
GREY = "#6b6b6b"
GRID = "#e3e3e3"
PAGE_COLOURS = {colour.lower(): f"var(--c{place},{colour})" for place, colour in enumerate(PALETTE[:6], 1)} | {
    "#000000": "currentColor", GREY: f"var(--soft,{GREY})", GRID: f"var(--line,{GRID})", "#ffffff": "var(--page,#fff)",
}  # fmt: skip
FIGURE_WIDTH = 4.4  # inches: at its own size on a phone, two beside each other on a screen
CURVES_PER_PLOT = 4  # classes in one plot; more bands can't be distinguished
MAX_NAME_LENGTH = 24  # characters of a name in a plot
STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "none",
    "svg.hashsalt": "dual_skd",
    "text.parse_math": False,  # a class may be called $x$
}


class Plot(NamedTuple):
    """A figure with what it shows in words.

    Attributes:
        name: of its files.
        figure: the drawing.
        title: short.
        description: what there is to see, for readers who can't.
        reading: how it is read; "" where it stands on no page.
        svg: the drawing as an SVG document.
    """

    name: str
    figure: Figure
    title: str
    description: str
    reading: str = ""
    svg: str = ""

    def inline(self) -> Markup:
        """The drawing as part of a page: with title and description, without links, its ids its own.

        It takes the colours of the page (``pages/templates/style.css``), so it can be read in the dark.
        """
        drawn = self.svg[self.svg.index("<svg") :]
        drawn = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", "", drawn, flags=re.DOTALL)
        opening, rest = drawn.split(">", 1)
        box = opening.split('viewBox="', 1)[1].split('"', 1)[0]
        rest = rest.replace("xlink:href", "href")
        rest = re.sub(r'\bid="', f'id="{self.name}-', rest)
        rest = re.sub(r'url\(#|href="#', lambda found: f"{found[0]}{self.name}-", rest)
        rest = re.sub(r'style="[^"]*"', lambda found: _of_the_page(found[0]), rest)
        head = Markup(
            '<svg viewBox="{box}" role="img" aria-labelledby="{name}-title {name}-desc" '
            'style="fill:currentColor;stroke-linejoin:round;stroke-linecap:butt">'
            '<title id="{name}-title">{title}</title><desc id="{name}-desc">{description}</desc>'
        )
        words = {"title": clean(self.title), "description": clean(self.description)}
        return head.format(box=box, name=self.name, **words) + Markup(rest.strip())  # noqa: S704 # matplotlib's own


def rendered(plot: Plot) -> Plot:
    buffer = io.StringIO()
    plot.figure.savefig(buffer, format="svg", metadata={"Date": None})
    plot.figure.set_layout_engine("none")  # the layout is found, and takes longer than the drawing
    return plot._replace(svg=buffer.getvalue())


def save(plot: Plot, folder: Path) -> None:
    """Writes NAME.svg and NAME.png (150 dots per inch)."""
    write_text(folder / f"{plot.name}.svg", plot.svg)
    with style():
        replace_file(folder / f"{plot.name}.png", partial(plot.figure.savefig, format="png", dpi=150))


def _of_the_page(style: str) -> str:
    """Colours of a drawing as the variables of a page, each with its own colour for where there are none."""
    if style == 'style="fill: #ffffff"':  # the ground
        return 'style="fill: none"'
    return re.sub("#[0-9a-f]{6}", lambda found: PAGE_COLOURS.get(found[0], found[0]), style)


@contextmanager
def style() -> Iterator[None]:
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # the page's reader has other fonts than the writer's; PNG files show a box instead
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def new_figure(height: float, rows: int = 1, **options: Any):
    figure = Figure(figsize=(FIGURE_WIDTH, height), layout="constrained")
    return figure, figure.subplots(rows, 1, **options)


def cut(name: str) -> str:
    name = " ".join(clean(name).split())
    return name if len(name) <= MAX_NAME_LENGTH else name[: MAX_NAME_LENGTH - 1] + "…"
