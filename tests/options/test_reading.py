# SPDX-License-Identifier: Apache-2.0
"""What options take, what they refuse, and in which words."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import torch

from dual_skd.data.cache import CACHES
from dual_skd.data.corruptions import CORRUPTIONS
from dual_skd.data.reading.expectation import UNEXPECTED_INPUT as UNEXPECTED
from dual_skd.data.reading.intensity import WINDOW_WORDS
from dual_skd.data.reading.preprocessing import FITS
from dual_skd.data.records.bad_files import POLICIES as BAD_FILES
from dual_skd.errors import InputError
from dual_skd.metrics.definitions import METRICS
from dual_skd.options import METHODS, Evaluation, Prediction, Training, choices, choices_of, read, takes, training
from dual_skd.selection.rules import ELEMENT_RULES, LAYER_RULES
from dual_skd.training.losses import LOSSES, UNLABELLED_LOSSES
from dual_skd.training.task import UPDATES

KINDS = (Training, Evaluation, Prediction)
EVERY = [(kind, name) for kind in KINDS for name in kind.model_fields]


@pytest.mark.parametrize("words, table", [
    (choices.Method, METHODS), (choices.Update, UPDATES), (choices.ElementRule, ELEMENT_RULES),
    (choices.LayerRule, LAYER_RULES), (choices.Loss, LOSSES),
    (choices.UnlabelledLoss, UNLABELLED_LOSSES), (choices.Metric, METRICS), (choices.Window, WINDOW_WORDS),
    (choices.Fit, FITS), (choices.Cache, CACHES), (choices.BadFile, BAD_FILES),
    (choices.UnexpectedInput, UNEXPECTED), (choices.Corruption, CORRUPTIONS),
])  # fmt: skip
def test_the_words_of_an_option_are_those_that_something_stands_for(words, table):
    assert set(get_args(words)) == set(table)


@pytest.mark.parametrize("kind, name", EVERY, ids=str)
def test_every_option_refuses_what_it_does_not_take_under_its_name(kind, name):
    class Strange:
        __str__ = __repr__ = lambda self: "???"

    if name == "device":  # pick_device looks at it, since PyTorch knows which there are
        return
    with pytest.raises(InputError) as caught:
        read(kind, {name: Strange()})
    field = kind.model_fields[name]
    words = choices_of(field)
    wanted = f"Unknown {name} ???; valid: {', '.join(words)}." if words else f"{name} is ???; expected {takes(field)}."
    assert str(caught.value) == wanted


@pytest.mark.parametrize("kind, name", EVERY, ids=str)
def test_every_option_says_what_it_is_and_takes_its_own_default(kind, name):
    field = kind.model_fields[name]
    assert field.description and not field.description.endswith(".")
    assert getattr(read(kind, {name: field.default}), name) == field.default


@pytest.mark.parametrize("name, value, expected", [
    ("logit_adjustment", True, "a number of at least 0"), ("learning_rate", "x", "a number of at least 0"),
    ("learning_rate", float("nan"), "a number of at least 0"), ("rotate", -1, "a number of at least 0"),
    ("momentum", float("inf"), "a number of at least 0 and at most 1"),
    ("momentum", 1.5, "a number of at least 0 and at most 1"),
    ("patience", 0, "a whole number of at least 1"), ("val_interval", 0, "a whole number of at least 1"),
    ("batch_size", 8.0, "a whole number of at least 1"), ("batch_size", "8", "a whole number of at least 1"),
    ("seed", None, "a whole number of at least 0 and below 4294967296"),
    ("seed", 2**32, "a whole number of at least 0 and below 4294967296"),
    ("num_workers", -1, "a whole number of at least 0"),
    ("temperature", 0, "a number above 0"), ("label_smoothing", 1, "a number of at least 0 and below 1"),
    ("train_fraction", 0, "a number above 0 and at most 1"), ("folds", 1, "a whole number of at least 2"),
    ("image_size", "x", "a whole number of at least 1, or a list of one per axis"),
    ("image_size", [32, 0], "a whole number of at least 1, or a list of one per axis"),
    ("spacing", [1.0, -1], "a number above 0, or a list of one per axis"),
    ("rotate", [10, 10], "a number of at least 0"), ("frame", "first", "middle, all, or a whole number of at least 0"),
    ("dataset_dir", "", "a path"),
    ("spatial_dims", 4, "2 or 3"), ("small_options", ["depth"], "a dictionary such as \"{'drop_rate': 0.1}\""),
    ("class_map", "ill", "a dictionary such as \"{'1': 'ill', '0': 'well'}\""),
    ("class_map", "{[1]: 2}", "a dictionary such as \"{'1': 'ill', '0': 'well'}\""),
    ("class_map", "{'1':", "a dictionary such as \"{'1': 'ill', '0': 'well'}\""),
])  # fmt: skip
def test_a_value_out_of_range_is_named_with_what_is_expected(name, value, expected):
    with pytest.raises(InputError) as caught:
        training(**{name: value})
    assert str(caught.value) == f"{name} is {value!r}; expected {expected}."


@pytest.mark.parametrize("name, value, words", [
    ("on_bad_number", "stpo", "Unknown on_bad_number 'stpo' (did you mean stop?); valid: stop, skip, ignore."),
    ("amp", "maybe", "Unknown amp 'maybe'; valid: true, false."), ("amp", 1, "Unknown amp 1; valid: true, false."),
    ("window", "lugn", "window is 'lugn' (did you mean lung?); expected auto, percentile, zscore, file, lung, "
                       "mediastinum, brain, bone, soft_tissue, wide or [centre, width] in HU."),
    ("tempature", 3, "Unknown option tempature (did you mean temperature?)."),
    ("small_options", {"in_channels": 3}, "small_options sets in_channels, which the run decides by its images and "
     "other options (large, small, spatial_dims, image_size); leave that out of small_options."),
])  # fmt: skip
def test_a_word_is_refused_with_the_one_that_is_near(name, value, words):
    with pytest.raises(InputError) as caught:
        read(Training, {name: value})
    assert str(caught.value) == words


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(InputError) as caught:
        training(epochs="many", amp="maybe")
    assert str(caught.value) == (
        "epochs is 'many'; expected a whole number of at least 1. Unknown amp 'maybe'; valid: true, false."
    )


@pytest.mark.parametrize("given, words", [
    ({"image_size": [32, 32, 32]}, "image_size is [32, 32, 32]; expected one number, or a list of 2"),
    ({"spacing": [1.0, 1.0], "spatial_dims": 3}, "spacing is [1.0, 1.0]; expected one number, or a list of 3"),
    ({"fit": "pad", "spacing": 1.0}, "fit is 'pad', but with a spacing"),
    ({"fold": 3, "folds": 3}, "fold is 3; expected 0 to 2 for 3 folds."),
    ({"fold": 1}, "fold is 1; expected 0 without folds."),
    ({"loss": "focal", "label_smoothing": 0.1}, "focal loss takes no label smoothing"),
    ({"method": "distill"}, "give its models/model.pt as --teacher_checkpoint"),
    ({"teacher_checkpoint": "t.pt"}, "method 'coupled' has no teacher; choose method distill, or leave it out"),
    ({"flip_axes": [2]}, "flip_axes is [2]; expected axes of 0 to 1."),
    ({"class_weights": True, "logit_adjustment": 1.0}, "class_weights and logit_adjustment do the same work"),
])  # fmt: skip
def test_options_that_do_not_go_together_are_refused(given, words):
    with pytest.raises(InputError) as caught:
        training(**given)
    assert words in str(caught.value)


@pytest.mark.parametrize("name, value, meant", [
    ("amp", "False", False), ("amp", "TRUE", True), ("image_size", (32, 40), [32, 40]),
    ("window", (40, 400), [40.0, 400.0]),
    ("small_options", None, {}), ("class_map", "{'1': 'ill'}", {"1": "ill"}), ("dataset_dir", Path("a"), "a"),
    ("device", torch.device("cuda", 1), "cuda:1"), ("flip_axes", 1, [1]), ("learning_rate", 1, 1.0),
    ("label_column", ("a", "b"), ["a", "b"]), ("selection_layers", [[0, 2], [1]], [[0, 2], [1]]),
])  # fmt: skip
def test_a_value_may_be_written_in_several_ways(name, value, meant):
    assert getattr(read(Training, {name: value}), name) == meant


def test_the_package_of_options_needs_neither_pytorch_nor_monai():
    code = "import sys, dual_skd.options; print({'torch', 'monai', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_one_network_has_nothing_soft_to_learn_from_itself_on_one_view():
    with pytest.raises(InputError, match="agrees with itself on one view"):
        training(method="single", unlabelled_loss="soft")
    assert training(method="single", unlabelled_loss="soft", unlabelled_strength=1.0).unlabelled_strength == 1
    assert training(unlabelled="rest", unlabelled_loss="soft").unlabelled == "rest"
    assert training(update="none").unlabelled_loss == "hard" and training(unlabelled_loss="hard").unlabelled_weight == 1
