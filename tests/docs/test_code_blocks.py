"""Every code block of the pages runs, or says why not; every command in them is one of ours as it is now."""

from __future__ import annotations

import ast
import inspect
import shutil
from pathlib import Path

import pytest
from tests.helpers.doc_blocks import Block, blocks_of, parse, run_shell, simple_commands, smaller, tiltwise_words

from tiltwise import api

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
BLOCKS = {page: blocks_of(page) for page in PAGES}
LANGUAGES = {"sh", "python"}


@pytest.mark.parametrize("page", [page for page in PAGES if BLOCKS[page]], ids=lambda page: page.name)
def test_commands_are_known(page: Path) -> None:
    """Also where a block is not run: options exist, values are valid."""
    for block in BLOCKS[page]:
        assert block.language in LANGUAGES, f"{block}: a block of code needs sh or python, other text ```text"
        if block.language == "python":
            _know_options(block)
            continue
        for command in simple_commands(block.text):
            words = tiltwise_words(command)
            if words is not None:
                parse(words)


def _know_options(block: Block) -> None:
    """Raises unless Python can be compiled and names functions and options of `tiltwise.api` that exist."""
    for node in ast.walk(ast.parse(block.text, str(block))):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="api"), attr=name)):
                known = inspect.signature(getattr(api, name)).parameters
                unknown = {keyword.arg for keyword in node.keywords if keyword.arg} - set(known)
                assert not unknown, f"{block}: {unknown}"


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(block.not_run is None for block in BLOCKS[page])], ids=lambda page: page.name
)
def test_blocks_run(page: Path, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a copy of the project, one after the other, as a reader would; Python in one namespace."""
    folder = tmp_path / "project"
    shutil.copytree(project, folder)
    monkeypatch.chdir(folder)
    names: dict[str, object] = {"__name__": "__main__"}
    for block in BLOCKS[page]:
        if block.not_run is None:
            _run(block, names)


def _run(block: Block, names: dict[str, object]) -> None:
    if block.language == "sh":
        run_shell(block.text)
    else:
        exec(compile(block.text, str(block), "exec"), names)


def test_a_block_that_is_wrong_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```sh\nFOO=1 srun tiltwise refine --no-such-option 3 --o there > log\n```\n\n"
        "<!-- not run: needs SLURM -->\n```sh\nsrun tiltwise-refine --b ${N} \\\n  --i x\n```\n\n"
        "    tiltwise check\n\n```text\nnone\n```\n\n```sh\ntiltwise check --i optimisation_set.star\n```\n"
    )
    first, second, third, fourth = blocks_of(page)
    assert (first.not_run, second.not_run, third.language, fourth.not_run) == (None, "needs SLURM", "", None)
    words = tiltwise_words(simple_commands(first.text)[0])
    assert words == ["refine", "--no-such-option", "3", "--o", "there"]
    with pytest.raises(Exception, match="no-such-option"):
        parse(words)
    (command,) = simple_commands(second.text)
    assert tiltwise_words(command) == ["refine", "--b", "16", "--i", "x"]
    with pytest.raises(Exception, match="--o"):
        parse(["refine", "--b", "64", "--i", "x"])
    for call in ("api.mask(inptu=3)", "api.no_such_job()"):
        with pytest.raises((AssertionError, AttributeError)):
            _know_options(Block(page, 1, "python", call, None))
    assert smaller(["check", "--particle_diameter", "250"])[-1] == "120"
