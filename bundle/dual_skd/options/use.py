# SPDX-License-Identifier: Apache-2.0
"""Options of an evaluation and of an inference, each once."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from dual_skd.errors import InputError
from dual_skd.options.choices import BadFile, Combine, Per, Recalibrate, Strategy, TwinSearch
from dual_skd.options.kinds import (
    Chance,
    Codes,
    Corruptions,
    Count,
    Device,
    Fraction,
    HalfWidth,
    Options,
    Place,
    Seed,
    Strengths,
    Switch,
    Text,
    Whole,
    option,
)  # fmt: skip
from dual_skd.options.shared import Answers, Copies, Finding, Machine, Reading, Unexpected

# the same fields as in the options of a run: same meaning
_TWIN_SEARCH: Any = Copies.model_fields["twin_search"]
_TWIN_SIMILARITY: Any = Copies.model_fields["twin_similarity"]
_DEVICE: Any = Machine.model_fields["device"]
_NUM_WORKERS: Any = Machine.model_fields["num_workers"]


class Measured(Options):
    """Images to evaluate, and output"""

    dataset_dir: Place | None = option(
        None,
        "other labelled images, such as another hospital's, in any format that training takes",
        empty="the run's own",
        free=True,
        path=True,
        everyday=True,
    )
    output_dir: Place = option("output", "folder of the run", free=True, path=True, everyday=True)
    split: Literal["test", "val"] = option("test", "which split of the run", everyday=True)
    report_as: Text | None = option(
        None,
        "name of this evaluation in metrics.json and of its report",
        empty="test; for other images, the name of their folder",
        everyday=True,
    )
    batch_size: Count = option(32, "images per batch")
    report: Switch = option(True, "write the report page and the model card", everyday=True)


class PerPatient(Options):
    """Per image or per patient"""

    per: Per = option(
        "image",
        "what is measured; `patient` adds a report in which the images of a patient are one answer",
        everyday=True,
    )
    combine: Combine = option(
        "mean",
        "how probabilities of a patient's images become one: their mean, or the largest of the positive class, `max`",
        everyday=True,
    )

    @model_validator(mode="after")
    def _combines_something(self) -> PerPatient:
        if self.combine != "mean" and self.per != "patient":
            raise InputError(f"combine is {self.combine!r}, but images are measured one by one; give per patient, too.")
        return self


class NextStudy(Options):
    """Sample size of a next study"""

    half_width: HalfWidth = option(
        0.05, "half width of the 95 % intervals for which the report says how many patients a next study needs"
    )


class Recalibrating(Options):
    """Recalibration"""

    recalibrate: Recalibrate = option(
        "none",
        "fit the probabilities to a share of these patients, and measure them on the others beside those as they are: "
        "`intercept` alone, or `slope` and intercept ([another hospital](howto/two_hospitals.md#recalibrate))",
        everyday=True,
    )
    recalibrate_share: Chance = option(0.33, "share of the patients that `recalibrate` fits on")


class Reporting(Recalibrating, NextStudy, PerPatient):
    """Options of a report, beside those of the evaluation that it is of."""


class Robustness(Options):
    """Corrupted images"""

    corruptions: Corruptions | None = option(
        None,
        "which corruptions to measure: `all`, or some of noise, blur, contrast, gamma, jpeg, resolution, rotation",
        empty="none",
    )
    strengths: Strengths = option([1, 2, 3, 4, 5], "strengths of each corruption, from 1 to 5")
    corrupt_auxiliary: Switch = option(True, "measure the auxiliary on corrupted images, too")


class Evaluation(Machine, Robustness, Unexpected, Copies, Reading, Reporting, Answers, Measured):
    """Options of an evaluation."""

    @model_validator(mode="after")
    def _fit_together(self) -> Evaluation:
        if self.per == "patient" and not self.report:
            raise InputError("per is 'patient', which is a report, but report is false; leave out one of the two.")
        if self.recalibrate != "none" and not self.report:
            raise InputError(
                f"recalibrate is {self.recalibrate}, which is measured for the report, and report is off; leave out "
                "one of the two."
            )
        return self


class Asked(Options):
    """Images to classify, and output"""

    dataset_dir: Place = option(
        "demo",
        "images: a folder, a table or list, or a file",
        free=True,
        path=True,
        words=("demo", "demo3d"),
        everyday=True,
    )
    output_dir: Place = option(
        "output", "folder of the run; the predictions are written there", free=True, path=True, everyday=True
    )
    batch_size: Count = option(8, "images per batch")
    disagreement: Switch = option(True, "run the auxiliary, too, and report how far the two disagree")
    explain: Switch = option(False, "write maps of the image regions that support the answer", everyday=True)
    dicom_sr: Switch = option(False, "write DICOM Structured Reports")
    class_codes: Codes = option({}, "code, scheme and meaning of each class in the Structured Reports")
    on_bad_file: BadFile = option(
        "skip", "`skip` gives a file that can't be used a row with the reason; `error` ends the run"
    )


class Prediction(Machine, Unexpected, Answers, Finding, Asked):
    """Options of an inference."""


class Suggesting(Options):
    """What is suggested"""

    unlabelled: Place | None = option(
        None,
        "images without labels: a folder at any depth, a table, a DICOM tree or an .npz file; labels in it aren't read",
        empty="those that the run was given as `unlabelled`",
        path=True,
    )
    number: Count = option(50, "how many images, or patients, to suggest")
    per: Per = option("image", "what is suggested; `patient` takes all images of a patient together")
    strategy: Strategy = option(
        "badge",
        "by what images are ordered: `badge` (unsure, and unlike each other), `disagreement` of the two networks, "
        "`uncertainty` of the student, or `random` ([which](howto/suggest.md#strategies))",
    )
    seed: Seed = option(0, "random seed of `badge` and `random`")
    patient_pattern: Text | None = option(
        None,
        'regular expression with one group that finds the patient in the path; "" for none',
        empty="that of the run, or patients as stated in the data",
        path=True,
        words=("",),
    )
    twin_search: TwinSearch = _TWIN_SEARCH
    twin_similarity: Fraction = _TWIN_SIMILARITY
    batch_size: Count = option(32, "images that go through the networks together")
    device: Device = _DEVICE
    num_workers: Whole = _NUM_WORKERS


class Suggestion(Unexpected, Finding, Suggesting):
    """Options of a suggestion of images to label."""
