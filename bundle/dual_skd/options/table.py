# SPDX-License-Identifier: Apache-2.0
"""The options as groups, and as tables for a page."""

from __future__ import annotations

import inspect

from pydantic.fields import FieldInfo

from dual_skd.options.derived import resolved
from dual_skd.options.kinds import Options, marks_of, takes
from dual_skd.options.training import Training


def groups(kind: type[Options]) -> dict[str, dict[str, FieldInfo]]:
    """Title -> options, in the order of the fields: each class that options come from is a group."""
    found: dict[str, dict[str, FieldInfo]] = {}
    for name, field in kind.model_fields.items():
        home = next(base for base in kind.__mro__ if name in inspect.get_annotations(base))
        found.setdefault(inspect.getdoc(home) or home.__name__, {})[name] = field
    return found


def table(kind: type[Options]) -> list[str]:
    """Markdown: a heading and a table per group."""
    lines: list[str] = []
    usual = dict(resolved(Training(), multi_label=False)) if kind is Training else {}
    for title, fields in groups(kind).items():
        lines += [f"### {title}\n", "| option | default | takes | meaning |", "|---|---|---|---|"]
        for name, field in fields.items():
            follows = f" (`{usual[name]}`)" if field.default is None and usual.get(name) is not None else ""
            cells = [f"`{name}`", default_of(field) + follows, takes(field), field.description or ""]
            row = " | ".join(cell.replace("|", "\\|") for cell in cells)
            lines.append(f"| {row} |")
        lines.append("")
    return lines


def default_of(field: FieldInfo) -> str:
    """The default in words: a value as code, or what stands in for one."""
    if field.default is None:
        return marks_of(field).empty
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"
