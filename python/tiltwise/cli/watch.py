"""`tiltwise watch`: the jobs of a project, live in a browser."""

from __future__ import annotations

import getpass
import socket
from contextlib import suppress
from pathlib import Path

import click
import rich_click

from tiltwise.errors import FormatError


def watch(project: Path, port: int, allow_abort: bool, as_json: bool) -> None:
    """Serve until Ctrl-C."""
    from tiltwise.jobs.manifest import to_json
    from tiltwise.watch.server import ADDRESS, WatchServer

    if not project.is_dir():
        raise FormatError("there is no such folder", where=str(project), fix="name the folder of a project")
    with WatchServer(project, port, allow_abort=allow_abort) as server:
        count = len(server.state.records())
        mode = "jobs can be stopped from the page" if allow_abort else "read-only"
        tunnel = f"ssh -L {server.server_port}:{ADDRESS}:{server.server_port} {_user()}@{socket.getfqdn()}"
        if as_json:
            click.echo(to_json({"url": server.url, "tunnel": tunnel, "jobs": count, "allow_abort": allow_abort}))
        else:
            click.echo(f"watching {project.resolve()}: {count} job{'' if count == 1 else 's'}; {mode}")
            click.echo(f"  {server.url}")
            click.echo(f"  from another computer: {tunnel}")
            click.echo(
                "  and open the same address there; it is secret: whoever has it sees the jobs. Ctrl-C ends this"
            )
        with suppress(KeyboardInterrupt):
            server.serve_forever(poll_interval=0.2)
        server.closing.set()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "USER"


command = rich_click.RichCommand(
    name="watch",
    help="Jobs of a project, live in a browser on this machine.",
    context_settings={"help_option_names": ["-h", "--help", "--help-all"]},
    callback=watch,
    params=[
        click.Argument(["project"], default=".", type=click.Path(path_type=Path)),
        click.Option(["--port"], type=click.IntRange(0, 65535), default=0, help="port; default: a free one"),
        click.Option(["as_json", "--json"], is_flag=True, help="print the address as JSON"),
        click.Option(
            ["--allow-abort"], is_flag=True, help="show a button that stops a job; without, nothing is ever written"
        ),
    ],
)
