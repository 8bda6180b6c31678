# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from dual_skd import networks
from dual_skd.errors import InputError
from dual_skd.networks import (
    build_network,
    choose,
    classifier_of,
    count_macs,
    count_parameters,
    initialise_pair,
    load_pretrained,
    load_state_file,
    penultimate,
    pick_device,
    to_device,
    unwrap,
)

SMALL_VIT = {"embed_dim": 24, "depth": 2, "num_heads": 2}


# --- building


@pytest.mark.parametrize(
    ("name", "spatial_dims", "options"),
    [
        ("tf_efficientnet_lite0", 2, {"width": 0.25, "depth": 0.3}),
        ("tf_efficientnet_lite0", 3, {"width": 0.25, "depth": 0.3}),
        ("resnet18", 2, {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}),
        ("convnext_atto", 2, {"dims": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}),
        ("vit_tiny_patch16_224", 2, SMALL_VIT),
        ("monai_resnet10", 2, {"widen_factor": 0.125}),
        ("monai_resnet10", 3, {"widen_factor": 0.125}),
        ("monai_resnet50", 3, {"widen_factor": 0.0625, "layers": [1, 1, 1, 1]}),
        ("monai_vit", 2, {"hidden_size": 24, "mlp_dim": 48, "num_layers": 2, "num_heads": 2}),
        ("monai_vit", 3, {"hidden_size": 24, "mlp_dim": 48, "num_layers": 2, "num_heads": 2}),
    ],
)
def test_every_kind_of_network_returns_one_tensor_of_logits(name, spatial_dims, options):
    network = build_network(
        name, num_classes=3, in_channels=2, spatial_dims=spatial_dims, image_size=32, **options
    ).eval()
    logits, features = penultimate(network, torch.randn(2, 2, *(32,) * spatial_dims))
    layer_name, classifier = classifier_of(network)
    assert logits.shape == (2, 3)
    assert network.get_submodule(layer_name) is classifier
    torch.testing.assert_close(classifier(features), logits)


def test_width_0_4_leaves_0_89_of_4_87_million_parameters():
    large = build_network("tf_efficientnet_lite2", num_classes=4)
    small = build_network("tf_efficientnet_lite2", num_classes=4, width=0.4)
    assert count_parameters(small) == 895_684
    assert count_parameters(small) < count_parameters(large) / 5
    assert large.conv_stem.out_channels == small.conv_stem.out_channels == 32
    assert small.num_features == 1280


def test_own_multipliers_give_the_very_network_of_timm():
    ours = build_network("tf_efficientnet_lite2", num_classes=4, in_channels=3, width=1.1, depth=1.2).eval()
    theirs = timm.create_model("tf_efficientnet_lite2", num_classes=4).eval()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(1, 3, 65, 65)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=0)


def test_depths_keep_the_first_blocks_and_stages_under_a_fifth_of_the_parameters():
    large = build_network("tf_efficientnet_lite2", num_classes=4)
    small = build_network("tf_efficientnet_lite2", num_classes=4, depths=[1, 3, 3, 4, 2])
    assert [len(stage) for stage in small.blocks] == [1, 3, 3, 4, 2]
    assert count_parameters(small) == 934_452
    assert count_parameters(small) < count_parameters(large) / 5
    assert small.conv_head.in_channels == 120 and small.num_features == 1280


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "efficientnetv2_rw_t", "mixnet_s", "mobilenetv2_100"])
def test_depths_work_for_timm_s_efficientnets(name):
    network = build_network(name, num_classes=2, depths=[1, 1, 1])
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 2)
    volume = build_network(name, num_classes=2, depths=[1, 1, 1], spatial_dims=3)
    assert volume(torch.zeros(2, 1, 32, 32, 32)).shape == (2, 2)


def test_a_depth_cut_student_computes_what_the_large_network_does_up_to_where_it_was_cut(tmp_path):
    large = build_network("tf_efficientnet_lite0", num_classes=2).eval()
    path = tmp_path / "large.safetensors"
    save_file(large.state_dict(), path)
    student, auxiliary = (build_network("tf_efficientnet_lite0", num_classes=2, depths=[1, 2, 2, 2]) for _ in "ab")
    summary = initialise_pair(student, auxiliary, large="tf_efficientnet_lite0", pretrained=str(path),
                              selection_auxiliary="complement", layers_auxiliary="last")  # fmt: skip
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


def test_monai_logits_are_not_bounded_by_the_default_tanh():
    network = build_network("monai_vit", num_classes=2, spatial_dims=2, image_size=32, hidden_size=24, num_heads=2,
                            num_layers=1, mlp_dim=24)  # fmt: skip
    network.classification_head.weight.data.mul_(1000)
    assert network(torch.randn(1, 1, 32, 32)).abs().max() > 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "resnet81"}, ["resnet81", "resnet18"]),
        ({"name": "monai_resnet11"}, ["monai_resnet11", "monai_resnet10"]),
        ({"name": "tf_efficientnet_lite2", "widht": 0.4}, ["widht", "did you mean width"]),
        ({"name": "monai_vit", "image_size": 32, "num_head": 2}, ["num_head", "num_heads"]),
        ({"name": "monai_resnet10", "widen": 2}, ["widen", "widen_factor"]),
        ({"name": "convnext_atto", "dim": [1]}, ["dims"]),
        ({"name": "vit_tiny_patch16_224", "embed_dim": 100}, ["embed_dim", "divisible"]),
        ({"name": "monai_vit"}, ["image_size"]),
        ({"name": "vit_tiny_patch16_224", "spatial_dims": 3}, ["monai_vit"]),
        ({"name": "resnet18", "spatial_dims": 4}, ["spatial_dims", "4"]),
        ({"name": "resnet18", "num_classes": 0}, ["num_classes", "0"]),
        ({"name": "tf_efficientnet_lite2", "width": -1}, ["width", "positive"]),
        ({"name": "tf_efficientnet_lite2", "depths": [1, 4]}, ["[1, 4]", "[1, 3, 3, 4, 4, 5, 1]"]),
        ({"name": "tf_efficientnet_lite2", "depths": [1, 0]}, ["at most", "end of the list"]),
        ({"name": "tf_efficientnet_lite2", "depths": []}, ["depths []"]),
    ],
)
def test_a_wrong_name_or_option_is_named_with_the_remedy(arguments, words):
    with pytest.raises(InputError) as caught:
        build_network(**({"num_classes": 2} | arguments))
    assert all(word in str(caught.value) for word in words), caught.value


# --- words, devices, counting


def test_choose_lists_the_valid_words():
    assert choose({"ema": 1, "mutual": 2}, "mutual", "update") == 2
    with pytest.raises(InputError, match=r"Unknown update 'mutal' \(did you mean mutual\?\); valid: ema, mutual"):
        choose({"ema": 1, "mutual": 2}, "mutal", "update")


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device() == torch.device("cpu")
    assert pick_device("cpu") == torch.device("cpu")
    with pytest.raises(InputError, match="no CUDA device"):
        pick_device("cuda")
    with pytest.raises(InputError, match="Unknown device"):
        pick_device("gpu")


def test_auto_takes_the_device_of_the_local_rank(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert pick_device() == torch.device("cuda", 3)


def test_macs_of_a_convolution_and_a_linear_layer_by_hand():
    network = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, groups=2), nn.Flatten(), nn.Linear(4 * 8 * 8, 5))
    assert count_macs(network, (2, 8, 8)) == 8 * 8 * 4 * (1 * 9) + 256 * 5
    assert network.training


def test_macs_need_no_memory_on_the_meta_device():
    with torch.device("meta"):
        network = build_network("tf_efficientnet_lite2", num_classes=1000, in_channels=3)
    assert count_macs(network, (3, 260, 260)) == pytest.approx(0.87e9, rel=0.03)  # published: 869 million


def test_wrappers_are_taken_off():
    network = nn.Linear(2, 2)
    assert unwrap(torch.compile(nn.DataParallel(network))) is network


def test_penultimate_features_carry_gradient_and_leave_no_hook():
    network = build_network("resnet18", num_classes=2, layers=[1, 1, 1, 1], channels=[4, 4, 4, 4])
    _, features = penultimate(network, torch.randn(2, 1, 32, 32))
    features.sum().backward()
    assert network.conv1.weight.grad.abs().sum() > 0
    assert not classifier_of(network)[1]._forward_pre_hooks


def test_a_network_without_linear_classifier_is_refused():
    with pytest.raises(InputError, match="one linear layer"):
        classifier_of(nn.Sequential(nn.Conv2d(1, 1, 1)))


# --- pretrained weights


def test_none_is_an_explicit_choice_and_is_logged(caplog):
    with caplog.at_level(logging.WARNING):
        assert load_pretrained("resnet18", "none") is None
    assert "no weights are loaded for resnet18" in caplog.text


def test_an_unreachable_hub_is_one_sentence_and_not_random_weights(monkeypatch):
    def unreachable(*arguments, **options):
        raise OSError("Name or service not known")

    monkeypatch.setattr(networks.socket, "create_connection", unreachable)
    monkeypatch.setattr(networks.urllib.request, "getproxies", dict)
    monkeypatch.setattr(networks, "try_to_load_from_cache", lambda *arguments: None)
    with pytest.raises(InputError, match="hub with the pretrained weights of resnet18 can't be reached"):
        load_pretrained("resnet18", "hub")
    monkeypatch.setattr(networks, "_hub_answers", lambda name: True)
    monkeypatch.setattr(networks.timm, "create_model", unreachable)
    with pytest.raises(InputError, match="Name or service not known"):
        load_pretrained("resnet18", "hub")


def tiny(**options):
    return build_network("resnet18", num_classes=2, layers=[1, 1, 1, 1], channels=[4, 4, 4, 4], **options)


TINY = {"layers": [1, 1, 1, 1], "channels": [4, 4, 4, 4]}


@pytest.mark.parametrize("ending", ["safetensors", "pt", "pth"])
def test_half_precision_files_are_read_as_float32(tmp_path, ending):
    state = {key: value.half() if value.is_floating_point() else value for key, value in tiny().state_dict().items()}
    path = tmp_path / f"weights.{ending}"
    save_file(state, path) if ending == "safetensors" else torch.save({"model": state, "class_names": ["a"]}, path)
    loaded = load_pretrained("resnet18", str(path), **TINY)
    assert loaded.keys() == state.keys()
    assert loaded["conv1.weight"].dtype == torch.float32
    torch.testing.assert_close(loaded["fc.weight"], state["fc.weight"].float())


def test_prefixes_of_wrappers_are_removed(tmp_path):
    path = tmp_path / "wrapped.pt"
    torch.save({"state_dict": {f"module.{key}": value for key, value in tiny().state_dict().items()}}, path)
    assert "conv1.weight" in load_state_file(path)


def test_a_file_of_another_network_is_refused_with_the_first_tensor_that_is_wrong(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(tiny().state_dict(), path)
    with pytest.raises(InputError, match=r"layer1.0.conv1.weight .* \(4, 64, 3, 3\), resnet18 needs \(64, 64, 3, 3\)"):
        load_pretrained("resnet18", str(path))
    with pytest.raises(InputError, match="no tensor 'conv_stem.weight' of tf_efficientnet_lite2"):
        load_pretrained("tf_efficientnet_lite2", str(path))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("absent.pt", None, "No weights file"),
        ("weights.bin", b"", "expected .safetensors, .pt or .pth"),
        ("broken.safetensors", b"not a file", "can't be read"),
        ("broken.pt", b"not a file", "isn't opened|can't be read"),
    ],
)
def test_unreadable_files_are_named(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        load_pretrained("resnet18", str(tmp_path / name))


def test_pickled_code_is_never_run(tmp_path):
    path = tmp_path / "module.pt"
    torch.save(nn.Linear(1, 1), path)
    with pytest.raises(InputError, match="more than tensors"):
        load_state_file(path)


def test_dinov2_file_layout_is_the_one_of_timm(tmp_path):
    options = dict(SMALL_VIT, img_size=56)
    donor = timm.create_model("vit_small_patch14_dinov2", num_classes=0, **options)
    path = tmp_path / "dinov2.safetensors"
    save_file({key: value.half() for key, value in donor.state_dict().items()}, path)
    loaded = load_pretrained("vit_small_patch14_dinov2", str(path), **SMALL_VIT)  # another number of positions
    assert loaded.keys() == donor.state_dict().keys()
    assert "blocks.0.ls1.gamma" in loaded


# --- the pair


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
    summary = initialise_pair(student, auxiliary, **large_file, report_path=tmp_path / "out" / "report.csv")
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
    )  # fmt: skip
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


@pytest.mark.parametrize("dims", [2, 3])
def test_the_faster_layout_changes_no_logit(dims):
    network = build_network("tf_efficientnet_lite0", num_classes=2, spatial_dims=dims, width=0.25).eval()
    x = torch.randn(2, 1, *[32] * dims)
    with torch.no_grad():
        wanted = network(x)
        moved = to_device(network, "cpu")
        torch.testing.assert_close(moved(x), wanted, rtol=1e-4, atol=1e-5)
    layout = torch.channels_last if dims == 2 else torch.channels_last_3d
    assert moved.conv_stem.weight.is_contiguous(memory_format=layout)
    assert moved.conv_head.weight.is_contiguous(memory_format=layout)
