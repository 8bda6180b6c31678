# SPDX-License-Identifier: Apache-2.0
"""What ``logging.config.fileConfig`` would run of a logging.conf: it evaluates entries and imports classes."""

from __future__ import annotations

import ast
import configparser
import re
from pathlib import Path, PureWindowsPath

# handlers that write to a stream or a file; those of sockets, mail and HTTP carry a log away
HANDLERS = (
    *("StreamHandler", "FileHandler", "NullHandler", "handlers.RotatingFileHandler"),
    *("handlers.TimedRotatingFileHandler", "handlers.WatchedFileHandler", "handlers.MemoryHandler"),
)
FORMATTERS = ("Formatter",)
EVALUATED = ("args", "kwargs", "defaults")
_STREAM = re.compile(r"\bsys\.(stdout|stderr)\b")


def problems_of_logging_conf(path: Path) -> list[tuple[str, str]]:
    """(place, problem) for every entry that is more than a literal or a class of the standard library.

    Args:
        path: a file in the form of :func:`logging.config.fileConfig`.
    """
    parser = configparser.ConfigParser()
    try:
        parser.read_string(path.read_text(encoding="utf-8"), source=path.name)
    except (configparser.Error, UnicodeDecodeError) as error:
        return [("", f"can't be read as a logging configuration ({' '.join(str(error).split())})")]
    problems = []
    for section in parser.sections():
        for option in (*EVALUATED, "class"):
            try:
                value = parser.get(section, option, fallback=None)
                unlike = value is not None and option != "class" and parser.get(section, option, raw=True) != value
            except configparser.InterpolationError as error:
                problems.append((f"{section}/{option}", " ".join(str(error).split())))
                continue
            if value is None:
                continue
            problem = _problem_of_class(section, value) if option == "class" else _problem_of_literal(value)
            if problem or unlike:
                problems.append((f"{section}/{option}", problem or f"{value} is put together from other entries"))
    return problems


def _problem_of_class(section: str, value: str) -> str:
    known = FORMATTERS if section.startswith("formatter") else HANDLERS
    name = value.strip()
    if name.removeprefix("logging.") in known:
        return ""
    return f"the class {name} is none of {', '.join(known)}"


def _problem_of_literal(value: str) -> str:
    try:
        content = ast.literal_eval(_STREAM.sub("None", value).strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return f"{value} is no literal, and would be evaluated"
    parts = (
        list(content.values()) if isinstance(content, dict) else content if isinstance(content, tuple) else [content]
    )
    for part in parts:
        if isinstance(part, str) and (_is_outside(part)):
            return f"{part} leads out of the working directory"
    return ""


def _is_outside(name: str) -> bool:
    path = PureWindowsPath(name)  # knows both separators
    return bool(path.drive or path.root) or ".." in path.parts or name.startswith("~")
