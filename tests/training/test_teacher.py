# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from dual_skd.errors import InputError
from dual_skd.networks.build import build_network
from dual_skd.options import METHODS, method
from dual_skd.runs.model_file import save_model
from dual_skd.selection import ELEMENT_RULES
from dual_skd.selection.rules import LAYER_RULES
from dual_skd.training.task import UPDATES
from dual_skd.training.teacher import load_teacher, teacher_architecture


def test_every_row_names_rules_and_updates_that_exist():
    for name, row in METHODS.items():
        assert method(name) is row
        assert row.student in (*ELEMENT_RULES, "scratch")
        assert row.auxiliary in (None, *ELEMENT_RULES, "scratch", "teacher")
        assert row.update in UPDATES and row.purpose
        assert (row.update == "none") == (row.auxiliary is None)
        assert row.layers in LAYER_RULES
    assert len(set(METHODS.values())) == len(METHODS)


def test_the_mean_teacher_s_auxiliary_is_the_student_in_depth_too():
    assert (method("same_rule").layers, method("coupled").layers) == ("first", "last")


def test_the_method_is_two_different_selections_and_an_ema():
    row = method("dual")
    assert (row.student, row.auxiliary, row.update) == ("uniform", "complement", "ema")


def test_the_default_is_two_different_selections_that_teach_each_other_strongly():
    row = method("coupled")
    assert (row.student, row.auxiliary, row.update) == ("uniform", "complement", "mutual")
    assert (row.temperature, row.skd_weight, row.fine_tunes) == (4.0, 3.0, False)


def test_an_unknown_method_is_refused_with_the_valid_words():
    with pytest.raises(
        InputError, match=r"Unknown method 'singel' \(did you mean single\?\); valid: coupled, dual, mutual"
    ):
        method("singel")


def test_a_teacher_takes_all_weights_of_a_checkpoint(tmp_path):
    taught, teacher = nn.Linear(3, 2), nn.Linear(3, 2)
    torch.save({"model": taught.state_dict(), "class_names": ["a", "b"]}, tmp_path / "model.pt")
    load_teacher(teacher, str(tmp_path / "model.pt"))
    assert torch.equal(teacher.weight, taught.weight) and torch.equal(teacher.bias, taught.bias)


def test_a_teacher_that_is_not_there_or_of_other_classes_is_refused(tmp_path):
    torch.save({"model": nn.Linear(3, 4).state_dict()}, tmp_path / "model.pt")
    for checkpoint, words in (
        (str(tmp_path / "none.pt"), "No weights file"),
        (str(tmp_path / "model.pt"), "has other classes .*size mismatch for weight"),
    ):
        with pytest.raises(InputError, match=words):
            load_teacher(nn.Linear(3, 2), checkpoint)


def test_the_weights_of_a_whole_other_network_are_refused_in_few_words(tmp_path):
    network = nn.Sequential(*[nn.Linear(3, 3) for _ in range(500)])
    torch.save({"model": nn.Linear(3, 2).state_dict()}, tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"has other classes \(.*\.\.\.\); give models/model.pt of a run") as caught:
        load_teacher(network, str(tmp_path / "other.pt"))
    assert len(str(caught.value)) < len(str(tmp_path)) + 300


@pytest.mark.parametrize("of_images, words", [
    ({"class_names": ["b", "c", "z"], "multi_label": False}, "class_names ['a', 'b', 'c'], but here it is ['b'"),
    ({"class_names": ["a", "c", "b"], "multi_label": False}, "['a', 'c', 'b']"),
    ({"class_names": ["a", "b", "c"], "multi_label": True}, "multi_label False, but here it is True"),
])  # fmt: skip
def test_a_teacher_s_logits_have_to_mean_the_same_classes(tmp_path, of_images, words):
    path = save_model(tmp_path, nn.Linear(2, 3), architecture={}, class_names=["a", "b", "c"])
    for file in (path, path.with_suffix(".safetensors")):
        with pytest.raises(InputError, match=re.escape(words)):
            load_teacher(nn.Linear(2, 3), str(file), **of_images)


def test_other_preprocessing_than_the_teacher_s_is_a_warning(tmp_path, caplog):
    learned_with = {"image_size": (32, 64), "window": "percentile"}
    path = save_model(
        tmp_path, nn.Linear(2, 3), architecture={}, class_names=["a", "b", "c"], preprocessing=learned_with
    )
    here = {"class_names": ["a", "b", "c"], "multi_label": False}
    load_teacher(nn.Linear(2, 3), str(path), **here, preprocessing=learned_with | {"frame": None})
    assert not caplog.messages
    load_teacher(nn.Linear(2, 3), str(path), **here, preprocessing=learned_with | {"window": "lung"})
    load_teacher(nn.Linear(2, 3), str(path), **here, preprocessing=learned_with | {"fit": "pad"})
    assert caplog.messages == [
        "The teacher was trained with window percentile, but gets lung here.",
        "The teacher was trained with fit stretch, but gets pad here.",
    ]


VIT = {"name": "monai_vit", "num_classes": 2, "in_channels": 1, "spatial_dims": 2, "image_size": 32}
SMALL = {"hidden_size": 16, "mlp_dim": 16, "num_layers": 1, "num_heads": 2}
LARGE = {"name": "tf_efficientnet_lite2", "num_classes": 2, "image_size": 48}


def test_a_teacher_is_the_network_that_its_file_describes_and_else_the_large_one(tmp_path):
    path = save_model(tmp_path, build_network(**VIT, **SMALL), architecture=VIT | SMALL, class_names=["a", "b"])
    assert teacher_architecture(str(path), LARGE) == VIT | SMALL
    torch.save({"model": nn.Linear(3, 2).state_dict()}, tmp_path / "weights.pt")
    assert teacher_architecture(str(tmp_path / "weights.pt"), LARGE) == LARGE


@pytest.mark.parametrize("described, words", [
    ("a text", "doesn't describe a network"),
    ({"name": "resnet18", "num_classes": "$print(1)"}, "can't be built|doesn't describe"),
    ({"name": "vit_giant_patch14_dinov2", "num_classes": 2}, "more than the .* that its file can fill"),
])  # fmt: skip
def test_a_stranger_s_teacher_is_not_built_from_what_no_run_writes(tmp_path, described, words):
    torch.save({"model": nn.Linear(3, 2).state_dict(), "architecture": described}, tmp_path / "model.pt")
    with pytest.raises(InputError, match=words):
        teacher_architecture(str(tmp_path / "model.pt"), LARGE)


def test_a_teacher_has_to_take_images_of_this_size(tmp_path):
    path = save_model(tmp_path, build_network(**VIT, **SMALL), architecture=VIT | SMALL, class_names=["a", "b"])
    teacher = build_network(**VIT, **SMALL).train()
    load_teacher(teacher, str(path), shape=(32, 32))
    assert teacher.training
    for shape in ((48, 48), (32, 32, 32)):
        with pytest.raises(
            InputError, match=f"no teacher for images of {' x '.join(map(str, shape))} pixels .*image_size"
        ):
            load_teacher(teacher, str(path), shape=shape)
