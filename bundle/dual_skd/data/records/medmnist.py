# SPDX-License-Identifier: Apache-2.0
"""Reads an .npz file in the layout of MedMNIST: the arrays {train, val, test}_{images, labels}.

Yang et al., "MedMNIST v2", Scientific Data 10:41 (2023).
"""

from __future__ import annotations

import zipfile
from math import prod
from pathlib import Path

import numpy as np

from dual_skd.data.reading.formats import misnamed
from dual_skd.data.reading.numpy_files import check_member
from dual_skd.data.reading.refusals import check_stored, failures_named
from dual_skd.data.records.rows import Row, Source
from dual_skd.errors import InputError

SECTIONS = ("train", "val", "test")
MAX_LABELS = 50_000_000  # a record is made of each


def read_medmnist(path: Path, *, spatial_dims: int = 2) -> Source:
    """Makes one row per image, ``file.npz#train/17``; only labels and the shapes of the images are read.

    Args:
        path: the .npz file. Images are (n, H, W), (n, H, W, 3) or, in 3D, (n, D, H, W); labels (n, 1) or (n,) whole
            numbers, or (n, K) flags of K labels that don't exclude each other.
        spatial_dims: 2 for images, 3 for volumes.

    Raises:
        InputError: the file is damaged, or its arrays are not of that kind.
    """
    shapes, labels = _read(path)
    if "train" not in labels:
        raise InputError(f"{path} has no train_images and train_labels; found the arrays {_listed(path)}.")
    rows: list[Row] = []
    columns = labels["train"].shape[1]
    if any(flags.shape[1] != columns for flags in labels.values()):
        raise InputError(f"{path}: the labels of train, val and test have different numbers of columns.")
    multi_label = columns > 1
    for section, flags in labels.items():
        _require_shape(path, section, shapes[section], spatial_dims)
        if len(flags) != shapes[section][0]:
            raise InputError(f"{path}: {shapes[section][0]} {section}_images but {len(flags)} {section}_labels.")
        whole = flags.dtype.kind in "iub"
        if not whole or flags.min(initial=0) < 0 or (multi_label and flags.max(initial=0) > 1):
            wanted = "flags 0 or 1" if multi_label else "whole numbers from 0"
            found = f"values from {flags.min()} to {flags.max()}" if whole else f"values of type {flags.dtype}"
            raise InputError(f"{path}: {section}_labels must be {wanted}, found {found}.")
        for place, values in enumerate(flags.tolist()):
            positive = [k for k, flag in enumerate(values) if flag] if multi_label else values
            rows.append(Row(f"{path}#{section}/{place}", tuple(map(str, positive)), section))
    return Source(
        root=path.parent,
        description=str(path),
        rows=tuple(rows),
        class_names=tuple(map(str, range(columns))) if multi_label else (),
        multi_label=multi_label,
    )


def list_medmnist(path: Path, *, spatial_dims: int = 2) -> list[str]:
    """Locators of all images of the file, with or without labels.

    Raises:
        InputError: as :func:`read_medmnist`.
    """
    shapes, _ = _read(path)
    if not shapes:
        raise InputError(f"{path} has no train_images, val_images or test_images; found the arrays {_listed(path)}.")
    for section, shape in shapes.items():
        _require_shape(path, section, shape, spatial_dims)
    return [f"{path}#{section}/{place}" for section, shape in shapes.items() for place in range(shape[0])]


def _read(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, np.ndarray]]:
    """Shapes of the images, from the headers of the members, and the labels as (n, K); per section."""
    shapes: dict[str, tuple[int, ...]] = {}
    labels: dict[str, np.ndarray] = {}
    if refusal := misnamed(path):
        raise InputError(refusal)
    with failures_named(path), zipfile.ZipFile(path) as members:
        names = set(members.namelist())
        for section in SECTIONS:
            if f"{section}_images.npy" in names:
                shapes[section] = _shape(path, members, f"{section}_images.npy")
                if f"{section}_labels.npy" in names:
                    count = prod(_shape(path, members, f"{section}_labels.npy"))
                    if count > MAX_LABELS:
                        raise InputError(f"{path}: {section}_labels has {count} values; expected one per image.")
                    with members.open(f"{section}_labels.npy") as member:
                        array = np.lib.format.read_array(member, allow_pickle=False)
                    labels[section] = array.reshape(len(array), -1) if array.ndim else array.reshape(0, 1)
    return shapes, labels


def _shape(path: Path, members: zipfile.ZipFile, name: str) -> tuple[int, ...]:
    """The shape in the header of a member, which has to fit into the member's declared size, and that into the file."""
    info = members.getinfo(name)
    check_member(path, info)
    with members.open(name) as member:
        version = np.lib.format.read_magic(member)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = read_header(member)
    check_stored(path, prod(shape) * max(kind.itemsize, 1), info.file_size)
    if 0 in shape[1:]:
        raise InputError(f"{path}: {name} has the shape {shape}, images without pixels; get it again.")
    return shape


def _require_shape(path: Path, section: str, shape: tuple[int, ...], spatial_dims: int) -> None:
    is_colour = len(shape) == 4 and shape[3] in (3, 4)
    found = 3 if len(shape) == 4 and not is_colour else 2 if len(shape) == 3 or is_colour else 0
    if found == 0:
        raise InputError(f"{path}: {section}_images has the shape {shape}; expected (n, H, W[, 3]) or (n, D, H, W).")
    if found != spatial_dims:
        kind = "volumes" if found == 3 else "images"
        raise InputError(f"{path} holds {kind} of shape {shape[1:]}; give --spatial-dims {found}.")


def _listed(path: Path) -> str:
    with zipfile.ZipFile(path) as members:
        return ", ".join(name.removesuffix(".npy") for name in members.namelist()) or "none"
