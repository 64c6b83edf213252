"""`tiltwise scan DIR`: what is in a folder, what is missing, and the command to paste."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import rich_click

if TYPE_CHECKING:
    from tiltwise.interchange.scan import Project, Scan

MOST_NOTES = 4


def scan(folder: Path, as_json: bool) -> None:
    """Print what was found, as text or as JSON."""
    from tiltwise.interchange.scan import scan as look
    from tiltwise.jobs.manifest import to_json

    result = look(folder)
    if as_json:
        click.echo(to_json(plain(result), indent=1))
    else:
        for line in lines(result):
            click.echo(line)


def plain(result: Scan) -> dict[str, Any]:
    """The result as plain values."""
    return {
        "folder": str(result.inventory.root),
        "complete": result.inventory.complete,
        "files": {kind: [str(path) for path in paths] for kind, paths in result.inventory.files.items()},
        "other_files": result.inventory.other,
        "projects": [
            {
                "from": project.source,
                "path": str(project.path),
                "tilt_series": list(project.series),
                "tilts": project.tilts,
                "particles": project.particles,
                "missing": [{"what": one.what, "fix": one.fix} for one in project.missing],
                "notes": list(project.notes),
                "command": list(project.command),
            }
            for project in result.projects
        ],
    }


def lines(result: Scan) -> list[str]:
    """The result as text."""
    inventory = result.inventory
    text = [f"{inventory.root}:"]
    for kind, paths in inventory.files.items():
        first = paths[0].relative_to(inventory.root)
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        text.append(f"  {kind:<24} {len(paths):>6}   {first}{more}")
    text.append(f"  {'other files':<24} {inventory.other:>6}")
    if not inventory.complete:
        text.append("  not all folders were looked into: name a smaller one")
    for project in result.projects:
        text += ["", *_project(project)]
    if not result.projects:
        text += ["", "nothing here that can be imported was recognised: tiltwise import --help lists what can be"]
    return text


def _project(project: Project) -> list[str]:
    facts = []
    if project.series:
        names = ", ".join(project.series[:6]) + (" ..." if len(project.series) > 6 else "")
        facts.append(f"{len(project.series)} tilt series ({names}), {project.tilts} tilts")
    if project.particles:
        facts.append(f"{project.particles} particles")
    what = "particle list" if project.source == "particles" else project.title.split(" (")[0]
    text = [f"{project.path}: {what}" + (f": {'; '.join(facts)}" if facts else "")]
    text += [f"  missing: {one.what}" + (f"; {one.fix}" if one.fix else "") for one in project.missing]
    text += [f"  note: {note}" for note in project.notes[:MOST_NOTES]]
    if len(project.notes) > MOST_NOTES:
        text.append(f"  and {len(project.notes) - MOST_NOTES} more notes, which import will print")
    if project.missing:
        text.append("  fill in the words in capitals and paste:" if _open(project) else "  when that is mended, paste:")
    text.append(f"  {project.command_text}")
    return text


def _open(project: Project) -> bool:
    return any(word.isupper() and not Path(word).exists() for word in project.command)


command = rich_click.RichCommand(
    name="scan",
    help="What is in a folder, what is missing for an import, and the import command to paste.",
    context_settings={"help_option_names": ["-h", "--help", "--help-all"]},
    callback=scan,
    params=[
        click.Argument(["folder"], type=click.Path(path_type=Path)),
        click.Option(["as_json", "--json"], is_flag=True, help="print as JSON"),
    ],
)
