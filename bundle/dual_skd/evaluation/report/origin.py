# SPDX-License-Identifier: Apache-2.0
"""What the run was made of: data, training, networks, selected weights, and the commands that make it again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from dual_skd.evaluation.pages.frame import how
from dual_skd.evaluation.pages.markup import Markup, details, element, join, number, paragraph, table, text
from dual_skd.evaluation.report.content import Content
from dual_skd.evaluation.report.words import METRICS, sentence
from dual_skd.options import Evaluation, command
from dual_skd.runs.recorder import LAST
from dual_skd.utils.wording import metric_words

# --- data -------------------------------------------------------------------------------------------------------------


def data(content: Content) -> Markup:
    """Which images were measured, how the run divided its data, and what the search for twins found."""
    analysis, found = content.analysis, content.analysis["data"]
    patients, foreign = analysis["patients"], found["unexpected_images"]
    counts = zip(analysis["class_names"], analysis["class_images"], strict=True)
    parts = [
        paragraph(
            f"Measured are {analysis['images']} images of {analysis['metrics']['patients']} independent patients.",
            sentence(patients["reason"]),
            "They are of another data set than that of the training." if found["external"] else "",
            f"{foreign} images aren't of the kind that was trained on, and were accepted." if foreign else "",
        ),
        table(["class", f"images measured ({analysis['split']})"], counts),
    ]
    if not found["known"]:
        return join([*parts, paragraph("The division of the training run isn't known: there is no datalist.json.")])
    head = ["split of the run", "images", "patients", "images without a known patient", *found["classes"]]
    rows = [[name, one["images"], one["patients"], one["images_without_patient"], *one["class_images"]]
            for name, one in found["splits"].items()]  # fmt: skip
    parts.append(table(head, rows, "How the training run divided its data: images per class at the right"))
    parts += [element("h3", "Integrity"), element("ul", *(element("li", one) for one in _integrity(found)))]
    parts.append(
        how("A twin is the same picture, or nearly, once more: with one in training, a right answer is memory.")
    )
    with_twins, without = found["with_twins"], found["without_twins"]
    if with_twins and without:
        rows = [[METRICS.get(name, name), number(without.get(name)), number(value)]
                for name, value in with_twins.items()]  # fmt: skip
        parts.append(details("Numbers with the twins", table(["metric", "without twins", "with twins"], rows)))
    if content.show_names and content.description:
        parts.append(paragraph(content.description, class_="note"))
    if content.show_names and content.skipped:
        rows = [[one.get("image", ""), one.get("problem", "")] for one in content.skipped]
        parts.append(details("Skipped files", table(["file", "problem"], rows)))
    return join(parts)


def _integrity(found: Mapping[str, Any]) -> list[str]:
    twins = found["twins"].values()
    exact, near = (sum(one[kind] for one in twins) for kind in ("exact", "near"))
    searched = ("No image that is kept has a known twin in training." if found["twins_searched"]
                else "No search for images with a twin in training is recorded.")  # fmt: skip
    return [
        f"{exact + near} images were left out because a twin of them is in training ({exact} exact copies, {near} near "
        "copies)." if exact + near else searched,
        f"{found['skipped_files']} files could not be used and were skipped." if found["skipped_files"]
        else "No file was skipped.",
    ]  # fmt: skip


# --- training ---------------------------------------------------------------------------------------------------------


def training(content: Content) -> Markup:
    """The epochs, and which of them was kept."""
    found = content.analysis["training"]
    if not found["epochs"]:
        return paragraph(sentence(found["reason"]))
    key, epoch = found["key_metric"], found["best_epoch"]
    so_far = " so far" if content.analysis["run"]["unfinished"] else ""
    why = (f"the last{so_far}, whatever its validation" if key == LAST
           else f"the best{so_far} by {metric_words(key)} on the validation images")  # fmt: skip
    kept = f"The model of epoch {epoch} was kept, {why}."
    names = list(next(iter(found["series"].values())))
    rows = [
        [epoch, *(number(series[name][place]) for series in found["series"].values() for name in names)]
        for place, epoch in enumerate(found["epochs"])
    ]
    head = ["epoch", *(f"{who} {metric_words(name)}" for who in found["series"] for name in names)]
    return join([paragraph(kept), content.drawn("training"), details("All epochs", table(head, rows))])


def weight_selection(content: Content) -> Markup:
    """Which weights the networks started with: folded, as there are hundreds."""
    stages = content.analysis["selection"]["stages"]
    if not stages:
        return paragraph(sentence(content.analysis["selection"]["reason"]))
    rows = [
        [f"{row['network']}: {row['stage']}", f"{row['selected']} of {row['tensors']}",
         f"{row['selected_parameters']:,} of {row['parameters']:,}",
         "–" if row["norm_share"] is None else f"{row['norm_share']:.1%}", "; ".join(row["reasons"])]
        for row in stages
    ]  # fmt: skip
    head = ["network: stage", "tensors from the large network", "numbers", "mean share of the squared norm",
            "why others are not"]  # fmt: skip
    said = []
    for network in dict.fromkeys(row["network"] for row in stages):
        own = [row for row in stages if row["network"] == network]
        chosen, all_of_it = (sum(row[key] for row in own) for key in ("selected_parameters", "parameters"))
        said.append(f"The {network} started with {chosen:,} of its {all_of_it:,} numbers from the large network.")
    inside = [table(head, rows), how(
        "A tensor is a block of weights, a stage a part of the network. The squared norm says how much of the large "
        "network's tensor was taken."
    )]  # fmt: skip
    shown = ("network", "name", "source", "shape", "source_shape", "norm_share", "reason", "note")
    full = [[row.get("name", ""), *(row.get(key) or "" for key in shown if key != "name")] for row in content.selection]
    if full:
        head = ["tensor", *(key.replace("_", " ") for key in shown if key != "name")]
        inside.append(details(f"All {len(full)} tensors", table(head, full)))
    return join([paragraph(*said), details(f"All {len(stages)} stages", join(inside))])


# --- efficiency and provenance ----------------------------------------------------------------------------------------


def efficiency(content: Content) -> Markup:
    """How large the networks are, and how long an image takes."""
    found = content.analysis["efficiency"]
    if not found["networks"]:
        return paragraph(sentence(found["reason"]))
    large, speed = found["networks"].get("large", {}), found["speed"] or {}
    rows = []
    for role, one in found["networks"].items():
        time = speed.get(role, {}).get("milliseconds")
        rows.append([
            role, one["architecture"] or "", _millions(one["parameters"]),
            _share(one["parameters"], large.get("parameters")), _millions(one["macs"]),
            _share(one["macs"], large.get("macs")), "–" if time is None else f"{time:.1f}",
        ])  # fmt: skip
    head = ["network", "architecture", "parameters", "of the large", "MACs per image", "of the large", "CPU ms"]
    student, timed = found["networks"].get("student", {}), speed.get("student")
    shape = " x ".join(map(str, found["input_shape"] or []))
    share = _share(student.get("parameters"), large.get("parameters"))
    return join([
        paragraph(
            f"The student, the network that is kept, has {_millions(student['parameters'])} parameters"
            + (f", {share} of the large network" if share != "–" else "") + "." if student.get("parameters") else "",
            f"The model file has {found['model_mb']:.2f} MB." if found["model_mb"] is not None else "",
            f"Input {shape}." if shape else "",
        ),
        table(head, rows),
        how(
            "MACs are the multiplications of one image.",
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


def _places(written: str) -> str:
    """What the capital words of the commands stand for."""
    known = {"DATA": "the data of the training", "OUT": "the folder of the run", "DATASET_DIR": "the data measured"}
    there = [word for word in shlex.split(written) if re.fullmatch("[A-Z_]+", word)]
    said = [f"{word} for {meant}" for word, meant in known.items() if word in there]
    others = " Other capital words stand for files of your own." if set(there) - set(known) else ""
    return f"In them stand {', '.join(said)}.{others}"


def how_it_was_made(content: Content) -> Markup:
    """When, where and with what the run was made, and its commands."""
    run, found = content.analysis["run"], content.analysis["data"]
    if run["reason"]:
        return paragraph(sentence(run["reason"]))
    facts = [["started", run["started"]], ["finished", run["finished"] or "not finished"], ["device", run["device"]],
             ["seconds of training", number(run["total_seconds"], 0)], ["seed", run["seed"]],
             ["SHA-256 of the data list", found["hash"] or "–"],
             ["versions", ", ".join(f"{name} {version}" for name, version in run["versions"].items())]]  # fmt: skip
    settings = [[name, text(value)] for name, value in run["settings"].items()]
    written = commands(content.analysis)
    return join([
        element("pre", written),
        how(f"The commands that make it again. {_places(written)}"),
        table(["", "value"], facts),
        details("All settings, without paths", table(["setting", "value"], settings)),
    ])  # fmt: skip
