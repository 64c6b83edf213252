"""Particles in space: inside the tomogram and the images, seen in how many tilts, too close, across half sets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from tiltwise.check.findings import Findings, some
from tiltwise.maps.half_sets import HEAVY
from tiltwise.model import OptimisationSet
from tiltwise.model.poses import poses_of, series_index, tilts_seen

F64 = NDArray[np.float64]

_SAME_PX = 1.0
"""Particles closer than this are one."""
_SAME_OF_DIAMETER, _SAME_OF_SPACING = 0.25, 0.25
"""The same of those closer than a share of the diameter or, where it is not known, of the usual spacing."""
_FEW_TILTS = 0.5
_SMALL_PART = 0.3
_ENOUGH = 20
"""Particles from which the part of the field that they fill means something."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the particles are."""

    position_angstrom: F64
    """(P, 3)"""
    series: NDArray[np.intp]
    """(P,)"""
    seen: NDArray[np.intp]
    """(P,) tilts that show the particle; -1 where the size of the images is not known"""
    inside: NDArray[np.bool_]
    """(P,) of the tomogram; true where its size is not known"""


def place(optset: OptimisationSet) -> Placement:
    """Positions of all particles, and how many tilts show their centres."""
    _, position = poses_of(optset)
    series = series_index(optset)
    inside = np.ones(len(position), bool)
    for number, one in enumerate(optset.series):
        members = np.flatnonzero(series == number)
        pixels = position[members] / one.pixel_size_angstrom
        if min(one.tomogram_size) > 0:
            size = np.asarray(one.tomogram_size)
            inside[members] = ((pixels >= -0.5) & (pixels <= size - 0.5)).all(axis=1)
    return Placement(position, series, tilts_seen(optset, position), inside)


def check_field(optset: OptimisationSet, placed: Placement, findings: Findings) -> None:
    """Particles outside, seen in few tilts, or crowded into a small part of the field."""
    names, total = optset.particles.name, len(optset.particles)
    lost = np.flatnonzero(placed.seen == 0)
    if len(lost):
        findings.add(
            "TW-COORD-01",
            f"{len(lost)} of {total} particles lie outside every tilt image",
            f"{some([names[i] for i in lost])} of {_tomograms(optset, placed, lost)}",
            expected=_field(optset, placed, int(lost[0])),
            found=_at(optset, placed, int(lost[0])),
        )
    outside = np.flatnonzero(~placed.inside)
    if len(outside):
        findings.add(
            "TW-COORD-02",
            f"{len(outside)} of {total} particles lie outside the tomogram",
            f"{some([names[i] for i in outside])} of {_tomograms(optset, placed, outside)}",
            expected=_field(optset, placed, int(outside[0])),
            found=_at(optset, placed, int(outside[0])),
        )
    tilts = np.array([one.n_tilts for one in optset.series])[placed.series]
    few = np.flatnonzero((placed.seen > 0) & (placed.seen < _FEW_TILTS * tilts))
    if len(few):
        findings.add(
            "TW-COORD-03",
            f"{len(few)} of {total} particles are seen in less than half of the tilts",
            f"{some([names[i] for i in few])} of {_tomograms(optset, placed, few)}",
            found=f"{placed.seen[few[0]]} of {tilts[few[0]]} tilts for {names[few[0]]}",
        )
    _crowded(optset, placed, findings)


def _crowded(optset: OptimisationSet, placed: Placement, findings: Findings) -> None:
    """Coordinates of a wrong unit fill a corner, or the middle, of every tomogram."""
    sizes = np.array([one.tomogram_size for one in optset.series], np.float64)
    if (sizes <= 0).any() or len(placed.series) < _ENOUGH:
        return
    pixel = np.array([one.pixel_size_angstrom for one in optset.series])
    part = placed.position_angstrom / pixel[placed.series, None] / sizes[placed.series]
    around_centre = np.abs(part[:, :2] - 0.5).max(axis=0) * 2
    from_corner = part[:, :2].max(axis=0)
    for reach, place_text in ((around_centre, "the middle"), (from_corner, "a corner")):
        if reach.max() < _SMALL_PART:
            share = f"{100 * reach.max():.0f} % of the width"
            findings.add(
                "TW-COORD-04",
                f"all particles lie in {place_text} of the field",
                optset.paths.get("particles", ""),
                expected="coordinates that fill the field",
                found=share,
            )


def check_distances(
    optset: OptimisationSet, placed: Placement, diameter: float | None, findings: Findings
) -> F64 | None:
    """Duplicates, particles too close, neighbours across half sets; distances (P,) to the nearest one, None of few.

    `diameter` is that of the particle in Å, None if it is not known.
    """
    particles, total = optset.particles, len(optset.particles)
    if total < 2:
        return None
    # One tree for all: series are set apart by more than any distance that matters.
    extent = float(np.ptp(placed.position_angstrom, axis=0).max()) + 1e4
    apart = np.column_stack([placed.position_angstrom, placed.series * extent * 10])
    tree = cKDTree(apart)
    nearest = np.asarray(tree.query(apart, k=2)[0][:, 1])
    nearest[nearest > extent * 5] = np.inf
    pixel = optset.series[0].pixel_size_angstrom
    pairs = tree.query_pairs(_SAME_PX * pixel, output_type="ndarray")
    half = particles.half_set
    if len(pairs):
        across = int((half[pairs[:, 0]] != half[pairs[:, 1]]).sum())
        findings.add(
            "TW-DOUBLE-01",
            f"{len(pairs)} pairs of particles are at the same position",
            some([f"{particles.name[a]} and {particles.name[b]}" for a, b in np.sort(pairs, axis=0)]),
            found=f"closer than {_SAME_PX * pixel:.3g} Å; {across} pairs in different half sets",
        )
    finite = nearest[np.isfinite(nearest)]
    limit = _SAME_OF_SPACING * float(np.median(finite)) if len(finite) else 0.0
    if diameter is not None:
        limit = _SAME_OF_DIAMETER * diameter
    near = np.flatnonzero((nearest <= limit) & (nearest > _SAME_PX * pixel))
    if len(near):
        basis = f"diameter of {diameter:.0f} Å" if diameter else f"usual spacing of {np.median(finite):.0f} Å"
        findings.add(
            "TW-DOUBLE-02",
            f"{len(near)} of {total} particles have a neighbour closer than {limit:.0f} Å",
            some([particles.name[i] for i in near]),
            expected=f"more than a quarter of the {basis}",
            found=f"{nearest[near].min():.1f} Å",
        )
    if diameter is not None and (half > 0).all():
        _across(optset, tree, apart, diameter, findings)
    return nearest


def _across(optset: OptimisationSet, tree: cKDTree, points: F64, diameter: float, findings: Findings) -> None:
    half, names = optset.particles.half_set, optset.particles.name
    pairs = tree.query_pairs(HEAVY * diameter, output_type="ndarray")
    pairs = pairs[half[pairs[:, 0]] != half[pairs[:, 1]]]
    if len(pairs):
        closest = int(np.argmin(np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)))
        findings.add(
            "TW-HALF-04",
            f"{len(np.unique(pairs))} of {len(names)} particles have a neighbour closer than {HEAVY * diameter:.0f} Å "
            "in the other half set",
            " and ".join(names[i] for i in pairs[closest]),
            expected="overlapping particles in one half set",
        )


def _tomograms(optset: OptimisationSet, placed: Placement, rows: NDArray[np.intp]) -> str:
    numbers, counts = np.unique(placed.series[rows], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return some([f"{optset.series[numbers[i]].name} ({counts[i]})" for i in order])


def _field(optset: OptimisationSet, placed: Placement, row: int) -> str:
    series = optset.series[int(placed.series[row])]
    tomogram, image = (" x ".join(map(str, size)) for size in (series.tomogram_size, series.image_size))
    return f"inside {series.name}: tomogram {tomogram} px, images {image} px of {series.pixel_size_angstrom:g} Å"


def _at(optset: OptimisationSet, placed: Placement, row: int) -> str:
    series = optset.series[int(placed.series[row])]
    position = placed.position_angstrom[row] / series.pixel_size_angstrom
    return f"{optset.particles.name[row]} at ({', '.join(f'{x:.0f}' for x in position)}) px"
