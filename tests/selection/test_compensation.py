# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dual_skd.errors import InputError
from dual_skd.networks import build_network
from dual_skd.pair import initialise_pair
from dual_skd.selection import plan_selection
from dual_skd.selection.compensation import compensate, summarise, unlabelled_batches


class Pair(nn.Module):
    """Two linear layers, the second with batch normalisation instead of a bias where ``norm`` is set."""

    def __init__(self, hidden: int, norm: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, hidden, 1)
        self.second = nn.Conv2d(hidden, 4, 1, bias=not norm)
        self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()

    def forward(self, x):
        return self.norm(self.second(self.first(x)))


def lite(seed: int, width: float) -> nn.Module:
    torch.manual_seed(seed)
    return build_network("tf_efficientnet_lite0", num_classes=2, width=width, depth=0.3)


def images(count: int = 8, channels: int = 1, size: int = 64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(4, channels, size, size, generator=generator) for _ in range(count // 4)]


def selected(large: nn.Module, small: nn.Module):
    plan = plan_selection(large, small)
    small.load_state_dict(plan.apply(), strict=False)
    return plan


@pytest.fixture
def lite_pair():
    large, small = lite(0, 0.5), lite(1, 0.25)
    return large, small, selected(large, small)


# --- values


@pytest.mark.parametrize("norm", [True, False])
def test_a_linear_network_gets_the_least_squares_solution(norm):
    torch.manual_seed(0)
    large, small = Pair(6, norm).double(), Pair(2, norm).double()
    if norm:
        large.norm.running_mean.normal_()
        large.norm.running_var.uniform_(0.5, 2)
    plan = selected(large, small)
    batches = [batch.double() for batch in images(8, 3, 5)]
    row = compensate(small, large, plan, batches, ridge=1e-12, samples=10_000)[1]

    x = small.first(torch.cat(batches)).movedim(1, -1).flatten(0, 2)
    y = large.second(large.first(torch.cat(batches))).movedim(1, -1).flatten(0, 2)
    design = torch.cat([x, torch.ones(len(x), 1)], 1)
    best = torch.linalg.lstsq(design, y).solution
    torch.testing.assert_close(small.second.weight.flatten(1), best[:2].T)
    offset = large.norm.running_mean - small.norm.running_mean if norm else small.second.bias
    torch.testing.assert_close(offset, best[2])
    left = (y - design @ best).square().sum() / (y - y.mean(0)).square().sum()
    assert row.r2 == pytest.approx(1 - left.item())
    assert row.samples == 8 * 25


def test_a_network_that_agrees_already_is_not_changed():
    large, small = lite(0, 0.25), lite(1, 0.25)
    plan = selected(large, small)
    before = {name: value.clone() for name, value in small.state_dict().items()}
    rows = compensate(small, large, plan, images())
    done = [row for row in rows if not row.reason]
    assert done and all(row.r2 == pytest.approx(1, abs=1e-6) for row in done)
    torch.testing.assert_close(small.state_dict(), before, rtol=1e-4, atol=1e-4)


def test_kept_weights_stay_where_the_images_show_nothing():
    torch.manual_seed(0)
    large, small = Pair(6, True), Pair(2, True)
    plan = selected(large, small)
    before = small.second.weight.clone()
    compensate(small, large, plan, [torch.zeros(4, 3, 8, 8)])
    torch.testing.assert_close(small.second.weight, before, rtol=0, atol=1e-3)


def test_kernels_of_three_by_three_are_least_squares_too():
    torch.manual_seed(0)
    options = {"layers": [1, 1, 1, 1], "num_classes": 2}
    large = build_network("resnet18", channels=[8, 8, 8, 8], **options).eval()
    small = build_network("resnet18", channels=[4, 4, 4, 4], **options).eval()
    plan = selected(large, small)
    batches = images(16)
    rows = {row.layer: row for row in compensate(small, large, plan, batches, ridge=1e-6, samples=100_000)}
    caught = []
    handle = small.layer1[0].conv1.register_forward_pre_hook(lambda module, inputs: caught.append(inputs[0]))
    large.layer1[0].conv1.register_forward_hook(lambda module, inputs, output: caught.append(output[:, ::2]))
    with torch.no_grad():
        small(torch.cat(batches))
        large(torch.cat(batches))
        handle.remove()
        found = small.layer1[0].conv1(caught[0])
    residual, wanted = (found - caught[1]).movedim(1, -1).flatten(0, 2), caught[1].movedim(1, -1).flatten(0, 2)
    left = residual.var(0, correction=0).sum() / wanted.var(0, correction=0).sum()
    assert rows["layer1.0.conv1"].r2 == pytest.approx(1 - left.item(), abs=1e-4)
    assert rows["layer1.0.conv1"].r2 > rows["layer1.0.conv1"].r2_selected


@pytest.mark.parametrize(
    ("name", "large", "small"),
    [
        ("tf_efficientnet_lite0", {"width": 0.5, "depth": 0.3}, {"width": 0.25, "depth": 0.3}),
        ("convnext_atto", {"dims": [8, 8, 16, 16]}, {"dims": [4, 4, 8, 8]}),
        ("vit_tiny_patch16_224", {"embed_dim": 32, "num_heads": 4}, {"embed_dim": 16, "num_heads": 2}),
    ],
)
def test_the_output_comes_nearer_to_the_large_network_in_every_family(name, large, small):
    depth = {"convnext_atto": {"depths": [1, 1, 1, 1]}, "vit_tiny_patch16_224": {"depth": 2}}.get(name, {})
    torch.manual_seed(0)
    common = {"num_classes": 2, "image_size": 64} | depth
    big, little = build_network(name, **common, **large), build_network(name, **common, **small)
    plan = selected(big, little)
    rows = compensate(little, big, plan, images(64), ridge=1e-4)
    done = [row for row in rows if not row.reason]
    assert len(done) >= 4
    assert all(row.r2 > row.r2_selected for row in done if row.r2_selected < 0.99)


# --- what stays


def test_layers_that_are_not_treated_keep_every_bit_and_say_why(lite_pair):
    large, small, plan = lite_pair
    before = {name: value.clone() for name, value in small.state_dict().items()}
    rows = {row.layer: row for row in compensate(small, large, plan, images())}
    after = small.state_dict()
    kept = [row for row in rows.values() if row.reason]
    assert rows["conv_stem"].reason == "sees the image itself, as in the large network"
    assert "depth-wise" in rows["blocks.1.0.conv_dw"].reason
    assert rows["classifier"].reason.startswith("classifier")
    assert all(torch.equal(after[f"{row.layer}.weight"], before[f"{row.layer}.weight"]) for row in kept)
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed and all(name.endswith((".weight", ".running_mean")) for name in changed)
    assert not any("bn" in name and name.endswith("weight") for name in changed)
    assert small.training and large.training


def test_too_few_samples_leave_a_layer_alone(lite_pair):
    large, small, plan = lite_pair
    rows = {row.layer: row for row in compensate(small, large, plan, images(4, size=32))}
    assert rows["conv_head"].reason == f"4 samples are too few for {small.conv_head.in_channels} inputs"


def test_the_seed_decides_the_result():
    results = []
    for seed in (0, 0, 1):
        large, small = lite(0, 0.5), lite(1, 0.25)
        compensate(small, large, selected(large, small), images(), samples=400, seed=seed)
        results.append(small.blocks[1][0].conv_pw.weight.detach().clone())
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_hooks_are_gone_afterwards(lite_pair):
    large, small, plan = lite_pair
    compensate(small, large, plan, images())
    assert not any(m._forward_hooks or m._forward_pre_hooks for net in (large, small) for m in net.modules())


# --- input


@pytest.mark.parametrize("batches", [[], [torch.zeros(1, 1, 8, 8, 8)]])
def test_volumes_and_no_images_are_refused(lite_pair, batches):
    large, small, plan = lite_pair
    with pytest.raises(InputError, match="compensation needs images"):
        compensate(small, large, plan, batches)
    with pytest.raises(InputError, match="ridge is 0"):
        compensate(small, large, plan, images(), ridge=0)


def test_images_are_drawn_by_the_seed_and_labels_are_not_looked_at():
    dataset = [{"image": torch.full((1, 2, 2), float(value))} for value in range(10)]
    batches = unlabelled_batches(dataset, 7, seed=3, batch_size=4)
    assert [tuple(batch.shape) for batch in batches] == [(4, 1, 2, 2), (3, 1, 2, 2)]
    drawn = torch.cat(batches)[:, 0, 0, 0]
    assert len(drawn.unique()) == 7
    assert torch.equal(drawn, torch.cat(unlabelled_batches(dataset, 7, seed=3))[:, 0, 0, 0])
    assert not torch.equal(drawn, torch.cat(unlabelled_batches(dataset, 7, seed=4))[:, 0, 0, 0])
    assert len(torch.cat(unlabelled_batches(dataset, 100))) == 10
    with pytest.raises(InputError, match="compensate is 0.5"):
        unlabelled_batches(dataset, 0.5)


def test_summary_counts_compensated_layers_alone(lite_pair):
    large, small, plan = lite_pair
    rows = compensate(small, large, plan, images())
    done = [row for row in rows if not row.reason]
    assert summarise(rows)["layers"] == len(done)
    assert summarise(rows)["mean_r2"] == pytest.approx(sum(row.r2 for row in done) / len(done), abs=1e-4)
    assert summarise([]) == {"layers": 0, "mean_r2": 0.0, "mean_r2_selected": 0.0}


def test_student_and_auxiliary_are_corrected_for_their_own_channels(tmp_path):
    options = {"num_classes": 2, "depth": 0.3}
    torch.manual_seed(0)
    large = build_network("tf_efficientnet_lite0", in_channels=3, width=0.5, **options)
    save_file(large.state_dict(), tmp_path / "a.safetensors")
    pairs = []
    for batches in (None, images()):
        torch.manual_seed(1)
        pair = [build_network("tf_efficientnet_lite0", width=0.25, **options) for _ in range(2)]
        summary = initialise_pair(
            *pair, large="tf_efficientnet_lite0", large_options={"width": 0.5, "depth": 0.3},
            pretrained=str(tmp_path / "a.safetensors"), compensate_with=batches,
        )  # fmt: skip
        pairs.append((pair, summary, torch.rand(1)))
    for who, plain, corrected in zip(("student", "auxiliary"), pairs[0][0], pairs[1][0], strict=True):
        found = pairs[1][1][who]["compensation"]
        assert found["images"] == 8 and found["mean_r2"] > found["mean_r2_selected"]
        assert "compensation" not in pairs[0][1][who]
        assert not torch.equal(plain.blocks[1][0].conv_pw.weight, corrected.blocks[1][0].conv_pw.weight)
        assert torch.equal(plain.conv_stem.weight, corrected.conv_stem.weight)
        assert torch.equal(plain.classifier.weight, corrected.classifier.weight)
    assert torch.equal(pairs[0][2], pairs[1][2])  # the run's random numbers go on as without it


def test_a_vit_whose_heads_are_not_64_wide_is_compensated(tmp_path):
    torch.save(build_network("test_vit", num_classes=2, image_size=32).state_dict(), tmp_path / "a.pt")  # 2 heads of 32
    student = build_network("test_vit", num_classes=2, image_size=32, embed_dim=32, num_heads=1)
    batches = [torch.randn(64, 1, 32, 32)]
    summary = initialise_pair(student, large="test_vit", pretrained=str(tmp_path / "a.pt"), compensate_with=batches)
    assert summary["student"]["compensation"]["layers"] > 0


def test_a_volumetric_student_is_refused(tmp_path):
    options = {"num_classes": 2, "depth": 0.3, "width": 0.25}
    save_file(build_network("tf_efficientnet_lite0", **options).state_dict(), tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="compensation needs 2D images"):
        initialise_pair(
            build_network("tf_efficientnet_lite0", spatial_dims=3, **options), large="tf_efficientnet_lite0",
            large_options={"depth": 0.3, "width": 0.25}, pretrained=str(tmp_path / "a.safetensors"),
            compensate_with=[torch.zeros(1, 1, 32, 32, 8)],
        )  # fmt: skip
