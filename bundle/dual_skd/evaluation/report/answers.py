# SPDX-License-Identifier: Apache-2.0
"""What the network answered: the confusion matrix with its curves, single images, and every number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dual_skd.evaluation.pages.frame import gallery, how
from dual_skd.evaluation.pages.markup import (
    Markup,
    Notes,
    element,
    estimate,
    join,
    paragraph,
    picture,
    scrolling,
    table,
)
from dual_skd.evaluation.report.cases import KINDS, Case
from dual_skd.evaluation.report.content import Content
from dual_skd.evaluation.report.words import CLASS_METRICS, KEY, METRICS, meaning
from dual_skd.utils.wording import first_few

LARGEST_MATRIX = 15  # classes that paper has room for
LISTED = 40  # of the confusions of more classes


# --- confusion and curves ---------------------------------------------------------------------------------------------


def right_and_wrong(content: Content) -> Markup:
    """The confusion matrix, and the curves over all thresholds."""
    analysis = content.analysis
    reasons = [f"{curve['class']}: {curve['reason']}" for curve in analysis["roc"] if curve["reason"]]
    left = len(analysis["class_names"]) - len(analysis["roc"])
    return join([
        element("h3", "Confusion matrix"),
        _confusion(analysis),
        element("h3", "Over all thresholds"),
        content.drawn("roc", "precision_recall"),
        paragraph(f"{left} classes with fewer images are not drawn." if left > 0 else "",
                  f"{'; '.join(reasons)}." if reasons else "", class_="note"),  # names of classes keep their letters
    ])  # fmt: skip


def _confusion(analysis: Mapping[str, Any]) -> Markup:
    names, cells = analysis["class_names"], analysis["confusion"]
    if analysis["multi_label"]:
        head = ["label", "true negatives", "false positives", "false negatives", "true positives"]
        rows = ([name, *row] for name, row in zip(names, cells, strict=True))
        return join([table(head, rows), how(
            "Images by label, called above one half. False positives have the label called and not there, false "
            "negatives have it there and not called."
        )])  # fmt: skip
    if len(names) > LARGEST_MATRIX:
        return _confusions(names, cells)
    lines = [element("tr", element("th", "true \\ predicted", scope="col"),
                     *(element("th", name, scope="col") for name in names))]  # fmt: skip
    for true, (name, row) in enumerate(zip(names, cells, strict=True)):
        inside = [_cell(count, sum(row), right=true == called) for called, count in enumerate(row)]
        lines.append(element("tr", element("th", name, scope="row"), *inside))
    matrix = element("table", element("thead", lines[0]), element("tbody", *lines[1:]), class_="matrix")
    return join([scrolling(matrix, "Confusion matrix"), how(
        "A row holds the images of one true class, a column those that the network called so. Right answers are blue, "
        "wrong ones orange; the percentage is of the row."
    )])  # fmt: skip


def _cell(count: int, total: int, *, right: bool) -> Markup:
    """A cell whose colour is as deep as its share of the row, and never too deep for its letters."""
    share = count / max(total, 1)
    colour = "0,114,178" if right else "213,94,0"
    shown = [count, element("small", f"{share:.0%}") if count else ""]
    return element("td", *shown, style=f"background:rgba({colour},{0.55 * share:.2f})")


def _confusions(names: Sequence[str], cells: Sequence[Sequence[int]]) -> Markup:
    """Instead of a matrix, which grows with the square of the classes, its largest cells beside the diagonal."""
    wrong = [(row[k], names[true], names[k]) for true, row in enumerate(cells) for k in range(len(names))
             if row[k] and k != true]  # fmt: skip
    shown = sorted(wrong, key=lambda one: -one[0])[:LISTED]
    said = (
        f"With more than {LARGEST_MATRIX} classes there is no matrix: these are the {len(shown)} most frequent of "
        f"{len(wrong)} confusions; {sum(count for count, *_ in wrong)} images are confused in all."
    )
    return table(["true", "predicted", "images"], [[true, called, count] for count, true, called in shown], said)


# --- single images ----------------------------------------------------------------------------------------------------


def single_images(content: Content) -> Markup:
    """Images worth looking at, errors first, with the map of what spoke for the answer."""
    if not content.cases:
        return paragraph(content.cases_reason or "There are no images to show.")
    parts = [
        paragraph(
            "Left the image as the network takes it, right the regions that spoke for the predicted class, from violet "
            "(little) to yellow (much). A map is a hint for a reader of images and no evidence. Pictures may hold "
            "burned-in text or faces: look at them before this page leaves the house."
        ),
        paragraph(content.cases_reason),
    ]
    for kind, title in KINDS.items():
        shown = [case for case in content.cases if case.kind == kind]
        parts.append(element("h3", title))
        cases = (_case(case, content.show_names) for case in shown)
        parts.append(gallery(cases) if shown else paragraph("There is none."))
    file = f"predictions_{content.analysis['split']}.csv"
    return join([*parts, how(f"Row 1 is the first image in {file}. The percentage is the network's probability.")])


def _case(case: Case, show_names: bool) -> tuple[list[Markup], list[Any]]:
    said = f"Row {case.row}: true {case.true}, predicted {case.predicted}"
    pictures = []
    for name, plain, mapped in case.pictures:
        pictures += [picture(plain, f"{said}: {name}", 128),
                     picture(mapped, f"{said}: {name} with the map for {case.target}", 128)]  # fmt: skip
    truth = f": {case.true}, predicted {case.predicted}; {case.target} {case.probability:.1%}"
    return pictures, [join([element("b", f"Row {case.row}"), truth]), case.name if show_names else ""]


# --- numbers ----------------------------------------------------------------------------------------------------------


def all_numbers(content: Content) -> Markup:
    """Every metric of all images, and of each class against the rest."""
    analysis, notes = content.analysis, Notes()
    overall, classes, several = analysis["metrics"]["overall"], analysis["class_names"], analysis["multi_label"]
    rows = [
        [label, join([estimate(overall[name], notes=notes), _left_out(name, analysis)]),
         "see above" if name in KEY else meaning(name, len(classes), several)]
        for name, label in METRICS.items() if name in overall
    ]  # fmt: skip
    delong = estimate(analysis["delong"]["macro"], notes=notes)
    rows.insert(1, ["macro AUC, interval of DeLong", delong, "The same number, its interval by a formula."])
    resamples, seed = analysis["settings"]["resamples"], analysis["settings"]["seed"]
    return join([
        table(["metric", "value and interval", "what it says"], rows),
        notes.paragraphs(),
        how(f"Intervals are from {resamples} bootstrap resamples of whole patients, seed {seed}: the numbers were "
            "computed again for patients drawn at random, some twice, some not at all. The wider an interval, the less "
            "these images can say."),
        element("h3", "Each class against the rest"),
        _each_class(analysis),
    ])  # fmt: skip


def _each_class(analysis: Mapping[str, Any]) -> Markup:
    names, notes = [name for name in CLASS_METRICS if name in analysis["metrics"]["per_class"][0]], Notes()
    rows = [
        [name, count, estimate(area, notes=notes), *(estimate(of_class[metric], notes=notes) for metric in names)]
        for name, count, area, of_class in zip(
            analysis["class_names"], analysis["class_images"], analysis["delong"]["per_class"],
            analysis["metrics"]["per_class"], strict=True)
    ]  # fmt: skip
    decided = "at one half" if analysis["multi_label"] else "by the most probable class"
    return join([
        table(["class", "images", "AUC (DeLong)", *(CLASS_METRICS[name] for name in names)], rows),
        notes.paragraphs(),
        how("Sensitivity: the share of the images of the class that are called so. Specificity: the share of the "
            "others that aren't. PPV: the share of those called so that are of the class. NPV: the share of those not "
            f"called so that aren't. All decide {decided}; predictive values hold for the share of each class among "
            "these images, and for no other."),
    ])  # fmt: skip


def _left_out(metric: str, analysis: Mapping[str, Any]) -> Markup:
    """Which classes a mean over classes is without, as there is no image of them."""
    of_class = {"balanced_accuracy": "sensitivity", "f1": "f1"}.get(metric)
    if of_class is None or (metric == "balanced_accuracy" and analysis["multi_label"]):  # has the specificity, too
        return Markup("")
    values = zip(analysis["class_names"], analysis["metrics"]["per_class"], strict=True)
    absent = [name for name, metrics in values if metrics[of_class]["value"] is None]
    said = f"without {first_few(absent)}: no image of {'it' if len(absent) == 1 else 'them'}"
    return join([" ", element("small", said)]) if absent else Markup("")
