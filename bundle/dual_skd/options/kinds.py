# SPDX-License-Identifier: Apache-2.0
"""The kinds of values of options, each with its words for messages, and the marks of an option."""

from __future__ import annotations

import ast
import os
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Len, Lt, MinLen
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.fields import FieldInfo

from dual_skd.errors import InputError, choose
from dual_skd.options.choices import Corruption

BY_THE_RUN = ("name", "num_classes", "in_channels", "spatial_dims", "image_size")  # of a network, not options of it


@dataclass(frozen=True)
class Takes:
    """A kind of value in words, for messages, help and the table of options."""

    words: str


@dataclass(frozen=True)
class Marks:
    """Properties of an option besides its value.

    Args:
        free: it doesn't change the numbers of a run, or those so far: a run may continue with another value.
        path: its value may name a place of this computer, so shared documents leave it out.
        words: values of a path that are words.
        empty: meaning of the default None.
        everyday: shown in the short help.
        config: its default in a config; None for the default itself.
        at: entry of the configs that holds its value; None for its name.
    """

    free: bool = False
    path: bool = False
    words: tuple[str, ...] = ()
    empty: str = ""
    everyday: bool = False
    config: str | None = None
    at: str | None = None


def option(default: Any, meaning: str, **marks: Any) -> Any:
    """A field of a model of options: its default, its meaning in a user's words, and :class:`Marks`."""
    return Field(default, description=meaning, json_schema_extra={"marks": Marks(**marks)})  # type: ignore[dict-item]


def marks_of(field: FieldInfo) -> Marks:
    """The marks of an option."""
    return field.json_schema_extra["marks"]  # type: ignore[index, return-value]


def switch(value: object) -> bool:
    """True or False, also as a word of the command line, in any case.

    Raises:
        InputError: it is neither.
    """
    return choose({"true": True, "false": False}, str(value).lower(), "value")


def _as_list(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _as_list_of_one(value: object) -> object:
    return [value] if isinstance(value, int | str) and value != "all" else _as_list(value)


def _with_width(value: list[float]) -> list[float]:
    if not value[1] > 0:
        raise ValueError("no width")
    return value


def _as_codes(value: object) -> object:
    return {name: _as_list(code) for name, code in value.items()} if isinstance(value, Mapping) else value


def _as_text(value: object) -> object:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def literal(word: Any) -> Any:
    """The Python value of a word of a command line; anything else as it is."""
    try:
        return ast.literal_eval(word)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return word


def network_options(value: Any) -> dict[str, Any]:
    """Options of a network, a dictionary of its constructor's arguments; None for none.

    Raises:
        ValueError: it is something else.
        InputError: it sets an argument that the run decides.
    """
    if not isinstance(value, Mapping | None):
        raise ValueError("no dictionary")
    taken = [key for key in BY_THE_RUN if key in (value or {})]
    if taken:
        raise InputError(
            f"{{name}} sets {' and '.join(taken)}, which the run decides by its images and other options (large, "
            f"small, spatial_dims, image_size); leave that out of {{name}}."
        )
    return dict(value or {})


Text = Annotated[str, BeforeValidator(_as_text)]
Texts = Annotated[
    str | list[str], BeforeValidator(_as_list), Takes("a text, or a list of names in quotes such as \"['a','b']\"")
]
Names = Annotated[
    list[str], BeforeValidator(_as_list), Len(2), Takes("a list of names in quotes such as \"['normal','pneumonia']\"")
]
Device = Annotated[str, BeforeValidator(str)]  # also a torch.device, as other programs put it into a config
Switch = Annotated[bool, BeforeValidator(switch), Takes("true or false")]
Whole = Annotated[int, Ge(0)]
Count = Annotated[int, Ge(1)]
Limit = Annotated[float, Ge(0)]
Positive = Annotated[float, Gt(0)]
Share = Annotated[float, Ge(0), Le(1)]
PartOf = Annotated[float, Ge(0), Lt(1)]
Sizes = Annotated[
    Count | list[Count], BeforeValidator(_as_list), Takes("a whole number of at least 1, or a list of one per axis")
]
Lengths = Annotated[
    Positive | list[Positive], BeforeValidator(_as_list), Takes("a number above 0, or a list of one per axis")
]
Dims = Annotated[Literal[2, 3], Takes("2 or 3")]
Fraction = Annotated[float, Gt(0), Le(1)]
Folds = Annotated[int, Ge(2)]
Levels = Annotated[
    list[float], BeforeValidator(_as_list), Len(2, 2), AfterValidator(_with_width), Takes("[centre, width] in HU")
]
Seed = Annotated[int, Ge(0), Lt(2**32)]
Place = Annotated[str, BeforeValidator(_as_text), MinLen(1), Takes("a path")]
Chance = Annotated[float, Gt(0), Lt(1)]
HalfWidth = Annotated[float, Gt(0), Lt(0.5)]
Strength = Annotated[int, Ge(1), Le(5)]
Layers = Annotated[list[Whole] | list[list[Whole]], BeforeValidator(_as_list), Takes("a list of blocks per stage")]
Map = Annotated[dict[Any, Any], BeforeValidator(literal), Takes("a dictionary such as \"{'1': 'ill', '0': 'well'}\"")]
Axes = Annotated[list[Whole], BeforeValidator(_as_list_of_one), Takes("a list of axes, such as [1]")]
Strengths = Annotated[
    list[Strength], BeforeValidator(_as_list_of_one), Len(1), Takes("some of the whole numbers 1, 2, 3, 4, 5")
]
Corruptions = Annotated[
    Literal["all"] | list[Corruption],
    BeforeValidator(_as_list_of_one),
    Takes(f"all, or some of {', '.join(get_args(Corruption))}"),
]
Codes = Annotated[
    dict[str, list[str]],
    BeforeValidator(_as_codes),
    Takes("a dictionary such as \"{'normal': ['17621005', 'SCT', 'Normal']}\""),
]
Frame = Annotated[Whole | Literal["middle", "all"], Takes("middle, all, or a whole number of at least 0")]
NetworkOptions = Annotated[
    dict[str, Any], BeforeValidator(network_options), Takes("a dictionary such as \"{'drop_rate': 0.1}\"")
]


class Options(BaseModel):
    """Options of a command. Unknown names are refused, and no value is converted to another type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=False)


def parts_of(annotation: Any, metadata: Sequence[Any] = ()) -> list[tuple[Any, list[Any]]]:
    """The kinds that an annotation allows, None left out, each with its limits."""
    if get_origin(annotation) is Annotated:
        inner, *own = get_args(annotation)
        return parts_of(inner, [*metadata, *own])
    if get_origin(annotation) in (Union, types.UnionType) and not any(isinstance(one, Takes) for one in metadata):
        return [part for one in get_args(annotation) if one is not type(None) for part in parts_of(one, metadata)]
    return [(annotation, list(metadata))]


def _kinds(field: FieldInfo) -> list[Any]:
    return [kind for kind, _ in parts_of(field.annotation, field.metadata)]


def words_in(field: FieldInfo) -> tuple[str, ...]:
    """The words among the values of an option: "true" and "false", or those of a choice."""
    kinds = _kinds(field)
    if bool in kinds:
        return ("true", "false")
    literals = [one for kind in kinds for one in (kind, *get_args(kind)) if get_origin(one) is Literal]
    return tuple(str(word) for one in literals for word in get_args(one))


def choices_of(field: FieldInfo) -> tuple[str, ...] | None:
    """The words of an option that takes words alone, as "true" and "false"; None for others."""
    closed = all(kind is bool or (get_origin(kind) is Literal and isinstance(get_args(kind)[0], str))
                 for kind in _kinds(field))  # fmt: skip
    return words_in(field) if closed else None


def is_switch(field: FieldInfo) -> bool:
    """Whether an option is on or off."""
    return _kinds(field) == [bool]


def is_text(field: FieldInfo) -> bool:
    """Whether an option takes any text, as paths and names are, or a list of texts."""
    return any(kind in (str, str | list[str], list[str]) for kind in _kinds(field))


def takes_several(field: FieldInfo) -> bool:
    """Whether an option takes a list."""
    kinds = [kind for kind in _kinds(field) if get_origin(kind) is not dict]
    return any(get_origin(one) is list for kind in kinds for one in (kind, *get_args(kind)))


def items_of(field: FieldInfo) -> set[Any]:
    """The items of an option's lists: types, and words where only some are valid."""
    return {item for kind in _kinds(field) for item in _leaves(kind)}


def _leaves(kind: Any) -> list[Any]:
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    if get_origin(kind) is Annotated:
        return _leaves(get_args(kind)[0])
    inner = [leaf for one in get_args(kind) for leaf in _leaves(one)]
    return inner or [kind]


def takes(field: FieldInfo) -> str:
    """The values of an option in words: "a whole number of at least 1"."""
    return " or ".join(_in_words(kind, limits) for kind, limits in parts_of(field.annotation, field.metadata))


def _in_words(kind: Any, metadata: Sequence[Any]) -> str:
    stated = next((one.words for one in metadata if isinstance(one, Takes)), None)
    if stated:
        return stated
    if get_origin(kind) is Literal:
        return ", ".join(map(str, get_args(kind)))
    if get_origin(kind) is list:
        return "a list of " + " or ".join(_in_words(*part) for part in parts_of(get_args(kind)[0]))
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    limits = {}
    for one in metadata:
        if isinstance(one, Ge | Gt):
            limits["low"] = f"of at least {one.ge}" if isinstance(one, Ge) else f"above {one.gt}"
        elif isinstance(one, Le | Lt):
            limits["high"] = f"at most {one.le}" if isinstance(one, Le) else f"below {one.lt}"
    return " ".join([names[kind], " and ".join(limits.values())]).rstrip()
