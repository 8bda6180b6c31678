# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from dual_skd.data.reading.grey import to_grey
from dual_skd.errors import InputError


def test_the_mark_of_an_inverted_image_is_understood_as_monai_keeps_it_too():
    nested = MetaTensor(torch.tensor([[[0.0, 1.0, 5.0]]]), meta={"00280004": {"vr": "CS", "Value": ["MONOCHROME1"]}})
    assert to_grey(nested).tolist() == [[[5.0, 4.0, 0.0]]]
    assert to_grey(torch.tensor([[[0.0, 1.0, 5.0]]])).tolist() == [[[0.0, 1.0, 5.0]]]


def test_colour_becomes_bt601_luma():
    colours = torch.eye(3).reshape(3, 1, 3) * 100
    assert torch.allclose(to_grey(colours), torch.tensor([[[29.9, 58.7, 11.4]]]))
    assert to_grey(torch.ones(3, 2, 2, dtype=torch.uint8)).dtype == torch.float32
    with pytest.raises(InputError, match="7 channels"):
        to_grey(torch.zeros(7, 4, 4))


def test_values_that_are_not_finite_are_left_alone_by_the_inversion():
    image = torch.tensor([[[0.0, float("nan"), 1.0, 5.0, float("inf")]]])
    inverted = to_grey(image, photometric="MONOCHROME1").flatten()
    assert inverted[[0, 2, 3]].tolist() == [5.0, 4.0, 0.0]
    assert torch.isnan(inverted[1]) and torch.isinf(inverted[4])
    nothing = torch.full((1, 2, 2), float("nan"))
    assert torch.isnan(to_grey(nothing, photometric="MONOCHROME1")).all()
