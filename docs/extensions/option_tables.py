"""Tables of the options of all commands, made from the models that make the command line."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from tiltwise.cli.app import COMMANDS
from tiltwise.config import Options, OptionSpec

PLACE = "<!-- tables of all commands -->"


def tables() -> str:
    """Markdown: a heading and a table for every command, in the order of `tiltwise --help`."""
    return "\n\n".join(_section(name, command_named(name)) for name in COMMANDS)


def command_named(name: str) -> click.Command:
    """The command as click has it."""
    command: click.Command = import_module(f"tiltwise.cli.{COMMANDS[name].module}").command
    return command


def _section(name: str, command: click.Command) -> str:
    lines = [f"## {name}", "", (command.short_help or command.help or "").split("\n")[0], ""]
    model: type[Options] | None = getattr(command, "model", None)
    if isinstance(command, click.Group):
        context = click.Context(command)
        for word in command.list_commands(context):
            inner = command.get_command(context, word)
            if inner is not None:
                lines += [f"### {name} {word}", "", inner.help or "", "", *_plain_rows(inner), ""]
    elif model is None:
        lines += _plain_rows(command)
    elif model.model_fields:
        lines += ["| option | default | |", "|---|---|---|"]
        specs = model.specs()
        lines += [_row(spec) for spec in sorted(specs, key=lambda spec: spec.group == "advanced")]
        if model.ignored_flags:
            flags = ", ".join(f"`{flag}`" for flag in model.ignored_flags)
            lines += ["", f"Accepted without effect: {flags}."]
    return "\n".join(lines)


def _row(spec: OptionSpec) -> str:
    names = list(dict.fromkeys(spec.flags))
    if spec.kind is bool and spec.default:
        names = [f"--no-{spec.flag[2:]}", *names]
    text = spec.help + (f" [{spec.unit}]" if spec.unit else "")
    if spec.choices:
        text += f" ({', '.join(spec.choices)})"
    default = "*required*" if spec.required else "" if spec.default is None else _value(spec)
    more = "" if spec.group == "essential" else " *advanced*"
    return f"| {', '.join(f'`{name}`' for name in names)} | {default} | {_cell(text)}{more} |"


def _value(spec: OptionSpec) -> str:
    return ("yes" if spec.default else "no") if spec.kind is bool else f"`{spec.default}`"


def _plain_rows(command: click.Command) -> list[str]:
    rows = ["| option | default | |", "|---|---|---|"]
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            names, text = ", ".join(f"`{name}`" for name in parameter.opts), parameter.help or ""
        else:
            names, text = f"`{parameter.make_metavar(click.Context(command))}`", ""
        default = parameter.default if isinstance(parameter.default, int | float | str) else None
        shown = "" if default is None or isinstance(default, bool) else f"`{default}`"
        rows.append(f"| {names} | {shown} | {_cell(text)} |")
    return rows


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "\\<").replace("*", "\\*")


def _insert(app: Any, docname: str, source: list[str]) -> None:
    if PLACE in source[0]:
        source[0] = source[0].replace(PLACE, tables())


def setup(app: Any) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("source-read", _insert)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
