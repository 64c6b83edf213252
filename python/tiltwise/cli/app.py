"""The group of commands; a command's module is imported when it is used, so that help is fast."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

import click
import rich_click

from tiltwise import __version__


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a command is, and what the list of commands says about it."""

    module: str
    help: str


COMMANDS = {
    "demo": Entry("demo", "simulate a small data set with known truth and refine it"),
    "simulate": Entry("simulate", "simulate tilt series with known truth"),
    "scan": Entry("scan", "what is in a folder, what is missing, and the import command to paste"),
    "check": Entry("check", "everything that is wrong with a set, with codes and remedies"),
    "explain": Entry("explain", "what a finding of `check` means, and what to do"),
    "import": Entry("import_project", "optimisation set from a project of RELION-4, RELION-5 or other programs"),
    "extract": Entry("extract", "images of the particles as files: 2D stacks, pseudo-subtomograms"),
    "subtract": Entry("subtract", "images of a part of the particle as files, without the rest"),
    "export": Entry("export", "sets, particles and maps in the forms of other programs"),
    "reconstruct": Entry("reconstruct", "map and half maps from the poses in the file"),
    "initial-model": Entry("initial_model", "a map from particles whose orientations are not known"),
    "refine": Entry("refine", "refine poses and map from tilt series"),
    "classify": Entry("classify", "sort particles into classes, each with a map of its own"),
    "select": Entry("select", "keep particles by class, score, tilts, distance or fit into a lattice"),
    "expand": Entry("expand", "every particle once for each of its symmetry mates"),
    "refine-ctf": Entry("refine_ctf", "refine defocus, astigmatism and contrast of every tilt"),
    "align": Entry("align", "align tilt series by their particles; motion of the particles"),
    "cycle": Entry("cycle", "refine, refine-ctf and align in turn, as long as each helps"),
    "polish": Entry("polish", "the cycle on the newest refinement of a RELION project"),
    "ablate": Entry("ablate", "what every correction bought: each put back to what it was before"),
    "composite": Entry("composite", "one map of parts refined one by one, and of the consensus for the rest"),
    "mask": Entry("mask", "soft mask of the particle, from half maps or a map"),
    "postprocess": Entry("postprocess", "resolution and a sharpened map from half maps"),
    "local-resolution": Entry("local_resolution", "resolution at every voxel, and a map filtered by it"),
    "bfactor-plot": Entry("bfactor_plot", "resolution against the number of particles, and what more would give"),
    "report": Entry("report", "one page of all jobs of a project, of one job, or of two compared"),
    "watch": Entry("watch", "jobs of a project, live in a browser on this machine"),
    "star": Entry("star", "look into STAR files; filter, join and cut them without loss"),
    "doctor": Entry("doctor", "what this machine has: versions, backends, memory, RELION"),
    "bench": Entry("bench", "rates of the compute kernels on this machine"),
}


# The overview of `tiltwise --help`: panels in the order in which people need them, commands as work proceeds.
PANELS = {
    "First steps": ("demo", "simulate", "doctor"),
    "What is there": ("scan", "check", "explain", "import", "star"),
    "Poses and maps": ("reconstruct", "initial-model", "refine", "classify", "select", "expand", "subtract"),
    "Tilt series": ("refine-ctf", "align", "cycle", "polish", "ablate"),
    "Results": ("mask", "postprocess", "local-resolution", "bfactor-plot", "composite"),
    "Looking at jobs": ("report", "watch"),
    "For other programs": ("extract", "export"),
    "For developers": ("bench",),
}


class LazyGroup(rich_click.RichGroup):
    """Group whose commands are placeholders until one is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order in which a newcomer wants them."""
        return list(COMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Import the command that was named."""
        name, command, rest = super().resolve_command(ctx, args)
        if name is None or command is None:
            return name, command, rest
        loaded: click.Command = import_module(f"tiltwise.cli.{COMMANDS[name].module}").command
        return name, loaded, rest


app = LazyGroup(
    name="tiltwise",
    help="Macromolecular structures from cryo-electron tomography tilt series.\n\n"
    "New here: tiltwise demo --o demo. A RELION project: tiltwise check, then tiltwise polish. Other data: tiltwise "
    "scan FOLDER. Every command has -h, and --help-all for all of its options.",
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda token: token.replace("_", "-"),
        "rich_help_config": {
            "command_groups": {
                "tiltwise": [
                    {"name": title, "commands": [name for name in names if name in COMMANDS]}
                    for title, names in PANELS.items()
                ]
            }
        },
    },
    commands=[rich_click.RichCommand(name=name, short_help=entry.help) for name, entry in COMMANDS.items()],
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=lambda context, _, value: _show_version(context) if value else None,
            help="show the version and exit",
        )
    ],
)


def _show_version(context: click.Context) -> None:
    click.echo(f"tiltwise {__version__}")
    context.exit()
