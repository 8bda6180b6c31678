# SPDX-License-Identifier: Apache-2.0
"""Options that several commands have: of the data, of copies, and of the machine."""

from __future__ import annotations

from dual_skd.options.choices import BadFile, TwinSearch, UnexpectedInput
from dual_skd.options.kinds import Chance, Device, Fraction, Map, Options, Switch, Text, Texts, Whole, option

SIMILARITY = 0.93  # likeness from which two images count as near copies
DEVICE = "$dual_skd.runs.devices.pick_device('auto')"  # how a config says "auto": its entry `device` is a device


class Finding(Options):
    """How images are found"""

    image_column: Text | None = option(
        None, "column that names the images", empty="`image`, else the one whose cells are image files"
    )
    allow_outside: Switch = option(
        False, "take images that a list with relative paths names outside its folder, see [security.md](security.md)"
    )


class Reading(Finding):
    """How labels and patients are found"""

    label_column: Texts = option(
        "label", "column of the label; several columns of 0 and 1 where an image may have several labels", everyday=True
    )
    class_map: Map | None = option(
        None,
        "class name of each label as it stands in the data, such as \"{'1': 'abnormal', '0': 'normal'}\" or "
        "\"{'Normal': 'normal', 'gesund': 'normal'}\"; `''` leaves its images out",
        empty="labels are class names",
        everyday=True,
    )
    patient_pattern: Text | None = option(
        None,
        'regular expression with one group that finds the patient in the path; "" for no patients',
        empty="patients as the data state them",
        path=True,
        words=("",),
        everyday=True,
    )


class Copies(Options):
    """Copies of images, and files that can't be used"""

    keep_twins: Switch = option(False, "keep validation and test images that have a copy in training")
    twin_search: TwinSearch = option(
        "auto", "when copies are searched for ([data.md](data.md#copies)); `auto` leaves out very large sets"
    )
    twin_similarity: Fraction = option(SIMILARITY, "from which likeness on two images count as copies")
    on_bad_file: BadFile = option(
        "error", "a file that can't be used is an error; `skip` leaves it out, lists and counts it"
    )


class Unexpected(Options):
    """Images of another kind than those of training"""

    unexpected_input: UnexpectedInput = option(
        "refuse", "images of another kind than those of training: modality, colour, no Hounsfield units"
    )


class Answers(Options):
    """What is said of an image"""

    calibrate: Switch = option(True, "divide logits by the temperature fitted on the validation images")
    alpha: Chance = option(0.1, "share of images whose prediction set may miss the label")


class Machine(Options):
    """The computer"""

    device: Device = option("auto", "where networks compute: `cpu`, `cuda`, `cuda:1`", free=True, config=DEVICE)
    num_workers: Whole = option(2, "threads or processes that decode images", free=True)
    amp: Switch = option(False, "automatic mixed precision: float16 on CUDA, bfloat16 on a CPU")
