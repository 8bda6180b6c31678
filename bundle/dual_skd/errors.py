# SPDX-License-Identifier: Apache-2.0
"""Errors that the user can mend, and how the command line shows them."""

from __future__ import annotations

import difflib
import errno
import json
import logging
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from traceback import walk_tb
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")


# no space, a user's share of it used up, a file larger than it may be
FULL_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REFUSED_ERRORS = (errno.EACCES, errno.EPERM, errno.EROFS)
LOADER = "in DataLoader worker process"  # from which PyTorch sends the stack of an error, as text
FROM_LOADER = re.compile(r"^dual_skd\.[\w.]+: (.+?)\n*(?:\n\n|\Z)", re.MULTILINE | re.DOTALL)
STOPPED, STOPPED_CODE = "\nStopped by Ctrl-C.\n", 130  # as shells count it: 128 and the number of SIGINT
FULL_DISK = "The disk is full{}; make room and give the same command again."
NOT_OPENED = "{} can't be opened ({}); mend its permissions, or give another one."
OF_MEMORY = "The memory of this computer is full; give a smaller batch_size, fewer num_workers, or cache disk."
# what MONAI and PyTorch say, and what a command says for it
SENTENCES = {
    r"Cannot find the (?:logging )?config file: (.+)\.$": (
        "There is no config file {0} (in {here}); give its path from this folder, or an absolute one."
    ),
    r'unknown file input: "(.+)"': "{0} isn't a config file; give one whose name ends in .json, .yaml or .yml.",
    r"(?:the referring item `@|id=')(.+)(?:` is not defined in the config|' is not found in the config resolver)": (
        "A config refers to @{0}, which no config file has; mend the name, or give the file that has it as well."
    ),
    r"run ID '(.+)' doesn't exist": "No config file has an entry {0} that could be run; give the bundle's file first.",
    r"detected circular references '(.+)' for id='(.+)'": "In the config, @{0} and @{1} refer to each other; mend one.",
    r"Cannot locate class or function path: '(.+)'": (
        "A config names {0}, which isn't installed here; mend the name, or install the package."
    ),
    r"OSError: \[Errno \d+\] (?:No space left on device|Disk quota exceeded|File too large)": FULL_DISK.format(""),
    r"PermissionError: \[Errno \d+\] (.+): '(.+)'": NOT_OPENED.format("{1}", "{0}"),
    r"can't start new thread": (
        "No further thread can be started: memory, or a limit of it or of processes, is used up; end other programs or "
        "raise the limit (ulimit -v, ulimit -u)."
    ),
    "Too many open files": "Too many files are open; give --num_workers 0, or raise the limit (ulimit -n 4096).",
    r"out of memory": "The memory of the GPU is full; give a smaller batch_size or image_size, or --device cpu.",
    r"can't allocate memory|DataLoader worker .* killed by signal: Killed": OF_MEMORY,
    r"(?:allocate|open|mmap|out of) shared memory|resize file </torch_": (
        "The memory that processes share (/dev/shm) is full; give --num_workers 0, or docker run a larger --shm-size."
    ),
}


# what moves the cursor of a terminal, begins a line, turns the order of letters round, or can't be seen or encoded
_ACTING = re.compile(
    r"[\x00-\x1f\x7f-\x9f\xad\u061c\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\ud800-\udfff\U000e0000-\U000e0fff]"
)


def visible(text: object) -> str:
    """A text as it may stand in a line of a terminal: a stranger's name in it shows what else the terminal would do.

    >>> print(visible("a\\x1b[2J\\nb"))
    a\\x1b[2J\\nb
    """
    return _ACTING.sub(lambda found: repr(found[0])[1:-1], str(text))


class VisibleNames(logging.Formatter):
    """A formatter whose lines stay lines whatever names are in them, see :func:`visible`.

    Args:
        inner: formats the record; None: the message alone.
    """

    def __init__(self, inner: logging.Formatter | None = None) -> None:
        super().__init__()
        self.inner = inner or logging.Formatter()

    def format(self, record: logging.LogRecord) -> str:
        record = copy(record)
        if isinstance(record.args, tuple):
            texts = str | Path | BaseException
            record.args = tuple(visible(one) if isinstance(one, texts) else one for one in record.args)
        return "\n".join(map(visible, self.inner.format(record).split("\n")))


class InputError(ValueError):
    """What the user gave can't be used. The message is one sentence: what was expected, found, where, the remedy."""

    def __init__(self, message: object) -> None:
        super().__init__(visible(message))


class NotWritten(InputError):
    """A file can't be written, for want of space for instance; what was there before is unchanged."""


class SelectionError(InputError):
    """Weights of the large network can't be selected for the small one."""


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those behind it, however many libraries wrapped it on the way, the outermost first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__


def input_error_behind(error: BaseException | None) -> InputError | None:
    """Returns the ``InputError`` that caused ``error``, also in a loader's process, or None."""
    for one in causes(error):
        text = str(one)
        if LOADER in text and (found := FROM_LOADER.search(text.replace(r"\n", "\n"))):  # an InputError shows new lines
            return InputError(found[1])
        if isinstance(one, InputError):
            return one
    return None


@contextmanager
def plain_input_errors() -> Iterator[None]:
    """Raises an ``InputError`` as it was, without the errors that other libraries wrapped around it."""
    try:
        yield
    except Exception as error:
        cause = input_error_behind(error)
        if cause is None:
            raise
        raise cause.with_traceback(None) from None


def stopped_by_user(error: BaseException) -> bool:
    """Whether Ctrl-C is what ended a command, whatever MONAI wrapped around it."""
    return input_error_behind(error) is None and any(isinstance(one, KeyboardInterrupt) for one in causes(error))


def sentence_of(error: BaseException) -> str | None:
    """What a command says in place of a stack, or None for an error that isn't known: its stack is needed.

    Known are :class:`InputError`, and of other libraries: configs that aren't there, can't be read, or name what isn't
    there; full memory; a full disk; files that may not be read or written.
    """
    known = input_error_behind(error)
    if known is not None:
        return str(known)
    said = next((said for one in causes(error) if (said := _sentence(one))), None)
    return said and visible(said)


def _sentence(error: BaseException) -> str | None:
    if isinstance(error, OSError) and error.errno in FULL_DISK_ERRORS:
        return FULL_DISK.format(_named(error))
    if isinstance(error, BrokenPipeError):
        return "Nobody reads the output any more; what went into files before is there."
    if isinstance(error, FileExistsError | NotADirectoryError) and error.filename:
        return f"{error.filename} is a file, and a folder is needed there; move it away."
    if isinstance(error, OSError) and error.errno in REFUSED_ERRORS and error.filename:
        return NOT_OPENED.format(error.filename, error.strerror)
    if isinstance(error, json.JSONDecodeError) and (file := _file_read(error)):
        return f"{file} isn't JSON: {error.msg} in line {error.lineno}, column {error.colno}; mend it there."
    if mark := getattr(error, "problem_mark", None):  # of yaml, which isn't imported for it
        what = getattr(error, "problem", "")
        return f"{mark.name} isn't YAML: {what} in line {mark.line + 1}, column {mark.column + 1}; mend it there."
    if isinstance(error, UnicodeEncodeError) and "surrogates" in error.reason:  # which stand for bytes of a name
        text = error.object[max(error.start - 60, 0) : error.end + 20].encode("ascii", "backslashreplace").decode()
        return f"A file or a folder has a name that isn't UTF-8 ({text!r}); rename it."
    if isinstance(error, MemoryError):
        return OF_MEMORY
    if isinstance(error, RuntimeError | ValueError | LookupError | OSError | ImportError):
        for pattern, sentence in SENTENCES.items():
            if found := re.search(pattern, str(error)):
                return sentence.format(*found.groups(), here=Path.cwd())
    return None


def _named(error: OSError) -> str:
    return f" ({error.filename} can't be written)" if error.filename else ""


def _file_read(error: BaseException) -> str | None:
    """The file that ``json.load`` was reading; its error doesn't say."""
    for frame, _ in walk_tb(error.__traceback__):
        if frame.f_code is json.load.__code__:
            return getattr(frame.f_locals["fp"], "name", None)
    return None


def show_input_errors_plainly() -> None:
    """Makes an uncaught error that :func:`sentence_of` knows end the process with its sentence instead of a stack.

    ``monai.bundle run`` wraps every exception of a config expression several times; a user with a typo in a path
    should not have to read that. Other exceptions keep the hook that was installed before. The names in lines of the
    log become :func:`visible`. Called by the configs' ``initialize``; a notebook or a test still sees the ordinary
    exception chain.
    """
    for handler in logging.getLogger().handlers:
        if not isinstance(handler.formatter, VisibleNames):
            handler.setFormatter(VisibleNames(handler.formatter))
    previous = sys.excepthook
    if getattr(previous, "shows_input_errors", False):
        return  # many runs in one process need it once

    def hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if stopped_by_user(error):
            sys.stderr.write(STOPPED)
            raise SystemExit(STOPPED_CODE)
        sentence = sentence_of(error)
        if sentence is None:
            previous(kind, error, traceback)
        else:
            sys.stderr.write(f"\nError: {sentence}\n")

    hook.shows_input_errors = True  # type: ignore[attr-defined]
    sys.excepthook = hook


def choose(table: Mapping[str, T], key: str, what: str) -> T:
    """Returns ``table[key]``.

    Args:
        table: the valid words and what they stand for.
        key: the word the user gave.
        what: what the word names, for the message: "update", "loss", ...

    Raises:
        InputError: the word isn't in the table; the message lists the valid ones.
    """
    if isinstance(key, str) and key in table:
        return table[key]
    raise InputError(f"Unknown {what} {key!r}{did_you_mean(str(key), table)}; valid: {', '.join(map(str, table))}.")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns the known words that are near to the given one, as an aside of a message; empty without any."""
    near = difflib.get_close_matches(word, list(known), n=3, cutoff=0.6)
    return f" (did you mean {' or '.join(near)}?)" if near else ""
