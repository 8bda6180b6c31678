# SPDX-License-Identifier: Apache-2.0
"""The formats that a student can be exported to, and the library that converts to each of them.

    python -m dual_skd.serving.export.formats FORMAT MODEL WORK_DIR [FLOATS]

converts a model file in a process of its own. The working directory holds ``calibration.npy``, ``spec.json`` and the
files of the format's ``source``; it gets ``files``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from dual_skd.serving.export.worker import end_with_parent

INPUT, OUTPUT = "image", "logits"
CALIBRATION = "calibration.npy"  # images (N, C, H, W[, D]), float32, that static quantisation sees
SPEC = "spec.json"  # what goes into the file's metadata, where the format has any
RECIPE = "recipe.json"  # the same for a page in a browser, with what its answers need besides
FILES = "files.json"  # locators of the images that a page reads by itself
ATTENTION = {"Softmax", "Attention"}  # operators that a convolutional network doesn't have


@dataclass(frozen=True)
class Format:
    """One way to keep a network.

    Attributes:
        files: what is written; the first is the one to open.
        runtime: who opens it, see :mod:`dual_skd.serving.export.runtimes`.
        convert: takes the model file and the working directory and writes ``files`` there.
        packages: that have to be installed, as pip calls them.
        reduced: numbers have less than the 32 bits of training.
        source: the format it is made from.
        cuda: a GPU is needed.
        floats: shares of the layers, counted from the image, that keep 32 bits: tried in this order until one passes.
            ``convert`` takes them as its third argument.
        dims: spatial dimensions of the models that it takes.
        on_request: it isn't among those that are made when none is asked for.
        needs: says why it can't be made on this computer for another reason than packages.
        measure: the module that measures it and gives its logits.
        remark: what the log says when it is begun.
    """

    files: tuple[str, ...]
    runtime: str
    convert: Callable[..., None]
    packages: tuple[str, ...] = ()
    reduced: bool = False
    source: str | None = None
    cuda: bool = False
    floats: tuple[float, ...] = ()
    dims: tuple[int, ...] = (2, 3)
    on_request: bool = False
    needs: Callable[[], str] = str
    measure: str = "latency"
    remark: str = ""

    def obstacle(self) -> str:
        """Why it can't be made on this computer, with the remedy; "" where it can."""
        missing = [name for name in self.packages if find_spec(name.replace("-", "_")) is None]
        if missing:
            return f"pip install {' '.join(missing)}"
        if self.cuda:
            import torch

            return "" if torch.cuda.is_available() else "needs a CUDA device"
        return self.needs()


def _torchscript(model: Path, work: Path) -> None:
    from monai.bundle import ckpt_export

    ckpt_export(filepath=str(work / "model.ts"), use_trace=True, input_shape=_shape(work, 1), **_as_bundle(model, work))


def _tensorrt(model: Path, work: Path) -> None:
    from monai.bundle import trt_export

    trt_export(
        filepath=str(work / "model_trt.ts"), precision="fp16", use_trace=True, input_shape=_shape(work, 1),
        dynamic_batchsize=[1, 1, 32], **_as_bundle(model, work),
    )  # fmt: skip


def _as_bundle(model: Path, work: Path) -> dict[str, str]:
    """Arguments of MONAI's export commands: a config that is complete in itself, wherever the package is installed."""
    import torch

    from dual_skd.runs.model_file import load_model

    network, info = load_model(model)
    weights, config = work / "weights.pt", work / "network.json"
    torch.save(network.state_dict(), weights)
    config.write_text(json.dumps({"network_def": definition(info["architecture"])}), encoding="utf-8")
    return {
        "net_id": "network_def", "ckpt_file": str(weights), "config_file": str(config), "meta_file": str(work / SPEC),
    }  # fmt: skip


def definition(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """A network as MONAI's configs define it, from the arguments of ``build_network``."""
    return {**architecture, "_target_": "dual_skd.networks.build_network"}


def _onnx(model: Path, work: Path) -> None:
    import torch

    from dual_skd.runs.model_file import load_model

    network, _ = load_model(model)
    # two images: with one, the exporter would take the batch for a constant
    example = torch.zeros(_shape(work, 2))
    torch.onnx.export(
        network, (example,), str(work / "model.onnx"), input_names=[INPUT], output_names=[OUTPUT], dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},), external_data=False, verbose=False,
    )  # fmt: skip


def _onnx_int8(model: Path, work: Path, floats: float = 0) -> None:
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared, target = work / "prepared.onnx", work / "model_int8.onnx"
    attends = has_attention(work / "model.onnx")
    # its symbolic shapes are for transformers, and stumble over some convolutional networks
    quant_pre_process(work / "model.onnx", prepared, skip_symbolic_shape=not attends)
    layers = [node.name for node in onnx.load(prepared).graph.node]
    kept = layers[: round(floats * len(layers))]
    if attends:
        quantize_dynamic(prepared, target, weight_type=QuantType.QInt8, per_channel=True, nodes_to_exclude=kept)
        return
    quantize_static(
        prepared, target, _Calibration(np.load(work / CALIBRATION)), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, nodes_to_exclude=kept,
    )  # fmt: skip


class _Calibration:
    """onnxruntime's CalibrationDataReader, which only asks for this method: one image at a time."""

    def __init__(self, images: np.ndarray) -> None:
        self._feeds = iter([{INPUT: image[None]} for image in images])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def has_attention(path: Path) -> bool:
    """Whether the network of an ONNX file is a transformer."""
    import onnx

    return any(node.op_type in ATTENTION for node in onnx.load(path).graph.node)


def _openvino_fp16(model: Path, work: Path) -> None:
    import openvino

    openvino.save_model(openvino.convert_model(work / "model.onnx"), work / "model_fp16.xml", compress_to_fp16=True)


def _openvino_int8(model: Path, work: Path) -> None:
    import nncf
    import openvino

    images = np.load(work / CALIBRATION)
    kind = nncf.ModelType.TRANSFORMER if has_attention(work / "model.onnx") else None
    quantised = nncf.quantize(
        openvino.convert_model(work / "model.onnx"), nncf.Dataset([image[None] for image in images]),
        subset_size=len(images), model_type=kind,
    )  # fmt: skip
    openvino.save_model(quantised, work / "model_int8.xml")


def _html(model: Path, work: Path) -> None:
    from dual_skd.serving.export.web_page import write_page

    write_page(json.loads((work / RECIPE).read_text(encoding="utf-8")), work, work / "model.html")


def _no_browser() -> str:
    """Why a page can't be verified here, with the remedy; "" where it can."""
    if os.name != "posix":
        return "is verified in Chromium through pipes that Windows lacks; export it on Linux, WSL or macOS"
    from dual_skd.serving.export.browser import BROWSER, find_browser

    if find_browser() is not None:
        return ""
    return f"no browser to verify it in; install Chromium or Chrome, or let {BROWSER} name its program"


def _shape(work: Path, batch: int) -> list[int]:
    return [batch, *np.load(work / CALIBRATION, mmap_mode="r").shape[1:]]


_ONNX = ("onnx", "onnxscript", "onnxruntime")
_OPENVINO = ("onnx", "onnxscript", "openvino")
FORMATS = {
    "torchscript": Format(("model.ts",), "torchscript", _torchscript),
    "onnx": Format(("model.onnx",), "onnxruntime", _onnx, _ONNX),
    "onnx_int8": Format(
        ("model_int8.onnx",), "onnxruntime", _onnx_int8, _ONNX, reduced=True, source="onnx", floats=(0, 1 / 2, 2 / 3)
    ),
    "openvino_fp16": Format(
        ("model_fp16.xml", "model_fp16.bin"), "openvino", _openvino_fp16, _OPENVINO, reduced=True, source="onnx"
    ),
    "openvino_int8": Format(
        ("model_int8.xml", "model_int8.bin"), "openvino", _openvino_int8, (*_OPENVINO, "nncf"), reduced=True,
        source="onnx",
    ),
    "tensorrt": Format(("model_trt.ts",), "tensorrt", _tensorrt, ("torch-tensorrt",), reduced=True, cuda=True),
    "html": Format(
        ("model.html",), "browser", _html, _ONNX, source="onnx", dims=(2,), on_request=True,
        needs=_no_browser, measure="page_check",
        remark=", with 34 MB from npm's registry where they aren't in the cache yet",
    ),
}  # fmt: skip
BY_DEFAULT = tuple(name for name, known in FORMATS.items() if not known.on_request)


def read_by_page(row: Mapping[str, Any]) -> str:
    """How a page in a browser was verified, in words; "" for other formats."""
    if "files_read" not in row or "verification" not in row:
        return ""
    images = row["verification"]["images"]
    return f" ({row['files_read']} of {images} files read by the page itself; its time is from file to answer)"


def main(arguments: Sequence[str]) -> None:
    """Converts: format, model file, working directory, and the share of the layers that keep 32 bits, if any do."""
    name, model, work, *floats = arguments
    FORMATS[name].convert(Path(model), Path(work), *map(float, floats))


if __name__ == "__main__":
    end_with_parent()
    main(sys.argv[1:])
