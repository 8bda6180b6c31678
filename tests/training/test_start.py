# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dual_skd.errors import InputError, SelectionError
from dual_skd.networks.build import build_network
from dual_skd.networks.weight_files import load_state_file
from dual_skd.runs.model_file import save_model
from dual_skd.selection import plan_selection
from dual_skd.selection.resample import resize_bias_table, resize_positions
from dual_skd.training.start import _require_consistent, initialise_pair

TINY = {"layers": [1, 1, 1, 1], "channels": [4, 4, 4, 4]}


def tiny(**options) -> nn.Module:
    return build_network("resnet18", num_classes=2, **TINY, **options)


@pytest.fixture
def large_file(tmp_path):
    torch.manual_seed(0)
    network = build_network("resnet18", num_classes=5, in_channels=3, layers=[1, 1, 1, 1], channels=[8, 8, 8, 8])
    path = tmp_path / "large.safetensors"
    save_file(network.state_dict(), path)
    return {"large": "resnet18", "large_options": TINY | {"channels": [8, 8, 8, 8]}, "pretrained": str(path)}


def test_pair_is_selected_from_one_large_network(large_file, tmp_path):
    student, auxiliary = tiny(), tiny()
    classifier = student.fc.weight.clone()
    summary = initialise_pair(student, auxiliary, **large_file, report_path=tmp_path / "out" / "report.csv").summary
    large = load_state_file(large_file["pretrained"])
    even, odd = torch.arange(0, 8, 2), torch.arange(1, 8, 2)
    torch.testing.assert_close(student.conv1.weight, large["conv1.weight"].sum(1, keepdim=True))
    parent = large["layer1.0.conv2.weight"]
    torch.testing.assert_close(student.layer1[0].conv2.weight, parent[even][:, even])
    torch.testing.assert_close(auxiliary.layer1[0].conv2.weight, parent[odd][:, odd])
    assert not torch.equal(student.fc.weight, classifier)
    assert student.fc.weight.abs().max() <= 4**-0.5  # PyTorch's bound 1 / sqrt(features)
    assert summary["student"]["rule"] == "uniform" and summary["auxiliary"]["rule"] == "complement"
    assert summary["student"]["selected"] == summary["student"]["tensors"] - 2
    lines = (tmp_path / "out" / "report.csv").read_text().splitlines()
    assert lines[0].startswith("network,name,source")
    assert [line.split(",")[0] for line in lines[1:]] == ["student"] * len(student.state_dict()) + ["auxiliary"] * len(
        auxiliary.state_dict()
    )


def test_equal_rules_give_equal_networks_classifier_included(large_file):
    student, auxiliary = tiny(), tiny()
    initialise_pair(student, auxiliary, **large_file, selection_auxiliary="uniform")
    for one, other in zip(student.state_dict().values(), auxiliary.state_dict().values(), strict=True):
        assert torch.equal(one, other)


MONAI_VIT = {"hidden_size": 48, "mlp_dim": 48, "num_heads": 3, "num_layers": 1}


def position_embedding(network: nn.Module) -> torch.Tensor:
    return next(v for k, v in network.state_dict().items() if k.endswith(("pos_embed", "position_embeddings")))


@pytest.mark.parametrize(("name", "options"), [("vit_tiny_patch16_224", {"depth": 1}), ("monai_vit", MONAI_VIT)])
def test_a_network_that_is_fine_tuned_again_keeps_its_positions(tmp_path, caplog, name, options):
    former, new = (build_network(name, num_classes=n, image_size=(96, 64), **options) for n in (3, 2))
    torch.save(former.state_dict(), tmp_path / "model.pt")
    with caplog.at_level(logging.WARNING):
        initialise_pair(new, large=name, large_options=options, pretrained=str(tmp_path / "model.pt"))
    assert torch.equal(position_embedding(new), position_embedding(former))
    assert "taken to be that of the small one, 6x4" in caplog.text  # such a file says nothing of its images


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
@pytest.mark.parametrize(
    ("name", "options", "old", "new", "grids"),
    [
        ("test_vit", {}, [64, 128], [128, 64], [(4, 8), (8, 4)]),  # as many tokens
        ("test_vit", {}, [64, 96], [96, 96], [(4, 6), (6, 6)]),  # 24 and a class token: not 5x5
        ("test_vit", {}, [64, 256], [64, 128], [(4, 16), (4, 8)]),  # not 8x8
        ("monai_vit", MONAI_VIT | {"spatial_dims": 3}, [48, 48, 32], [64, 64, 32], [(3, 3, 2), (4, 4, 2)]),
        ("monai_vit", MONAI_VIT | {"patch_size": 8}, [64, 32], [32, 64], [(8, 4), (4, 8)]),
    ],
)
def test_positions_of_a_former_run_follow_its_image_size(tmp_path, ending, name, options, old, new, grids):
    former, student = (build_network(name, num_classes=2, image_size=size, **options) for size in (old, new))
    save_model(tmp_path, former, architecture={"name": name, "num_classes": 2, "image_size": old, **options},
               class_names=["a", "b"])  # fmt: skip
    large_options = {key: value for key, value in options.items() if key != "spatial_dims"}
    initialise_pair(student, large=name, large_options=large_options, pretrained=str(tmp_path / f"model.{ending}"))
    leading = 1 if name == "test_vit" else 0
    expected = resize_positions(position_embedding(former), old_grid=grids[0], new_grid=grids[1],
                                old_prefix=leading, new_prefix=leading)  # fmt: skip
    torch.testing.assert_close(position_embedding(student), expected)


def test_windows_of_a_former_run_follow_its_image_size(tmp_path):
    options = {"depths": [1, 1, 1, 1], "embed_dim": 24}
    name = "swin_tiny_patch4_window7_224"
    former, student = (build_network(name, num_classes=2, image_size=size, **options) for size in (96, 64))
    save_model(tmp_path, former, architecture={"name": name, "num_classes": 2, "image_size": 96, **options},
               class_names=["a", "b"])  # fmt: skip
    initialise_pair(student, large=name, large_options=options, pretrained=str(tmp_path / "model.pt"))
    tables = [net.layers[2].blocks[0].attn.relative_position_bias_table for net in (former, student)]
    assert [len(table) for table in tables] == [11 * 11, 7 * 7]
    torch.testing.assert_close(tables[1], resize_bias_table(tables[0], window=4, special=0))


def test_a_grid_that_nothing_tells_is_a_warning_with_a_remedy_that_works(tmp_path, caplog):
    former, student = (build_network("test_vit", num_classes=2, image_size=size) for size in ([64, 96], [96, 96]))
    torch.save(former.state_dict(), tmp_path / "w.pt")
    with caplog.at_level(logging.WARNING):
        initialise_pair(student, large="test_vit", pretrained=str(tmp_path / "w.pt"))
    assert "the grid of the 25 positions in the large network is unknown" in caplog.text
    assert "img_size in large_options" in caplog.text
    options = {"img_size": [64, 96]}
    initialise_pair(student, large="test_vit", large_options=options, pretrained=str(tmp_path / "w.pt"))
    assert torch.equal(student.pos_embed[:, :1], former.pos_embed[:, :1])


def test_heads_are_those_of_each_block_of_the_large_network(tmp_path):
    options = {"embed_dim": 32, "num_heads": 2, "stages": [1, 1, 1, 1]}
    large = build_network("hiera_tiny_224", num_classes=2, image_size=64, **options)
    torch.save(large.state_dict(), tmp_path / "w.pt")
    student = build_network("hiera_tiny_224", num_classes=2, image_size=64, **options | {"embed_dim": 16})
    initialise_pair(student, large="hiera_tiny_224", large_options=options, pretrained=str(tmp_path / "w.pt"))
    qkv = large.blocks[0].attn.qkv.bias.unflatten(0, (3, 2, 16))[:, :, ::2].flatten()  # both heads, half of each
    assert torch.equal(student.blocks[0].attn.qkv.bias, qkv)


def test_weights_that_do_not_fit_together_are_refused_unless_they_are_wanted(tmp_path):
    """A narrow stage after a stem of full width is a projection that the large network lacks."""
    large = build_network("resnet18", num_classes=2, in_channels=3, layers=[1, 1, 1, 1], channels=[64, 8, 8, 8])
    save_file(large.state_dict(), tmp_path / "w.safetensors")
    options = {"large_options": TINY | {"channels": [64, 8, 8, 8]}, "pretrained": str(tmp_path / "w.safetensors")}
    student = build_network("resnet18", num_classes=2, in_channels=3, stem_width=64, **TINY)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    with pytest.raises(
        SelectionError, match=r"the student don't fit together \(.*projects.*\)\. Checked: inconsistent: layer1\.0 "
    ):
        initialise_pair(student, large="resnet18", **options)
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    found = initialise_pair(student, large="resnet18", check="off", **options).summary
    assert "check" not in found["student"] and not found["student"]["verified"]
    assert not torch.equal(student.conv1.weight, before["conv1.weight"])


def test_weights_that_no_table_vouches_for_are_verified_by_the_check(tmp_path, caplog):
    options = {"growth_rate": 4, "block_config": [2, 3]}
    large = build_network("densenet121", num_classes=2, in_channels=3, **options)
    save_file(large.state_dict(), tmp_path / "w.safetensors")
    student = build_network("densenet121", num_classes=2, in_channels=1, **options | {"growth_rate": 2})
    with caplog.at_level(logging.INFO):
        found = initialise_pair(
            student, large="densenet121", large_options=options, pretrained=str(tmp_path / "w.safetensors")
        ).summary
    assert found["student"]["verified"]
    assert found["student"].get("check", "consistent") == "consistent"


def test_a_wrapped_student_is_copied_to_an_auxiliary_that_does_not_learn(large_file):
    student, auxiliary = tiny(), tiny()
    initialise_pair(nn.DataParallel(student), auxiliary, **large_file, selection_auxiliary="uniform")
    assert all(torch.equal(a, b) for a, b in zip(student.parameters(), auxiliary.parameters(), strict=True))


def test_random_rules_of_student_and_auxiliary_differ(large_file):
    student, auxiliary = tiny(), tiny()
    initialise_pair(student, auxiliary, **large_file, selection_student="random", selection_auxiliary="random")
    assert not torch.equal(student.layer1[0].conv2.weight, auxiliary.layer1[0].conv2.weight)


def test_scratch_and_teacher_leave_the_network_as_it_is(large_file):
    student, auxiliary = tiny(), tiny()
    before = [{key: value.clone() for key, value in network.state_dict().items()} for network in (student, auxiliary)]
    summary = initialise_pair(
        student, auxiliary, large="anything", pretrained="absent", selection_student="scratch",
        selection_auxiliary="teacher",
    ).summary  # fmt: skip
    for network, state in zip((student, auxiliary), before, strict=True):
        assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert summary["student"]["rule"] == "scratch" and "auxiliary" not in summary


def test_a_large_network_of_another_family_is_refused_instead_of_staying_random(large_file):
    student = build_network("convnext_atto", num_classes=2, dims=[4, 4, 4, 4], depths=[1, 1, 1, 1])
    with pytest.raises(InputError):
        initialise_pair(student, **large_file)


def test_volumetric_student_is_selected_from_a_2d_parent(large_file):
    student = tiny(spatial_dims=3)
    initialise_pair(student, **large_file)
    large = load_state_file(large_file["pretrained"])["layer1.0.conv2.weight"][::2, ::2]
    torch.testing.assert_close(student.layer1[0].conv2.weight, (large / 3).unsqueeze(-1).expand(-1, -1, 3, 3, 3))


def test_a_depth_cut_student_computes_what_the_large_network_does_up_to_where_it_was_cut(tmp_path):
    large = build_network("tf_efficientnet_lite0", num_classes=2).eval()
    path = tmp_path / "large.safetensors"
    save_file(large.state_dict(), path)
    student, auxiliary = (build_network("tf_efficientnet_lite0", num_classes=2, depths=[1, 2, 2, 2]) for _ in "ab")
    summary = initialise_pair(student, auxiliary, large="tf_efficientnet_lite0", pretrained=str(path),
                              selection_auxiliary="complement", layers_auxiliary="last").summary  # fmt: skip
    x = torch.randn(1, 1, 32, 32)
    upper = large.bn1(large.conv_stem(x))
    lower = student.eval().bn1(student.conv_stem(x))
    for ours, theirs in zip(student.blocks[:3], large.blocks[:3], strict=True):
        lower, upper = ours(lower), theirs(upper)
        torch.testing.assert_close(lower, upper, rtol=0, atol=0)
    assert torch.equal(student.blocks[3][1].conv_pw.weight, large.blocks[3][1].conv_pw.weight)
    assert torch.equal(auxiliary.blocks[3][1].conv_pw.weight, large.blocks[3][2].conv_pw.weight)
    assert summary["auxiliary"]["selected"] == summary["student"]["selected"]


def test_equal_element_rules_with_other_layers_are_another_selection(tmp_path):
    sizes = {"channels": [4, 4, 4, 4]}
    student, auxiliary = (build_network("resnet18", num_classes=2, layers=[2, 1, 1, 1], **sizes) for _ in "ab")
    large = {"large": "resnet18", "large_options": {"layers": [3, 1, 1, 1], **sizes}}
    state = build_network("resnet18", num_classes=2, **large["large_options"]).state_dict()
    path = tmp_path / "large.safetensors"
    save_file(state, path)
    initialise_pair(student, auxiliary, **large, pretrained=str(path), selection_auxiliary="uniform",
                    layers_auxiliary="last")  # fmt: skip
    assert torch.equal(student.layer1[1].conv1.weight, state["layer1.1.conv1.weight"])
    assert torch.equal(auxiliary.layer1[1].conv1.weight, state["layer1.2.conv1.weight"])


def test_weights_that_are_doubted_and_cannot_be_checked_are_refused():
    class Unfollowed(nn.Sequential):
        def forward(self, x):
            return super().forward(torch.fft.rfft(x, dim=2).real)

    plan = plan_selection(*(Unfollowed(nn.Conv2d(1, width, 3)) for width in (4, 2)))
    with pytest.raises(
        SelectionError, match=r"Nothing shows that the weights selected for the student fit together \("
    ):
        _require_consistent(plan, "student")
