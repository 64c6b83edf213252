"""Index of a project: every job, what came out, what came from what, and how to go on."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from matplotlib.figure import Figure

from tiltwise.exec.records import JobRecord
from tiltwise.report.html import Cell, Code, Link, Section, Summary, Table, write_report
from tiltwise.report.lineage import STATE_COLOURS, BestSet, Lineage, best_set, lineage_picture
from tiltwise.report.style import GREY, INK, VERMILION, new_figure, style
from tiltwise.report.units import duration

_LONGEST_WORDS = 160
_MOST_DRAWN = 1000
"""Jobs in the lineage, and dots that are not pixels."""
_COLUMNS = ("job", "command", "state", "began (UTC)", "time", "peak GB", "Å", "warnings", "verdict")
_VERDICTS = ("ctf.json", "align.json")


def write_project_report(path: Path, project: Path, records: Sequence[JobRecord]) -> None:
    """Write the index of all jobs of a project as one page.

    Raises
    ------
    OutputError
        if the file cannot be written.
    """
    lineage = Lineage.of(records)
    best = best_set(lineage)
    sections = [_jobs_section(lineage, path.parent), _lineage_section(lineage, best, path.parent)]
    measured = [one for one in lineage.jobs if one.state == "finished" and one.resolution_angstrom is not None]
    if len(measured) > 1:
        sections.append(_resolution_section(measured))
    sections.append(_commands_section(lineage))
    warnings = [f"{one.name}: {words(one)}" for one in records if one.state in ("failed", "killed")]
    summary = Summary(
        _sentence(lineage, best, path.parent), _facts(lineage, best), warnings, next_command(lineage, best)
    )
    write_report(path, f"Project {project.resolve().name}", summary, sections)


def words(one: JobRecord) -> str:
    """What a job says of itself in a line: its verdict, the reason of its end, or its error."""
    if one.state == "killed":
        return (
            "it was killed, or its machine went down, before it could say why (often: out of memory). The same command "
            "goes on from its last checkpoint"
        )
    if one.error:
        return _short(one.error.splitlines()[0])
    for name in _VERDICTS:
        if (one.folder / name).is_file():
            from tiltwise.cycle.table import verdicts

            try:
                return _short(verdicts(one.folder / name)[0].replace("_", " "))
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                return f"{name} cannot be read"
    reason = one.metrics.get("stop_reason") or one.metrics.get("reason")
    if reason:
        return _short(str(reason))
    if one.state == "running" and one.iterations:
        row = one.iterations[-1]
        return f"iteration {row['iteration']}" if "iteration" in row else f"{len(one.iterations)} steps done"
    return ""


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_WORDS else text[: _LONGEST_WORDS - 1] + "…"


def link_to(path: Path, start: Path) -> str:
    """Address of a file in a page that lies in `start`."""
    return quote(os.path.relpath(path, start.resolve()).replace(os.sep, "/"))


def _sentence(lineage: Lineage, best: BestSet | None, start: Path) -> str:
    if not lineage.jobs:
        return "There is no job in this folder."
    counts = [
        f"{sum(one.state == state for one in lineage.jobs)} {'without end marker' if state == 'unknown' else state}"
        for state in STATE_COLOURS
        if any(one.state == state for one in lineage.jobs)
    ]
    text = f"{len(lineage.jobs)} job{'s' if len(lineage.jobs) > 1 else ''}: {', '.join(counts)}."
    if best is None:
        return f"{text} None that has finished left an optimisation set."
    text += f" Best set of particles: {os.path.relpath(best.path, start.resolve())}"
    if best.resolution_angstrom is None or best.measured_by is None:
        text += ", the newest; no resolution is known."
    else:
        by = "" if best.measured_by is best.job else f" by {best.measured_by.name}"
        text += f", {best.resolution_angstrom:.1f} Å{by}."
    if best.newer:
        text += f" Made of it, and not measured yet: {', '.join(one.name for one in best.newer)}."
    return text


def _facts(lineage: Lineage, best: BestSet | None) -> dict[str, str]:
    everything = [*lineage.jobs, *(one for parts in lineage.parts.values() for one in parts)]
    total = sum(one.wall_s for one in lineage.jobs if one.wall_s is not None)
    peaks = [one.peak_memory_gb for one in everything if one.peak_memory_gb is not None]
    facts = {"jobs": str(len(lineage.jobs)), "time": duration(total)}
    if peaks:
        facts["peak memory"] = f"{max(peaks):.2f} GB"
    if best is not None and best.resolution_angstrom is not None:
        facts["best resolution"] = f"{best.resolution_angstrom:.1f} Å"
    return facts


def next_command(lineage: Lineage, best: BestSet | None) -> str:
    """The most useful next job: measure a set nobody has measured, else post-process the best maps."""
    if best is None:
        return ""
    if best.newer and (like := _like(lineage)) is not None:
        newest = best.newer[-1]
        options = [
            text
            for key, flag in (("box", "--b"), ("crop", "--crop"), ("binning", "--bin"), ("symmetry", "--sym"))
            if (value := like.parameters.get(key, {}).get("value")) is not None
            for text in (flag, f"{value:g}" if isinstance(value, float) else str(value))
        ]
        arguments = ["reconstruct", "--i", str(newest.optimisation_set), *options]
        return shlex.join(["tiltwise", *arguments, "--o", f"{newest.folder}_reconstruct"])
    maps = best.measured_by
    if maps is None or maps.command not in ("refine", "reconstruct"):
        return ""
    number = lineage.jobs.index(maps)
    if any(lineage.jobs[child].command == "postprocess" for child in lineage.children(number)):
        return ""
    return shlex.join(["tiltwise", "postprocess", "--i", str(maps.folder), "--o", f"{maps.folder}_postprocess"])


def _like(lineage: Lineage) -> JobRecord | None:
    """The newest job that says in which boxes images are cut."""
    for one in reversed(lineage.jobs):
        several = "," in str(one.parameters.get("symmetry", {}).get("value"))  # of classes, which reconstruct has not
        if one.parameters.get("box", {}).get("value") and not several:
            return one
    return None


def _jobs_section(lineage: Lineage, start: Path) -> Section:
    rows: list[list[Cell]] = []
    for number, one in enumerate(lineage.jobs):
        rows.append(_row(one, start))
        rows += [_row(part, start) for part in lineage.parts.get(number, ())]
    return Section(
        "Jobs",
        "In the order in which they began, parents first; jobs inside the folder of another are its steps. A link "
        "leads to the report of a job. A job is running until it leaves a marker or its process is gone; those of "
        "RELION have no marker while they wait or run.",
        table=Table(_COLUMNS, rows, whole_words=True),
        shape="wide",
    )


def _row(one: JobRecord, start: Path) -> list[Cell]:
    return [
        Link(one.name, link_to(one.report, start)) if one.report is not None else one.name,
        one.command,
        "no end marker" if one.state == "unknown" else one.state,
        "" if one.started is None else one.started[:16].replace("T", " "),
        "" if one.wall_s is None else duration(one.wall_s).replace(" ", "\u00a0"),
        "" if one.peak_memory_gb is None else f"{one.peak_memory_gb:.2f}",
        "" if one.resolution_angstrom is None else f"{one.resolution_angstrom:.2f}",
        str(len(one.warnings)) if one.warnings else "",
        words(one),
    ]


def _lineage_section(lineage: Lineage, best: BestSet | None, start: Path) -> Section:
    shown = lineage.newest(_MOST_DRAWN)
    links = {n: link_to(one.report, start) for n, one in enumerate(shown.jobs) if one.report is not None}
    some = f" The newest {_MOST_DRAWN:,} of {len(lineage.jobs):,}." if len(shown.jobs) < len(lineage.jobs) else ""
    edges: list[list[Cell]] = [
        [one.name, lineage.jobs[parent].name]
        for number, one in enumerate(lineage.jobs)
        for parent in lineage.parents[number]
    ]
    return Section(
        "Lineage",
        "Lines lead from a job down to those that read its files. Circles: tiltwise, squares: RELION; green: finished, "
        "blue: running, vermilion: failed or killed, orange: stopped on request, grey: no end marker; ★: best set."
        + some,
        picture=lineage_picture(shown, links, None if best is None else best.path) if lineage.jobs else "",
        data=Table(["job", "reads files of"], edges),
    )


def _resolution_section(measured: Sequence[JobRecord]) -> Section:
    return Section(
        "Resolution",
        "FSC 0.143 of every job that states it, in their order. Masks and binning differ between jobs: compare two of "
        "them by tiltwise report JOB JOB.",
        figure=_resolution_figure(measured),
        form="svg" if len(measured) < _MOST_DRAWN else "png",
        data=Table(["job", "Å"], [[one.name, one.resolution_angstrom] for one in measured]),
    )


def _resolution_figure(measured: Sequence[JobRecord]) -> Figure:
    values = [float(one.resolution_angstrom or 0.0) for one in measured]
    places = list(range(len(values)))
    with style():
        figure = new_figure(5.6, 3.7)
        axes = figure.add_axes((0.11, 0.33, 0.86, 0.63))
        axes.plot(places, values, "-", color=GREY, lw=1)
        axes.plot(places, values, "o", color=INK, ms=5)
        best = min(places, key=lambda place: values[place])
        axes.plot([best], [values[best]], "o", color=VERMILION, ms=8)
        axes.annotate(
            f"{values[best]:.1f} Å", (best, values[best]), xytext=(0, 8), textcoords="offset points", ha="center"
        )
        step = max(1, len(values) // 14)
        names = [one.name if len(one.name) <= 18 else "…" + one.name[-17:] for one in measured]
        axes.set_xticks(places[::step], names[::step], rotation=40, ha="right", fontsize=7.5)
        axes.margins(x=0.06, y=0.18)
        axes.set_ylabel("resolution (Å)")
        axes.invert_yaxis()
    return figure


def _commands_section(lineage: Lineage) -> Section:
    rows: list[list[Cell]] = [[one.name, Code(one.command_line)] for one in lineage.jobs if one.command_line]
    return Section(
        "Commands",
        "As they were typed, in the folders that the reports name. One click selects a command.",
        table=Table(["job", "command"], rows, whole_words=True),
        folded=True,
        shape="wide",
    )
