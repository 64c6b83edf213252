"""Small files, and nothing left for later."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SUFFIXES = {".py", ".pyi", ".cpp", ".hpp", ".cu"}
FILES = sorted(
    path
    for top in ("python", "tests", "cpp", "cuda")
    for path in (ROOT / top).rglob("*")
    if path.suffix in SUFFIXES and "__pycache__" not in path.parts
)
LATER = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|NotImplemented" + r"Error)\b")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_small_and_finished(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 500
    assert not LATER.search(text)


def test_one_version() -> None:
    version = re.search(r'__version__ = "(.*)"', (ROOT / "python" / "tiltwise" / "__init__.py").read_text())
    assert version is not None
    assert f"## {version[1]}" in (ROOT / "CHANGELOG.md").read_text()
