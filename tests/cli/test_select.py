# SPDX-License-Identifier: Apache-2.0
"""``select`` as a command: files in, files out, one sentence per mistake."""

from __future__ import annotations

import csv
import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import wiring

from dual_skd.cli.dispatch import parser_of
from dual_skd.cli.select import main
from dual_skd.errors import InputError
from dual_skd.evaluation.students import Student
from dual_skd.metrics.estimates import Estimate
from dual_skd.networks.weight_files import load_state_file, write_weights
from dual_skd.options import Training
from dual_skd.options.arguments import given
from dual_skd.selection import plan_selection
from dual_skd.selection.resample import resize_positions


def run(*words: str | Path) -> int:
    return main(parser_of("select").parse([str(word) for word in words]))


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
    written = load_state_file(out)
    expected = plan_selection(load_state_file(large), load_state_file(small), elements="complement").apply()
    assert all(torch.equal(written[name], value) for name, value in expected.items())
    assert torch.equal(written["head.fc.weight"], torch.ones(3, 6))  # the small file's own
    with report.open(encoding="utf-8") as file:
        assert {row["name"] for row in csv.DictReader(file)} == set(written)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        f"Selected: {out}",
        "  family        convnext; the axes are consistent",
        "  tensors       28 of 29 selected",
    ]
    assert lines[-1] == f"  table         {report}"  # a file has no name by which a training could build the network


def test_selected_only_leaves_the_rest_out_and_layers_can_be_listed(files: tuple[Path, Path], tmp_path: Path) -> None:
    large, small = files
    out = tmp_path / "out.safetensors"
    assert run("--large", large, "--small", small, "--out", out, "--selected-only", "--layers", "[[1], [0]]") == 0
    written = load_state_file(out)
    assert "head.fc.weight" not in written
    expected = plan_selection(load_state_file(large), load_state_file(small), layers=[[1], [0]]).apply()
    assert torch.equal(written["stages.0.blocks.0.gamma"], expected["stages.0.blocks.0.gamma"])


@pytest.mark.parametrize("wrap", [
    lambda state: {"model": state, "epoch": 3},
    lambda state: {"network": state, "optimizer": {}},
    lambda state: {f"module.{name}": value for name, value in state.items()},
], ids=["model", "network", "distributed"])  # fmt: skip
def test_files_that_training_reads_are_read_here_too(files: tuple[Path, Path], tmp_path: Path, wrap: Callable) -> None:
    large, small = files
    torch.save(wrap(load_state_file(large)), tmp_path / "wrapped.pt")
    for source, out in ((large, "plain.pt"), (tmp_path / "wrapped.pt", "out.pt")):
        assert run("--large", source, "--small", small, "--out", tmp_path / out) == 0
    expected, written = load_state_file(tmp_path / "plain.pt"), load_state_file(tmp_path / "out.pt")
    assert all(torch.equal(written[name], value) for name, value in expected.items())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--large", "absent.pt"], "No weights file .absent.pt.; give the path of"),
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


def test_the_small_network_can_be_named(files: tuple[Path, Path], tmp_path: Path, capsys) -> None:
    from dual_skd.networks.build import build_network

    torch.manual_seed(0)
    state = build_network("resnet18", num_classes=2, in_channels=3).state_dict()
    write_weights(tmp_path / "resnet.safetensors", state)
    out = tmp_path / "small.safetensors"
    options = '{"num_classes": 4, "in_channels": 1, "image_size": 64, "stem_width": 32}'
    source = tmp_path / "resnet.safetensors"
    assert run("--large", source, "--small", "resnet10t", "--out", out, "--small-options", options) == 0
    words = shlex.split(capsys.readouterr().out.splitlines()[-1])
    own = [("--large", "--large_options"), ("--small", "--small_options")]
    assert words == ["Next:", "dual-skd", "train", "DATA", "--pretrained", str(out), "--image_size", "64",
                     *(word for one, its in own for word in (one, "resnet10t", its, '{"stem_width": 32}'))]  # fmt: skip
    written = load_state_file(out)
    assert written["fc.weight"].shape[0] == 4
    assert torch.equal(written["layer1.0.conv1.weight"], state["layer1.0.conv1.weight"])


def test_token_grids_that_are_not_square_can_be_given(tmp_path: Path) -> None:
    sizes = {"embed": 4, "heads": 1, "head_dim": 4, "mlp": 4, "depth": 1, "monai": False, "spatial": 2}
    state = {name: value.float() for name, value in wiring.vit(**sizes).state().items()}
    large = state | {"pos_embed": torch.randn(1, 1 + 6, 4)}
    write_weights(tmp_path / "large.pt", large)
    write_weights(tmp_path / "small.pt", state | {"pos_embed": torch.randn(1, 1 + 12, 4)})
    assert run("--large", tmp_path / "large.pt", "--small", tmp_path / "small.pt", "--out", tmp_path / "out.pt",
               "--large-heads", 1, "--large-grid", 2, 3, "--small-grid", 4, 3) == 0  # fmt: skip
    expected = resize_positions(large["pos_embed"], old_grid=(2, 3), new_grid=(4, 3), old_prefix=1, new_prefix=1)
    assert torch.equal(load_state_file(tmp_path / "out.pt")["pos_embed"], expected)


def test_a_budget_proposes_small_networks_and_writes_options_that_training_takes(
    tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = "{'block_inplanes': [16, 32, 64, 128]}"
    large = ["--large", "monai_resnet18", "--large-options", options, "--image-size", "32"]
    assert run(*large, "--params", "3e5", "--out", "found", "--seed", "4") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["options", "parameters", "MACs", "ms", "selected"]
    written = json.loads(Path("found/options.json").read_text(encoding="utf-8"))
    assert written["small"] == "monai_resnet18" and written["seed"] == 4 and written["image_size"] == 32
    words = shlex.split(lines[-1].removeprefix("Next: dual-skd train "))
    values = given(parser_of("train").parse(words), Training)
    assert values == {"dataset_dir": "DATA", "output_dir": "small"} | written
    assert not Path("found/students.svg").exists()  # nothing was probed


def test_of_several_large_networks_the_best_proposal_of_all_comes_first(tmp_path, capsys, monkeypatch) -> None:
    asked = []

    def proposed(*, large, parameters, dataset_dir, **options):
        asked.append((large, options))
        probes = {"resnet18": (0.7, 0.6), "resnet34": (0.8, 0.5)}[large]
        return [Student(large, {"width": k}, 9, 9, 1.0, 1.0, Estimate(one)) for k, one in enumerate(probes)]

    monkeypatch.setattr("dual_skd.evaluation.students.propose_students", proposed)
    monkeypatch.chdir(tmp_path)
    assert run("--large", "resnet18", "resnet34=other.pth", "--params", "3e5", "--data", "demo") == 0
    assert asked == [("resnet18", {}), ("resnet34", {"pretrained": "other.pth"})]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1:4] for line in lines[1:5]] == [
        ["resnet34", "width", "0"], ["resnet18", "width", "0"], ["resnet18", "width", "1"], ["resnet34", "width", "1"]
    ]  # fmt: skip
    written = json.loads(Path("students/options.json").read_text(encoding="utf-8"))
    assert written == {
        "large": "resnet34", "pretrained": "other.pth", "small": "resnet34", "small_options": {"width": 0}
    }  # fmt: skip


@pytest.mark.parametrize(("words", "message"), [
    (["--params", "1e6", "--ms", "3"], "--params doesn't go with --ms"),
    (["--params", "1e6", "--small", "resnet18"], "--params doesn't go with --small"),
    (["--params", "1e6", "--large", "a.pt"], "needs a network by name: --large NAME=a.pt"),
    (["--large", "resnet18", "resnet34", "--small", "resnet10t", "--out", "x.pt"], "Several large networks"),
    (["--large", "resnet18", "resnet34", "--params", "1e6"], "ranked by your images; give them as --data"),
    (["--macs", "1e6", "--selected-only"], "--macs doesn't go with --selected-only"),
    (["--small", "resnet18", "--out", "x.pt", "--data", "demo"], "--data is of proposals for a budget"),
    (["--small", "resnet18", "--out", "x.pt", "--image-size", "64"], "--image-size is of proposals for a budget"),
    (["--large", "x.pt", "--small", "resnet18", "--out", "x.pt", "--pretrained", "hub"], "--pretrained is of a netw"),
    (["--small", "resnet18"], "Expected --small FILE.NAME and --out FILE, or a budget"),
    (["--small", "resnet10t", "--out", "x.pt", "--pretrained", "none"], "none gives no weights to select from"),
])  # fmt: skip
def test_a_budget_and_files_are_kept_apart(words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run("--large", "resnet18", *words)


def test_a_budget_that_is_no_number_is_said(capsys) -> None:
    with pytest.raises(SystemExit):
        run("--large", "resnet18", "--params", "1M")
    assert "Argument --params: '1M' isn't a number; write a million as 1e6" in capsys.readouterr().err


def test_the_large_network_can_be_named_with_a_file_of_its_weights(tmp_path: Path) -> None:
    from dual_skd.networks.build import build_network

    torch.manual_seed(0)
    state = build_network("resnet18", num_classes=2, in_channels=3, channels=[16, 32, 64, 128]).state_dict()
    write_weights(tmp_path / "large.pt", state)
    small = ["--small", "resnet10t", "--seed", 1, "--small-options", '{"channels": [8, 16, 32, 64]}']
    by_name = ["resnet18", "--large-options", "{'channels': [16, 32, 64, 128]}", "--pretrained", tmp_path / "large.pt"]
    for out, large in (("named", by_name), ("file", [tmp_path / "large.pt"])):
        assert run("--large", *large, *small, "--out", tmp_path / f"{out}.pt") == 0
    named, file = (load_state_file(tmp_path / f"{name}.pt") for name in ("named", "file"))
    assert all(torch.equal(named[key], file[key]) for key in named)
