# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import logging

import numpy as np
import pytest

from dual_skd.data.reading.picture import NamedFrame, Picture, chosen_frame, plane_affine
from dual_skd.data.reading.refusals import MAX_BYTES, OncePerKind, check_size, check_stored, failures_named
from dual_skd.errors import InputError


def test_sizes_are_limited_by_the_bytes_of_stored_and_decoded_values():
    check_size("a", (512, 512, MAX_BYTES // 512**2 // 6), 2)
    check_size("a", (512, 512, 1024), 0)
    for shape, stored in (((512, 512, 1025), 0), ((512, 512, 700), 2)):
        with pytest.raises(InputError, match=f"a declares a size of 512 x 512 x {shape[2]}"):
            check_size("a", shape, stored)
    for shape in ((), (4, 0), (-4, 4)):
        with pytest.raises(InputError, match="a is damaged or empty"):
            check_size("a", shape, 1)
    check_stored("a", 10, 10)
    with pytest.raises(InputError, match="a is cut short or damaged: its header declares 11 bytes"):
        check_stored("a", 11, 10)


def test_a_frame_is_a_number_or_the_middle():
    assert [chosen_frame("middle", count, "a") for count in (1, 2, 3, 8)] == [0, 1, 1, 4]
    assert chosen_frame(2, 3, "a") == 2
    for wrong in (3, -1, "first", 1.0, True):
        with pytest.raises(InputError, match='frame "middle" or a number from 0 to 2, .* for a'):
            chosen_frame(wrong, 3, "a")


def test_a_number_for_all_files_leaves_single_pictures_alone_and_a_named_frame_must_be_there():
    assert chosen_frame(7, 1, "a") == 0 and chosen_frame(NamedFrame(0), 1, "a") == 0
    for wrong in (NamedFrame(1), -1, True, "all"):
        with pytest.raises(InputError, match="a number from 0 to 0"):
            chosen_frame(wrong, 1, "a")


def test_failures_of_libraries_name_the_file_in_one_line_and_input_errors_pass():
    with (
        pytest.raises(InputError, match=r"^a\.png can't be read.*\(KeyError: 'x'\)") as caught,
        failures_named("a.png"),
    ):
        raise KeyError("x")
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(InputError, match="no reason given"), failures_named("a.png"):
        raise MemoryError
    with pytest.raises(InputError, match="^as it was$"), failures_named("a.png"):
        raise InputError("as it was")


def test_a_kind_of_remark_passes_once():
    passed = OncePerKind()
    messages = ["value '1.02' of 3 is odd", "value '7' of 44 is odd", "another remark", "value 'x' of 3 is odd"]
    records = [logging.LogRecord("a", logging.WARNING, "", 0, message, None, None) for message in messages]
    assert [passed.filter(record) for record in records] == [True, False, True, False]


def test_a_picture_counts_its_spatial_axes():
    assert Picture(np.zeros((4, 5, 3)), plane_affine(0.5, 0.7), coloured=True).spatial_dims == 2
    assert Picture(np.zeros((4, 5, 3)), plane_affine()).spatial_dims == 3
    assert np.array_equal(plane_affine(0.5, 0.7) @ [1, 1, 0, 1], [0.5, 0.7, 0, 1])
