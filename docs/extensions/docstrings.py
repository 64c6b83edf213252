"""Docstrings as autodoc shows them."""

from __future__ import annotations

import re
from typing import Any

_MARKUP = re.compile(r"(?<!\\)[|*]|(?<=\w)_(?=\W|$)")


def _plain(app: Any, what: str, name: str, found: Any, options: Any, lines: list[str]) -> None:
    """Bars, stars and last underscores of formulas and names are no markup of reStructuredText."""
    for i, line in enumerate(lines):
        parts = line.split("`")
        parts[::2] = [_MARKUP.sub(r"\\\g<0>", part) for part in parts[::2]]
        lines[i] = "`".join(parts)


def _signature(app: Any, what: str, name: str, found: Any, options: Any, signature: str, result: str) -> Any:
    """Functions of `tiltwise.api` list their options below: once is enough."""
    if what == "function" and name.startswith("tiltwise.api.") and "progress" in (signature or ""):
        return "(*, progress=None, **options)", result
    return None


def setup(app: Any) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _plain, priority=100)  # before napoleon
    app.connect("autodoc-process-signature", _signature)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
