# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import importlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_run import ARCHITECTURE, NAMES, picture, save_tiny

from dual_skd.cli.dispatch import main
from dual_skd.data import image_transforms
from dual_skd.errors import InputError
from dual_skd.runs.model_file import load_model
from dual_skd.serving.export import builder
from dual_skd.serving.export.export import export, markdown
from dual_skd.serving.export.formats import FORMATS, Format
from dual_skd.serving.export.model_spec import preprocessing_steps

PAGE = Path(__file__).resolve().parents[3] / "docs" / "deployment.md"


@pytest.fixture
def in_process(monkeypatch):
    """Conversions and measurements in this process, which takes a tenth of the time."""

    def run_module(name, arguments, **options):
        importlib.import_module(name).main(arguments)

    monkeypatch.setattr(builder, "run_module", run_module)
    return lambda change: monkeypatch.setattr(builder, "run_module", change(run_module))


def test_an_artefact_that_passes_is_described_down_to_its_hash(tmp_path, run_dir, in_process):
    (run_dir / "run.json").write_text(json.dumps({"networks": {"large": {"architecture": ARCHITECTURE}}}))
    found = export(run_dir, tmp_path / "out", formats=["torchscript"], seconds=0.01)
    (row,) = found["artefacts"]
    assert row["status"] == "passed" and found["fastest"] == "torchscript"
    assert row["verification"]["images"] == 12 and row["verification"]["max_difference"] < 1e-6
    (file,) = row["files"]
    content = (tmp_path / "out" / "model.ts").read_bytes()
    assert file == {"name": "model.ts", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert json.loads((tmp_path / "out" / "export.json").read_text()) == found
    assert found["class_names"] == NAMES and found["temperature"] == 1.5
    assert [row["name"] for row in found["baselines"]] == ["large network, eager PyTorch", "student, eager PyTorch"]
    table = (tmp_path / "out" / "export.md").read_text()
    assert "1 thread," in table and "**torchscript, the fastest** | passed" in table


def test_a_wrong_artefact_is_refused_with_the_numbers_and_not_given_away(tmp_path, run_dir, in_process):
    stale = tmp_path / "out" / "model.ts"
    stale.parent.mkdir()
    stale.write_text("of an earlier export")

    def tampered(run_module):
        def run(name, arguments, *, work, **options):
            run_module(name, arguments)
            if name.endswith("formats"):
                wrong, _ = load_model(save_tiny(work / "other", seed=7))
                torch.jit.save(torch.jit.trace(wrong, torch.zeros(1, 1, 32, 32)), work / "model.ts")

        return run

    in_process(tampered)
    found = export(run_dir, stale.parent, formats=["torchscript"], seconds=0.01)
    (row,) = found["artefacts"]
    assert row["status"] == "refused" and found["fastest"] is None and "files" not in row
    number = f"{row['verification']['max_difference']:.2g}"
    assert row["reason"] == f"a probability differs by {number}, more than 1e-05"
    assert not stale.exists() and row["reason"] in (stale.parent / "export.md").read_text()


def test_more_layers_stay_in_float_until_the_check_accepts(tmp_path, run_dir, in_process, monkeypatch):
    tried = []

    def convert(model, work, floats=0.0):
        tried.append(floats)
        network, _ = load_model(model if floats == 0.5 else save_tiny(work / f"other{len(tried)}", seed=7))
        torch.jit.save(torch.jit.trace(network, torch.zeros(1, 1, 32, 32)), work / "model.ts")

    ladder = Format(("model.ts",), "torchscript", convert, floats=(0, 0.25, 0.5, 0.75))
    monkeypatch.setitem(FORMATS, "torchscript", ladder)
    found = export(run_dir, tmp_path / "out", formats=["torchscript"], seconds=0.01)
    (row,) = found["artefacts"]
    assert tried == [0, 0.25, 0.5] and row["status"] == "passed" and row["float_layers"] == 0.5
    assert "passed, first 50% of the layers in float |" in markdown(found)
    monkeypatch.setitem(FORMATS, "torchscript", replace(ladder, floats=(0, 0.25)))
    (row,) = export(run_dir, tmp_path / "out", formats=["torchscript"], seconds=0.01)["artefacts"]
    assert tried[3:] == [0, 0.25] and row["status"] == "refused" and not (tmp_path / "out" / "model.ts").exists()


def test_a_converter_that_crashes_is_one_line_and_the_others_finish(tmp_path, run_dir, monkeypatch):
    for name in FORMATS["onnx"].packages:
        package = tmp_path / "packages" / name / "__init__.py"
        package.parent.mkdir(parents=True)
        package.write_text("import os\nos.abort()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
    monkeypatch.setattr("dual_skd.serving.export.formats.find_spec", lambda name: None if name == "openvino" else 1)
    monkeypatch.setattr(builder.ArtefactBuilder, "baselines", lambda self, run: [])
    formats = ["torchscript", "onnx", "onnx_int8", "openvino_fp16"]
    found = export(run_dir, tmp_path / "out", formats=formats, seconds=0.01)
    rows = {row["format"]: (row["status"], row["reason"]) for row in found["artefacts"]}
    assert rows == {
        "torchscript": ("passed", ""),
        "onnx": ("failed", "crashed (SIGABRT)"),
        "onnx_int8": ("failed", "is made from onnx, which failed"),
        "openvino_fp16": ("skipped", "pip install openvino"),
    }


@pytest.mark.skipif(bool(FORMATS["onnx"].obstacle()), reason=FORMATS["onnx"].obstacle())
def test_the_sidecar_alone_gives_the_probabilities_of_inference(tmp_path, run_dir, in_process):
    found = export(run_dir, tmp_path / "out", formats=["onnx"], seconds=0.01)
    assert [row["status"] for row in found["artefacts"]] == ["passed"]
    example = re.search(r"## Export\n.*?```py\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1]
    assert "dual_skd" not in example
    (tmp_path / "example.py").write_text(example)
    network, info = load_model(run_dir)
    about = json.loads((tmp_path / "out" / "export.json").read_text())
    for mode, fit in (("L", "stretch"), ("RGB", "stretch"), ("L", "pad"), ("L", "crop")):
        given = info["preprocessing"] | {"fit": fit}
        (tmp_path / "out" / "export.json").write_text(
            json.dumps(about | {"preprocessing": {"steps": preprocessing_steps(given)}})
        )
        path = picture(tmp_path / f"{mode}.png", 5, size=(61, 47), mode=mode)
        # -I: no environment, no site of the user, no working directory
        command = [sys.executable, "-I", tmp_path / "example.py", tmp_path / "out", path]
        answer = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        image = image_transforms(**given)({"image": path})["image"]
        with torch.no_grad():
            expected = (network(image[None]) / 1.5).softmax(1)[0].numpy()
        np.testing.assert_allclose([answer[name] for name in NAMES], expected, atol=2e-5)


def test_other_data_are_verified_on_and_other_classes_refused(tmp_path, run_dir, in_process):
    for i in range(3):
        picture(tmp_path / "data" / "normal" / f"{i}.png", i)
        picture(tmp_path / "data" / "nodule" / f"{i}.png", i + 5)
    options = {"formats": ["torchscript"], "seconds": 0.01}
    found = export(run_dir, tmp_path / "out", data=tmp_path / "data", images=4, **options)
    assert found["verified_on"] == {"data": "all images of data", "images": 4, "reference": "PyTorch, float32"}
    picture(tmp_path / "data" / "effusion" / "0.png", 1)
    with pytest.raises(InputError, match="effusion"):
        export(run_dir, tmp_path / "out", data=tmp_path / "data", **options)


def test_a_model_without_its_run_needs_a_folder_and_images(tmp_path, in_process):
    save_tiny(tmp_path / "run")
    alone = shutil.copy(tmp_path / "run" / "models" / "model.pt", tmp_path / "model.pt")
    for name in ("normal", "nodule"):
        picture(tmp_path / "data" / name / "0.png", len(name))
    options = {"formats": ["torchscript"], "seconds": 0.01}
    for model in (alone, "chest_xray_pneumonia"):
        with pytest.raises(InputError, match="without the folder of a run; give a folder for the files as --output"):
            export(model, **options)
        with pytest.raises(InputError, match="Give labelled images as --data"):
            export(model, tmp_path / "out", **options)
    found = export(alone, tmp_path / "out", data=tmp_path / "data", **options)
    assert found["artefacts"][0]["status"] == "passed" and (tmp_path / "out" / "model.ts").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "model.pt", "out", "run"]


def test_a_damaged_image_is_one_sentence_and_leaves_the_earlier_export(tmp_path, run_dir):
    run = shutil.copytree(run_dir, tmp_path / "run")
    listed = json.loads((run / "datalist.json").read_text())
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(Path(listed["validation"][3]["image"]).read_bytes()[:200])
    listed["validation"][3]["image"] = str(damaged)
    (run / "datalist.json").write_text(json.dumps(listed))
    earlier = tmp_path / "out" / "model.ts"
    earlier.parent.mkdir()
    earlier.write_text("of an earlier export")
    with pytest.raises(InputError) as caught:
        export(run, earlier.parent, formats=["torchscript"])
    assert str(damaged) in str(caught.value) and len(str(caught.value).splitlines()) == 1
    assert earlier.read_text() == "of an earlier export"


@pytest.mark.parametrize("columns, multi_label", [(["diagnosis"], False), (["normal", "nodule"], True)])
def test_the_label_may_stand_in_other_columns_of_a_table(tmp_path, in_process, capsys, columns, multi_label):
    save_tiny(tmp_path / "run", multi_label=multi_label)
    lines = [f"{picture(tmp_path / f'{i}.png', i)},{NAMES[i % 2]},{1 - i % 2},{i % 2}" for i in range(6)]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(["image,diagnosis,normal,nodule", *lines]))
    command = ["export", str(tmp_path / "run"), "--data", str(table), "--formats", "torchscript", "--seconds", "0.01"]
    assert main([*command, "--label-column", *columns]) == 0
    found = json.loads((tmp_path / "run" / "export" / "export.json").read_text())
    (made,) = found["artefacts"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"Exported: {tmp_path}/run/export"
    milliseconds, size = f"{made['ms']['1']:.2f} ms an image", f"{made['bytes'] / 1e6:.2f} MB"
    assert lines[2] == f"  torchscript  passed, {milliseconds}, {size}"  # the large network is unknown
    assert lines[-1] == f"Next: dual-skd predict IMAGES --model {tmp_path}/run"
    assert found["verified_on"]["images"] == 6 and found["class_names"] == NAMES


def test_what_can_not_be_exported_is_said_before_anything_is_done(tmp_path, run_dir):
    with pytest.raises(InputError, match=r"Unknown format 'onxx' \(did you mean onnx"):
        export(run_dir, formats=["onxx"])
    with pytest.raises(InputError, match="No model in"):
        export(tmp_path)
    save_tiny(tmp_path)
    with pytest.raises(InputError, match=r"datalist.json .* Give labelled images as --data"):
        export(tmp_path)


def test_the_table_shows_ratios_to_the_large_network_and_what_was_not_made():
    row = {"format": "onnx_int8", "status": "passed", "reason": "", "ms": {"1": 1.0, "32": None}, "peak_mb": 90.4,
           "bytes": 1_250_000, "verification": {"max_difference": 0.0123, "auc_reference": 0.99, "auc": 0.9895,
                                                "changed": 0.001}}  # fmt: skip
    report = {
        "verified_on": {"images": 9, "data": "mine"}, "fastest": "onnx_int8",
        "measured": {"clock": "clock time", "threads": 2, "machine": "a machine"},
        "baselines": [{"name": "large network, eager PyTorch", "ms": {"1": 17.5, "32": 250.0}, "peak_mb": 400}],
        "artefacts": [row, {"format": "tensorrt", "status": "skipped", "reason": "pip install torch-tensorrt"}],
    }  # fmt: skip
    lines = markdown(report).splitlines()
    assert "2 threads, a machine" in lines[0]
    assert lines[4:] == [
        "| large network, eager PyTorch | baseline |  | 17.50 | 250.0 | 1.0 | 400 |  |  |  |",
        "| **onnx_int8, the fastest** | passed | 1.25 | 1.00 |  | 17.5 | 90 | 0.01 | 0.0005 | 0.10% |",
        "| tensorrt | skipped: pip install torch-tensorrt |  |  |  |  |  |  |  |  |",
    ]
