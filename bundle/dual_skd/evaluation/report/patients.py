# SPDX-License-Identifier: Apache-2.0
"""What a report says of patients: how many there are of each class, whether they are few, how they were divided."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dual_skd.evaluation.analysis import Analysis
from dual_skd.evaluation.analysis.run_facts import Data
from dual_skd.metrics.score_intervals import wilson_interval
from dual_skd.metrics.subgroups import Subgroup
from dual_skd.utils.wording import counted, first_few, of_patients

FEW_PATIENTS = 30  # of a class; of fewer its intervals are wide
MAX_CLASSES = 6  # whose numbers stand in one cell


def measured(analysis: Analysis) -> str:
    """What was measured: "120 test images of 63 patients", "90 images of 41 patients (hospital_b)".

    Of patients: "63 test patients with 120 images".
    """
    section, unit, known = analysis.data.section, analysis.unit, analysis.patients
    own = section in ("test", "validation")
    rows = counted(analysis.rows, f"{section} {unit.name}" if own else unit.name)
    if unit.name == "patient":
        behind = f" with {counted(analysis.images, 'image')}"
    else:
        behind = of_patients(known.known, known.images_without) or " of unknown patients"
    return f"{rows}{behind}{'' if own else f' ({analysis.split})'}"


def combined(analysis: Analysis) -> str:
    """How the answer of a patient was made, and who was left out; "" for images."""
    unit = analysis.unit
    if unit.name != "patient":
        return ""
    two = len(analysis.class_names) == 2 and not analysis.multi_label
    if unit.combine == "mean":
        how = "the mean of the probabilities of all images of the patient"
    elif two:
        how = f"the largest probability of {analysis.class_names[1]} among the images of the patient"
    elif analysis.multi_label:
        how = "for each label the largest probability among the images of the patient"
    else:
        how = "for each class the largest probability among the images of the patient, divided by the sum of these"
    if two:
        label = f"A patient is {analysis.class_names[1]} where any image is."
    elif analysis.multi_label:
        label = "A patient has the labels of any image."
    else:
        label = "A patient has the class of all images."
    out = ""
    if unit.left_out_patients:
        those = f"{counted(unit.left_out_patients, 'patient')} ({counted(unit.left_out_images, 'image')})"
        out = f" Left out: {those} whose images are of different classes."
    return f"These numbers are of patients. The answer for a patient is {how}. {label}{out}"


def few_patients(analysis: Analysis) -> str:
    """A sentence about classes with fewer than :data:`FEW_PATIENTS` patients; "" where there is none."""
    counts = zip(
        analysis.class_names, analysis.class_patients, analysis.class_images_without_patient, strict=True
    )  # fmt: skip
    few = sorted(
        ((known + without, name) for name, known, without in counts if 0 < known + without < FEW_PATIENTS),
        key=lambda one: one[0],
    )
    if not few:
        return ""
    number, name = few[0]
    there = f"Few patients are of a class: {first_few([f'{name} {count}' for count, name in few], MAX_CLASSES)}."
    alone = " Images without a known patient count as one each." if analysis.patients.images_without else ""
    least = wilson_interval(number, number)[0]
    return (
        f"{there}{alone} Below {FEW_PATIENTS} patients the intervals of a class hold, but they are wide: even if all "
        f"{number} of {name} were found, its sensitivity could be as low as {least:.0%}."
    )


def patients_in_words(known: int, without: int) -> str:
    """A cell of a table: "31", "31, and 4 images without a known one", "not known"."""
    if not without:
        return str(known)
    return f"{known}, and {counted(without, 'image')} without a known one" if known else "not known"


def behind(images: int, patients: int, unit: str) -> str:
    """Rows and whom they are of: "40 images of 21 patients"; of patients "21 patients".

    Args:
        images: number of rows.
        patients: number of patients, an image without a known one counting as one.
        unit: what a row is.
    """
    return counted(images, unit) + (f" of {counted(patients, 'patient')}" if unit == "image" else "")


def class_counts(analysis: Analysis) -> tuple[list[str], list[list[Any]]]:
    """Two columns of a table with a row per class: images and patients, what is measured first."""
    columns = (analysis.class_images, analysis.class_patients, analysis.class_images_without_patient)
    if analysis.unit.name == "patient":  # of whom an image without a known one counts as one
        return ["patients", "images"], [
            [f"{known + without}, {without} of them not known" if without else str(known), images]
            for images, known, without in zip(*columns, strict=True)
        ]
    rows = [[images, patients_in_words(known, without)] for images, known, without in zip(*columns, strict=True)]
    return ["images", "patients"], rows


def of_group(group: Subgroup, class_names: Sequence[str]) -> str:
    """The patients of each class in a group, where there are few classes: "well 31, ill 5"."""
    each = zip(class_names, group.class_patients, strict=True)
    return ", ".join(f"{name} {count}" for name, count in each) if len(class_names) <= MAX_CLASSES else ""


def some_unknown(data: Data) -> bool:
    """Whether the patient of a validation image isn't known, or the validation images aren't."""
    validation = data.splits.get("validation")
    return not data.known or validation is None or validation.images_without_patient > 0


def partitions(data: Data) -> str:
    """At which level the splits of the training run are disjoint, as far as its data list can tell."""
    images = sum(split.images for split in data.splits.values())
    unknown = sum(split.images_without_patient for split in data.splits.values())
    if not images:
        return "not recorded"
    if data.patients_in_several_splits:
        several = counted(data.patients_in_several_splits, "patient is", "patients are")
        return f"not disjoint at the level of patients: {several} in more than one split"
    if not unknown:
        return "disjoint at the level of patients"
    if unknown == images:
        return "disjoint at the level of images: patients aren't known"
    return f"disjoint at the level of patients where they are known; {unknown} of {images} images have none"
