# SPDX-License-Identifier: Apache-2.0
"""How far the answers can be trusted: thresholds, calibration, prediction sets, and groups of images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dual_skd.evaluation.pages.frame import how
from dual_skd.evaluation.pages.markup import Markup, Notes, element, estimate, join, number, paragraph, table
from dual_skd.evaluation.report.content import Content
from dual_skd.evaluation.report.words import METRICS, sentence
from dual_skd.metrics.calibration import FEW


def operating_points(content: Content) -> Markup:
    """Thresholds chosen on the validation images, and what they do here."""
    points = content.analysis["operating_points"]
    reasons = {point["reason"] for point in points}
    if all(point["chosen"] is None for point in points) and len(reasons) == 1:
        return paragraph(sentence(reasons.pop()))
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
    return join([
        paragraph("Instead of the most probable class one can call a class from a probability on, the threshold: a low "
                  "one misses less, a high one gives fewer false alarms."),
        table(head, rows),
        notes.paragraphs(),
        how(f"Thresholds were chosen on {images} validation images and applied to these images as they are. Youden: "
            "the largest sensitivity + specificity. The other rule takes the highest threshold that still finds so "
            "many on the validation images; here it may find fewer."),
    ])  # fmt: skip


# --- calibration ------------------------------------------------------------------------------------------------------


def calibration(content: Content) -> Markup:
    """Whether the probabilities mean what they say, what can't be ruled out, and what is gained by not answering."""
    analysis = content.analysis
    before, after = analysis["calibration"]["before"], analysis["calibration"]["after"]
    both = before["metrics"], after["metrics"]
    rows = [[METRICS[name], *(estimate(one[name]) if one else "–" for one in both)] for name in both[0] or both[1]]
    return join([
        paragraph("A network is calibrated where, of the answers it gives with 80%, 80% are right."),
        paragraph(_temperature(analysis["calibration"])),
        content.drawn("calibration"),
        table(["metric", "before", "after"], rows),
        how("Before: as the network gives them; after: with the temperature. Lower is better in every row."),
        element("h3", "Prediction sets"),
        _prediction_sets(analysis["prediction_sets"], analysis),
        element("h3", "Answering only where the network is sure"),
        paragraph(_risk(analysis["risk_coverage"], several=analysis["multi_label"])),
        content.drawn("risk_coverage"),
        how(f"predictions_{analysis['split']}.csv says for each image how unsure the network is (uncertainty, 0 to 1), "
            "its prediction set, and the disagreement: how far the answers of the student and its twin are apart, from "
            "0 to 1. Where they disagree, look twice."),
    ])  # fmt: skip


def _temperature(found: Mapping[str, Any]) -> str:
    if found["temperature"] is None:
        return sentence(found["after"]["reason"] or found["before"]["reason"])
    fitted = "for this report, on" if found["fitted_here"] else "when the model was kept, on"
    images, patients = found["images"] or "the", found["patients"]
    on = f"{images} validation images" + (f" of {patients} patients" if patients else "")
    few = ", so few that it is held near 1" if (patients or found["images"] or FEW) < FEW else ""
    needed = "" if round(found["temperature"], 3) != 1 else " At 1 it does nothing: none was needed."
    return (
        f"Logits, the numbers behind the probabilities, are divided by a temperature of {found['temperature']:.3f}, "
        f"fitted {fitted} {on}{few}.{needed} Above 1 it makes answers less sure, below 1 surer, and it changes none. "
        "All other numbers of this page are of predictions "
        + ("after it." if found["predictions_are"] == "calibrated" else "without it.")
    )


def _risk(risk: Mapping[str, Any], *, several: bool) -> str:
    counted = "the labels of all images" if several else "all images"
    at = ", ".join(f"{value:.1%} of the surest {share}" for share, value in risk["risk_at"].items() if share != "100%")
    return (
        f"Wrong are {risk['risk_at']['100%']:.1%} of {counted}, {at}; the area under the curve is "
        f"{risk['aurc']:.4f}, {risk['excess']:.4f} more than if all right answers came first."
    )


def _prediction_sets(sets: Mapping[str, Any], analysis: Mapping[str, Any]) -> Markup:
    if sets["coverage"] is None:
        return paragraph(sentence(sets["reason"]))
    rows = [
        ["stated coverage", f"{sets['stated']:.0%}"],
        ["observed coverage", estimate(sets["coverage"])],
        ["mean number of classes in a set", estimate(sets["mean_size"])],
        ["sets of one class", f"{sets['single']:.1%}"],
        *([f"coverage of {name}", number(value)]
          for name, value in zip(analysis["class_names"], sets["coverage_per_class"], strict=True)),
    ]  # fmt: skip
    said = (
        "A prediction set holds the classes that can't be ruled out for an image: one where the network is sure, "
        "several where it isn't."
    )
    made = (
        f"Made by split conformal prediction ({sets['method'].upper()}) on {sets['validation_images']} validation "
        "images."
    )
    return join([
        paragraph(said, made, sentence(sets["reason"])),
        table(["", "value"], rows),
        how("Coverage: the share of images whose set holds the true class. The stated coverage is an average over "
            "images like those, and of no single class."),
    ])  # fmt: skip


# --- groups -----------------------------------------------------------------------------------------------------------


def subgroups(content: Content) -> Markup:
    """Each group of images, such as a hospital, by itself."""
    found = content.analysis["subgroups"]
    notes = paragraph(*(f"{note}." for note in found["notes"]), class_="note")  # each begins with a name
    if not found["columns"]:
        return join([paragraph(sentence(found["reason"])), notes])
    parts = [
        paragraph("Each group measured by itself. Differences between groups are not tested, and many groups make "
                  "some of them look different by chance."),
        content.drawn("subgroups"),
    ]  # fmt: skip
    for column, groups in found["columns"].items():
        marks = Notes()
        names = [name for name in (*METRICS, "sensitivity", "specificity") if name in groups[0]["metrics"]["overall"]]
        care = any(group["too_small"] for group in groups)
        head = [column, "images", "patients", *(METRICS.get(name, name) for name in names), *["read with care"] * care]
        rows = [
            [group["name"], group["images"], group["patients"],
             *(estimate(group["metrics"]["overall"][name], notes=marks) for name in names),
             *[group["too_small"]] * care]
            for group in groups
        ]  # fmt: skip
        parts += [table(head, rows), marks.paragraphs()]
    return join([*parts, notes])
