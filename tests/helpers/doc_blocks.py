"""Code blocks of the pages: found, cut into commands, and run on data that are smaller than a user's."""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from markdown_it import MarkdownIt

from tiltwise.cli.app import COMMANDS, app
from tiltwise.cli.main import main

NOT_CODE = {"text", "yaml", "json"}
NOT_RUN = re.compile(r"<!-- not run: (.+?) -->\s*")

SMALL = {
    "--b": "32",
    "--crop": "32",
    "--bin": "1",
    "--bins": "1",
    "--n": "1",
    "--ini-high": "40",
    "--particle-diameter": "120",
    "--iter": "1",
    "--j": "1",
    "--particles": "8",
    "--tilt-step": "12",
    "--width-px": "160",
    "--height-px": "160",
    "--workers": "0",
}
"""Values that options of a block get when it is run: the images have 160 pixels of 6 Å."""
FASTER = {
    "refine": {"--iter": "1", "--healpix-order": "3", "--auto-local-healpix-order": "3", "--offset-range": "3"},
    "cycle": {
        "--no-ablation": "",
        "--order": "ctf",
        "--healpix-order": "3",
        "--auto-local-healpix-order": "3",
        "--offset-range": "3",
    },
    "polish": {"--no-ablation": "", "--order": "ctf", "--auto-local-healpix-order": "3", "--offset-range": "3"},
}
"""Options that are added where a block does not give them, with their values."""


@dataclass(frozen=True, slots=True)
class Block:
    """A code block of a page."""

    page: Path
    line: int
    language: str
    text: str
    not_run: str | None
    """why it is not run, from the comment before it"""

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """Code of a page in its order; figures of text and directives of Sphinx are none."""
    found = []
    reason: str | None = None
    for token in MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8")):
        if token.type in ("fence", "code_block") and token.map is not None:
            language = token.info.strip()
            if language not in NOT_CODE and not language.startswith("{"):
                found.append(Block(page, token.map[0] + 1, language, token.content, reason))
        comment = NOT_RUN.fullmatch(token.content) if token.type == "html_block" else None
        reason = comment[1] if comment else None
    return found


def simple_commands(text: str) -> list[list[str]]:
    """Words of every command of a shell script, without redirections; variables stand for 16."""
    text = re.sub(r"\\\n", " ", text)
    text = re.sub(r"\$\{?\w+\}?|\$\([^)]*\)", "16", text)
    commands: list[list[str]] = []
    for line in text.splitlines():
        words: list[str] = []
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        tokens = list(lexer)
        for token in [*tokens, ";"]:
            if token in ("&&", "||", "|", ";", "&"):
                if words:
                    commands.append(words)
                words = []
            else:
                words.append(token)
    return commands


def tiltwise_words(command: list[str]) -> list[str] | None:
    """What follows `tiltwise` in a command, behind srun, apptainer or the like too; None if there is nothing."""
    for i, word in enumerate(command):
        if word == "tiltwise" and i + 1 < len(command):
            known = command[i + 1] in COMMANDS or command[i + 1].startswith("-")
            if known or i == 0:
                return _until_redirection(command[i + 1 :])
        if word.startswith("tiltwise-") and word.removeprefix("tiltwise-") in COMMANDS:
            return _until_redirection([word.removeprefix("tiltwise-"), *command[i + 1 :]])
    return None


def _until_redirection(words: list[str]) -> list[str]:
    return words[: next((i for i, word in enumerate(words) if word[0] in "<>"), len(words))]


def parse(words: list[str]) -> None:
    """Raises if the command line does not know the words: options, their values, and what does not go together."""
    name, *rest = words
    if name.startswith("-"):
        assert any(name in option.opts for option in app.params) or name in ("-h", "--help"), name
        return
    command: click.Command = import_module(f"tiltwise.cli.{COMMANDS[name].module}").command
    if {"-h", "--help", "--help-all"} & set(rest):
        return
    if isinstance(command, click.Group):
        name, *rest = rest
        inner = command.get_command(click.Context(command), name)
        assert inner is not None, name
        command = inner
    # commands remember the names of their help option from the first context they see
    settings = {key: app.context_settings[key] for key in ("help_option_names", "token_normalize_func")}
    parent = click.Context(app, info_name="tiltwise", **settings)
    with command.make_context(name, list(rest), parent=parent) as context:
        model: Any = getattr(command, "model", None)
        if model is not None:
            given = {key: value for key, value in context.params.items() if key in model.model_fields}
            model(**{key: value for key, value in given.items() if value is not None})


def run_shell(text: str) -> None:
    """Run the commands of a block one after the other where we are; tiltwise in this process, on small boxes."""
    for command in simple_commands(text):
        words = tiltwise_words(command)
        if words is None:
            subprocess.run(command, check=True, timeout=20)
        else:
            assert main(smaller(words)) == 0, " ".join(words)


def smaller(words: list[str]) -> list[str]:
    """The command for the small data."""
    kept = list(words)
    for i, word in enumerate(kept[:-1]):
        kept[i + 1] = SMALL.get(word.replace("_", "-"), kept[i + 1])
    for flag, value in FASTER.get(words[0], {}).items():
        if flag not in kept:
            kept += [flag, value] if value else [flag]
    return kept
