"""Names of code in the pages are names of code."""

from __future__ import annotations

from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from option_tables import command_named, tables
from source_links import NotThereError, is_code, locate

from tiltwise.cli.app import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])


def literals(page: Path) -> set[str]:
    """Text between backticks."""
    tokens = MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))
    children = [child for token in tokens for child in token.children or []]
    return {child.content for child in children if child.type == "code_inline"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_exist(page: Path) -> None:
    missing = []
    for text in sorted(literals(page)):
        if is_code(text):
            try:
                locate(text)
            except NotThereError as error:
                missing.append(str(error))
    assert not missing


def test_every_equation_has_code_and_a_test() -> None:
    """Rows of the table on theory name code and a test; equations 1 to 42 are all there."""
    page = (ROOT / "docs" / "theory.md").read_text(encoding="utf-8")
    table = page[page.index("| Eq. |") :].split("\n\n")[0]
    seen: set[int] = set()
    for row in table.splitlines()[2:]:
        equations, _, code, _, tests = (cell.strip() for cell in row.strip("|").split(" | "))
        assert any(is_code(text) for text in code.split("`")), row
        assert any(text.startswith("tests/") and is_code(text) for text in tests.split("`")), row
        for part in equations.replace("7'", "7").split(","):
            first, _, last = part.strip().partition("-")
            seen |= set(range(int(first), int(last or first) + 1))
    assert seen == set(range(1, 43))


def test_where_things_are() -> None:
    place = locate("tiltwise.kernels.api.Backend.score")
    text = (ROOT / place.file).read_text(encoding="utf-8").splitlines()
    assert text[place.line - 1].lstrip().startswith("def score(")
    imported = locate("tiltwise.model.TiltSeries.project")
    assert imported.file == "python/tiltwise/model/tilt_series.py"
    assert locate("tests/docs/test_links_to_code.py::test_where_things_are").line > 40
    for wrong in ("tiltwise.kernels.api.Backend.no", "tiltwise.nothing", "tests/docs/test_links_to_code.py::no"):
        with pytest.raises(NotThereError):
            locate(wrong)
    assert not is_code("tiltwise-refine")


def test_tables_hold_all_options() -> None:
    """Of every command: canonical flags, defaults, RELION's names."""
    text = tables()
    for name in COMMANDS:
        assert f"\n## {name}\n" in f"\n{text}"
        model = getattr(command_named(name), "model", None)
        section = f"\n{text}\n## ".split(f"\n## {name}\n")[1].split("\n## ")[0]
        for spec in model.specs() if model is not None else ():
            assert all(f"`{flag}`" in section for flag in spec.flags)
            assert spec.kind is bool or spec.default is None or f"`{spec.default}`" in section
