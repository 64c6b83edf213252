"""What pages say of the package is what the package says of itself."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tiltwise.cli.app import COMMANDS

ROOT = Path(__file__).resolve().parents[2]


def test_every_dependency_has_its_licence() -> None:
    """The first table of the page on licences has the dependencies, no more and no fewer."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {_name(one) for one in project["dependencies"]}
    for extra in ("models", "dask", "viz"):  # what commands use; the others are for tests and developers
        names |= {f"{_name(one)} (extra `{extra}`)" for one in project["optional-dependencies"][extra]}
    page = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    table = page[page.index("| dependency |") :].split("\n\n")[0]
    rows = [line.split("|")[1].strip().lower() for line in table.splitlines()[2:]]
    assert set(rows) == names
    assert "GPL" not in table


def _name(requirement: str) -> str:
    return re.split(r"[\[<>=~! ]", requirement)[0].lower()


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    pages = {path.stem for path in (ROOT / "docs").iterdir() if path.suffix in (".md", ".ipynb")} - {"index"}
    assert set(re.findall(r"\]\((\w[\w-]*)\.(?:md|ipynb)\)", index)) == pages
    assert set(index[index.index("```{toctree}") :].split()) >= pages


@pytest.mark.parametrize("pages", ["docs/*.md", "README.md"])
def test_every_command_is_in_a_page(pages: str) -> None:
    """A command that no page names is one nobody finds."""
    text = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob(pages))
    missing = [name for name in COMMANDS if not re.search(rf"`(?:tiltwise )?{name}\b|tiltwise {name}\b", text)]
    assert not missing


def test_every_program_for_external_jobs_is_listed() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    page = (ROOT / "docs" / "relion.md").read_text(encoding="utf-8")
    assert not [name for name in scripts if name != "tiltwise" and f"`{name}`" not in page]
