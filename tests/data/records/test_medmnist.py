# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dual_skd.data.records.medmnist import list_medmnist, read_medmnist
from dual_skd.errors import InputError


def write(path: Path, shape: tuple[int, ...] = (28, 28), columns: int = 1, **replaced) -> Path:
    """Ten, four and six images; labels 0 to 2, or flags of ``columns`` labels."""
    arrays = {}
    for section, count in (("train", 10), ("val", 4), ("test", 6)):
        arrays[f"{section}_images"] = np.zeros((count, *shape), np.uint8)
        arrays[f"{section}_labels"] = (
            np.arange(count)[:, None] % 3 if columns == 1 else np.arange(count * columns).reshape(count, columns) % 2
        )
    arrays |= replaced
    np.savez_compressed(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


@pytest.mark.parametrize("shape, dims", [((28, 28), 2), ((64, 64, 3), 2), ((28, 28, 28), 3)])
def test_every_image_is_a_row_with_its_place_label_and_split(tmp_path, shape, dims):
    path = write(tmp_path / "set.npz", shape)
    source = read_medmnist(path, spatial_dims=dims)
    assert [sum(row.split == split for row in source.rows) for split in ("train", "val", "test")] == [10, 4, 6]
    assert source.rows[5].image == f"{path}#train/5" and source.rows[5].labels == ("2",)
    assert source.rows[-1].image == f"{path}#test/5" and not source.multi_label
    assert list_medmnist(path, spatial_dims=dims) == [row.image for row in source.rows]


def test_several_columns_of_labels_are_flags_that_do_not_exclude_each_other(tmp_path):
    flags = np.array([[1, 0, 1], [0, 0, 0]], np.uint8)
    images = np.zeros((2, 28, 28), np.uint8)
    source = read_medmnist(write(tmp_path / "set.npz", columns=3, train_images=images, train_labels=flags))
    assert source.multi_label and source.class_names == ("0", "1", "2")
    assert [row.labels for row in source.rows[:2]] == [("0", "2"), ()]


def test_labels_may_have_one_axis_and_a_set_no_validation_part(tmp_path):
    labels = np.arange(10) % 2
    source = read_medmnist(write(tmp_path / "set.npz", train_labels=labels, val_images=None, val_labels=None))
    assert [row.labels for row in source.rows[:3]] == [("0",), ("1",), ("0",)]
    assert {row.split for row in source.rows} == {"train", "test"}


def test_images_are_not_decompressed(tmp_path):
    path = write(tmp_path / "set.npz", train_images=np.zeros((10, 1024, 1024), np.uint8))
    tracemalloc.start()
    read_medmnist(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000  # the images have ten times as many bytes


@pytest.mark.parametrize(
    "replaced, words",
    [
        (dict(train_images=None), "no train_images and train_labels; found the arrays train_labels, val_images"),
        (dict(train_labels=np.zeros((9, 1), int)), "10 train_images but 9 train_labels"),
        (
            dict(val_labels=np.zeros((4, 1)) + 0.5),
            "val_labels must be whole .* found values of type float64",
        ),
        (dict(val_labels=np.zeros((4, 1), int) - 1), "must be whole numbers from 0, found values from -1 to -1"),
        (dict(val_labels=np.zeros((4, 2), int)), "different numbers of columns"),
        (dict(test_labels=np.array([["a"]] * 6, dtype=object)), "can't be read, .* Object arrays"),
        (dict(test_labels=np.array([["a"]] * 6)), "test_labels must be whole .* found values of type <U1"),
        (dict(train_images=np.zeros(10)), "train_images has the shape .10,.; expected"),
        (dict(train_images=np.zeros((10, 9, 9, 9))), "holds volumes of shape .9, 9, 9.; give --spatial-dims 3"),
    ],
)
def test_arrays_of_another_kind_are_refused_in_one_sentence(tmp_path, replaced, words):
    path = write(tmp_path / "set.npz", **replaced)
    with pytest.raises(InputError, match=words) as caught:
        read_medmnist(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_images_where_volumes_were_meant_and_damaged_files_are_told(tmp_path):
    path = write(tmp_path / "set.npz")
    with pytest.raises(InputError, match="holds images of shape .28, 28.; give --spatial-dims 2"):
        read_medmnist(path, spatial_dims=3)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"\.npz can't be read, it is damaged or not what its name says"):
        read_medmnist(path)
    np.savez(path, images=np.zeros(3))
    with pytest.raises(InputError, match="no train_images, val_images or test_images; found the arrays images"):
        list_medmnist(path)


def test_a_changed_byte_anywhere_in_the_labels_is_told_with_the_file(tmp_path):
    path = write(tmp_path / "set.npz")
    content = path.read_bytes()
    refused = 0
    with zipfile.ZipFile(path) as members:
        start = members.getinfo("train_labels.npy").header_offset
    for place in range(start, start + 250):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x5A]) + content[place + 1 :])
        try:
            read_medmnist(path)
        except InputError as error:
            refused += str(path) in str(error)
    assert refused > 100

    header = (
        np.lib.format.magic(1, 0) + b"\x40\x00" + b"{'descr': '<i8', 'shape': (3,), 'fortran_order': Fal(e" + b" " * 11
    )
    with zipfile.ZipFile(path, "w") as members:
        members.writestr("train_images.npy", header)
    with pytest.raises(InputError, match=r"set\.npz can't be read"):
        read_medmnist(path)
