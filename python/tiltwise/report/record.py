"""Page of one job from its records alone: of one that runs, was killed, failed, or has lost its report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tiltwise.exec.records import JobRecord
from tiltwise.report import pages
from tiltwise.report.html import Cell, Section, Summary, Table, write_report
from tiltwise.report.project import words
from tiltwise.report.units import duration

_TELLS = {
    "running": "The job runs.",
    "finished": "The job has finished.",
    "failed": "The job has failed.",
    "stopped": "The job was stopped on request.",
    "killed": "The job was killed.",
    "unknown": "The folder has no marker of the end of its job: it waits, runs, or was killed.",
}


def write_record_report(path: Path, record: JobRecord, log: Sequence[str] = ()) -> None:
    """Write what the records of a job tell; `log` is the end of its output.

    Raises
    ------
    OutputError
        if the file cannot be written.
    """
    write_report(path, f"{record.command} {record.name}", summary_of(record), sections_of(record, log))


def summary_of(record: JobRecord) -> Summary:
    """Head of the page."""
    text = words(record)
    sentence = _TELLS[record.state] + (f" {text[0].upper()}{text[1:].rstrip('.')}." if text else "")
    facts: dict[str, str] = {"state": "no end marker" if record.state == "unknown" else record.state}
    if record.started is not None:
        facts["began (UTC)"] = record.started[:16].replace("T", " ")
    if record.wall_s is not None:
        facts["time"] = duration(record.wall_s)
    if record.peak_memory_gb is not None:
        facts["peak memory"] = f"{record.peak_memory_gb:.2f} GB"
    if record.resolution_angstrom is not None:
        facts["resolution"] = f"{record.resolution_angstrom:.1f} Å"
    command = record.command_line if record.state in ("failed", "killed", "stopped") else ""
    return Summary(sentence, facts, record.warnings, command)


def sections_of(record: JobRecord, log: Sequence[str]) -> list[Section]:
    """Cards of the page: error, iterations, results, the end of the output, and what was run."""
    sections = []
    if record.error and "\n" in record.error:
        rows: list[list[Cell]] = [[line.strip()] for line in record.error.splitlines()]
        sections.append(Section("Error", table=Table([""], rows), shape="wide"))
    rows_of = [dict(row) for row in record.iterations]
    if rows_of and all("iteration" in row for row in rows_of):
        sections.append(pages.iterations_section(rows_of, None))
    elif rows_of:
        columns = list(rows_of[0])
        table = Table(columns, [[row.get(column) for column in columns] for row in rows_of])
        sections.append(Section("Steps", table=table, shape="wide"))
    metrics: list[list[Cell]] = [
        [name, value if isinstance(value, (int, float, str)) or value is None else str(value)]
        for name, value in record.metrics.items()
    ]
    if metrics:
        sections.append(Section("Results", table=Table(["", ""], metrics)))
    if log:
        sections.append(Section("End of the output", table=Table([""], [[line] for line in log]), shape="wide"))
    if record.program == "tiltwise" and record.manifest:
        sections += pages.provenance_sections(record.manifest)
    elif record.command_line:
        sections.append(Section("Run", table=Table(["", ""], [["command", record.command_line]])))
    return sections
