"""Commands generated from option models."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click
import rich_click

from tiltwise.cli.flags import translate
from tiltwise.config import InputOptions, Options, OptionSpec
from tiltwise.exec import Progress
from tiltwise.exec.memory import reuse_freed_memory
from tiltwise.jobs.manifest import to_json
from tiltwise.jobs.progress import choose_progress

Model = TypeVar("Model", bound=Options)

_TYPES: dict[type, click.ParamType[Any]] = {
    int: click.INT,
    float: click.FLOAT,
    str: click.STRING,
    Path: click.Path(path_type=Path),
}


@dataclass(frozen=True, slots=True)
class Session:
    """How a command was called and how it talks."""

    command_line: tuple[str, ...]
    progress: Progress
    ignored_flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command ends with."""

    summary: Mapping[str, Any]
    """printed by `--json`"""
    lines: list[str] = field(default_factory=list)
    """printed otherwise: what came out, and what to do next"""
    exit_code: int = 0
    result: Any = None
    """what the stage computed, for `tiltwise.api`"""


class OptionsCommand(rich_click.RichCommand):
    """Command whose options are those of a model."""

    def __init__(self, model: type[Options], name: str, argument: str | None = None, **settings: Any) -> None:
        super().__init__(name, **settings)
        self.model = model
        self.argument = argument

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Translate RELION's names, then parse."""
        ctx.obj = args
        if self.argument is not None and args and not args[0].startswith("-"):
            args = [self.argument, *args]
        kept, ignored = translate(args, self.model)
        ctx.meta["tiltwise.ignored"] = tuple(ignored)
        return super().parse_args(ctx, kept)


def command_from_options(
    model: type[Model], run: Callable[[Model, Session], Outcome], help: str, argument: str | None = None
) -> click.Command:
    """Make the command `model.command`: it parses, builds the model, calls `run`, shows the outcome.

    `argument` is the flag that may be left out before the first word.

    Only options that were typed reach the model, so that it knows which values are the user's.
    """

    def callback(**values: Any) -> int:
        context = click.get_current_context()
        as_json, quiet, verbose = (values.pop(name) for name in ("talk_json", "talk_quiet", "talk_verbose"))
        logging.basicConfig(level=logging.WARNING - 10 * min(verbose, 2), stream=sys.stderr)
        progress = choose_progress(quiet=quiet, json=as_json)
        given = {name: value for name, value in values.items() if value is not None}
        if issubclass(model, InputOptions):
            _find_set_beside_particles(given, progress)
        ignored = context.meta["tiltwise.ignored"]
        if ignored:
            progress.note(f"without effect here: {' '.join(ignored)}")
        options = model(**given)
        reuse_freed_memory()
        session = Session((*context.command_path.split(), *context.obj), progress, ignored)
        outcome = run(options, session)
        if as_json:
            click.echo(to_json(outcome.summary))
        elif not quiet:
            for line in outcome.lines:
                click.echo(line)
        return outcome.exit_code

    advanced = any(spec.group == "advanced" for spec in model.specs())
    return OptionsCommand(
        model,
        model.command,
        argument,
        help=help + ("\n\nMore options: --help-all." if advanced else ""),
        short_help=help,
        callback=callback,
        params=[*(_click_option(spec) for spec in model.specs()), *_talk_options()],
    )


def _click_option(spec: OptionSpec) -> click.Option:
    declarations = [spec.name]
    for flag in dict.fromkeys((spec.flag, "--" + spec.name.replace("_", "-"))):
        declarations.append(f"{flag}/--no-{flag[2:]}" if spec.kind is bool and flag == spec.flag else flag)
    text = spec.help + (f" [{spec.unit}]" if spec.unit else "")
    if spec.required:
        text += " (required)"
    elif spec.default is not None:
        value = spec.default if spec.kind is not bool else "yes" if spec.default else "no"
        text += f" (default: {value})"
    return click.Option(
        declarations,
        help=text,
        default=None,
        hidden=spec.group == "advanced",
        type=None if spec.kind is bool else click.Choice(spec.choices) if spec.choices else _TYPES[spec.kind],
    )


def _talk_options() -> list[click.Option]:
    return [
        click.Option(["talk_json", "--json"], is_flag=True, help="print a summary as JSON, all else to standard error"),
        click.Option(["talk_quiet", "--quiet", "-q"], is_flag=True, help="print errors and warnings only"),
        click.Option(["talk_verbose", "-v"], count=True, help="more messages; -vv even more", hidden=True),
        click.Option(
            ["--help-all"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_help_all,
            help="show all options and exit",
        ),
    ]


def _help_all(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if not value:
        return
    options = [option for option in context.command.params if isinstance(option, click.Option)]
    hidden = [option.hidden for option in options]
    for option in options:
        option.hidden = False
    click.echo(context.get_help())
    for option, was_hidden in zip(options, hidden, strict=True):
        option.hidden = was_hidden
    context.exit()


def _find_set_beside_particles(given: dict[str, Any], progress: Progress) -> None:
    """RELION's External jobs pass particles alone: take the one optimisation set of their folder."""
    particles = given.get("particles")
    if particles is None or "input" in given or "tomograms" in given:
        return
    found = sorted(particles.parent.glob("*optimisation_set.star"))
    if len(found) == 1:
        given["input"] = found[0]
        progress.note(f"--i {found[0]} (the optimisation set beside the particles)")
