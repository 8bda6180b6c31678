# SPDX-License-Identifier: Apache-2.0
"""The page itself: one HTML file without scripts and without links, from an analysis, its plots and its pictures.

What a reader wants to know first stands first: the result, the errors, the decisions, how far to trust them; then what
the run was made of.
"""

from __future__ import annotations

from dual_skd.evaluation.report.answers import all_numbers, right_and_wrong, single_images
from dual_skd.evaluation.report.content import Content
from dual_skd.evaluation.report.origin import data, efficiency, how_it_was_made, training, weight_selection
from dual_skd.evaluation.report.trust import calibration, operating_points, subgroups
from dual_skd.evaluation.report.words import KEY, headline, meaning, measured, task, warnings_of
from dual_skd.pages.frame import cards, document, sections
from dual_skd.pages.markup import Markup, estimate, paragraph

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
    return cards((name, estimate(overall[key]), meaning(key, classes, analysis["multi_label"]))
                 for key, name in KEY.items())  # fmt: skip
