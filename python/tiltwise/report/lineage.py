"""Which job's outputs are whose inputs, which set of particles is the best, and both as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from tiltwise.exec.records import JobRecord, State
from tiltwise.report.style import BLUE, GREEN, GREY, INK, ORANGE, VERMILION

STATE_COLOURS: Mapping[State, str] = {
    "finished": GREEN,
    "running": BLUE,
    "failed": VERMILION,
    "killed": VERMILION,
    "stopped": ORANGE,
    "unknown": GREY,
}
_MEASURES = ("reconstruct", "postprocess", "Reconstruct", "PostProcess")
"""Commands whose resolution is that of the set they were given."""
_ROW, _LANE = 19.5, 16.0
"""Points between jobs and between lines."""
_EDGE, _WIDTH, _WORDS = 14.0, 403.0, 260.0
"""Points: margin, least width of the picture, and what names take of it."""
_CIRCLE, _SQUARE = "m-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0z", "m-3.5 -3.5h7v7h-7z"
_LONGEST = 34
"""Characters of a name that are drawn."""


@dataclass(frozen=True, slots=True)
class Lineage:
    """Jobs of a project, parents before children, without those inside the folder of another job."""

    jobs: tuple[JobRecord, ...]
    parents: tuple[tuple[int, ...], ...]
    """of every job, the places of those whose files it read"""
    parts: Mapping[int, tuple[JobRecord, ...]]
    """jobs inside the folder of a job, as the steps of a cycle are"""

    @classmethod
    def of(cls, records: Sequence[JobRecord]) -> Lineage:
        """From all records of a project, in the order in which they began."""
        folders = {one.folder: number for number, one in enumerate(records)}
        owner = [_outermost(one.folder, folders) for one in records]
        made = {path: number for number, one in enumerate(records) for path in one.outputs}
        parents: list[set[int]] = [set() for _ in records]
        for number, one in enumerate(records):
            for path in one.inputs:
                source = made.get(path, _innermost(path, folders))
                if source is not None and owner[source] != owner[number]:
                    parents[owner[number]].add(owner[source])
        order = _parents_first([number for number in range(len(records)) if owner[number] == number], parents)
        place = {number: at for at, number in enumerate(order)}
        parts: dict[int, tuple[JobRecord, ...]] = {}
        for number, one in enumerate(records):
            if owner[number] != number:
                parts[place[owner[number]]] = (*parts.get(place[owner[number]], ()), one)
        return cls(
            tuple(records[number] for number in order),
            tuple(tuple(sorted(place[parent] for parent in parents[number])) for number in order),
            parts,
        )

    def newest(self, count: int) -> Lineage:
        """The last jobs, with what leads from one to another."""
        first = max(0, len(self.jobs) - count)
        kept = [tuple(one - first for one in parents if one >= first) for parents in self.parents[first:]]
        parts = {number - first: own for number, own in self.parts.items() if number >= first}
        return Lineage(self.jobs[first:], tuple(kept), parts)

    def children(self, number: int) -> list[int]:
        """Places of the jobs that read files of a job."""
        return [child for child, parents in enumerate(self.parents) if number in parents]


def _outermost(folder: Path, folders: Mapping[Path, int]) -> int:
    return next(folders[one] for one in reversed([folder, *folder.parents]) if one in folders)


def _innermost(path: Path, folders: Mapping[Path, int]) -> int | None:
    return next((folders[one] for one in (path, *path.parents) if one in folders), None)


def _parents_first(numbers: Sequence[int], parents: Sequence[set[int]]) -> list[int]:
    """The numbers in their order, but none before its parents; what is left of a circle comes last."""
    order: list[int] = []
    known: set[int] = set()
    waiting = list(numbers)
    while waiting:
        ready = next((one for one in waiting if parents[one] <= known), waiting[0])
        waiting.remove(ready)
        order.append(ready)
        known.add(ready)
    return order


@dataclass(frozen=True, slots=True)
class BestSet:
    """The optimisation set to go on with."""

    path: Path
    job: JobRecord
    """that wrote it"""
    resolution_angstrom: float | None
    measured_by: JobRecord | None
    newer: tuple[JobRecord, ...]
    """jobs that made sets of it whose resolution nobody has measured"""


def best_set(lineage: Lineage) -> BestSet | None:
    """The set with the finest resolution; without any, the newest one; None if no finished job wrote a set.

    The resolution of a refinement or cycle is that of its set; that of a reconstruction or post-processing belongs to
    the set that its nearest ancestor wrote.
    """
    measured: dict[int, tuple[float, JobRecord]] = {}
    for number, one in enumerate(lineage.jobs):
        resolution = one.resolution_angstrom
        if one.state != "finished" or resolution is None:
            continue
        source = _source_of_set(lineage, number) if one.command in _MEASURES else number
        if source is None or lineage.jobs[source].optimisation_set is None:
            continue
        if source not in measured or resolution < measured[source][0]:
            measured[source] = (resolution, one)
    with_sets = [n for n, one in enumerate(lineage.jobs) if one.state == "finished" and one.optimisation_set]
    if not with_sets:
        return None
    best = min(measured, key=lambda n: (measured[n][0], -n)) if measured else with_sets[-1]
    path = lineage.jobs[best].optimisation_set
    assert path is not None
    below = _descendants(lineage, best)
    newer = tuple(lineage.jobs[n] for n in with_sets if n in below and n not in measured)
    resolution, by = measured.get(best, (None, None))
    return BestSet(path, lineage.jobs[best], resolution, by, newer)


def _source_of_set(lineage: Lineage, number: int) -> int | None:
    """Nearest ancestor that wrote an optimisation set, the newest of several."""
    near = list(lineage.parents[number])
    seen: set[int] = set()
    while near:
        found = [n for n in near if lineage.jobs[n].optimisation_set is not None]
        if found:
            return max(found)
        seen |= set(near)
        near = [parent for n in near for parent in lineage.parents[n] if parent not in seen]
    return None


def _descendants(lineage: Lineage, number: int) -> set[int]:
    children: list[list[int]] = [[] for _ in lineage.jobs]
    for child, parents in enumerate(lineage.parents):
        for parent in parents:
            children[parent].append(child)
    found: set[int] = set()
    waiting = [number]
    while waiting:
        for child in children[waiting.pop()]:
            if child not in found:
                found.add(child)
                waiting.append(child)
    return found


def lanes(lineage: Lineage) -> list[int]:
    """Column of every job, so that the line from it down to its last child meets no other job."""
    last = list(range(len(lineage.jobs)))
    for child, parents in enumerate(lineage.parents):
        for parent in parents:
            last[parent] = max(last[parent], child)
    free_from: list[int] = []
    columns = []
    for number in range(len(lineage.jobs)):
        column = next((lane for lane, until in enumerate(free_from) if until <= number), len(free_from))
        if column == len(free_from):
            free_from.append(0)
        free_from[column] = max(last[number], number + 1)
        columns.append(column)
    return columns


def lineage_picture(lineage: Lineage, links: Mapping[int, str], best: Path | None) -> str:
    """Jobs downwards, a line from each to those that read its files, as an SVG element; `links` leads to reports.

    Written by hand: matplotlib takes milliseconds for every line, mark and word.
    """
    columns = lanes(lineage)
    x = [_EDGE + _LANE * column for column in columns]
    y = [_EDGE / 2 + _ROW * (number + 0.5) for number in range(len(columns))]
    start = _EDGE + _LANE * (max(columns, default=0) + 1)
    width, height = max(_WIDTH, start + _WORDS), _ROW * len(columns) + _EDGE
    parts = [f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="Lineage of the jobs">']
    parts.append(f'<g fill="none" stroke="{GREY}" stroke-linejoin="round">')
    for child, parents in enumerate(lineage.parents):
        for parent in parents:
            # What a job between has read, too, is no news.
            known = any(_descends(lineage, other, parent) for other in parents if other != parent)
            line = f"M{x[parent]:.1f} {y[parent]:.1f}V{y[child]:.1f}H{x[child]:.1f}"
            parts.append(f'<path d="{line}" stroke-width="{0.5 if known else 1.3}"/>')
    parts.append('</g><g stroke="white" font-family="DejaVu Sans, sans-serif" font-size="8.5">')
    for number, one in enumerate(lineage.jobs):
        shape = _CIRCLE if one.program == "tiltwise" else _SQUARE
        mark = f'<path d="M{x[number]:.1f} {y[number]:.1f}{shape}" fill="{STATE_COLOURS[one.state]}"/>'
        words = escape(_label(one, best is not None and one.optimisation_set == best))
        place = f'x="{start:.1f}" y="{y[number] + 3:.1f}" stroke="none"'
        if number in links:
            words = f'<a href="{escape(links[number])}"><text {place} fill="{BLUE}">{words}</text></a>'
        else:
            words = f'<text {place} fill="{INK}">{words}</text>'
        parts.append(mark + words)
    return "\n".join([*parts, "</g></svg>"])


def _descends(lineage: Lineage, number: int, ancestor: int) -> bool:
    """Whether a job has another one above it; parents come before their children."""
    waiting, seen = [number], {number}
    while waiting:
        for parent in lineage.parents[waiting.pop()]:
            if parent == ancestor:
                return True
            if parent > ancestor and parent not in seen:
                seen.add(parent)
                waiting.append(parent)
    return False


def _label(one: JobRecord, best: bool) -> str:
    name = one.name if len(one.name) <= _LONGEST else "…" + one.name[1 - _LONGEST :]
    words = [name, one.command] if one.command not in one.name else [name]
    if one.state != "finished":
        words.append(one.state)
    if one.resolution_angstrom is not None:
        words.append(f"{one.resolution_angstrom:.1f} Å")
    return ("★ " if best else "") + "  ·  ".join(words)
