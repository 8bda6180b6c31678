# SPDX-License-Identifier: Apache-2.0
"""What a model's file, or the description of its export, says beside the weights; checked as a stranger's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Le, Len
from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from dual_skd.data.reading.expectation import InputExpectation
from dual_skd.errors import InputError
from dual_skd.options.choices import Fit, Window
from dual_skd.options.kinds import Dims, Frame, Lengths, Levels, Options, Sizes, Switch, Text, Whole

MOST_VALUES = 2**27  # of an image as the network takes it: a volume of 512 x 512 x 512
_EXPECTATION = TypeAdapter(InputExpectation)
Name = Annotated[Text, Len(1, 1000)]


def _expectation(value: Any) -> Any:
    if value is not None:
        _EXPECTATION.validate_python(value)
        if unknown := value.keys() - {field.name for field in fields(InputExpectation)}:
            raise ValueError(f"unknown: {', '.join(map(str, unknown))[:60]}")
    return value


class _Preprocessing(Options):
    spatial_dims: Dims = 2
    image_size: Sizes = 96
    window: Window | Levels | None = None
    spacing: Lengths | None = None
    frame: Frame | None = None
    fit: Fit | None = None
    expected: Annotated[dict[str, Any] | None, BeforeValidator(_expectation)] = None


class _Calibration(Options):
    temperature: Annotated[float, Ge(0.01), Le(100)]
    images: Whole
    nll_before: float = 0.0
    nll_after: float = 0.0
    patients: Whole | None = None


class _ModelInfo(Options):
    architecture: dict[str, Any] = Field(default_factory=dict)
    class_names: Annotated[list[Name], Len(1)]
    preprocessing: _Preprocessing = _Preprocessing()
    multi_label: Switch = False
    calibration: _Calibration | None = None


def require_model_info(info: Mapping[str, Any], path: Path) -> None:
    """Refuses values that no training run writes, before any of them is used.

    Args:
        info: ``class_names``, ``preprocessing``, ``multi_label``, ``calibration``; of a model ``architecture`` too.
        path: the file that has them, for the message.

    Raises:
        InputError: an unknown entry, a value of another kind, classes that aren't those of the network, or an input
            larger than :data:`MOST_VALUES`.
    """
    try:
        found = _ModelInfo.model_validate(dict(info))
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"][:2]))  # deeper ones name kinds
        raise InputError(
            f"{path}: {place} is {str(problem['input'])[:60]!r} ({problem['msg']}), which no training run writes; "
            "give the file of a run."
        ) from None
    classes, names = info.get("architecture", {}).get("num_classes", len(found.class_names)), found.class_names
    if classes != len(names):
        raise InputError(f"{path} names {len(names)} classes, but its network has {classes!r}; give the file of a run.")
    size, dims = found.preprocessing.image_size, found.preprocessing.spatial_dims
    sizes = [size] * dims if isinstance(size, int) else size
    if len(sizes) != dims or math.prod(sizes) > MOST_VALUES:
        raise InputError(
            f"{path}: its images have {' x '.join(map(str, sizes))} pixels; expected {dims} numbers whose product is "
            f"at most {MOST_VALUES}."
        )
