# SPDX-License-Identifier: Apache-2.0
"""The page itself: one HTML file without scripts and without links, from an analysis, its plots and its pictures."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dual_skd.evaluation.arguments import some
from dual_skd.evaluation.calibration import FEW
from dual_skd.evaluation.recorder import LAST
from dual_skd.evaluation.report.cases import KINDS, Case
from dual_skd.evaluation.report.plots import Plot, inline
from dual_skd.options import Evaluation, command
from dual_skd.pages.frame import RESEARCH, document
from dual_skd.pages.frame import sections as in_sections
from dual_skd.pages.markup import (
    Markup,
    Notes,
    details,
    element,
    estimate,
    join,
    number,
    paragraph,
    picture,
    scrolling,
    table,
    text,
)
from dual_skd.wording import metric_words

METRICS = {
    "macro_auc": "macro AUC (one against the rest)",
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "f1": "macro F1",
    "average_precision": "mean average precision",
    "nll": "negative log likelihood, nats",
    "brier": "Brier score",
    "ece": "expected calibration error, 15 equal bins",
    "ece_equal_mass": "expected calibration error, bins of equal count",
}
CLASS_METRICS = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "f1": "F1",
    "average_precision": "average precision",
}
LARGEST_MATRIX = 40  # classes in a confusion matrix, and confusions in the list that there is of more


@dataclass(frozen=True)
class Content:
    """What a page is made of.

    Attributes:
        analysis: of :func:`dual_skd.evaluation.analysis.analyse`.
        plots: of :func:`dual_skd.evaluation.report.plots.all_plots`.
        selection: rows of ``selection_report.csv``.
        cases: explained images.
        cases_reason: why there are fewer or none; "" where nothing is missing.
        description: of the data set, where names may be shown; else "".
        show_names: whether names of files may stand on the page.
        written: date of the page.
        version: of this package.
    """

    analysis: Mapping[str, Any]
    plots: Mapping[str, Sequence[Plot]]
    selection: Sequence[Mapping[str, str]] = ()
    cases: Sequence[Case] = ()
    cases_reason: str = ""
    description: str = ""
    show_names: bool = False
    written: str = ""
    version: str = ""
    skipped: Sequence[Mapping[str, Any]] = field(default=())


def page(content: Content) -> str:
    """The whole HTML document."""
    analysis = content.analysis
    sections = [
        ("data", "Data", _data(content)),
        ("training", "Training", _training(content)),
        ("selection", "Weight selection", _selection(content)),
        ("metrics", "Metrics", _metrics(content)),
        ("thresholds", "Operating points", _operating_points(content)),
        ("curves", "ROC and precision-recall curves", _curves(content)),
        ("calibration", "Calibration and uncertainty", _calibration(content)),
        ("subgroups", "Subgroups", _subgroups(content)),
        ("images", "Single images", _cases(content)),
        ("efficiency", "Size and speed", _efficiency(content)),
        ("run", "How it was made", _run(content)),
    ]
    title = f"Evaluation on {analysis['images']} images ({analysis['split']})"
    return document(
        title, [_cards(analysis), in_sections(sections)], version=content.version, about=f"Written {content.written}.",
        warnings=warnings(optimistic=analysis["data"]["optimistic"]),
    )  # fmt: skip


def warnings(*, optimistic: bool) -> list[str]:
    """What stands above the numbers of every page."""
    return [RESEARCH, *["These images chose the model, so the numbers are optimistic."] * optimistic]


def _cards(analysis: Mapping[str, Any]) -> Markup:
    overall, calibration = analysis["metrics"]["overall"], analysis["calibration"]
    networks = analysis["efficiency"]["networks"]
    cards = [
        ("macro AUC", estimate(overall["macro_auc"])),
        ("balanced accuracy", estimate(overall["balanced_accuracy"])),
    ]
    written = calibration["after" if calibration["predictions_are"] == "calibrated" else "before"]
    if written["metrics"]:
        cards.append(("expected calibration error", estimate(written["metrics"]["ece"])))
    student, large = (networks.get(role, {}).get("parameters") for role in ("student", "large"))
    if student:
        share = f"{student / large:.1%} of the large network" if large else ""
        cards.append(("parameters", join([element("span", _millions(student), class_="value"), " ",
                                          element("span", share, class_="limits")])))  # fmt: skip
    return element("div", *(element("div", element("b", name), value, class_="card") for name, value in cards),
                   class_="cards")  # fmt: skip


def _plots(content: Content, *names: str) -> Markup:
    drawn = [inline(plot) for name in names for plot in content.plots.get(name, ())]
    return element("div", *drawn, class_="plots") if drawn else Markup("")


# --- data, training, selection ----------------------------------------------------------------------------------------


def _data(content: Content) -> Markup:
    analysis, data = content.analysis, content.analysis["data"]
    settings, patients = analysis["settings"], analysis["patients"]
    measured = f"Measured are {analysis['images']} images of {analysis['metrics']['patients']} independent patients."
    external = "They are of another data set than that of the training." if data["external"] else ""
    foreign = data["unexpected_images"]
    accepted = f"{foreign} images aren't of the kind that was trained on, and were accepted." if foreign else ""
    counts = zip(analysis["class_names"], analysis["class_images"], strict=True)
    parts = [
        paragraph(measured, _sentence(patients["reason"]), external, accepted),
        table(["class", f"images measured ({analysis['split']})"], counts),
    ]
    if not data["known"]:
        return join([*parts, paragraph("The division of the training run isn't known: there is no datalist.json.")])
    head = ["split of the run", "images", "patients", "images without a known patient", *data["classes"]]
    rows = [[name, one["images"], one["patients"], one["images_without_patient"], *one["class_images"]]
            for name, one in data["splits"].items()]  # fmt: skip
    parts.append(table(head, rows, "How the training run divided its data: images per class at the right"))
    twins = data["twins"].values()
    exact, near = (sum(one[kind] for one in twins) for kind in ("exact", "near"))
    searched = ("No image that is kept has a known twin in training." if data["twins_searched"]
                else "No search for images with a twin in training is recorded.")  # fmt: skip
    findings = [
        f"{exact + near} images were left out because a twin of them is in training ({exact} exact copies, {near} near "
        "copies)." if exact + near else searched,
        f"{data['skipped_files']} files could not be used and were skipped." if data["skipped_files"]
        else "No file was skipped.",
    ]  # fmt: skip
    parts += [element("h3", "Integrity"), element("ul", *(element("li", one) for one in findings))]
    with_twins, without = data["with_twins"], data["without_twins"]
    if with_twins and without:
        rows = [[METRICS.get(name, name), number(without.get(name)), number(value)]
                for name, value in with_twins.items()]  # fmt: skip
        parts.append(details("Numbers with the twins", table(["metric", "without twins", "with twins"], rows)))
    if content.show_names and content.description:
        parts.append(paragraph(content.description, class_="note"))
    if content.show_names and content.skipped:
        rows = [[one.get("image", ""), one.get("problem", "")] for one in content.skipped]
        parts.append(details("Skipped files", table(["file", "problem"], rows)))
    said = f"{settings['level']:.0%} intervals, {settings['resamples']} bootstrap resamples of whole patients, seed "
    parts.append(paragraph(f"Throughout: {said}{settings['seed']}.", class_="note"))
    return join(parts)


def _sentence(words: str) -> str:
    """Words of ours with a capital letter and a full stop; the name of a file in front stays as it is."""
    first = words.split(" ")[0]
    return f"{words if '.' in first else words[:1].upper() + words[1:]}." if words else ""


def _training(content: Content) -> Markup:
    training = content.analysis["training"]
    if not training["epochs"]:
        return paragraph(_sentence(training["reason"]))
    key, epoch = training["key_metric"], training["best_epoch"]
    best = f"the best by {metric_words(key)} on the validation images"
    why = "the last, whatever its validation" if key == LAST else best
    kept = f"The model of epoch {epoch} was kept, {why}."
    names = list(next(iter(training["series"].values())))
    rows = [
        [epoch, *(number(series[name][place]) for series in training["series"].values() for name in names)]
        for place, epoch in enumerate(training["epochs"])
    ]
    head = ["epoch", *(f"{who} {metric_words(name)}" for who in training["series"] for name in names)]
    return join([paragraph(kept), _plots(content, "training"), details("All epochs", table(head, rows))])


def _selection(content: Content) -> Markup:
    selection = content.analysis["selection"]
    if not selection["stages"]:
        return paragraph(_sentence(selection["reason"]))
    rows = [
        [f"{row['network']}: {row['stage']}", f"{row['selected']} of {row['tensors']}",
         f"{row['selected_parameters']:,} of {row['parameters']:,}",
         "–" if row["norm_share"] is None else f"{row['norm_share']:.1%}", "; ".join(row["reasons"])]
        for row in selection["stages"]
    ]  # fmt: skip
    head = ["network: stage", "tensors from the large network", "numbers", "mean share of the squared norm",
            "why others are not"]  # fmt: skip
    parts = [paragraph("Which weights the networks started with."), table(head, rows)]
    shown = ("network", "name", "source", "shape", "source_shape", "norm_share", "reason", "note")
    full = [[row.get("name", ""), *(row.get(key) or "" for key in shown if key != "name")] for row in content.selection]
    if full:
        head = ["tensor", *(key.replace("_", " ") for key in shown if key != "name")]
        parts.append(details(f"All {len(full)} tensors", table(head, full)))
    return join(parts)


# --- metrics ----------------------------------------------------------------------------------------------------------


def _metrics(content: Content) -> Markup:
    analysis = content.analysis
    overall = analysis["metrics"]["overall"]
    rows = [
        [label, join([estimate(overall[name]), _left_out(name, analysis)])]
        for name, label in METRICS.items() if name in overall
    ]  # fmt: skip
    rows.insert(1, ["macro AUC, interval of DeLong", estimate(analysis["delong"]["macro"])])
    names = [name for name in CLASS_METRICS if name in analysis["metrics"]["per_class"][0]]
    notes = Notes()
    per_class = [
        [name, count, estimate(area, notes=notes), *(estimate(of_class[metric], notes=notes) for metric in names)]
        for name, count, area, of_class in zip(
            analysis["class_names"], analysis["class_images"], analysis["delong"]["per_class"],
            analysis["metrics"]["per_class"], strict=True)
    ]  # fmt: skip
    decided = "at one half" if analysis["multi_label"] else "by the most probable class"
    return join([
        table(["metric", "value and interval"], rows),
        element("h3", "Each class against the rest"),
        paragraph(f"Sensitivity, specificity and predictive values decide {decided}; predictive values hold for the "
                  "share of each class among these images, and for no other.", class_="note"),
        table(["class", "images", "AUC (DeLong)", *(CLASS_METRICS[name] for name in names)], per_class),
        notes.paragraphs(),
        element("h3", "Confusion matrix"),
        _confusion(analysis),
    ])  # fmt: skip


def _left_out(metric: str, analysis: Mapping[str, Any]) -> Markup:
    """Which classes a mean over classes is without, as there is no image of them."""
    of_class = {"balanced_accuracy": "sensitivity", "f1": "f1"}.get(metric)
    if of_class is None or (metric == "balanced_accuracy" and analysis["multi_label"]):  # has the specificity, too
        return Markup("")
    values = zip(analysis["class_names"], analysis["metrics"]["per_class"], strict=True)
    absent = [name for name, metrics in values if metrics[of_class]["value"] is None]
    said = f"without {some(absent)}: no image of {'it' if len(absent) == 1 else 'them'}"
    return join([" ", element("small", said)]) if absent else Markup("")


def _confusion(analysis: Mapping[str, Any]) -> Markup:
    names, cells = analysis["class_names"], analysis["confusion"]
    if analysis["multi_label"]:
        head = ["label", "true negatives", "false positives", "false negatives", "true positives"]
        return table(head, ([name, *row] for name, row in zip(names, cells, strict=True)))
    if len(names) > LARGEST_MATRIX:
        return _confusions(names, cells)
    lines = [element("tr", element("th", "true \\ predicted", scope="col"),
                     *(element("th", name, scope="col") for name in names))]  # fmt: skip
    for name, row in zip(names, cells, strict=True):
        total = max(sum(row), 1)
        inside = [
            element("td", count, class_="cell", style=_shade(count / total), title=f"{count / total:.1%} of {name}")
            for count in row
        ]
        lines.append(element("tr", element("th", name, scope="row"), *inside))
    matrix = element("table", element("thead", lines[0]), element("tbody", *lines[1:]))
    return scrolling(matrix, "Confusion matrix")


def _confusions(names: Sequence[str], cells: Sequence[Sequence[int]]) -> Markup:
    """Instead of a matrix, which grows with the square of the classes, its largest cells beside the diagonal."""
    wrong = [(row[k], names[true], names[k]) for true, row in enumerate(cells) for k in range(len(names))
             if row[k] and k != true]  # fmt: skip
    shown = sorted(wrong, key=lambda one: -one[0])[:LARGEST_MATRIX]
    said = (
        f"With more than {LARGEST_MATRIX} classes there is no matrix: these are the {len(shown)} most frequent of "
        f"{len(wrong)} confusions; {sum(count for count, *_ in wrong)} images are confused in all."
    )
    return table(["true", "predicted", "images"], [[true, called, count] for count, true, called in shown], said)


def _shade(share: float) -> str:
    """Background of a cell: from white to the palette's blue, with letters that stay readable on it."""
    red, green, blue = (round(255 + share * (end - 255)) for end in (0, 114, 178))
    return f"background:rgb({red},{green},{blue});color:{'#fff' if share > 0.6 else '#1c2430'}"


def _operating_points(content: Content) -> Markup:
    points = content.analysis["operating_points"]
    reasons = {point["reason"] for point in points}
    if all(point["chosen"] is None for point in points) and len(reasons) == 1:
        return paragraph(_sentence(reasons.pop()))
    rows, notes = [], Notes()
    for point in points:
        chosen, wanted = point["chosen"], point["wanted"]
        rule = "Youden" if wanted is None else f"sensitivity ≥ {wanted:.0%}"
        if chosen is None:
            rows.append([point["class"], rule, join(["–", notes.mark(point["reason"])]), *["–"] * 5])
            continue
        on_validation = f"{chosen['positives']}, {chosen['sensitivity']:.3f} / {chosen['specificity']:.3f}"
        found = [estimate(point["metrics"][name], notes=notes) for name in ("sensitivity", "specificity", "ppv", "npv")]
        rows.append([point["class"], rule, f"{chosen['threshold']:.4f}", on_validation, *found])
    head = ["class", "rule", "threshold", "on validation: images of it, sensitivity / specificity", "sensitivity",
            "specificity", "PPV", "NPV"]  # fmt: skip
    images = next((p["chosen"]["images"] for p in points if p["chosen"]), 0)
    said = (
        f"Thresholds were chosen on {images} validation images and applied to these images as they are. Youden: the "
        "largest sensitivity + specificity."
    )
    return join([paragraph(said), table(head, rows), notes.paragraphs()])


def _curves(content: Content) -> Markup:
    said = [f"{curve['class']}: {curve['reason']}" for curve in content.analysis["roc"] if curve["reason"]]
    bands = "Bands are pointwise, of resampled patients; the numbers are areas, of the second plot average precision."
    left = len(content.analysis["class_names"]) - len(content.analysis["roc"])
    more = f"{left} classes with fewer images are not drawn." if left > 0 else ""
    return join([
        paragraph(bands, more),
        paragraph(f"{'; '.join(said)}." if said else "", class_="note"),  # names of classes keep their letters
        _plots(content, "roc", "precision_recall"),
    ])  # fmt: skip


# --- calibration ------------------------------------------------------------------------------------------------------


def _calibration(content: Content) -> Markup:
    analysis = content.analysis
    calibration, sets, risk = analysis["calibration"], analysis["prediction_sets"], analysis["risk_coverage"]
    before, after = calibration["before"], calibration["after"]
    parts = []
    if calibration["temperature"] is None:
        parts.append(paragraph(_sentence(after["reason"] or before["reason"])))
    else:
        fitted = "for this report, on" if calibration["fitted_here"] else "when the model was kept, on"
        images, patients = calibration["images"] or "the", calibration["patients"]
        on = f"{images} validation images" + (f" of {patients} patients" if patients else "")
        few = ", so few that it is held near 1" if (patients or calibration["images"] or FEW) < FEW else ""
        parts.append(paragraph(
            f"Logits are divided by a temperature of {calibration['temperature']:.3f}, fitted {fitted} {on}{few}. All "
            "other numbers of this page are of predictions "
            + ("after it." if calibration["predictions_are"] == "calibrated" else "without it.")
        ))  # fmt: skip
    both = before["metrics"], after["metrics"]
    rows = [[METRICS[name], *(estimate(one[name]) if one else "–" for one in both)] for name in both[0] or both[1]]
    parts.append(table(["metric", "before", "after"], rows))
    parts += [element("h3", "Prediction sets"), _prediction_sets(sets, analysis)]
    counted = "the labels of all images" if analysis["multi_label"] else "all images"
    at = ", ".join(f"{value:.1%} of the surest {share}" for share, value in risk["risk_at"].items() if share != "100%")
    parts += [
        element("h3", "Answering only where the network is sure"),
        paragraph(
            f"Wrong are {risk['risk_at']['100%']:.1%} of {counted}, {at}; the area under the curve is "
            f"{risk['aurc']:.4f}, {risk['excess']:.4f} more than with all right answers first."
        ),
        _plots(content, "calibration", "risk_coverage"),
    ]
    return join(parts)


def _prediction_sets(sets: Mapping[str, Any], analysis: Mapping[str, Any]) -> Markup:
    if sets["coverage"] is None:
        return paragraph(_sentence(sets["reason"]))
    rows = [
        ["stated coverage", f"{sets['stated']:.0%}"],
        ["observed coverage", estimate(sets["coverage"])],
        ["mean number of classes in a set", estimate(sets["mean_size"])],
        ["sets of one class", f"{sets['single']:.1%}"],
        *([f"coverage of {name}", number(value)]
          for name, value in zip(analysis["class_names"], sets["coverage_per_class"], strict=True)),
    ]  # fmt: skip
    said = (
        f"Sets of classes that can't be ruled out, by split conformal prediction ({sets['method'].upper()}) on "
        f"{sets['validation_images']} validation images. The stated coverage is an average over images like those, and "
        "of no single class."
    )
    return join([paragraph(said, _sentence(sets["reason"])), table(["", "value"], rows)])


# --- groups and images ------------------------------------------------------------------------------------------------


def _subgroups(content: Content) -> Markup:
    subgroups = content.analysis["subgroups"]
    notes = paragraph(*(f"{note}." for note in subgroups["notes"]), class_="note")  # each begins with a name
    if not subgroups["columns"]:
        return join([paragraph(_sentence(subgroups["reason"])), notes])
    parts = [
        paragraph("Each group measured by itself. Differences between groups are not tested, and many groups make "
                  "some of them look different by chance."),
        _plots(content, "subgroups"),
    ]  # fmt: skip
    for column, groups in subgroups["columns"].items():
        marks = Notes()
        names = [name for name in (*METRICS, "sensitivity", "specificity") if name in groups[0]["metrics"]["overall"]]
        head = [column, "images", "patients", *(METRICS.get(name, name) for name in names), "read with care"]
        rows = [
            [group["name"], group["images"], group["patients"],
             *(estimate(group["metrics"]["overall"][name], notes=marks) for name in names), group["too_small"]]
            for group in groups
        ]  # fmt: skip
        parts += [table(head, rows), marks.paragraphs()]
    return join([*parts, notes])


def _cases(content: Content) -> Markup:
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
        if shown:
            parts.append(element("div", *(_case(case, content.show_names) for case in shown), class_="cases"))
        else:
            parts.append(paragraph("There is none."))
    return join(parts)


def _case(case: Case, show_names: bool) -> Markup:
    said = f"Row {case.row}: true {case.true}, predicted {case.predicted}"
    pairs = [
        element(
            "div",
            picture(plain, f"{said}: {name}", 128),
            picture(mapped, f"{said}: {name} with the map for {case.target}", 128),
            class_="pair",
        )
        for name, plain, mapped in case.pictures
    ]
    words = [element("b", f"Row {case.row}"), f": {case.true}, predicted {case.predicted}; "
             f"{case.target} {case.probability:.1%}"]  # fmt: skip
    shown = paragraph(case.name, class_="note") if show_names else ""
    return element("div", *pairs, element("p", *words), shown, class_="case")


# --- efficiency and provenance ----------------------------------------------------------------------------------------


def _efficiency(content: Content) -> Markup:
    efficiency = content.analysis["efficiency"]
    if not efficiency["networks"]:
        return paragraph(_sentence(efficiency["reason"]))
    large = efficiency["networks"].get("large", {})
    speed = efficiency["speed"] or {}
    rows = []
    for role, one in efficiency["networks"].items():
        time = speed.get(role, {}).get("milliseconds")
        rows.append([
            role, one["architecture"] or "", _millions(one["parameters"]),
            _share(one["parameters"], large.get("parameters")), _millions(one["macs"]),
            _share(one["macs"], large.get("macs")), "–" if time is None else f"{time:.1f}",
        ])  # fmt: skip
    head = ["network", "architecture", "parameters", "of the large", "MACs per image", "of the large", "CPU ms"]
    size = efficiency["model_mb"]
    shape = " x ".join(map(str, efficiency["input_shape"] or []))
    timed = speed.get("student")
    return join([
        table(head, rows),
        paragraph(
            f"Input {shape}." if shape else "",
            f"The model file has {size:.2f} MB." if size is not None else "",
            f"CPU ms: median of {timed['runs']} images, one by one, on one thread of the computer that wrote this."
            if timed else "The time per image was not measured.",
        ),
    ])  # fmt: skip


def _millions(count: float | None) -> str:
    if count is None:
        return "–"
    return f"{count / 1e6:.2f} M" if count >= 1e5 else f"{count:,}"


def _share(count: float | None, whole: float | None) -> str:
    return f"{count / whole:.1%}" if count and whole else "–"


def commands(analysis: Mapping[str, Any]) -> str:
    """The commands that make such a run: DATA stands for the data, OUT for its folder, DATASET_DIR for other data.

    Training gets the options that its user chose; places of the computer are capital words.
    """
    name, section = analysis["split"], analysis["data"]["section"]
    measured = {} if section else {"dataset_dir": "other data"}
    own_name = {"test": "test", "validation": "val"}.get(section, "test")
    measured |= {"split": own_name} if own_name != "test" else {}
    measured |= {"report_as": name} if name != own_name else {}
    reported = f" --split {shlex.quote(name)}" if name != "test" else ""
    return "\n".join([
        analysis["run"]["command"], command("dual-skd evaluate OUT", measured, Evaluation),
        f"dual-skd report OUT{reported}",
    ])  # fmt: skip


def _run(content: Content) -> Markup:
    run, data = content.analysis["run"], content.analysis["data"]
    if run["reason"]:
        return paragraph(_sentence(run["reason"]))
    facts = [["started", run["started"]], ["finished", run["finished"] or "not finished"], ["device", run["device"]],
             ["seconds of training", number(run["total_seconds"], 0)], ["seed", run["seed"]],
             ["SHA-256 of the data list", data["hash"] or "–"]]  # fmt: skip
    versions = [[name, version] for name, version in run["versions"].items()]
    settings = [[name, text(value)] for name, value in run["settings"].items()]
    return join([
        table(["", "value"], facts),
        table(["package", "version"], versions),
        details("All settings, without paths", table(["setting", "value"], settings)),
        element("pre", commands(content.analysis)),
    ])  # fmt: skip
