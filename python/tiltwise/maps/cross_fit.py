"""References that do not contain the particle they predict: its own half set without its own fold.

A reference that contains a particle at its present parameters pulls every estimate for it back to them, by about the
inverse signal-to-noise ratio of the map in each shell.  So every half set is divided into K folds that are frozen for
a run, sums (Eq. 11) are kept per half and fold, and a particle is predicted from the sum of the K - 1 other folds of
its half, with the prior (Eq. 13), mask and noise power of the whole half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import DataError, ResourceError
from tiltwise.extract.images import ParticleImages
from tiltwise.kernels.api import Backend
from tiltwise.maps.half_sets import all_neighbours, linked, mates_of
from tiltwise.maps.insertion import insert_images
from tiltwise.maps.spectra import half_maps, last_used_shell, prior_from_fsc, usable
from tiltwise.maps.volumes import Accumulator, PackedSums, reference_volume, solve_map
from tiltwise.model import OptimisationSet, TiltSeries
from tiltwise.spectral.disc import FourierDisc
from tiltwise.spectral.fsc import fsc

PADDING = 2
HALVES = (1, 2)
LEAST_FSC = 0.143
"""Shells from the first one below on are left out of references."""
BYTES_OF_FOLD = 15
"""Per voxel of the padded volume: sums of a fold, which fill half of it in single precision, and its reference."""
BYTES_OF_ALL = 100
"""The same of the sums that are added to, of those of both halves, and of what two references are solved with."""


def assign_folds(
    optset: OptimisationSet, halves: NDArray[np.int64], folds: int, distance_angstrom: float, seed: int
) -> NDArray[np.int64]:
    """(P,) fold 0 .. K - 1 of every particle within its half set (P,).

    Particles of one half linked by neighbours closer than `distance_angstrom` share pixels and stay together, as long
    as no such group is larger than half a fold, which keeps folds of a size; a larger one (a lattice) is cut into
    blocks along its longest extent, but not between symmetry mates of a particle.
    """
    count = len(optset.particles)
    pairs = np.concatenate([all_neighbours(optset, distance_angstrom), mates_of(optset)])
    group = linked(pairs[halves[pairs[:, 0]] == halves[pairs[:, 1]]], count)
    result = np.zeros(count, np.int64)
    names, first = np.unique(halves, return_index=True)
    # in the order in which halves appear, whatever they are called
    for number, half in enumerate(names[np.argsort(first)], 1):
        members = np.flatnonzero(halves == half)
        blocks = _blocks(optset, members, group[members], max(1, len(members) // (2 * folds)))
        order = np.random.default_rng([seed, number]).permutation(len(blocks))
        order = order[np.argsort([-len(blocks[i]) for i in order], kind="stable")]
        sizes = np.zeros(folds, np.int64)
        for block in order:
            fold = int(np.argmin(sizes))
            result[blocks[block]] = fold
            sizes[fold] += len(blocks[block])
    return result


def _blocks(
    optset: OptimisationSet, members: NDArray[np.intp], group: NDArray[np.intp], most: int
) -> list[NDArray[np.intp]]:
    """Groups of members, those of more than `most` cut in two along their longest extent until none is left."""
    order = np.argsort(group, kind="stable")
    cuts = np.flatnonzero(np.diff(group[order])) + 1
    source = optset.particles.source_index
    coordinate = optset.particles.coordinate_px[source]  # of mates that were moved apart, that of the first
    left, done = np.split(members[order], cuts), []
    while left:
        block = left.pop()
        if len(block) <= most:
            done.append(block)
            continue
        points = coordinate[block]
        axis = int(np.argmax(np.ptp(points, axis=0)))
        order = np.argsort(points[:, axis], kind="stable")
        if optset.particles.has_mates:
            order = np.lexsort((source[block], points[:, axis]))
        block = block[order]
        between = np.flatnonzero(np.diff(source[block])) + 1
        if not len(between):  # all are mates
            done.append(block)
            continue
        cut = int(between[np.argmin(np.abs(between - len(block) // 2))])
        left += [block[:cut], block[cut:]]
    return sorted(done, key=lambda block: int(block.min()))


def bytes_of_folds(box: int, folds: int) -> int:
    """What sums and references of `folds` folds of either half take at most."""
    padded = PADDING * box
    return padded * padded * (padded // 2 + 1) * (BYTES_OF_ALL + 2 * folds * BYTES_OF_FOLD)


def affordable_folds(box: int, wanted: int, memory_bytes: int) -> int:
    """Folds of both halves whose sums fit `memory_bytes`, `wanted` at most.

    Raises
    ------
    ResourceError
        if not even two fit.
    """
    padded = PADDING * box
    voxels = padded * padded * (padded // 2 + 1)
    fit = int((memory_bytes / voxels - BYTES_OF_ALL) // (2 * BYTES_OF_FOLD))
    if fit < 2:
        raise ResourceError(
            "not enough memory for references without the particle they predict",
            where="--memory",
            expected=f"at least {(BYTES_OF_ALL + 4 * BYTES_OF_FOLD) * voxels / 1e9:.1f} GB for maps of {box} voxels",
            found=f"{memory_bytes / 1e9:.1f} GB",
            fix="give more with --memory, or use a smaller --crop or larger --bin",
        )
    return min(wanted, fit)


@dataclass(slots=True)
class CrossFit:
    """Sums of every half set and fold, and the references they give."""

    box: int
    mask: NDArray[np.float32]
    backend: Backend
    threads: int
    symmetry: NDArray[np.float64]
    """(G, 3, 3) rotations of the point group"""
    folds: int
    sums: dict[tuple[int, int], PackedSums] = field(init=False, default_factory=dict)
    """of half and fold, completed"""
    totals: dict[int, PackedSums] = field(init=False, default_factory=dict)
    """of the halves, after `finish`"""
    curve: NDArray[np.float64] = field(init=False)
    """FSC of the half maps inside the mask, zero from the first shell below `LEAST_FSC` on"""
    halves: tuple[NDArray[np.float32], NDArray[np.float32]] = field(init=False)
    """unfiltered half maps"""
    _running: Accumulator | None = field(init=False, default=None)
    """of the fold that particles are being added to"""
    _key: tuple[int, int] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.curve = np.zeros(self.box // 2 + 1)

    @property
    def keys(self) -> list[tuple[int, int]]:
        """Halves and folds, in the order in which particles are best added."""
        return [(half, fold) for half in HALVES for fold in range(self.folds)]

    def add(
        self,
        half: int,
        fold: int,
        series: TiltSeries,
        images: Sequence[ParticleImages],
        rotations: NDArray[np.float64],
        noise_power: NDArray[np.float64],
        disc: FourierDisc,
    ) -> None:
        """Adds particles of one series at rotations (n, 3, 3); images are centred on them.

        All particles of one fold are best added before those of the next: its sums are packed then.
        """
        if not images:
            return
        if self._key != (half, fold):
            self._pack()
            self._key = half, fold
        if self._running is None:
            self._running = Accumulator.empty(self.box, PADDING)
        insert_images(self._running, series, images, rotations, noise_power, disc, self.backend, self.threads)

    def _pack(self) -> None:
        """Completes the running sums, keeps them, and begins anew."""
        if self._key is None or self._running is None:
            return
        unit = next(iter(self.sums.values())).unit if self.sums else None
        part = PackedSums.of(self._running.complete().symmetrised(self.symmetry, self.backend), unit)
        if self._key in self.sums:
            self.sums[self._key].add(part)
        else:
            self.sums[self._key] = part
        self._running.clear()
        self._key = None

    def finish(self) -> None:
        """Completes the sums; compares the halves.

        Raises
        ------
        DataError
            if the halves do not agree in any shell.
        """
        self._pack()
        self._running = None
        for half in HALVES:
            parts = [part for (of, _), part in sorted(self.sums.items()) if of == half]
            whole = parts[0].copy() if parts else PackedSums.of(Accumulator.empty(self.box, PADDING))
            for part in parts[1:]:
                whole.add(part)
            self.totals[half] = whole
        first, second, _ = half_maps(self.totals[1], self.totals[2], self.threads)
        self.halves = first, second
        curve = fsc(first, second, self.mask)
        self.curve = usable(curve, LEAST_FSC)
        if self.shell < 2:
            raise DataError(
                "half maps from the poses in the file do not agree: there is nothing to fit with",
                where="particles",
                expected=f"a Fourier shell correlation above {LEAST_FSC} in the first shells",
                found=", ".join(f"{value:.2f}" for value in curve[1:4]),
                fix="refine the poses first (tiltwise refine), and check --mask, --b and the hand of the tilt series",
            )

    @property
    def shell(self) -> int:
        """Last shell that references have."""
        return last_used_shell(self.curve)

    def density(self, half: int, fold: int | None) -> NDArray[np.float32]:
        """Map (N, N, N) inside the mask for the particles of a fold; None takes the whole half, for comparison."""
        total = self.totals[half]
        sums = total
        if fold is not None and self.folds > 1 and (half, fold) in self.sums:
            sums = total.without(self.sums[half, fold])
        return solve_map(sums, prior_from_fsc(total, self.curve), float(self.shell)) * self.mask

    def reference(self, half: int, fold: int | None) -> NDArray[np.complex64]:
        """Padded Fourier volume of the same."""
        return reference_volume(self.density(half, fold), PADDING)
