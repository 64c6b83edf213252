"""`tiltwise explain CODE`: what a finding of `tiltwise check` means."""

from __future__ import annotations

import difflib

import click
import rich_click

from tiltwise.check.codes import CODES, Code, code_named
from tiltwise.errors import ConfigError


def text_of(code: Code) -> str:
    """An entry of the registry for people."""
    return f"{code.name}  {code.severity}: {code.title}\n\n{code.why}\n\nfix: {code.fix}"


def explain(code: str | None, as_json: bool) -> None:
    """Print one entry of the registry, or the list of all."""
    from tiltwise.jobs.manifest import to_json

    if code is None:
        shown = list(CODES.values())
    else:
        one = code_named(code)
        if one is None:
            close = difflib.get_close_matches(code.upper(), CODES, n=3)
            raise ConfigError(
                f"there is no code {code}",
                expected="a code as tiltwise check prints it, such as TW-COORD-01",
                fix=f"did you mean {', '.join(close)}?" if close else "tiltwise explain lists all codes",
            )
        shown = [one]
    if as_json:
        keys = ("name", "severity", "title", "why", "fix")
        click.echo(to_json([{key: getattr(one, key) for key in keys} for one in shown]))
    elif code is None:
        for one in shown:
            click.echo(f"{one.name:<14} {one.severity:<8} {one.title}")
    else:
        click.echo(text_of(shown[0]))


command = rich_click.RichCommand(
    name="explain",
    help="What a finding of tiltwise check means, and what to do; without a code, the list of all codes.",
    context_settings={"help_option_names": ["-h", "--help", "--help-all"]},
    callback=explain,
    params=[
        click.Argument(["code"], required=False),
        click.Option(["as_json", "--json"], is_flag=True, help="print as JSON"),
    ],
)
