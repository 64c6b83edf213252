"""From a set and a reference map to the two levels of the convention test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiltwise.check.convention.readings import Reading
from tiltwise.check.convention.scoring import Level, binned, read_binned
from tiltwise.errors import DataError
from tiltwise.exec import Progress
from tiltwise.io.documents import CoordinateStyle, Documents
from tiltwise.kernels.api import Backend
from tiltwise.maps.initial import prepare_map
from tiltwise.model import OptimisationSet
from tiltwise.model.poses import poses_of, series_index

F64 = NDArray[np.float64]

FINE_ANGSTROM, COARSE_ANGSTROM = 4.0, 9.0
"""Pixel sizes at least as large as these."""
LARGEST_BOX = 96
MOST_SERIES = 3
"""Series that are looked at."""
_ROOM = 2.0
"""Size of the box over the diameter of the particle: the CTF spreads it."""


def prepare(
    optset: OptimisationSet,
    reference: Path,
    diameter_angstrom: float,
    reach_angstrom: float,
    sample: int,
    backend: Backend,
    progress: Progress,
) -> tuple[Level, Level, list[Reading]]:
    """Coarse and fine level and the stated reading of every series that is looked at.

    Raises
    ------
    DataError
        if no series has images and particles, or the map cannot be used.
    """
    series_of = series_index(optset)
    counts = np.bincount(series_of, minlength=len(optset.series))
    usable = [i for i in np.argsort(-counts, kind="stable") if counts[i] and optset.series[i].image_files]
    if not usable:
        raise DataError(
            "the convention test needs tilt images",
            where=optset.paths.get("tomograms"),
            expected="a tilt series with images and particles",
            found="none",
            fix="run in the project folder, where the paths of the images hold, or leave --ref out",
        )
    chosen = sorted(int(i) for i in usable[:MOST_SERIES])
    pixel = optset.series[chosen[0]].pixel_size_angstrom
    chosen = [i for i in chosen if abs(optset.series[i].pixel_size_angstrom - pixel) < 1e-3 * pixel]
    readings, optics = [], []
    for number in chosen:
        members = np.flatnonzero(series_of == number)
        members = members[np.unique(np.linspace(0, len(members) - 1, sample).astype(np.intp))]
        readings.append(_stated(optset, number, members))
        optics.append(optset.optics[int(optset.particles.optics_index[members[0]])])
    least = max(FINE_ANGSTROM, _ROOM * diameter_angstrom / LARGEST_BOX)
    fine_factor = max(1, int(np.ceil(least / pixel - 1e-6)))
    coarse_factor = fine_factor * max(1, round(COARSE_ANGSTROM / (fine_factor * pixel)))
    stacks = []
    with progress.task("tilt images", len(chosen)) as task:
        for number in chosen:
            stacks.append(read_binned(optset.series[number], fine_factor))
            task.advance(1)
    levels = []
    for factor in (coarse_factor, fine_factor):
        size = factor * pixel
        box = 2 * int(np.ceil(_ROOM * diameter_angstrom / size / 2))
        density = prepare_map(reference, box, size, 2.0 * size, progress.note if factor == fine_factor else _silent)
        own = stacks if factor == fine_factor else [binned(stack, factor // fine_factor) for stack in stacks]
        levels.append(Level(own, factor, density, size, diameter_angstrom, reach_angstrom, optics, backend))
    return levels[0], levels[1], readings


def _silent(text: str) -> None:
    """Notes on the reference are the same at both levels."""


def _stated(optset: OptimisationSet, number: int, members: NDArray[np.intp]) -> Reading:
    series = optset.series[number]
    rotation, position = poses_of(optset)
    position_px = position[members] / series.pixel_size_angstrom
    stored = optset.particles.coordinate_px[members]
    documents = optset.documents
    style = documents.coordinates if isinstance(documents, Documents) else CoordinateStyle()
    centred = style.kind == "centred"
    # What RELION-4 adds to pixels is added whatever their unit.
    origin = np.asarray(series.tomogram_size) / 2 if centred else np.full(3, style.offset)
    units = stored - origin
    return Reading(
        series=series,
        units=units,
        from_centre=centred,
        offset_px=position_px - stored + (0.0 if centred else origin),
        position_px=position_px,
        rotation=rotation[members],
    )
