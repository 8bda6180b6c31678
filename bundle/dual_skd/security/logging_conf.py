# SPDX-License-Identifier: Apache-2.0
"""What ``logging.config.fileConfig`` would run of a logging.conf: it evaluates entries and imports classes."""

from __future__ import annotations

import ast
import configparser
import re

# handlers that write to a stream or a file; those of sockets, mail and HTTP carry a log away
HANDLERS = (
    *("StreamHandler", "FileHandler", "NullHandler", "handlers.RotatingFileHandler"),
    *("handlers.TimedRotatingFileHandler", "handlers.WatchedFileHandler", "handlers.MemoryHandler"),
)
FORMATTERS = ("Formatter",)
MOST_BYTES, MOST_OF_A_LINE = 2**16, 1_000
EVALUATED = ("args", "kwargs", "defaults")
_STREAM = re.compile(r"\bsys\.(stdout|stderr)\b")
_LOG = re.compile(r"[\w-][\w.-]*\.(log|txt)")  # in the working directory, and no module, model or configuration


def problems_of_logging_conf(text: bytes) -> list[tuple[str, str]]:
    """(place, problem) for every entry that is more than a literal or a class of the standard library.

    Args:
        text: a file in the form of :func:`logging.config.fileConfig`.
    """
    parser = configparser.ConfigParser()
    if len(text) > MOST_BYTES or max(map(len, text.splitlines()), default=0) > MOST_OF_A_LINE:
        return [("", "is longer, or has longer lines, than a logging configuration of people")]
    try:
        parser.read_string(text.decode("utf-8"))
    except (configparser.Error, UnicodeDecodeError) as error:
        return [("", f"can't be read as a logging configuration ({' '.join(str(error).split())})")]
    problems = []
    for section in parser.sections():
        for option in (*EVALUATED, "class"):
            if not parser.has_option(section, option):
                continue
            raw = parser.get(section, option, raw=True)
            try:
                unlike = option != "class" and parser.get(section, option) != raw
                problem = f"{raw} is put together from other entries" if unlike else _problem(section, option, raw)
            except configparser.InterpolationError as error:
                problem = " ".join(str(error).split())
            if problem:
                problems.append((f"{section}/{option}", problem))
    return problems


def _problem(section: str, option: str, value: str) -> str:
    if option == "class":
        known = FORMATTERS if section.startswith("formatter") else HANDLERS
        name = value.strip()
        return "" if name.removeprefix("logging.") in known else f"the class {name} is none of {', '.join(known)}"
    try:
        content = ast.literal_eval(_STREAM.sub("None", value).strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return f"{value} is no literal, and would be evaluated"
    if option == "defaults":
        return ""
    if not isinstance(content, tuple if option == "args" else dict):
        return f"{value} is no {'tuple' if option == 'args' else 'dictionary'}"
    first = content.get("filename") if isinstance(content, dict) else content[0] if content else None
    if first is None or isinstance(first, int) or (isinstance(first, str) and _LOG.fullmatch(first)):
        return ""
    return f"{first} is no name of a log in the working directory, such as run.log"
