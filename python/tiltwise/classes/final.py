"""Maps of the classes with all that the images hold, from the last posteriors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tiltwise.classes.data import ClassData
from tiltwise.classes.residuals import PADDING
from tiltwise.em.data_model import in_views
from tiltwise.exec.threads import ordered_map
from tiltwise.extract.images import ParticleImages
from tiltwise.extract.source import Poses
from tiltwise.maps.insertion import insert_images
from tiltwise.maps.spectra import half_maps, joined_fsc, prior_from_fsc
from tiltwise.maps.volumes import Accumulator, PackedSums, solve_map
from tiltwise.spectral.fsc import fsc, resolution_angstrom

F64 = NDArray[np.float64]

NO_SYMMETRY: F64 = np.eye(3)[None]
NONE = 1e-4
"""Posterior below which a particle adds nothing to a map."""


@dataclass(frozen=True, slots=True)
class ClassMap:
    """One class."""

    map: NDArray[np.float32]
    """prior applied"""
    halves: tuple[NDArray[np.float32], NDArray[np.float32]]
    """unfiltered half maps"""
    fsc: F64
    """of the half maps inside the mask or the sphere of the particle"""
    resolution_angstrom: float


def final_sums(
    data: ClassData,
    poses: Poses,
    noise: list[F64],
    posterior: F64,
    groups: Sequence[F64],
    check_abort: Callable[[], None],
    advance: Callable[[int], None],
) -> dict[tuple[int, int], PackedSums]:
    """Completed sums (Eq. 11) of every class and half set up to Nyquist; `groups` (G, 3, 3), one of each class."""
    result: dict[tuple[int, int], PackedSums] = {}
    classes = posterior.shape[1]
    running = [Accumulator.empty(data.box, PADDING) for _ in range(classes)]
    for half in (1, 2):
        for portion in data.portions:
            if data.half_of[portion.fold] != half:
                continue
            check_abort()

            def load(member: int) -> ParticleImages:
                return data.images.load(member, poses.displacement_angstrom[member])

            images = ordered_map(load, [int(m) for m in portion.members], data.threads)
            for k, sums in enumerate(running):
                share = posterior[portion.members, k]
                used = np.flatnonzero(share > NONE)
                insert_images(
                    sums,
                    data.images.views[portion.series],
                    [weighted(images[i], float(share[i])) for i in used],
                    in_views(data.images, poses.rotation, portion.members[used]),
                    noise[portion.series],
                    data.images.disc,
                    data.backend,
                    data.threads,
                )
            advance(len(portion.members))
        for k, sums in enumerate(running):
            unit = next(iter(result.values())).unit if result else None
            result[half, k] = PackedSums.of(sums.complete().symmetrised(groups[k], data.backend), unit)
            sums.clear()
    return result


def weighted(images: ParticleImages, share: float) -> ParticleImages:
    """Images that enter sums with a weight."""
    if share >= 1.0 - NONE:
        return images
    factor = np.float32(share)
    return replace(images, data=images.data * factor, ctf2=images.ctf2 * factor)


def class_maps(data: ClassData, sums: Mapping[tuple[int, int], PackedSums]) -> list[ClassMap]:
    """Maps of all classes; with a mask from a file they share the average of all particles outside it, without junk."""
    classes = 1 + max(k for _, k in sums)
    real = classes - data.options.junk
    focused = data.options.mask is not None
    total: dict[int, PackedSums] = {}
    if focused:
        for half in (1, 2):
            total[half] = sums[half, 0].copy()
            for k in range(1, real):
                total[half].add(sums[half, k])
    average = class_map(data, total[1], total[2]) if focused else None
    result = []
    for k in range(classes):
        one = class_map(data, sums[1, k], sums[2, k])
        if average is not None and k < real:
            density = average.map + data.mask * (one.map - average.map)
            one = replace(one, map=np.asarray(density, np.float32))
        result.append(one)
    return result


def class_map(data: ClassData, first: PackedSums, second: PackedSums) -> ClassMap:
    """Map, half maps and FSC from the sums of two half sets."""
    joined = first.copy()
    joined.add(second)
    maps = half_maps(first, second, data.threads)
    curve = fsc(maps[0], maps[1], data.mask)
    density = solve_map(joined, prior_from_fsc(joined, joined_fsc(curve)))
    return ClassMap(density, (maps[0], maps[1]), curve, resolution_angstrom(curve, data.box, data.pixel_size, 0.143))
