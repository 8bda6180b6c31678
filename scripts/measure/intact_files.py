# SPDX-License-Identifier: Apache-2.0
"""Small intact files of every format that is read, for :mod:`scripts.measure.mutants`: content by file name."""

from __future__ import annotations

import gzip
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

DICOM = ("MR_small", "MR_small_implicit", "MR_small_bigendian", "image_dfl", "MR_small_RLE", "SC_rgb_rle_2frame",
         "SC_rgb_small_odd_jpeg", "JPEG-lossy", "SC_rgb_jpeg_gdcm", "MR_small_jpeg_ls_lossless",
         "JPEGLSNearLossless_16", "JPEG2000", "MR_small_jp2klossless")  # fmt: skip


def _pictures(suffix: str, **variants: tuple[np.ndarray, dict[str, Any]]) -> dict[str, bytes]:
    """Pictures as they are saved by Pillow, by file name."""
    found = {}
    for name, (pixels, options) in variants.items():
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, "PNG"), **options)
        found[f"{name}.{suffix}"] = buffer.getvalue()
    return found


def smooth() -> np.ndarray:
    """A picture (36, 40) of 8 bits."""
    noise = np.random.default_rng(0).integers(0, 9, (36, 40))
    return (np.add.outer(np.arange(36) * 3, np.arange(40) * 3) + noise).astype(np.uint8)


def png() -> dict[str, bytes]:
    grey = smooth()
    colour = np.stack([grey, grey.T[:36, :36].repeat(2, 1)[:, :40], grey], axis=2)
    return _pictures("png", grey=(grey, {}), deep=(grey.astype(np.uint16) * 200, {}), colour=(colour, {}))


def jpeg() -> dict[str, bytes]:
    colour = np.stack([smooth()] * 3, axis=2)
    return _pictures("jpg", grey=(smooth(), {}), colour=(colour, {}), progressive=(colour, {"progressive": True}))


def tiff() -> dict[str, bytes]:
    kinds = {name: (smooth(), {"compression": f"tiff_{name}"}) for name in ("lzw", "adobe_deflate", "jpeg")}
    deep = smooth().astype(np.uint16) * 200
    pages = {"save_all": True, "append_images": [Image.fromarray(deep)] * 2}
    return _pictures(
        "tif", plain=(deep, {}), pages=(deep, pages), packbits=(smooth(), {"compression": "packbits"}), **kinds
    )


def dicom() -> dict[str, bytes]:
    import pydicom.data

    folder = Path(pydicom.data.__file__).parent / "test_files"
    return {f"{name}.dcm": (folder / f"{name}.dcm").read_bytes() for name in DICOM}


def nifti() -> dict[str, bytes]:
    import nibabel

    volume = np.stack([smooth()] * 6, axis=2).astype(np.int16)
    plain = nibabel.Nifti1Image(volume, np.diag([2.0, 2, 3, 1])).to_bytes()
    second = nibabel.Nifti2Image(volume, np.diag([2.0, 2, 3, 1])).to_bytes()
    return {"a.nii": plain, "a.nii.gz": gzip.compress(plain, mtime=0), "second.nii": second}


def numpy() -> dict[str, bytes]:
    arrays = {f"{one}_images": np.stack([smooth()] * 6) for one in ("train", "val", "test")}
    arrays |= {f"{one}_labels": np.arange(6)[:, None] % 2 for one in ("train", "val", "test")}
    found = {}
    for name, save in {"packed.npz": np.savez_compressed, "plain.npz": np.savez}.items():
        buffer = io.BytesIO()
        save(buffer, **arrays)
        found[name] = buffer.getvalue()
    buffer = io.BytesIO()
    np.save(buffer, smooth())
    return found | {"a.npy": buffer.getvalue()}


def _rows() -> list[dict[str, Any]]:
    return [
        {"image": f"images/{n}.png", "label": ("well", "ill")[n % 2], "patient": f"p{n // 2}", "site": "north"}
        for n in range(12)
    ]


def csv_table() -> dict[str, bytes]:
    lines = [",".join(_rows()[0]), *(",".join(row.values()) for row in _rows())]
    quoted = "\r\n".join(";".join(f'"{cell}"' for cell in line.split(",")) for line in lines)
    return {"comma.csv": "\n".join(lines).encode(), "quoted.csv": quoted.encode("utf-8-sig")}


def json_list() -> dict[str, bytes]:
    rows = _rows()
    numbered = [row | {"label": n % 2} for n, row in enumerate(rows)]
    split = {"labels": {"0": "well", "1": "ill"}, "training": numbered[:6], "validation": numbered[6:8],
             "test": numbered[8:]}  # fmt: skip
    return {"list.json": json.dumps(rows).encode(), "split.json": json.dumps(split, indent=1).encode()}


def model() -> dict[str, bytes]:
    import torch

    from dual_skd.networks.build import build_network
    from dual_skd.runs.model_file import save_model

    torch.manual_seed(0)
    shape: dict[str, Any] = {"name": "monai_resnet10", "num_classes": 2, "in_channels": 1, "spatial_dims": 2}
    shape["block_inplanes"] = [4, 4, 4, 4]
    reading = {"spatial_dims": 2, "image_size": 16, "window": "percentile", "spacing": None, "frame": None}
    with tempfile.TemporaryDirectory() as folder:
        file = save_model(Path(folder), build_network(**shape), architecture=shape, class_names=["ill", "well"],
                          preprocessing=reading)  # fmt: skip
        return {f"model{path.suffix}": path.read_bytes() for path in (file, file.with_suffix(".safetensors"))}


def onnx_model() -> dict[str, bytes]:
    import onnx
    from onnx import TensorProto, helper

    weight = helper.make_tensor("w", TensorProto.FLOAT, [256, 2], np.linspace(0, 1, 512))
    nodes = [helper.make_node("Flatten", ["image"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["logits"])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in
            {"image": ["n", 1, 16, 16], "logits": ["n", 2]}.items()]  # fmt: skip
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return {"model.onnx": model.SerializeToString()}
