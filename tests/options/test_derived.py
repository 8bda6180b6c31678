# SPDX-License-Identifier: Apache-2.0
"""What follows from options, what a user chose, and the command that says it."""

from __future__ import annotations

import pytest

from dual_skd.options import (
    METHODS,
    Training,
    chosen,
    completed,
    removed,
    resolved,
    settings,
    training,
    training_command,
    weight_files,
)

OTHER = {  # a value of every option that isn't its default
    "dataset_dir": "/data/Müller", "output_dir": "out", "epochs": 24, "rounds": 2, "seed": 3,
    "class_names": ["ill", "it's well"], "label_free_epochs": 2,
    "fine_tune_epochs": 4, "key_metric": "nll", "val_interval": 2, "patience": 3, "label_column": ["a", "b c"],
    "class_map": {"1": "ill", "0": "it's well"}, "image_column": "Datei", "patient_pattern": "(p\\d+) x",
    "allow_outside": True, "keep_twins": True, "twin_search": "never", "twin_similarity": 0.8, "on_bad_file": "skip",
    "spatial_dims": 3, "image_size": [48, 48, 24], "window": [40.0, 400.0], "spacing": 1.5, "fit": "crop",
    "frame": "middle", "large": "resnet50", "large_options": {"layers": [1, 2]}, "pretrained": "hub",
    "small": "resnet18", "small_options": {"width": 0.5}, "selection_layers": "even", "selection_mode": "reference",
    "selection_check": "off",
    "method": "dual", "selection_student": "random",
    "selection_auxiliary": "scratch", "selection_layers_auxiliary": [[0, 2], [1]], "update": "frozen",
    "momentum": 0.9, "momentum_warmup": False, "temperature": 5.0, "skd_weight": 0.5, "skd_ramp": 0.1,
    "unlabelled": "/data/more", "unlabelled_loss": "hard", "unlabelled_weight": 2.0, "unlabelled_ratio": 3,
    "unlabelled_confidence": 0.9, "unlabelled_strength": 1.5,
    "batch_size": 8, "accumulation_steps": 2, "learning_rate": 0.01, "weight_decay": 0.1,
    "loss": "focal", "class_weights": True, "logit_adjustment": 1.0, "label_smoothing": 0.1, "rotate": 5.0,
    "scale": 0.2, "translate": 0.1, "flip_axes": [1], "contrast": 0.2, "brightness": 0.2, "noise": 0.1,
    "spectrum": 0.3, "train_fraction": 0.5, "val_fraction": 0.1, "test_fraction": 0.1, "folds": 5, "fold": 1,
    "num_workers": 0, "amp": True, "teacher_checkpoint": "/runs/x/models/model.pt", "fresh": True,
    "resume_from": "out/last.pt", "checkpoint_minutes": 5.0, "timeout_minutes": 3.0, "on_bad_number": "skip",
    "cache": "disk", "cache_dir": "/tmp/x", "compile": True,
}  # fmt: skip
TOGETHER = {
    "fold": {"folds": 5},
    "image_size": {"spatial_dims": 3},
    "teacher_checkpoint": {"method": "distill"},
}  # options that another one needs


def made(**given) -> dict:
    return settings(training(**given), multi_label=False)


def test_every_option_has_a_value_in_the_tests_below():
    assert set(OTHER) == set(Training.model_fields) - {"device"}  # which the machine decides


@pytest.mark.parametrize("name", OTHER)
def test_every_option_that_was_chosen_is_recorded_and_told(name):
    given = TOGETHER.get(name, {}) | {name: OTHER[name]}
    found = chosen(made(**given))
    assert found == given
    told = training_command(made(**given))
    if name == "dataset_dir":
        assert told == "dual-skd train DATA -o OUT"
    elif name != "output_dir":
        assert f"--{name.replace('_', '-')} " in told
    assert "Müller" not in told and "/runs" not in told and "/tmp" not in told and "p\\d" not in told


def test_what_nobody_chose_is_not_told():
    assert chosen(made()) == {} and training_command(made()) == "dual-skd train demo -o OUT"
    for name in METHODS:
        needed = {"teacher_checkpoint": "model.pt"} if name == "distill" else {}
        assert chosen(made(method=name, **needed)) == ({} if name == "coupled" else {"method": name} | needed)
    assert chosen(made(epochs=10, method="dual")) == {"epochs": 10, "method": "dual"}  # two of them to fine-tune
    assert chosen(made(epochs=10, patience=10, temperature=4.0)) == {"epochs": 10}  # what they are anyhow
    assert chosen(settings(training(), multi_label=True)) == {}  # whose loss is bce
    assert chosen({}) == {}


def test_the_run_of_the_report_that_lost_its_loss():
    given = {"loss": "focal", "patience": 3, "fine_tune_epochs": 2, "epochs": 4}
    assert training_command(made(**given)) == (
        "dual-skd train DATA -o OUT --epochs 4 --fine-tune-epochs 2 --patience 3 --loss focal"
    ).replace("DATA", "demo")


@pytest.mark.parametrize("name", METHODS)
def test_the_row_of_a_method_says_what_was_not_given(name):
    needed = {"teacher_checkpoint": "model.pt"} if name == "distill" else {}
    row, found = METHODS[name], training(method=name, epochs=11, **needed)
    assert (found.selection_student, found.selection_auxiliary, found.update) == (
        row.student,
        row.auxiliary,
        row.update,
    )
    assert (found.temperature, found.skd_weight) == (row.temperature, row.skd_weight)
    learned = ("hard", 1.0) if row.update == "none" else ("soft", 3.0)
    assert (found.unlabelled_loss, found.unlabelled_weight) == learned
    assert found.selection_layers_auxiliary == row.layers and found.fine_tune_epochs == (2 if row.fine_tunes else 0)
    given = training(method=name, temperature=7.0, update="frozen", fine_tune_epochs=1, **needed)
    assert (given.temperature, given.update, given.fine_tune_epochs) == (7.0, "frozen", 1)


def test_what_follows_from_the_data_waits_for_them():
    assert training().loss is None and training().fit == "pad" and training(spacing=1.0).fit is None
    assert [resolved(training(), multi_label=one).loss for one in (True, False)] == ["bce", "cross_entropy"]
    assert training(epochs=5).patience == 5


def test_settings_are_all_options_but_the_device():
    assert list(made(device="cpu")) == [name for name in Training.model_fields if name != "device"]


def test_what_was_saved_before_an_option_existed_is_what_was_done_then():
    assert completed({"spacing": None}) == {"spacing": None, "fit": "stretch"}
    assert completed({"spacing": 1.5}) == {"spacing": 1.5, "fit": None}
    assert completed({"fit": "crop"}) == {"fit": "crop"}
    former = made() | {"cache_dir": "output/cache"}  # which run.json once had where nobody chose it
    assert chosen(former) == {} and chosen(former | {"cache_dir": "other"}) == {"cache_dir": "other"}
    assert chosen({"epochs": 3, "method": "single", "update": "none", "temperature": 2.0, "gone": 1, "fit": "pad"}) == {
        "epochs": 3, "method": "single",
    }  # fmt: skip


def test_options_of_a_former_version_are_named_where_a_run_used_them():
    unused = {"selection_rescale": False, "compensate": 0, "freeze_norm": False}
    assert removed(made()) == removed(unused) == "" and "#" not in training_command(made() | unused)
    used = made(epochs=3) | unused | {"compensate": 64, "freeze_norm": True}
    assert chosen(used) == {"epochs": 3}
    assert training_command(used) == (
        "dual-skd train demo -o OUT --epochs 3  # the run had compensate 64, freeze_norm True, which this version no "
        "longer has"
    )


@pytest.mark.parametrize(
    ("given", "files"),
    [
        ({"pretrained": "wheel"}, {}),
        ({"pretrained": "a.pt"}, {"pretrained": "a.pt"}),
        ({"pretrained": "a.pt", "method": "scratch"}, {}),
        ({"pretrained": "a.pt", "method": "coupled"}, {"pretrained": "a.pt"}),
        ({"method": "distill", "teacher_checkpoint": "t.pt"}, {"teacher_checkpoint": "t.pt"}),
        ({"selection_student": "scratch", "pretrained": "a.pt"}, {"pretrained": "a.pt"}),  # of the auxiliary
        ({"selection_auxiliary": "teacher", "update": "none", "teacher_checkpoint": "t.pt"}, {}),
    ],
)
def test_the_weights_that_a_run_starts_or_learns_from(given, files):
    assert weight_files(dict(training(**given))) == files == weight_files(made(**given))
