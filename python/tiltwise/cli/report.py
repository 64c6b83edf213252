"""`tiltwise report`: the index of a project, the page of a job, or two jobs compared."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import rich_click

from tiltwise.errors import ConfigError, FormatError, OutputError

if TYPE_CHECKING:
    from tiltwise.exec.records import JobRecord

INDEX = "tiltwise_report.html"


def report(folders: tuple[Path, ...], output: Path | None, as_json: bool) -> None:
    """Write the page that one or two folders ask for, and say where it is."""
    from tiltwise.jobs.manifest import to_json
    from tiltwise.jobs.records import is_job

    if len(folders) > 2:
        raise ConfigError(
            "two jobs are compared at most",
            where="tiltwise report",
            found=f"{len(folders)} folders",
            fix="name a project, a job, or two jobs",
        )
    for folder in folders:
        if not folder.is_dir():
            raise FormatError("there is no such folder", where=str(folder), fix="name a project, a job, or two jobs")
    if len(folders) == 2:
        content, lines = _two(folders[0], folders[1], output)
    elif is_job(folders[0].resolve()):
        content, lines = _job(folders[0], output)
    else:
        content, lines = _project(folders[0], output)
    if as_json:
        click.echo(to_json(content))
    else:
        for line in lines:
            click.echo(line)


def _project(project: Path, output: Path | None) -> tuple[dict[str, Any], list[str]]:
    """Index of all jobs below a folder."""
    from tiltwise.jobs.records import find_jobs
    from tiltwise.report.lineage import Lineage, best_set
    from tiltwise.report.project import write_project_report

    path = output or project / INDEX
    check_place(path)
    records = find_jobs(project)
    write_project_report(path, project, records)
    lineage = Lineage.of(records)
    best = best_set(lineage)
    content = {
        "report": str(path),
        "best_set": None if best is None else str(best.path),
        "best_resolution_angstrom": None if best is None else best.resolution_angstrom,
        "jobs": [_plain(one) for one in records],
        "parents": {
            one.name: [lineage.jobs[parent].name for parent in parents]
            for one, parents in zip(lineage.jobs, lineage.parents, strict=True)
        },
    }
    states = [f"{one.name}: {one.state}" for one in records if one.state in ("running", "failed", "killed")]
    lines = [f"✓ {len(records)} jobs" + (f" ({'; '.join(states[:6])})" if states else "")]
    if best is not None:
        found = "" if best.resolution_angstrom is None else f" ({best.resolution_angstrom:.1f} Å)"
        lines.append(f"  best set: {best.path}{found}")
    return content, [*lines, f"  report: {path}"]


def _job(folder: Path, output: Path | None) -> tuple[dict[str, Any], list[str]]:
    """Page of one job: its own, or one from its records."""
    from tiltwise.exec.live_page import KILLED, close_page
    from tiltwise.jobs.records import log_tail, read_record
    from tiltwise.report.record import write_record_report

    record = read_record(folder, folder)
    assert record is not None  # as `is_job` said
    if output is None and record.report is not None:
        if record.state in ("killed", "failed", "stopped"):
            # The page of a job whose machine went down with it still says that it runs.
            with suppress(OSError):
                close_page(str(record.report), record.state, record.error or KILLED)
        content = {"report": str(record.report), **_plain(record)}
        return content, [f"✓ {record.name}: {record.state}", f"  report: {record.report}"]
    path = output or folder / "report.html"
    check_place(path)
    write_record_report(path, record, log_tail(folder))
    return {"report": str(path), **_plain(record)}, [f"✓ {record.name}: {record.state}", f"  report: {path}"]


def _two(first: Path, second: Path, output: Path | None) -> tuple[dict[str, Any], list[str]]:
    """Two jobs compared."""
    from tiltwise.jobs.records import read_record
    from tiltwise.report.compare import compare, sentence, write_comparison

    path = output or Path(f"compare_{first.resolve().name}_{second.resolve().name}.html")
    check_place(path)
    root = Path(os.path.commonpath([first.resolve().parent, second.resolve().parent]))
    records = []
    for folder in (first, second):
        record = read_record(folder, root)
        if record is None:
            raise FormatError(
                "this is not the folder of a job",
                where=str(folder),
                expected="a folder with job.json, or of RELION",
                fix="tiltwise report PROJECT lists the jobs of a project",
            )
        records.append(record)
    result = compare(records[0], records[1])
    write_comparison(path, result)
    content = {
        "report": str(path),
        "verdict": sentence(result),
        "resolution_angstrom": [result.resolution(0), result.resolution(1)],
        "jobs": [_plain(one) for one in records],
    }
    return content, [f"✓ {sentence(result)}", f"  report: {path}"]


def check_place(path: Path) -> None:
    """Refuse a place that cannot be written, before any work.

    Raises
    ------
    OutputError
        if `path` is a folder, or its folder is missing or read-only.
    """
    folder = path.resolve().parent
    if path.is_dir():
        raise OutputError("the report needs a name of a file", where=f"--o {path}", found="a folder", fix=_fix())
    if not folder.is_dir():
        raise OutputError(
            "the folder of the report does not exist", where=f"--o {path}", fix=f"mkdir -p {folder}, or another --o"
        )
    if not os.access(folder, os.W_OK):
        raise OutputError(
            "the folder of the report cannot be written", where=str(folder), found="it is read-only", fix=_fix()
        )


def _fix() -> str:
    return f"name a file where you may write: --o {Path.home() / INDEX}"


def _plain(one: JobRecord) -> dict[str, Any]:
    return {
        "job": one.name,
        "folder": str(one.folder),
        "command": one.command,
        "program": one.program,
        "state": one.state,
        "started": one.started,
        "wall_s": one.wall_s,
        "peak_memory_gb": one.peak_memory_gb,
        "resolution_angstrom": one.resolution_angstrom,
        "warnings": list(one.warnings),
        "error": one.error,
    }


command = rich_click.RichCommand(
    name="report",
    help="One offline page: all jobs of a project, one job from its records, or two jobs compared.",
    context_settings={"help_option_names": ["-h", "--help", "--help-all"]},
    callback=report,
    params=[
        click.Argument(["folders"], nargs=-1, required=True, type=click.Path(path_type=Path)),
        click.Option(
            ["output", "--o", "--output"],
            type=click.Path(path_type=Path),
            help=f"the page (default: {INDEX} in the project, report.html in the folder of a job that has none, "
            "compare_A_B.html here)",
        ),
        click.Option(["as_json", "--json"], is_flag=True, help="print a summary as JSON"),
    ],
)
