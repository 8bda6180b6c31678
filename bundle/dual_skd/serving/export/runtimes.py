# SPDX-License-Identifier: Apache-2.0
"""Opens an artefact in its own runtime: images in, logits out. Each runtime imports its own library and no other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[np.ndarray], np.ndarray]


def open_artefact(runtime: str, source: str | Path | dict[str, Any], threads: int) -> Run:
    """Returns a function from images (N, C, H, W[, D]) float32 to logits (N, K).

    Args:
        runtime: of :data:`RUNTIMES`.
        source: the artefact's first file; for ``eager`` a model file, or ``_target_`` and arguments of what builds a
            network, as in MONAI's configs: then the weights are random, which takes the same time.
        threads: that one call may use.
    """
    return RUNTIMES[runtime](source, threads)


def _eager(source: str | Path | dict[str, Any], threads: int) -> Run:
    from monai.utils import instantiate

    from dual_skd.runs.model_file import load_model

    if not isinstance(source, dict):
        return _torch(load_model(source)[0], threads)
    arguments = dict(source)
    return _torch(instantiate(arguments.pop("_target_"), "default", **arguments).eval(), threads)


def _torchscript(source: str | Path, threads: int) -> Run:
    import torch

    return _torch(torch.jit.load(source, map_location="cpu").eval(), threads)


def _tensorrt(source: str | Path, threads: int) -> Run:
    import torch_tensorrt  # noqa: F401 - registers the engine's class
    from torch import jit

    return _torch(jit.load(source).eval().cuda(), threads, "cuda")


def _torch(network: Any, threads: int, device: str = "cpu") -> Run:
    import torch

    torch.set_num_threads(threads)

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(images).to(device)).float().cpu().numpy()

    return run


def _onnxruntime(source: str | Path, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def _openvino(source: str | Path, threads: int) -> Run:
    import openvino

    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(str(source), "CPU", settings)
    return lambda images: compiled(images)[0]


RUNTIMES: dict[str, Callable[[Any, int], Run]] = {
    "eager": _eager, "torchscript": _torchscript, "onnxruntime": _onnxruntime, "openvino": _openvino,
    "tensorrt": _tensorrt,
}  # fmt: skip
