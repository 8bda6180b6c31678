# SPDX-License-Identifier: Apache-2.0
"""An extension of Griffe, which reads the docstrings for the site: it turns their roles into Markdown."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object


class Docstrings(Extension):
    """Roles such as :func:`dual_skd.train` become code, and the section "Example" one that is shown as code."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Changes the text of one docstring, before its sections are read."""
        if obj.docstring:
            text = re.sub(r":\w+:`([^`<]+?) <[^`>]+>`", r"\1", obj.docstring.value)
            text = re.sub(r":(?:func|class|meth|data|attr|mod):`(?:~[\w.]*\.)?([\w.]+)`", r"`\1`", text)
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
