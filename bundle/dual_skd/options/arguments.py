# SPDX-License-Identifier: Apache-2.0
"""Options as arguments of a command: declared from their models, and read back."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic.fields import FieldInfo

from dual_skd.errors import did_you_mean, visible
from dual_skd.options.kinds import Options, choices_of, is_switch, items_of, literal, marks_of, takes, takes_several
from dual_skd.options.table import default_of, groups
from dual_skd.options.words import value_of

ON_OR_OFF = ("true", "false")


class Parser(argparse.ArgumentParser):
    """Parser of a command: besides argparse's arguments those of :func:`add_options`.

    Options are written with dashes or underscores. Those of :func:`add_options` take words as the model says: a switch
    none or true or false, a list several or the option again, everything else one, also one that begins with a dash.

    Args:
        prog: the command.
        purpose: what it does, one line.
        examples: commands, each a line.
    """

    def __init__(self, prog: str, purpose: str, examples: Sequence[str]) -> None:
        shown = "\n".join(f"  {example}" for example in examples)
        description = f"{shown}\n\n" + textwrap.fill(f"{purpose[0].upper()}{purpose[1:]}.", 78)
        super().__init__(prog, description=description, formatter_class=_Help, allow_abbrev=False)
        self._positionals.title, self._optionals.title = "What", "Options"
        self.fields: dict[str, FieldInfo] = {}  # by the option, such as --image-size
        self.short: dict[str, str] = {}  # -o: --output-dir
        self.places: dict[str, str] = {}  # options that are given without a name: --dataset-dir: DATA
        self.rare: list[tuple[argparse.Action, str]] = []  # options that the short help leaves out, with their help

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """As ``parse_args``; a model's option is the list of its words, or None if it isn't given."""
        found, rest = self._sorted(list(words))
        parsed = self.parse_args(rest)
        for option, field in self.fields.items():
            place = getattr(parsed, self.places.get(option, ""), None)
            if place is not None and option in found:
                self.error(f"{self.places[option]} is {place} and {option} {found[option][-1]}; give one of them")
            own = found.get(option) if place is None else [place]
            setattr(parsed, option[2:].replace("-", "_"), own if own is None or takes_several(field) else own[-1:])
        return parsed

    def format_help(self) -> str:
        """The examples, what it does, the arguments."""
        formatter = self._get_formatter()
        formatter.add_text(self.description)
        for group in self._action_groups:
            formatter.start_section(group.title)
            formatter.add_arguments(group._group_actions)
            formatter.end_section()
        formatter.add_text(self.epilog and textwrap.fill(self.epilog, 78))
        return formatter.format_help()

    def error(self, message: str) -> Any:
        """Ends with 2 and one sentence."""
        everything = "--help-all" if self.rare else "-h"
        message = visible(f"{message[0].upper()}{message[1:].rstrip('.')}")
        self.exit(2, f"Error: {message}; `{self.prog} {everything}` shows all.\n")

    def _sorted(self, words: list[str]) -> tuple[dict[str, list[str]], list[str]]:
        """The values of the models' options, and the words left for argparse, options first."""
        found: dict[str, list[str]] = {}
        options: list[str] = []
        others: list[str] = []
        while words:
            word = words.pop(0)
            if word == "--":
                others += words
                break
            if not _is_option(word):
                others.append(word)
                continue
            name, value = self._known(word)
            if name not in self.fields:
                options += self._words_of_argparse(name, value, words)
            elif value is not None:
                found.setdefault(name, []).append(value)
            else:
                found.setdefault(name, []).extend(self._words_of(name, words))
        self._give_back(found, others)
        return found, [*options, *(["--", *others] if others else [])]

    def _known(self, word: str) -> tuple[str, str | None]:
        """The option as it was declared, and the value that stands in the same word."""
        typed, equals, value = word.partition("=")
        name = self.short.get(typed, typed.replace("_", "-"))
        switch = f"--{name.removeprefix('--no-')}"
        if name in self._option_string_actions:
            return name, value if equals else None
        if switch != name and self._is_switch(switch) and not equals:
            return switch, "false"
        if word[1] != "-" and word[:2] in self._option_string_actions:  # -oOUT
            return self.short.get(word[:2], word[:2]), word[2:]
        known = [option.lstrip("-") for option in self._option_string_actions]  # dashes would make all similar
        return self.error(f"unknown option {typed}{did_you_mean(name.lstrip('-'), known)}")

    def knows(self, option: str) -> bool:
        """Whether there is such an option, as it is declared."""
        return option in self._option_string_actions

    def _is_switch(self, name: str) -> bool:
        return name in self.fields and is_switch(self.fields[name])

    def _words_of(self, name: str, words: list[str]) -> list[str]:
        """Takes the values of an option from the words after it."""
        if self._is_switch(name):
            return [words.pop(0)] if words and words[0].lower() in ON_OR_OFF else ["true"]
        if not words or self._begins_an_option(words[0]):
            near = f" ({name}={words[0]} takes it as it is)" if words else ""
            self.error(f"{name} is given without a value, expected {takes(self.fields[name])}{near}")
        taken = [words.pop(0)]
        while takes_several(self.fields[name]) and words and _goes_on(self.fields[name], words[0]):
            taken.append(words.pop(0))
        return taken

    def _words_of_argparse(self, name: str, value: str | None, words: list[str]) -> list[str]:
        """An option of argparse and its values, written so that argparse can't mistake them."""
        action = self._option_string_actions[name]
        if action.nargs is None and value is None and words and not self._begins_an_option(words[0]):
            value = words.pop(0)
        if value is not None:
            return [f"{action.option_strings[-1]}={value}"]
        taken = [name]
        while action.nargs == "+" and words and not _is_option(words[0]):
            if len(taken) > 1 and not _fits(action, words[0]):  # the first word is meant as a value, right or wrong
                break
            taken.append(words.pop(0))
        return taken

    def _begins_an_option(self, word: str) -> bool:
        """Whether a word can't be a value; two dashes begin an option, perhaps a mistyped one."""
        return word[:2] == "--" or (word[:1] == "-" and word[:2] in self._option_string_actions)

    def _give_back(self, found: dict[str, list[str]], others: list[str]) -> None:
        """Of ``--label-column a b DATA`` the last word is no column where it is a path, and there is no other DATA."""
        lists = [words for name, words in found.items() if len(words) > 1 and str in items_of(self.fields[name])]
        missing = self._positionals._group_actions and not others and not set(self.places) & set(found)
        if missing and lists and (lists[-1][-1] == "demo" or Path(lists[-1][-1]).exists()):
            others.append(lists[-1].pop())


class _Help(argparse.RawDescriptionHelpFormatter):
    """Descriptions as they are, and options of several words as one."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        words = f"{action.metavar} ..." if action.nargs == "+" else self._format_args(action, action.dest.upper())
        return f"{', '.join(action.option_strings)} {words}"


class HelpAll(argparse.Action):
    """Shows all options, also those that the short help leaves out."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str = "show all options and exit") -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: Any, *_: Any) -> None:
        """Prints them and ends."""
        for action, text in parser.rare:
            action.help = text
        parser.print_help()
        parser.exit()


def add_options(
    parser: Parser,
    kind: type[Options],
    names: Iterable[str] | None = None,
    *,
    everyday: bool = False,
    short: Mapping[str, str] = MappingProxyType({}),
    places: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Declares options of a model.

    Args:
        parser: gets an argument group per group of options.
        kind: the model.
        names: which ones; None for all.
        everyday: the help shows the everyday ones, and all of them with ``--help-all``.
        short: letters by name, ``{"output_dir": "-o"}``.
        places: what may be given without its name, ``{"dataset_dir": "DATA"}``.
    """
    if everyday:
        parser.add_argument("--help-all", action=HelpAll)
    for title, fields in groups(kind).items():
        group = parser.add_argument_group(title)
        for name, field in fields.items():
            if names is not None and name not in names:
                continue
            option = f"--{name.replace('_', '-')}"
            letters = [short[name]] if name in short else []
            how: dict[str, Any] = {"action": "store_true"} if is_switch(field) else {"metavar": _metavar(field)}
            action = group.add_argument(*letters, option, default=None, help=help_of(field, option), **how)
            parser.fields[option] = field
            parser.short |= dict.fromkeys(letters, option)
            if name in places:
                parser.add_argument(places[name], nargs="?", help=action.help)
                parser.places[option] = places[name]
                action.help = argparse.SUPPRESS
            elif everyday and not marks_of(field).everyday:
                parser.rare.append((action, str(action.help)))
                action.help = argparse.SUPPRESS


def given(args: argparse.Namespace, kind: type[Options], names: Iterable[str] | None = None) -> dict[str, Any]:
    """The given options of a model, by name; their values aren't checked yet."""
    wanted = {name: getattr(args, name, None) for name in (kind.model_fields if names is None else names)}
    return {name: value_of(kind.model_fields[name], words) for name, words in wanted.items() if words is not None}


def help_of(field: FieldInfo, option: str) -> str:
    """The help of an option: its meaning, values and default, for a terminal."""
    choices = choices_of(field)
    valid = f"{', '.join(choices)}; " if choices and not is_switch(field) else ""
    off = f"; --no-{option[2:]} turns it off" if field.default is True else ""
    text = f"{field.description} ({valid}default: {default_of(field)}{off})"
    text = re.sub(r"\s*\(\[[^\]]*\]\([^)]*\)\)", "", text)  # a link alone in brackets
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return text.replace("`", "").replace("%", "%%")


def _metavar(field: FieldInfo) -> str:
    words = takes(field)
    kind = next((name for start, name in _METAVARS.items() if words.startswith(start)), "WORD")
    return f"{kind} ..." if takes_several(field) else kind


_METAVARS = {"a whole number": "N", "a number": "X", "a text": "TEXT", "a dictionary": "DICT", "a list of axes": "AXIS"}


def _goes_on(field: FieldInfo, word: str) -> bool:
    """Whether a word may continue the list of an option."""
    kinds = items_of(field)
    if str in kinds:
        return not _is_option(word)
    return word in kinds or (isinstance(literal(word), int | float) and bool({int, float} & kinds))


def _fits(action: argparse.Action, word: str) -> bool:
    """Whether a word may continue a list that argparse reads."""
    if action.choices is not None:
        return word in action.choices or not Path(word).exists()
    return action.type not in (int, float) or isinstance(literal(word), int | float)


def _is_option(word: str) -> bool:
    return word[:1] == "-" and word != "-" and not isinstance(literal(word), int | float)
