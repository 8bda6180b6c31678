# SPDX-License-Identifier: Apache-2.0
"""``select`` as a command: files in, files out, one sentence per mistake."""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import pytest
import torch
import wiring

from dual_skd.errors import InputError
from dual_skd.selection import plan_selection
from dual_skd.selection.cli import add_arguments, main, read_weights, write_weights


def run(*words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return main(parser.parse_args([str(word) for word in words]))


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    for name, scale in (("large.safetensors", 2), ("small.pth", 1)):
        net = wiring.convnext(widths=[4 * scale, 6 * scale], mlps=[8 * scale] * 2, depths=[scale, 1], spatial=2)
        state = net.state() | {"head.fc.weight": torch.full((3, 6 * scale), float(scale))}
        write_weights(tmp_path / name, {key: value.float() for key, value in state.items()})
    return tmp_path / "large.safetensors", tmp_path / "small.pth"


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_files_in_weights_and_table_out(files: tuple[Path, Path], tmp_path: Path, suffix: str, capsys) -> None:
    large, small = files
    out, report = tmp_path / f"new/out.{suffix}", tmp_path / "report.csv"
    assert run("--large", large, "--small", small, "--out", out, "--report", report, "--elements", "complement") == 0
    written = read_weights(out)
    expected = plan_selection(read_weights(large), read_weights(small), elements="complement").apply()
    assert all(torch.equal(written[name], value) for name, value in expected.items())
    assert torch.equal(written["head.fc.weight"], torch.ones(3, 6))  # the small file's own
    with report.open(encoding="utf-8") as file:
        assert {row["name"] for row in csv.DictReader(file)} == set(written)
    assert "28 of 29 tensors selected (convnext, axes consistent)" in capsys.readouterr().out


def test_selected_only_leaves_the_rest_out_and_layers_can_be_listed(files: tuple[Path, Path], tmp_path: Path) -> None:
    large, small = files
    out = tmp_path / "out.safetensors"
    assert run("--large", large, "--small", small, "--out", out, "--selected-only", "--layers", "[[1], [0]]") == 0
    written = read_weights(out)
    assert "head.fc.weight" not in written
    expected = plan_selection(read_weights(large), read_weights(small), layers=[[1], [0]]).apply()
    assert torch.equal(written["stages.0.blocks.0.gamma"], expected["stages.0.blocks.0.gamma"])


def test_a_checkpoint_with_the_weights_below_model_is_read(tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.ones(2)}, "epoch": 3}, tmp_path / "model.pt")
    assert read_weights(tmp_path / "model.pt")["a"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--large", "absent.pt"], "absent.pt: no such weights file"),
        (["--large", "weights.bin"], "expected a file ending in .safetensors, .pt, .pth"),
        (["--out", "out.txt"], "out.txt: expected a file ending in"),
        (["--layers", "[1, 2"], "--layers '.1, 2': not valid JSON"),
        (["--small-options", "{"], "--small-options '{': not valid JSON"),
        (["--elements", "best"], "elements='best' is unknown"),
    ],
)
def test_mistakes_are_one_sentence(files: tuple[Path, Path], tmp_path: Path, words: list[str], message: str) -> None:
    large, small = files
    given = {"--large": large, "--small": small, "--out": tmp_path / "out.pt"} | dict([words])
    with pytest.raises(InputError, match=message):
        run(*[word for pair in given.items() for word in pair])


def test_files_without_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.pt").write_bytes(b"no weights")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(InputError, match="broken.pt: can't be read as weights"):
        read_weights(tmp_path / "broken.pt")
    with pytest.raises(InputError, match="list.pt: holds no state dict"):
        read_weights(tmp_path / "list.pt")


def test_the_small_network_can_be_named(files: tuple[Path, Path], tmp_path: Path) -> None:
    from dual_skd.networks import build_network

    torch.manual_seed(0)
    state = build_network("resnet18", num_classes=2, in_channels=3).state_dict()
    write_weights(tmp_path / "resnet.safetensors", state)
    out = tmp_path / "small.safetensors"
    assert run("--large", tmp_path / "resnet.safetensors", "--small", "resnet10t", "--out", out,
               "--small-options", '{"num_classes": 4, "in_channels": 1}') == 0  # fmt: skip
    written = read_weights(out)
    assert written["fc.weight"].shape[0] == 4
    assert torch.equal(written["layer1.0.conv1.weight"], state["layer1.0.conv1.weight"])
