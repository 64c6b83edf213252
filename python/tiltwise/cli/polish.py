"""`tiltwise polish PROJECT`: the cycle on the newest refinement of a RELION project, which is not changed."""

from __future__ import annotations

from tiltwise.cli.command import command_from_options
from tiltwise.cli.cycle import run
from tiltwise.cycle.options import PolishOptions

command = command_from_options(
    PolishOptions, run, "The cycle on the newest refinement of a RELION project, which is not changed.", argument="--i"
)
