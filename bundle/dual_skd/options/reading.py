# SPDX-License-Identifier: Apache-2.0
"""Validates what a user gave before any data is read, and refuses it in words."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from dual_skd.errors import InputError, did_you_mean
from dual_skd.options.derived import resolved
from dual_skd.options.kinds import Options, choices_of, is_text, marks_of, takes, takes_several, words_in
from dual_skd.options.training import Training
from dual_skd.options.typed import text
from dual_skd.options.use import Evaluation, Prediction

Kind = TypeVar("Kind", bound=Options)


def read(kind: type[Kind], values: Mapping[str, Any]) -> Kind:
    """Validated options; those that weren't given have their defaults.

    Args:
        kind: :class:`Training`, :class:`Evaluation` or :class:`Prediction`.
        values: by name.

    Raises:
        InputError: an unknown option or an invalid value; the message names each.
    """
    try:
        return kind(**{name: _plain_number(value) for name, value in values.items()})
    except ValidationError as error:
        problems = {error["loc"][:1]: error for error in reversed(error.errors())}
        fields = kind.model_fields
        raise InputError(" ".join(_sentence(fields, problem) for problem in reversed(problems.values()))) from None


def _plain_number(value: Any) -> Any:
    """Python's own number for one of NumPy's, which the strict types refuse; anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def of_config(kind: type[Kind], values: Mapping[str, Any]) -> Kind:
    """The same of a config's entries, with texts as they were typed, see :func:`text`.

    Options that the config itself converts, such as ``device``, stay as they are.
    """
    given = dict(values)
    for name, field in kind.model_fields.items():
        if name in given and is_text(field) and marks_of(field).config is None:
            given[name] = text(given[name], name, several=takes_several(field))
    return read(kind, given)


def training(**values: Any) -> Training:
    """Options of train.json, with what follows from them."""
    return resolved(of_config(Training, values))


def evaluation(**values: Any) -> Evaluation:
    """Options of evaluate.json."""
    return of_config(Evaluation, values)


def prediction(**values: Any) -> Prediction:
    """Options of inference.json."""
    return of_config(Prediction, values)


def _sentence(fields: Mapping[str, FieldInfo], problem: Mapping[str, Any]) -> str:
    """One problem of pydantic's in the words of this package."""
    cause = problem.get("ctx", {}).get("error")
    if not problem["loc"]:  # options that don't go together
        return str(cause)
    name, found = str(problem["loc"][0]), problem["input"]
    if problem["type"] == "extra_forbidden":
        return f"Unknown option {name}{did_you_mean(name, fields)}."
    if isinstance(cause, InputError) and "{name}" in str(cause):
        return str(cause).replace("{name}", name)
    field = fields[name]
    choices = choices_of(field)
    if choices:
        return f"Unknown {name} {found!r}{did_you_mean(str(found), choices)}; valid: {', '.join(choices)}."
    near = did_you_mean(found, words_in(field)) if isinstance(found, str) else ""
    return f"{name} is {found!r}{near}; expected {takes(field)}."
