# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from tiny_run import ARCHITECTURE, PREPROCESSING, save_tiny

from dual_skd.runs.model_file import load_model
from dual_skd.serving.export import formats
from dual_skd.serving.export.formats import FORMATS, Format, main
from dual_skd.serving.export.runtimes import open_artefact

needs_onnx = pytest.mark.skipif(bool(FORMATS["onnx"].obstacle()), reason=FORMATS["onnx"].obstacle())
VIT = {
    "name": "vit_tiny_patch16_224", "num_classes": 2, "in_channels": 1, "spatial_dims": 2, "image_size": [32, 32],
    "embed_dim": 32, "depth": 2, "num_heads": 2,
}  # fmt: skip
VOLUME = {**ARCHITECTURE, "spatial_dims": 3}
VOLUMES = {**PREPROCESSING, "spatial_dims": 3, "image_size": [16, 16, 8]}


def images(model, count):
    shape = load_model(model)[1]["preprocessing"]["image_size"]
    return np.random.default_rng(count).uniform(-1, 1, (count, 1, *shape)).astype(np.float32)


def assert_same(model, path, runtime, *, atol):
    """The artefact gives the network's logits for batches of one, two and five, none of which it was made with."""
    network, _ = load_model(model)
    run = open_artefact(runtime, path, 1)
    for count in (1, 2, 5):
        given = images(model, count)
        with torch.no_grad():
            expected = network(torch.from_numpy(given)).numpy()
        np.testing.assert_allclose(run(given), expected, atol=atol * np.abs(expected).max(), rtol=0)


@pytest.mark.parametrize(
    ("architecture", "preprocessing"), [(ARCHITECTURE, PREPROCESSING), (VIT, PREPROCESSING), (VOLUME, VOLUMES)]
)
def test_torchscript_takes_any_batch_and_knows_its_classes(tmp_path, work_dir, architecture, preprocessing):
    model = save_tiny(tmp_path, architecture, preprocessing=preprocessing)
    work = work_dir(model)
    FORMATS["torchscript"].convert(model, work)
    assert_same(model, work / "model.ts", "torchscript", atol=1e-6)
    extra = {"metadata.json": ""}
    torch.jit.load(work / "model.ts", _extra_files=extra)
    assert b'"class_names": ["normal", "nodule"]' in extra["metadata.json"]


@needs_onnx
def test_onnx_takes_any_batch_and_int8_of_a_convolutional_network_keeps_its_answers(tmp_path, work_dir):
    import onnx

    model = save_tiny(tmp_path)
    work = work_dir(model)
    FORMATS["onnx"].convert(model, work)
    assert_same(model, work / "model.onnx", "onnxruntime", atol=1e-5)
    graph = onnx.load(work / "model.onnx").graph
    kinds = {node.op_type for node in graph.node}
    assert "BatchNormalization" not in kinds and "Pad" not in kinds  # folded into the convolutions
    assert graph.input[0].name == "image" and graph.output[0].name == "logits"
    FORMATS["onnx_int8"].convert(model, work)
    assert_same(model, work / "model_int8.onnx", "onnxruntime", atol=0.1)
    whole = onnx.load(work / "model_int8.onnx").graph.node
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in whole}
    assert (work / "model_int8.onnx").stat().st_size < 0.6 * (work / "model.onnx").stat().st_size
    main(["onnx_int8", str(model), str(work), "0.5"])
    mixed = onnx.load(work / "model_int8.onnx").graph.node
    read = [[node.input[0] for node in nodes if node.op_type == "Conv"] for nodes in (whole, mixed)]
    assert read[0][0] != "image" == read[1][0]  # the layer next to the image stays in float
    assert read[0][-1].endswith("DequantizeLinear_Output") and read[0][-1] == read[1][-1]


@needs_onnx
def test_transformers_are_quantised_without_calibration(tmp_path, work_dir):
    import onnx

    model = save_tiny(tmp_path, VIT)
    work = work_dir(model)
    FORMATS["onnx"].convert(model, work)
    (work / "calibration.npy").unlink()
    FORMATS["onnx_int8"].convert(model, work)
    assert_same(model, work / "model_int8.onnx", "onnxruntime", atol=0.1)
    assert "MatMulInteger" in {node.op_type for node in onnx.load(work / "model_int8.onnx").graph.node}


def test_what_is_missing_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setattr(formats, "find_spec", lambda name: None if name in ("nncf", "torch_tensorrt") else 1)
    assert FORMATS["openvino_int8"].obstacle() == "pip install nncf"
    assert FORMATS["tensorrt"].obstacle() == "pip install torch-tensorrt"
    assert FORMATS["openvino_fp16"].obstacle() == ""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert Format(("a",), "torchscript", None, cuda=True).obstacle() == "needs a CUDA device"


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="pip install openvino")
@needs_onnx
def test_openvino_takes_any_batch(tmp_path, work_dir):
    model = save_tiny(tmp_path)
    work = work_dir(model)
    FORMATS["onnx"].convert(model, work)
    FORMATS["openvino_fp16"].convert(model, work)
    assert_same(model, work / "model_fp16.xml", "openvino", atol=0.02)
