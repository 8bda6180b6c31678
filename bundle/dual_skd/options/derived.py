# SPDX-License-Identifier: Apache-2.0
"""What follows from the options that were given: the values of others, and which ones the user chose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dual_skd.options.kinds import Marks, Options, marks_of
from dual_skd.options.methods import method
from dual_skd.options.training import Training

# options that former versions had, with their defaults
FORMER = {"selection_rescale": False, "compensate": 0, "freeze_norm": False}


def resolved(options: Training, *, multi_label: bool | None = None) -> Training:
    """The options of a run with those filled in that follow from others.

    Args:
        options: as they were given; None where one was not.
        multi_label: whether images may have several labels; None where that isn't known yet, which leaves ``loss``.
    """
    follows = _follows(options, multi_label)
    return options.model_copy(update={name: value for name, value in follows.items() if getattr(options, name) is None})


def _follows(options: Training, multi_label: bool | None) -> dict[str, Any]:
    """What every option is that follows from others, where it isn't given."""
    row = method(options.method)
    return {
        "selection_student": row.student,
        "selection_auxiliary": row.auxiliary,
        "selection_layers_auxiliary": row.layers,
        "update": row.update,
        "temperature": row.temperature,
        "skd_weight": row.skd_weight,
        "fine_tune_epochs": options.epochs // 5 if row.fine_tunes else 0,
        "patience": options.epochs,
        "fit": "pad" if options.spacing is None else None,
        "loss": None if multi_label is None else "bce" if multi_label else "cross_entropy",
    }


def settings(options: Training, *, multi_label: bool) -> dict[str, Any]:
    """All that a run is made with, by name, as run.json and checkpoints keep it; without what the machine decides."""
    values = resolved(options, multi_label=multi_label).model_dump()
    return {name: value for name, value in values.items() if marks(Training)[name].config is None}


def completed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a run or a model's preprocessing, with what those mean that were saved before an option existed."""
    found = {"fit": "stretch" if settings.get("spacing") is None else None, **settings}
    if found.get("cache_dir") == f"{found.get('output_dir')}/cache":  # once written out where it wasn't given
        found["cache_dir"] = None
    return found


def removed(settings: Mapping[str, Any]) -> str:
    """The options a run used that this version no longer has, as "compensate 256, freeze_norm True"; "" for none.

    Args:
        settings: of a former run. Options at their default count as not in use.
    """
    return ", ".join(f"{name} {settings[name]}" for name in FORMER if settings.get(name, FORMER[name]) != FORMER[name])


def chosen(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run that its user chose: those with another value than they would have had without.

    Args:
        settings: of run.json, also of a former version, in the order of :class:`Training`.
    """
    found = completed(settings) if settings else {}
    defaults = Training().model_dump()
    given = {name: found[name] for name in defaults if name in found}
    follows = _follows(Training.model_construct(**defaults | given), given.get("loss") == "bce")
    return {name: value for name, value in given.items() if value != (defaults | follows)[name]}


def marks(kind: type[Options]) -> dict[str, Marks]:
    """The marks of every option."""
    return {name: marks_of(field) for name, field in kind.model_fields.items()}
