# SPDX-License-Identifier: Apache-2.0
"""The page itself: one HTML file without scripts and without links, from an analysis, its plots and its pictures.

What a reader wants to know first stands first: the result, the errors, the decisions, how far to trust them; then what
the run was made of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dual_skd.evaluation.pages.frame import cards, document, how, sections
from dual_skd.evaluation.pages.markup import Markup, element, estimate, join, number, paragraph
from dual_skd.evaluation.report.answers import all_numbers, right_and_wrong, single_images
from dual_skd.evaluation.report.content import Content
from dual_skd.evaluation.report.origin import data, efficiency, how_it_was_made, training, weight_selection
from dual_skd.evaluation.report.trust import calibration, operating_points, subgroups
from dual_skd.evaluation.report.words import KEY, headline, meaning, measured, task, warnings_of

PARTS = (
    ("answers", "Right and wrong answers", right_and_wrong),
    ("images", "Single images", single_images),
    ("numbers", "All numbers", all_numbers),
    ("thresholds", "Operating points", operating_points),
    ("calibration", "Calibration and uncertainty", calibration),
    ("subgroups", "Subgroups", subgroups),
    ("data", "Data", data),
    ("training", "Training", training),
    ("efficiency", "Size and speed", efficiency),
    ("selection", "Weight selection", weight_selection),
    ("run", "How it was made", how_it_was_made),
)


def page(content: Content) -> str:
    """The whole HTML document."""
    analysis = content.analysis
    question, images = task(analysis["class_names"], analysis["multi_label"]), measured(analysis)
    about = (
        f"Run: {content.run}. Measured: {images}. Written {content.written} by dual-skd {content.version}. "
        f"All intervals are {analysis['settings']['level']:.0%} intervals."
    )
    return document(
        f"{question} {content.run}, {images}, {content.written}",
        [
            paragraph(*headline(analysis), class_="lead"),
            _key_numbers(content),
            _about_home(analysis["home"]),
            sections([(key, name, make(content)) for key, name, make in PARTS]),
        ],
        version=content.version,
        heading=question,
        about=about,
        warnings=warnings_of(optimistic=analysis["data"]["optimistic"], unfinished=analysis["run"]["unfinished"]),
    )


def _key_numbers(content: Content) -> Markup:
    analysis = content.analysis
    overall, classes = analysis["metrics"]["overall"], len(analysis["class_names"])
    home = (analysis["home"] or {}).get("metrics") or {}
    return cards((name, join([estimate(overall[key]), _beside(home.get(key))]),
                  meaning(key, classes, analysis["multi_label"])) for key, name in KEY.items())  # fmt: skip


def _beside(home: Mapping[str, Any] | None) -> Markup:
    """The same number at home; nothing where it isn't known."""
    if home is None or home["value"] is None:
        return Markup("")
    limits = "" if home["low"] is None else f" ({number(home['low'])} to {number(home['high'])})"
    return element("div", element("small", f"at home {number(home['value'])}{limits}"))


def _about_home(home: Mapping[str, Any] | None) -> Markup:
    """What the numbers at home are, or how to have them; nothing for the run's own images."""
    if home is None:
        return Markup("")
    if home["reason"]:
        return how(
            f"How the model does at home isn't shown: {home['reason']}. “dual-skd evaluate OUT” does that; evaluate "
            "these images again after it."
        )
    return how(
        f"At home are the {home['images']} test images of the data set that the model was trained on. The differences "
        "aren't tested: other patients alone, or other shares of the classes, make some."
    )
