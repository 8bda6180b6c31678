# SPDX-License-Identifier: Apache-2.0
"""The first lines of a report: the question, and the result in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from dual_skd.evaluation.analysis import Analysis
from dual_skd.evaluation.pages.rendering import sentence
from dual_skd.utils.wording import counted, first_few

MAX_NAMED = 6  # classes in a sentence


def question(names: Sequence[str], multi_label: bool) -> str:
    """What the classifier decides, as a question."""
    if len(names) > MAX_NAMED:
        return f"Which of {len(names)} {'labels' if multi_label else 'classes'} ({first_few(names)})?"
    if multi_label:
        return f"Which of these are there: {', '.join(names)}?"
    return f"Which is it: {' or '.join([', '.join(names[:-1]), names[-1]] if names[1:] else names)}?"


def headline(analysis: Analysis) -> str:
    """The result in sentences: how many answers were right, of which classes, and within which limits."""
    names, cells, rows, unit = analysis.class_names, analysis.confusion, analysis.rows, analysis.unit
    accuracy = analysis.metrics.overall["accuracy"]
    if analysis.multi_label:
        right = sum(row[0] + row[3] for row in cells)
        sentences = [f"{right} of {rows * len(names)} labels were answered right ({accuracy.value:.1%})."]
    else:
        right = sum(row[k] for k, row in enumerate(cells))
        verb = "was" if right == 1 else "were"
        sentences = [f"{right} of {counted(rows, unit.name)} {verb} answered right ({accuracy.value:.1%})."]
    if accuracy.low is None:
        sentences.append(sentence(accuracy.reason))
    else:
        known, unknown = analysis.patients.known, analysis.patients.images_without
        units = counted(known, "patient")
        if unknown:
            units += f" and {counted(unknown, 'image')} without a known one, counted as one each,"
        if not known:
            units = f"each of {unknown} images taken for a patient of its own,"
        limits = f"{accuracy.low:.1%} to {accuracy.high:.1%}"
        sentences.append(f"With {units} the {analysis.settings.level:.0%} interval is {limits}.")
    if not analysis.multi_label and len(names) <= MAX_NAMED:
        each = (f"{names[k]} {row[k]} of {sum(row)}" for k, row in enumerate(cells) if sum(row))
        most = max(range(len(names)), key=lambda k: sum(cells[k]))
        sentences.append(f"By class: {', '.join(each)}.")
        sentences.append(f"Calling every {unit.name} {names[most]} would be right for {sum(cells[most])} of {rows}.")
    return " ".join(filter(None, sentences))
