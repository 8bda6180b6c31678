# SPDX-License-Identifier: Apache-2.0
"""Options as words of a command line, in both directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from dual_skd.options.derived import chosen, removed
from dual_skd.options.kinds import Marks, Options, is_text, literal, marks_of, takes_several
from dual_skd.options.training import Training
from dual_skd.utils.wording import in_shell, quoted

POSITIONAL = ("dataset_dir", "output_dir")  # arguments of commands without a name


def value_of(field: FieldInfo, words: Sequence[str]) -> Any:
    """The value of an option by its words: ``["48", "48", "24"]`` is [48, 48, 24]; a text stays as typed.

    Several names, numbers or words come one after the other, or as one word with Python's list: ``"['a','b']"``.
    The value isn't checked here.
    """
    if is_text(field):
        texts = literal(words[0]) if takes_several(field) and len(words) == 1 and words[0][:1] == "[" else None
        if isinstance(texts, list):
            return texts
        return list(words) if len(words) > 1 else words[0]
    values = [literal(word) for word in words]
    return values[0] if len(values) == 1 else values


def words_of(values: Mapping[str, Any], fields: Mapping[str, FieldInfo], *, places: bool = False) -> list[str]:
    """The words that give options their values.

    Args:
        values: by name.
        fields: of the model of options.
        places: write paths as they are, not as capital words that stand for the reader's paths.
    """
    words: list[str] = []
    for name, value in values.items():
        option, own = f"--{name.replace('_', '-')}", _words(name, value, marks_of(fields[name]), places)
        dashed = any(word[:1] == "-" and not isinstance(literal(word), int | float) for word in own)
        words += [f"{option}={word}" for word in own] if dashed else [option, *own]  # else taken for an option
    return words


def command(start: str, values: Mapping[str, Any], kind: type[Options], *, places: bool = False) -> str:
    """A command with options, for a shell: ``dual-skd train DATA -o OUT --epochs 24``; see :func:`words_of`."""
    return " ".join([start, *map(in_shell, words_of(values, kind.model_fields, places=places))])


def training_command(settings: Mapping[str, Any], output_dir: str | Path | None = None) -> str:
    """The command that trains as a run did.

    A comment behind it names the options that the run used and this version no longer has.

    Args:
        settings: of run.json.
        output_dir: of the run, to go on with it. None, for a reader elsewhere, lets DATA, OUT and other capital words
            stand for places.
    """
    values, data = chosen(settings), settings.get("dataset_dir")
    shown = output_dir is not None or data in marks_of(Training.model_fields["dataset_dir"]).words
    start = f"dual-skd train {quoted(data) if data and shown else 'DATA'} -o {quoted(output_dir or 'OUT')}"
    options = {name: one for name, one in values.items() if name not in POSITIONAL}
    return command(start, options, Training, places=output_dir is not None) + lost(settings)


def lost(settings: Mapping[str, Any]) -> str:
    """A shell's comment on options of a former run that this version no longer has; "" where it used none."""
    found = removed(settings)
    return f"  # the run had {found}, which this version no longer has" if found else ""


def _words(name: str, value: Any, marks: Marks, places: bool) -> list[str]:
    if marks.path and value not in marks.words and not places:
        return [name.upper()]
    if isinstance(value, list | tuple) and len(value) > 1 and not any(isinstance(one, list | dict) for one in value):
        return [str(one) for one in value]
    return [str(value).lower() if isinstance(value, bool) else str(value)]
