# SPDX-License-Identifier: Apache-2.0
"""Options that several commands have: of the data, of copies, and of the machine."""

from __future__ import annotations

from dual_skd.options.choices import BadFile, TwinSearch, UnexpectedInput
from dual_skd.options.kinds import Chance, Device, Fraction, Map, Options, Switch, Text, Texts, Whole, option

SIMILARITY = 0.93  # likeness from which two images count as near copies
REST = "rest"  # as unlabelled: the images of the data set that have no label or aren't used
DEVICE = "$dual_skd.runs.devices.pick_device('auto')"  # how a config says "auto": its entry `device` is a device


class Finding(Options):
    """Images"""

    image_column: Text | None = option(
        None, "column with the paths of the images", empty="`image`, or else the column whose cells are image files"
    )
    allow_outside: Switch = option(
        False, "let a list with relative paths name images outside its folder, see [security.md](security.md)"
    )


class Reading(Finding):
    """Labels and patients"""

    label_column: Texts = option(
        "label", "column of the label, or several columns of 0 and 1 if an image may have several labels", everyday=True
    )
    class_map: Map | None = option(
        None,
        "class name of each label in the data, such as \"{'1': 'abnormal', '0': 'normal'}\" or "
        "\"{'Normal': 'normal', 'gesund': 'normal'}\"; `''` leaves out the images of a label",
        empty="labels are class names",
        everyday=True,
    )
    patient_pattern: Text | None = option(
        None,
        'regular expression with one group that finds the patient in the path; "" for none',
        empty="patients as stated in the data",
        path=True,
        words=("",),
        everyday=True,
    )


class Copies(Options):
    """Duplicates and bad files"""

    keep_twins: Switch = option(False, "keep validation and test images that have a duplicate in training")
    twin_search: TwinSearch = option(
        "auto", "when to search for duplicates ([data.md](data.md#duplicates)); `auto` skips very large data sets"
    )
    twin_similarity: Fraction = option(SIMILARITY, "similarity from which two images count as duplicates")
    on_bad_file: BadFile = option(
        "error", "`error` stops at a file that can't be used; `skip` leaves it out, and lists and counts it"
    )


class Unexpected(Options):
    """Images of another kind than the training images"""

    unexpected_input: UnexpectedInput = option(
        "refuse",
        "what to do with images of another kind than the training images: modality, colour, no Hounsfield units",
    )


class Answers(Options):
    """Probabilities and prediction sets"""

    calibrate: Switch = option(True, "divide the logits by the temperature fitted on the validation images")
    alpha: Chance = option(0.1, "share of images whose prediction set may miss the label")


class Machine(Options):
    """The computer"""

    device: Device = option("auto", "device that computes: `cpu`, `cuda`, `cuda:1`", free=True, config=DEVICE)
    num_workers: Whole = option(2, "threads or processes that decode images", free=True)
    amp: Switch = option(False, "automatic mixed precision: float16 on CUDA, bfloat16 on a CPU")
