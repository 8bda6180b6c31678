# SPDX-License-Identifier: Apache-2.0
"""Options of an evaluation and of an inference, each once."""

from __future__ import annotations

from typing import Literal

from dual_skd.options.choices import BadFile
from dual_skd.options.kinds import Codes, Corruptions, Count, Options, Place, Strengths, Switch, Text, option
from dual_skd.options.shared import Answers, Copies, Finding, Machine, Reading, Unexpected


class Measured(Options):
    """Which images are measured, and what is written"""

    dataset_dir: Place | None = option(
        None,
        "other labelled images, such as another hospital's, in any form that training takes",
        empty="the run's own",
        free=True,
        path=True,
        everyday=True,
    )
    output_dir: Place = option("output", "folder of the run", free=True, path=True, everyday=True)
    split: Literal["test", "val"] = option("test", "which of the run's images", everyday=True)
    report_as: Text | None = option(
        None,
        "name of the numbers in metrics.json and of the report",
        empty="test, or of other images their folder's name",
        everyday=True,
    )
    batch_size: Count = option(32, "images at a time")
    report: Switch = option(True, "write the page and the model card", everyday=True)


class Robustness(Options):
    """The same images again, made worse"""

    corruptions: Corruptions | None = option(
        None, "`all`, or some of noise, blur, contrast, gamma, jpeg, resolution, rotation", empty="none"
    )
    strengths: Strengths = option([1, 2, 3, 4, 5], "strengths of each, of 1 to 5")
    corrupt_auxiliary: Switch = option(True, "measure the auxiliary, too")


class Evaluation(Machine, Robustness, Unexpected, Copies, Reading, Answers, Measured):
    """Options of an evaluation."""


class Asked(Options):
    """Which images are answered, and what is written"""

    dataset_dir: Place = option(
        "demo",
        "images: a folder, a table or list, or a file",
        free=True,
        path=True,
        words=("demo", "demo3d"),
        everyday=True,
    )
    output_dir: Place = option(
        "output", "folder of the run; the answers are written there", free=True, path=True, everyday=True
    )
    batch_size: Count = option(8, "images at a time")
    disagreement: Switch = option(True, "ask the auxiliary, too, and tell how far the two are apart")
    explain: Switch = option(False, "write maps of what the answer rests on", everyday=True)
    dicom_sr: Switch = option(False, "write DICOM Structured Reports")
    class_codes: Codes = option({}, "code, scheme and meaning of each class in them")
    on_bad_file: BadFile = option("skip", "a file that can't be used gets a line that says why; `error` ends the run")


class Prediction(Machine, Unexpected, Answers, Finding, Asked):
    """Options of an inference."""
