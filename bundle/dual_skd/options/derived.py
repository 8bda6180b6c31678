# SPDX-License-Identifier: Apache-2.0
"""Options that follow from others, and which ones the user chose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dual_skd.options.kinds import Marks, Options, marks_of
from dual_skd.options.methods import method
from dual_skd.options.training import Training

# options that former versions had, with their defaults
FORMER = {"selection_rescale": False, "compensate": 0, "freeze_norm": False}


def resolved(options: Training, *, multi_label: bool | None = None) -> Training:
    """The options of a run, with those filled in that follow from others.

    Args:
        options: as given; None for what wasn't.
        multi_label: whether images may have several labels; None if unknown, which leaves ``loss``.
    """
    follows = _follows(options, multi_label)
    return options.model_copy(update={name: value for name, value in follows.items() if getattr(options, name) is None})


def _follows(options: Training, multi_label: bool | None) -> dict[str, Any]:
    """The values of options that follow from others."""
    row = method(options.method)
    epochs = options.epochs * options.rounds
    learned = "hard" if (options.update or row.update) == "none" else "soft"
    return {
        "selection_student": row.student,
        "selection_auxiliary": row.auxiliary,
        "selection_layers_auxiliary": row.layers,
        "update": row.update,
        "temperature": row.temperature,
        "skd_weight": row.skd_weight,
        "unlabelled_loss": learned,
        "unlabelled_weight": 3.0 if (options.unlabelled_loss or learned) == "soft" else 1.0,
        "fine_tune_epochs": epochs // 5 if row.fine_tunes else 0,
        "patience": epochs,
        "fit": "pad" if options.spacing is None else None,
        "loss": None if multi_label is None else "bce" if multi_label else "cross_entropy",
    }


def settings(options: Training, *, multi_label: bool) -> dict[str, Any]:
    """The settings of a run by name, as in run.json and checkpoints; without those that the machine decides."""
    values = resolved(options, multi_label=multi_label).model_dump()
    return {name: value for name, value in values.items() if marks(Training)[name].config is None}


def weight_files(settings: Mapping[str, Any]) -> dict[str, str]:
    """The files of weights that the networks of a run start or learn from, by the option that names them.

    Args:
        settings: of a run, all that follow from others filled in.
    """
    rules = {settings.get("selection_student")}
    if settings.get("update") != "none":
        rules.add(settings.get("selection_auxiliary"))
    pretrained, teacher = (str(settings.get(name) or "") for name in ("pretrained", "teacher_checkpoint"))
    words = marks(Training)["pretrained"].words
    selects = rules - {None, "scratch", "teacher"}
    files = {"pretrained": pretrained if selects and pretrained not in words else ""}
    files["teacher_checkpoint"] = teacher if "teacher" in rules else ""
    return {option: file for option, file in files.items() if file}


def completed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a run or a model's preprocessing, with values for options that came later."""
    found = {"fit": "stretch" if settings.get("spacing") is None else None, **settings}
    if found.get("cache_dir") == f"{found.get('output_dir')}/cache":  # former versions wrote the default out
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
