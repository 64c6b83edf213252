"""Errors of users' data and options say how to mend them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "python" / "tiltwise"
ERRORS = {"ConfigError", "DataError", "FormatError"}
"""Not `ShapeError`: it tells a programmer of a wrong argument."""
PROGRAMS = {
    "em/settings.py": "options were checked before; these are settings of our own",
    "geometry/grids.py": "arguments of functions",
    "geometry/rotations.py": "arguments of functions",
    "io/star_text.py": "results of our own that are NaN",
    "io/write_particles.py": "sets that a program has changed",
    "io/write_tomograms.py": "sets that a program has changed",
    "kernels/gather.py": "arguments of functions",
    "spectral/components.py": "arguments of functions",
}
"""Files whose errors no user can mend, and why."""
SOURCES = [path for path in sorted(PACKAGE.rglob("*.py")) if any(name in path.read_text() for name in ERRORS)]


def without_fix(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ERRORS:
            given = {keyword.arg for keyword in node.keywords}
            if not given & {"fix", None}:
                yield f"line {node.lineno}: {ast.unparse(node.args[0])}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_errors_say_how_to_mend_them(path: Path) -> None:
    found = list(without_fix(path))
    if str(path.relative_to(PACKAGE)) in PROGRAMS:
        assert found, "it needs no exception any more"
    else:
        assert not found
