"""Half sets of particles: kept from the file, or drawn so that what overlaps stays together.

An FSC counts as agreement whatever two halves have in common.  Particles whose boxes overlap share pixels, noise
included; duplicates and symmetry copies share all of them; particles of one tilt series share its geometry.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from tiltwise.errors import DataError
from tiltwise.exec import Job
from tiltwise.maps.options import ImageOptions
from tiltwise.model import OptimisationSet
from tiltwise.model.poses import poses_of, series_index

Split = Literal["auto", "keep", "random", "object", "tomogram"]

LARGEST_OBJECT = 0.6
"""Share of all particles beyond which an object is too large to be put into one half without a word."""
DUPLICATE = 0.1
"""Distance over the diameter within which two particles are the same one."""
HEAVY = 0.5
"""The same within which neighbours overlap so much that an FSC shows it: 5/16 of the volumes of two spheres."""


def half_sets(optset: OptimisationSet, options: ImageOptions, job: Job) -> NDArray[np.int64]:
    """Half set (P,) of every particle as `--split` asks; warns of halves that are not independent.

    Raises
    ------
    DataError
        as `assign_half_sets`.
    """
    size = options.size_of_particle(optset.series[0].pixel_size_angstrom * options.binning)
    halves, notes = assign_half_sets(optset, options.split, options.seed, options.split_distance or size)
    shared = separated(optset, halves, size) if not notes else None
    for text in (*notes, *([shared] if shared else [])):
        job.warn(text)
    return halves


def assign_half_sets(
    optset: OptimisationSet, split: Split, seed: int, distance_angstrom: float
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Half set (P,), 1 or 2, of every particle, and sentences the user must read.

    Parameters
    ----------
    split
        `keep` those of the file.  `random`: halves of equal size, to one particle.  `object`: particles linked by
        neighbours closer than `distance_angstrom` stay together.  `tomogram`: those of a series do.  `auto`: keep
        if all particles have one, else as `object`, or at random where nearly all particles are one object.
    seed
        same seed, same halves.

    Raises
    ------
    DataError
        if half sets are to be kept and some particles have none, or a half is empty.
    """
    particles = optset.particles
    known = particles.half_set > 0
    notes: tuple[str, ...] = ()
    if split == "keep" and not known.all():
        raise DataError(
            "particles without half set",
            where="rlnRandomSubset",
            expected="1 or 2 for every particle",
            found=f"none for {int((~known).sum())} of {len(particles)}",
            fix="--split object draws new half sets",
        )
    if split == "keep" or (split == "auto" and known.all()):
        halves = particles.half_set
        fix = "--split object draws new half sets; two particles are the least"
    else:
        groups = _groups(optset, split, distance_angstrom)
        largest = np.bincount(groups).max(initial=0) / max(len(particles), 1)
        fix = "two particles are the least"
        if split == "auto" and largest > LARGEST_OBJECT:
            groups = particles.source_index
            notes = (
                f"{largest:.0%} of the particles are linked by neighbours closer than {distance_angstrom:.0f} Å, and "
                "half sets are drawn at random: the FSC also counts the pixels that neighbours share. If there are "
                "several tilt series, use --split tomogram; else --split object with a smaller --split-distance",
            )
        elif largest > LARGEST_OBJECT and len(particles) > 1:
            notes = (f"the half sets are unequal: {largest:.0%} of the particles stay together with --split {split}",)
            fix = "use --split object with a smaller --split-distance, or --split random"
        halves = balanced(groups, series_index(optset), seed)
    if not ((halves == 1).any() and (halves == 2).any()):
        raise DataError(
            "a half set is empty",
            where="rlnRandomSubset" if split in ("keep", "auto") else f"--split {split}",
            expected="particles in both halves",
            found=f"{int((halves == 1).sum())} and {int((halves == 2).sum())} of {len(particles)}",
            fix=fix,
        )
    return np.asarray(halves), notes


def _groups(optset: OptimisationSet, split: Split, distance_angstrom: float) -> NDArray[np.intp]:
    """(P,) number of the group each particle stays with."""
    if split == "random":
        return optset.particles.source_index
    if split == "tomogram":
        return series_index(optset)
    pairs = np.concatenate([all_neighbours(optset, distance_angstrom), mates_of(optset)])
    return linked(pairs, len(optset.particles))


def linked(pairs: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """(count,) number of the group of each of so many things that pairs (n, 2) link."""
    links = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return np.asarray(connected_components(links, directed=False)[1], dtype=np.intp)


def balanced(groups: NDArray[np.intp], series: NDArray[np.intp], seed: int) -> NDArray[np.int64]:
    """(P,) halves 1 and 2 as equal as whole groups (P,) allow: large groups first, each into the smaller half.

    Where the halves are equal the group goes to the one that has fewer particles of its series (P,).
    """
    _, groups = np.unique(groups, return_inverse=True)
    sizes = np.bincount(groups)
    order = np.random.default_rng(seed).permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    of_group = np.empty(len(sizes), np.intp)
    of_group[groups] = series
    total, by_series = np.zeros(2, np.int64), np.zeros((int(series.max(initial=0)) + 1, 2), np.int64)
    side = np.empty(len(sizes), np.int64)
    for number in order:
        here = by_series[of_group[number]]
        chosen = 0 if (total[0], here[0]) <= (total[1], here[1]) else 1
        side[number] = chosen
        total[chosen] += sizes[number]
        here[chosen] += sizes[number]
    return np.asarray(1 + side[groups])


def neighbours(optset: OptimisationSet, distance_angstrom: float) -> Iterator[NDArray[np.intp]]:
    """Pairs (n, 2) of particles of one series closer than a distance, series by series."""
    _, position = poses_of(optset)
    series = series_index(optset)
    for number in range(len(optset.series)):
        members = np.flatnonzero(series == number)
        pairs = cKDTree(position[members]).query_pairs(distance_angstrom, output_type="ndarray")
        yield members[pairs]


def all_neighbours(optset: OptimisationSet, distance_angstrom: float) -> NDArray[np.intp]:
    """Pairs (n, 2) of all series."""
    return np.concatenate([np.zeros((0, 2), np.intp), *neighbours(optset, distance_angstrom)])


def mates_of(optset: OptimisationSet) -> NDArray[np.intp]:
    """Pairs (n, 2) that link the symmetry mates of every particle: they are its images once more."""
    source = optset.particles.source_index
    rows = np.arange(len(source))
    return np.asarray(np.stack([source, rows], axis=1)[source != rows])


def separated(optset: OptimisationSet, halves: NDArray[np.int64], diameter_angstrom: float) -> str | None:
    """A sentence if half sets separate duplicates or neighbours that overlap heavily; None if they do not."""
    _, position = poses_of(optset)
    near = HEAVY * diameter_angstrom
    pairs = all_neighbours(optset, near)
    across = pairs[halves[pairs[:, 0]] != halves[pairs[:, 1]]]
    if not len(across):
        return None
    apart = np.linalg.norm(position[across[:, 0]] - position[across[:, 1]], axis=1)
    same = across[apart <= DUPLICATE * diameter_angstrom]
    total = len(optset.particles)
    example = ", ".join(optset.particles.name[i] for i in across[np.argmin(apart)])
    return (
        f"{len(np.unique(across))} of {total} particles have a neighbour closer than {near:.0f} Å in the other half set"
        + (f", {len(np.unique(same))} of them one so close that it is the same particle" if len(same) else "")
        + f" ({example}): the FSC counts the pixels they share as agreement and is too good. --split object draws half "
        "sets that keep neighbours together"
    )
