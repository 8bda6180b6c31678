# SPDX-License-Identifier: Apache-2.0
"""Every file that the product writes, on a full disk: one sentence, the former file as it was, and no draft."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from full_disk import fill_disk, needs_full
from ignite.engine import Engine
from matplotlib.figure import Figure
from PIL import Image

import dual_skd
from dual_skd.cli.dispatch import main
from dual_skd.data import load_records
from dual_skd.data.records.data_source import DataSource
from dual_skd.data.records.split_file import save_split
from dual_skd.errors import NotWritten
from dual_skd.evaluation import learning_curve
from dual_skd.evaluation.report import ReportWriter
from dual_skd.evaluation.report.drawing import Plot, save
from dual_skd.metrics.predictions import write_predictions
from dual_skd.networks.build import build_network
from dual_skd.networks.weight_files import write_weights
from dual_skd.runs.checkpoint import write_checkpoint
from dual_skd.runs.model_file import save_model
from dual_skd.runs.record import RunRecord
from dual_skd.selection.report import SelectionReport
from dual_skd.serving.monai_label import labelled_data
from dual_skd.serving.prediction import Prediction, PredictionTable
from dual_skd.serving.writers import ExplanationWriter

TINY = {"name": "resnet18", "num_classes": 2, "in_channels": 1, "layers": [1, 1, 1, 1], "channels": [4, 4, 4, 4]}


@pytest.fixture
def data(tmp_path) -> Path:
    """Two classes of six pictures, one of them damaged."""
    for place in range(12):
        path = tmp_path / "data" / "ab"[place % 2] / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(place).integers(0, 256, (16, 16), dtype=np.uint8)).save(path)
    (tmp_path / "data" / "a" / "damaged.png").write_bytes(b"\x89PNG")
    return tmp_path / "data"


def table(folder: Path) -> None:
    predictions = PredictionTable(folder / "predictions.csv", ["image", "problem"])
    predictions.append([Prediction("a.png", problem="cut")])
    predictions.publish()


def plot(folder: Path) -> None:
    save(Plot("roc", Figure(), "ROC curve", "", "", svg="<svg/>"), folder)


def plot_as_png(folder: Path) -> None:
    (folder / "roc.svg").unlink(missing_ok=True)
    (folder / "roc.svg").symlink_to(os.devnull)  # a device is on no disk
    plot(folder)


def curve(folder: Path) -> None:
    measured = learning_curve.Measured(
        learning_curve.Cell("single", 1.0, 0), 9, dict.fromkeys(learning_curve.METRICS, 0.5)
    )
    learning_curve.write(learning_curve.by_share(iter([measured])), folder)


def maps(folder: Path) -> None:
    network = build_network(**TINY).eval()
    engine = Engine(lambda engine, batch: [{"pred": torch.tensor([0.25, 0.75])}])
    ExplanationWriter(folder, network).attach(engine)
    engine.run([[{"image": torch.ones(1, 32, 32)}]])


def record(folder: Path) -> None:
    RunRecord(folder, seed=0)._write(SimpleNamespace(state=SimpleNamespace(rank=0)))


def division(folder: Path) -> None:
    save_split(load_records(folder / "data", on_bad_file="skip"), folder / "datalist.json")


def label_list(folder: Path) -> None:
    (folder / "configs").mkdir(exist_ok=True)
    (folder / "configs" / "metadata.json").write_text(
        '{"network_data_format": {"outputs": {"pred": {"channel_def": {"0": "a"}}}}}'
    )
    given = [{"image": "a.png", "label": "a"}]
    labelled_data(DataSource("demo", read=lambda **_: None), given, None, output_dir=folder, bundle_root=folder)


WRITERS: dict[str, Callable[[Path], object]] = {
    "datalist.json": division,
    "predictions_test.csv": lambda folder: write_predictions(
        folder / "predictions_test.csv", ["a.png"], np.array([0]), np.array([[0.5, 0.5]]), ["a", "b"]
    ),
    "predictions.csv": table,
    "roc.svg": plot,
    "roc.png": plot_as_png,
    "learning_curve.md": curve,
    "000001.png": maps,
    "run.json": record,
    "monai_label.json": label_list,
    "selection_report.csv": lambda folder: SelectionReport([], verified=True).write(folder / "selection_report.csv"),
    "last.pt": lambda folder: write_checkpoint(folder / "last.pt", {"a": torch.zeros(3)}, keep=False),
    "model.pt": lambda folder: save_model(folder, build_network(**TINY), architecture=TINY, class_names=["a", "b"]),
    "weights.pth": lambda folder: write_weights(folder / "weights.pth", {"a": torch.zeros(3)}),
}  # fmt: skip


@needs_full
@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_one_sentence_and_the_former_file_stays(data, tmp_path, monkeypatch, name):
    WRITERS[name](tmp_path)
    before = (tmp_path / name).read_bytes()
    there = sorted(path for path in tmp_path.rglob("*"))
    fill_disk(monkeypatch)
    with pytest.raises(NotWritten) as caught:
        WRITERS[name](tmp_path)
    assert f"{tmp_path / name} can't be written (" in str(caught.value) and "\n" not in str(caught.value)
    assert (tmp_path / name).read_bytes() == before and sorted(path for path in tmp_path.rglob("*")) == there


@needs_full
@pytest.mark.parametrize("option", ["--page", "--json", "--fix-list", "--clean-list"])
def test_check_says_it_in_one_line(data, tmp_path, monkeypatch, capsys, option):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").write_text("former")
    fill_disk(monkeypatch)
    assert main(["check", str(data), "--no-twins", option, str(tmp_path / "out" / "file")]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error: ")]
    assert "out/file can't be written (No space left on device)" in line
    assert os.listdir(tmp_path / "out") == ["file"] and (tmp_path / "out" / "file").read_text() == "former"


@needs_full
def test_a_report_that_cannot_be_written_ends_the_evaluation(run_folder, monkeypatch):
    directory = run_folder()
    before = (directory / "metrics.json").read_bytes()
    engine = Engine(lambda engine, batch: None)
    ReportWriter(directory, resamples=5).attach(engine)
    fill_disk(monkeypatch)
    with pytest.raises(NotWritten, match="can't be written .No space left on device"):
        engine.run([0])
    assert (directory / "metrics.json").read_bytes() == before
    assert not [path for path in directory.rglob("*") if path.is_file() and path.parent != directory]


# --- nothing is written by another way --------------------------------------------------------------------------------

WRITING = {"write_text", "write_bytes", "savefig", "to_csv", "tofile", "save_as", "to_filename", "copyfile", "dump"}
MODULES_THAT_SAVE = {"torch", "np", "numpy", "onnx", "nib"}
OTHER_WAYS = {  # file, function: why it may write by itself
    ("utils/files.py", "write_text"): "the one place",
    ("utils/files.py", "write"): "the one place",
    ("utils/files.py", "publish"): "the one place",
    ("utils/files.py", "_opened_stream"): "the one place",
    ("utils/tensor_files.py", "save_tensors"): "given to replace_file",
    ("evaluation/learning_curve.py", "plot"): "given to replace_file",
    ("evaluation/students.py", "plot"): "given to replace_file",
    ("serving/prediction.py", "_write"): "given to a Draft",
    ("cli/check.py", "_without_remarks_of_decoders"): "the terminal",
    ("cli/dispatch.py", "_open_closed_streams"): "the terminal",
    ("cli/learning_curve.py", "run_command"): "a log, which grows",
    ("data/demo.py", "write_demo"): "in a folder that gets its name when it is complete",
    ("data/demo.py", "_write_hospital"): "in a folder that gets its name when it is complete",
    ("data/demo.py", "_write_xray"): "in a folder that gets its name when it is complete",
    ("data/demo.py", "_write_head"): "in a folder that gets its name when it is complete",
    ("data/reading/dicom_decoders.py", "decode_frame"): "a temporary file",
    ("data/reading/numpy_files.py", "_unpack"): "a draft of its own, which takes minutes",
    ("evaluation/report/drawing.py", "rendered"): "into memory",
    ("serving/export/export.py", "_prepare"): "in the scratch folder of an export",
    ("serving/export/worker.py", "run_module"): "in the scratch folder of an export",
    ("serving/export/latency.py", "main"): "in the scratch folder of an export",
    ("serving/export/formats.py", "_as_bundle"): "in the scratch folder of an export",
    ("serving/export/web_page.py", "write_page"): "in the scratch folder of an export",
    ("serving/export/page_check.py", "main"): "in the scratch folder of an export",
    ("serving/export/browser.py", "send"): "a pipe",
    ("serving/export/npm.py", "_tarball"): "given to replace_file",
    ("serving/monai_label_app.py", "_keep"): "a temporary file",
}


def writes() -> Iterator[tuple[str, str]]:
    """File and function of every call in the package that writes a file."""
    root = Path(dual_skd.__file__).parent
    for path in sorted(root.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            inside = [one for one in functions if one.lineno <= call.lineno <= one.end_lineno]
            if writes_a_file(call):
                yield path.relative_to(root).as_posix(), inside[-1].name if inside else ""


def writes_a_file(call: ast.Call) -> bool:
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    if name in ("open", "fdopen"):
        modes = [one.value for one in [*call.args, *(k.value for k in call.keywords)] if isinstance(one, ast.Constant)]
        modes += [leaf.value for one in call.args if isinstance(one, ast.IfExp) for leaf in (one.body, one.orelse)]
        return any(isinstance(mode, str) and set(mode) <= set("rwaxbt+") and set(mode) & set("wax+") for mode in modes)
    owner = getattr(getattr(call.func, "value", None), "id", "")
    attribute = isinstance(call.func, ast.Attribute)
    return attribute and (name in WRITING or (name in ("save", "savez") and owner in MODULES_THAT_SAVE))


def test_files_are_written_in_one_place():
    assert set(writes()) == set(OTHER_WAYS)
