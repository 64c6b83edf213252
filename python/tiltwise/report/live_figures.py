"""Figures of jobs that run, from what they have written into their folders so far."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltwise.exec.events import read_events
from tiltwise.geometry.rotations import euler_to_matrix
from tiltwise.io.mrc import read_map
from tiltwise.io.particles import particle_block_name
from tiltwise.io.star import read_star
from tiltwise.report import pages
from tiltwise.report.html import Cell, Section, Table

Figures = Callable[[Path], list[Section]]
"""Sections from the folder of a job; none where nothing is there yet."""

_OPTIMISER = re.compile(r"(run_it(\d{3,}))_optimiser\.star")


def figures_of(command: str) -> Figures | None:
    """Figures of a command; None: it has none before its end."""
    return {"refine": refine_figures, "refine-ctf": series_figures, "align": series_figures}.get(command)


def refine_figures(folder: Path) -> list[Section]:
    """FSC of all iterations; half maps and viewing directions of the last one that is on the disk."""
    curves = fsc_history(folder)
    sections = [] if curves is None else [pages.fsc_history_section(*curves)]
    found = [(int(match[2]), match[1]) for path in folder.iterdir() if (match := _OPTIMISER.fullmatch(path.name))]
    if not found:
        return sections
    number, root = max(found)
    try:
        # Written before the optimiser file; a next iteration may take them away meanwhile.
        halves = [read_map(folder / f"{root}_half{half}_class001.mrc") for half in (1, 2)]
        rotations = _rotations(folder / f"{root}_data.star")
    except (OSError, ValueError):
        return sections
    maps = {f"half {half}, {number}": density for half, (density, _) in zip((1, 2), halves, strict=True)}
    return [pages.map_section(maps, halves[0][1]), *sections, pages.directions_section(rotations)]


def series_figures(folder: Path) -> list[Section]:
    """What was found in the tilt series that are done, in this run."""
    rows: dict[str, dict[str, Any]] = {}
    for event in read_events(folder, ("start", "series")):
        if event["kind"] == "start":
            rows.clear()
        else:
            rows[str(event["name"])] = {key: value for key, value in event.items() if key not in ("t", "kind")}
    if not rows:
        return []
    columns = list(dict.fromkeys(key for row in rows.values() for key in row))
    cells: list[list[Cell]] = [[row.get(column) for column in columns] for row in rows.values()]
    caption = "Tilt series that are done; what is applied is decided when all are."
    return [Section("Tilt series", caption, table=Table(columns, cells), shape="wide")]


def fsc_history(folder: Path) -> tuple[dict[int, NDArray[np.float64]], float] | None:
    """FSC by iteration, and the pixel size in Å, from the events of a refinement; None if there are none."""
    curves: dict[int, NDArray[np.float64]] = {}
    pixel_size = 0.0
    for event in read_events(folder, ("fsc",)):
        number = int(event["iteration"])
        curves = {one: curve for one, curve in curves.items() if one < number}  # a later run does some again
        curves[number] = np.array(event["curve"], np.float64)
        pixel_size = float(event["pixel_size_angstrom"])
    lengths = {len(curve) for curve in curves.values()}
    return (curves, pixel_size) if len(lengths) == 1 else None


def _rotations(path: Path) -> NDArray[np.float64]:
    """`(P, 3, 3)` from the reference into the tomogram, of a file of particles that `refine` wrote."""
    document = read_star(path)
    block = document[particle_block_name(document)]
    rotations = np.broadcast_to(np.eye(3), (len(block), 3, 3))
    for start in ("rlnTomoSubtomogram", "rlnAngle"):
        labels = [start + name for name in ("Rot", "Tilt", "Psi")]
        if all(label in block for label in labels):
            rotations = rotations @ euler_to_matrix(np.stack([block.floats(label) for label in labels], axis=1))
    return np.asarray(rotations)
