# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from dual_skd.errors import InputError
from dual_skd.evaluation.explanation import _feature_layer, choose_cases, explain, overlay, panels
from dual_skd.networks.build import build_network

RESNET = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}
VIT = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
MONAI_VIT = {"patch_size": 8, "hidden_size": 24, "mlp_dim": 48, "num_layers": 2, "num_heads": 2}
CUE = 8  # pixels along an axis


def spots(n: int, size: tuple[int, ...], seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noise with a bright square at a random place in every second image: labels say where there is one."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.3 * torch.randn(n, 1, *size, generator=generator)
    labels = torch.arange(n) % 2
    places = torch.stack([torch.randint(0, whole // CUE, (n,), generator=generator) * CUE for whole in size], dim=1)
    for image, label, place in zip(images, labels, places.tolist(), strict=True):
        if label:
            image[(slice(None), *(slice(start, start + CUE) for start in place))] += 2
    return images, labels, places


def trained(network: nn.Module, size: tuple[int, ...], steps: int, rate: float = 1e-2) -> nn.Module:
    """Learns to tell images with a square from those without."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate)
    for step in range(steps):
        images, labels, _ = spots(32, size, seed=step)
        loss = functional.cross_entropy(network.train()(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    images, labels, _ = spots(64, size, seed=10**6)
    with torch.no_grad():
        assert (network.eval()(images).argmax(1) == labels).double().mean() > 0.95, "the cue was not learnt"
    return network


def share_that_points_at_the_cue(network: nn.Module, size: tuple[int, ...], reach: int) -> float:
    """Share of new images whose map has its maximum at most ``reach`` pixels beside the square."""
    images, labels, places = spots(24, size, seed=10**7)
    hits = []
    for image, label, place in zip(images, labels, places.numpy(), strict=True):
        if label:
            found = explain(network, image, 1)
            assert found.shape == size and found.dtype == np.float32 and found.min() >= 0 and found.max() <= 1
            peak = np.array(np.unravel_index(found.argmax(), found.shape))
            hits.append(bool(((peak >= place - reach) & (peak < place + CUE + reach)).all()))
    return np.mean(hits)


CASES = {
    "resnet": ("monai_resnet10", {"block_inplanes": [8, 8, 8, 8], "conv1_t_stride": 2}, (64, 64), 60, 8),
    "volume": ("monai_resnet10", {"block_inplanes": [8, 8, 8, 8], "conv1_t_stride": 2}, (32, 32, 24), 30, 4),
    "efficientnet": ("tf_efficientnet_lite0", {"width": 0.2, "depth": 0.3}, (64, 64), 60, 0),
    "vit": ("vit_tiny_patch16_224", VIT, (40, 32), 60, 0),
    "vit_average": ("vit_tiny_patch16_224", VIT | {"global_pool": "avg"}, (40, 32), 60, 0),
    "monai_vit": ("monai_vit", MONAI_VIT | {"proj_type": "perceptron"}, (40, 32), 60, 0),
    "volume_vit": ("monai_vit", MONAI_VIT, (24, 16, 16), 60, 0),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_map_points_at_the_planted_cue(case):
    name, options, size, steps, reach = CASES[case]
    torch.manual_seed(0)
    network = build_network(name, num_classes=2, spatial_dims=len(size), image_size=size, **options)
    trained(network, size, steps)
    assert share_that_points_at_the_cue(network, size, reach) >= 0.75  # by chance: a seventh at most


LITE, ATTO = {"width": 0.1, "depth": 0.3}, {"depths": [1, 1, 1, 1], "dims": [4, 8, 12, 16]}
LAYERS = [
    ("tf_efficientnet_lite0", LITE, (96, 96), "blocks.4"),  # 6 x 6; the last has 3 x 3
    ("tf_efficientnet_lite0", LITE, (192, 192), "bn2"),
    ("tf_efficientnet_lite0", LITE, (48, 48, 24), "blocks.2"),  # 6 x 6 x 3
    ("convnext_atto", ATTO, (192, 192), "norm_pre"),
    ("convnext_atto", ATTO, (96, 96), "stages.2"),
    ("convnext_atto", ATTO, (64, 64, 32), "stages.1"),
    ("resnet18", RESNET, (192, 192), "layer4"),
    ("resnet18", RESNET, (96, 64), "layer3"),
    ("monai_resnet10", {"block_inplanes": [4, 4, 4, 4], "conv1_t_stride": 2}, (48, 48, 24), "layer2"),
]


@pytest.mark.parametrize(("name", "options", "size", "layer"), LAYERS)
def test_the_last_features_that_are_fine_enough_are_found_and_used(name, options, size, layer):
    torch.manual_seed(0)
    network = build_network(name, num_classes=3, spatial_dims=len(size), **options).eval()
    image = torch.randn(1, *size)
    assert _feature_layer(network, image[None]) == layer
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with torch.inference_mode():
        found = explain(network, image, 2, method="gradcam")
    assert found.shape == size and np.isfinite(found).all()
    assert (found == explain(nn.DataParallel(network.train()), image, 2, layer=layer)).all()
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items()) and network.training
    assert not any(module._forward_hooks or module._backward_hooks for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_map_is_that_of_grad_cam():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 3, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)
    )
    network[4].weight.data[1] = torch.tensor([1.0, 2.0, -1.0])
    image = torch.randn(1, 17, 17)
    features = network[1](network[0](image[None]))[0]
    # of a mean over the map and a linear layer the gradient is that layer's weight, everywhere alike
    wanted = torch.einsum("c,chw->hw", network[4].weight[1], features).clamp(min=0)
    wanted = functional.interpolate(wanted[None, None], (17, 17), mode="bilinear")[0, 0]
    assert explain(network, image, 1) == pytest.approx((wanted / wanted.max()).detach().numpy(), abs=1e-6)
    network[4].weight.data[1] = -1
    assert not explain(network, image, 1).any()  # nothing speaks for it


def constructed(size: tuple[int, ...]) -> nn.Module:
    """An EfficientNet whose class 1 is the largest brightness anywhere, known by construction, and class 0 nothing."""
    network = build_network("tf_efficientnet_lite0", num_classes=2, spatial_dims=len(size), width=0.1, depth=0.3)
    network.eval().blocks = nn.Identity()
    kernel = (slice(None), slice(None), *[1] * len(size))
    network.conv_stem.weight.data.zero_()[kernel] = 1  # one pixel of every second
    network.conv_head = nn.Identity()
    network.bn2 = nn.Identity()
    width = network.conv_stem.out_channels
    pool = nn.AdaptiveMaxPool2d if len(size) == 2 else nn.AdaptiveMaxPool3d
    network.global_pool = nn.Sequential(pool(1), nn.Flatten())
    network.classifier = nn.Linear(width, 2)
    network.classifier.weight.data = torch.tensor([0.0, 1.0])[:, None].expand(2, width).clone() / width
    return network


@pytest.mark.parametrize(("size", "start", "stop"), [
    ((96, 96), (40, 16), (48, 24)), ((40, 64), (0, 58), (4, 64)), ((48, 48, 24), (36, 6, 18), (42, 12, 22)),
])  # fmt: skip
def test_occlusion_is_the_choice_for_efficientnets_and_finds_what_is_known_to_decide(size, start, stop):
    network, image = constructed(size), torch.zeros(1, *size)
    image[(0, *map(slice, start, stop))] = 3
    found = explain(network, image, 1)
    assert found.shape == size and found.dtype == np.float32 and found.max() <= 1
    peak = np.unravel_index(found.argmax(), size)
    assert all(low <= place < high for low, place, high in zip(start, peak, stop, strict=True))
    far = np.ones(size, bool)
    reach = [side // 4 for side in size]  # of a window and the interpolation to the next
    far[tuple(slice(max(0, a - r), b + r) for a, b, r in zip(start, stop, reach, strict=True))] = False
    assert far.any() and found[far].max() == 0
    assert (found == explain(network, image, 1, method="occlusion")).all()
    assert not explain(network, image, 0).any()


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_occlusion_map_is_how_much_the_log_probability_falls(multi_label):
    torch.manual_seed(0)
    network, image = nn.Sequential(nn.Flatten(), nn.Linear(24 * 24, 3)), torch.rand(1, 24, 24)
    network[1].weight.data = 0.05 * torch.rand(3, 24 * 24)
    wanted = torch.zeros(12, 12)
    with torch.no_grad():
        for row in range(12):
            for column in range(12):
                window = slice(max(0, 2 * row - 1), 2 * row + 3), slice(max(0, 2 * column - 1), 2 * column + 3)
                filled = image.clone()
                filled[0][window] = image.mean()
                log_p = functional.logsigmoid if multi_label else partial(functional.log_softmax, dim=-1)
                before, after = (log_p(network(each[None])[0].double()) for each in (image, filled))
                wanted[row, column] = (before[1] - after[1]).clamp(min=0)
    found = explain(network, image, 1, method="occlusion", multi_label=multi_label)
    wanted = functional.interpolate(wanted[None, None], (24, 24), mode="bilinear")[0, 0]
    assert 0 < (wanted > 0).double().mean() < 1
    assert found == pytest.approx((wanted / wanted.max()).numpy(), abs=1e-3)


def test_a_network_that_is_very_sure_is_explained_too():
    network, image = nn.Sequential(nn.Flatten(), nn.Linear(144, 2)), torch.zeros(1, 12, 12)
    network[1].weight.data = torch.stack([torch.zeros(144), 60 * torch.ones(144)])
    image[0, 5, 7] = 1  # log odds of 60: in float32 the probability is 1 with any window filled
    image[0, 2, 2] = 0.2
    found = explain(network, image, 1, method="occlusion")
    assert np.unravel_index(found.argmax(), (12, 12)) == (5, 7) and 0 < found[2, 2] < 0.01


def test_occlusion_of_a_network_with_one_logit_takes_the_logit():
    network, image = nn.Sequential(nn.Flatten(), nn.Linear(144, 1)), torch.zeros(1, 12, 12)
    network[1].weight.data[:] = 1
    image[0, 5, 7] = 1
    found = explain(network, image, 0, method="occlusion")
    assert np.unravel_index(found.argmax(), (12, 12)) == (5, 7) and (found > 0).sum() == 4  # the windows over it


def test_the_method_can_be_chosen():
    torch.manual_seed(0)
    network, image = build_network("tf_efficientnet_lite0", num_classes=2, **LITE).eval(), torch.randn(1, 64, 64)
    layer = _feature_layer(network, image[None])
    assert (explain(network, image, 1, layer=layer) == explain(network, image, 1, method="gradcam")).all()
    with pytest.raises(InputError, match="Unknown method 'lime' of a map; valid: auto, occlusion, gradcam, attention"):
        explain(network, image, 1, method="lime")
    with pytest.raises(InputError, match="no attention"):
        explain(network, image, 1, method="attention")
    with pytest.raises(InputError, match="leave one of the two out"):
        explain(network, image, 1, layer=layer, method="occlusion")


def test_what_cannot_be_explained_is_said():
    network = build_network("resnet18", num_classes=2, **RESNET)
    for target in (2, -1):
        with pytest.raises(InputError, match=f"Class {target} doesn't exist: the network has 2"):
            explain(network, torch.zeros(1, 64, 64), target)
    with pytest.raises(InputError, match="has no layer 'layer5'"):
        explain(network, torch.zeros(1, 64, 64), 0, layer="layer5")
    with pytest.raises(InputError, match="gives no feature maps"):
        explain(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), torch.zeros(1, 8, 8), 0)


def test_cases_are_the_surest_right_the_surest_wrong_and_the_least_certain():
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.55, 0.45], [0.99, 0.01], [0.3, 0.7], [0.5, 0.5]])
    labels = [0, 0, 0, 0, 0, 1]
    assert choose_cases(p, labels, count=2) == {
        "confident_right": [3, 0], "confident_wrong": [1, 4], "least_certain": [5, 2],
    }  # fmt: skip
    assert choose_cases(p[:1], [0])["confident_wrong"] == []
    several = choose_cases([[0.9, 0.2], [0.6, 0.6], [0.1, 0.9]], [[1, 0], [1, 1], [1, 1]], multi_label=True)
    assert several == {"confident_right": [0, 1], "confident_wrong": [2], "least_certain": [1, 0, 2]}


def test_an_overlay_is_grey_where_the_map_is_zero_and_coloured_by_its_share_elsewhere():
    picture, relevance = np.array([[-1.0, 1.0], [0.0, 0.0]]), np.array([[0.0, 0.0], [1.0, 0.5]])
    found = overlay(picture, relevance, limits=(-1, 1), opacity=0.5)
    assert found.dtype == np.uint8 and found.shape == (2, 2, 3)
    assert found[0].tolist() == [[0] * 3, [255] * 3]
    assert found[1, 0].tolist() == [round(0.5 * 127.5 + 0.5 * c) for c in (253, 231, 37)]
    assert found[1, 1].tolist() == [round(0.75 * 127.5 + 0.25 * c) for c in (33, 145, 140)]
    assert (overlay(picture, relevance, opacity=0)[1] == 128).all()
    assert (overlay(np.ones((2, 2)), np.zeros((2, 2))) == 0).all()  # a constant picture


def test_the_colours_grow_lighter_for_every_eye():
    (ramp,) = overlay(np.zeros((1, 4)), [[0.25, 0.5, 0.75, 1]], opacity=1) / np.array([[[0.25], [0.5], [0.75], [1]]])
    for eye in ([0.2126, 0.7152, 0.0722], [0.35, 0.6, 0.05], [0.05, 0.85, 0.1]):  # all, without green, without red
        assert (np.diff(ramp @ eye) > 25).all()


def test_a_volume_is_shown_in_three_slices_through_the_maximum():
    volume = np.random.default_rng(0).random((1, 4, 5, 6))
    relevance = np.zeros((4, 5, 6))
    relevance[2, 3, 1] = 1
    found = panels(volume, relevance)
    assert [panel.name for panel in found] == ["axis 0, slice 2", "axis 1, slice 3", "axis 2, slice 1"]
    assert [panel.overlay.shape for panel in found] == [(5, 6, 3), (4, 6, 3), (4, 5, 3)]
    for panel, place in zip(found, ((3, 1), (2, 1), (2, 3)), strict=True):
        assert (panel.overlay != panel.picture).any(axis=-1).nonzero() == tuple(np.array([x]) for x in place)
    (flat,) = panels(volume[0, 0], np.zeros((5, 6)))
    assert flat.name == "image" and (flat.overlay == flat.picture).all()
    for wrong in (np.zeros((4, 5)), np.zeros((2, 4, 5, 6))):
        with pytest.raises(InputError, match="Panels need"):
            panels(volume, wrong)
    with pytest.raises(InputError, match="An overlay needs"):
        overlay(volume[0], relevance)
