"""`tiltwise mask`: where the particle is, with a margin and a soft edge."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tiltwise.errors import DataError
from tiltwise.exec import Job, Progress
from tiltwise.io.mrc import read_map, write_map
from tiltwise.maps.masks import read_mask
from tiltwise.post.half_maps import HalfMaps, find_half_maps, load_half_maps, read_cube
from tiltwise.post.options import MaskOptions
from tiltwise.spectral.filters import low_pass
from tiltwise.spectral.fsc import fsc, resolution_angstrom
from tiltwise.spectral.masks import distances, soft_edge

NOISE_SIGMAS = 3.0
"""Density of the particle is at least so many standard deviations of the noise: one voxel in 700 by chance."""
SHARE_OF_OTSU = 0.5
"""Where the particle ends, from the mean of the solvent (0) to Otsu's threshold (1).  Otsu's lies half way between
the means of solvent and particle and cuts off weak parts; a mask too large costs less than one too small."""
EXTEND_PX, EDGE_PX = 3.0, 6.0
LOW_PASS_ANGSTROM = 15.0
"""Filter before the threshold.  Half maps that do not agree so far (FSC 0.143, no mask) are filtered where they do."""
Warn: TypeAlias = Callable[[str], None]
"""Takes a sentence that a user must read, as `Job.warn` does."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """Where the particle begins, in the density of the low-passed map."""

    value: float
    noise_sigma: float
    """standard deviation of the noise of that map; 0 if unknown (single maps with flat solvent)"""
    reason: str
    """in words, for the report"""


@dataclass(frozen=True, slots=True)
class MaskResult:
    """Mask and how it was found."""

    mask: NDArray[np.float32]
    """(N, N, N) from 0 to 1"""
    density: NDArray[np.float32]
    """(N, N, N) the map, not filtered"""
    pixel_size: float
    threshold: Threshold
    volume_angstrom3: float
    """of the particle before it is widened"""
    low_pass_angstrom: float
    """filter before the threshold; 0: none"""
    outputs: Mapping[str, Path]


def otsu_threshold(values: NDArray[np.floating]) -> float:
    """Otsu's threshold (1979): the cut of a histogram into two classes with the largest variance between them."""
    counts, edges = np.histogram(values, bins=1024)
    centres = 0.5 * (edges[1:] + edges[:-1])
    below = np.cumsum(counts)[:-1]
    above = below[-1] + counts[-1] - below
    sums = np.cumsum(counts * centres)
    between = (sums[-1] / (below + above) * below - sums[:-1]) ** 2
    spread = np.divide(between, below * above, out=np.zeros(len(below)), where=(below > 0) & (above > 0))
    # Between classes that a gap parts, every cut is as good: its middle.
    return float(edges[1 + np.flatnonzero(spread == spread.max())].mean())


def automatic_threshold(density: NDArray[np.float32], noise: NDArray[np.float32] | None) -> Threshold:
    """Threshold of a low-passed map `(N, N, N)`; `noise` is half the difference of the half maps, filtered alike.

    The mean of the solvent plus `SHARE_OF_OTSU` of the way to Otsu's threshold, and at least `NOISE_SIGMAS` of
    the noise above the solvent.  The solvent is the median inside the sphere that fits the box.  Without `noise`
    its standard deviation is taken from the corners outside that sphere.
    """
    size = density.shape[0]
    inside = distances(size, 3) < size / 2
    values = density[inside]
    solvent = float(np.median(values))
    sigma = float(np.std(density[~inside]) if noise is None else np.std(noise[inside]))
    contour = solvent + SHARE_OF_OTSU * (otsu_threshold(values) - solvent)
    floor = solvent + NOISE_SIGMAS * sigma
    if contour >= floor:
        return Threshold(contour, sigma, "a quarter of the way from the solvent to the mean density of the particle")
    return Threshold(floor, sigma, f"{NOISE_SIGMAS:g} standard deviations of the noise above the solvent")


def largest_components(chosen: NDArray[np.bool_], number: int) -> tuple[NDArray[np.bool_], list[int]]:
    """The `number` largest connected pieces (faces touch), and the sizes of all pieces in voxels, largest first."""
    labels, found = ndimage.label(chosen)
    sizes = np.bincount(labels.ravel(), minlength=found + 1)[1:]
    order = np.argsort(-sizes, kind="stable")
    kept = np.zeros(found + 1, bool)
    kept[1 + order[:number]] = True
    return np.asarray(kept[labels]), [int(sizes[i]) for i in order]


def widened(chosen: NDArray[np.bool_], extend_px: float, edge_px: float) -> NDArray[np.float32]:
    """Mask that is 1 up to `extend_px` from the chosen voxels, then falls to 0 over `edge_px` as a raised cosine.

    Distances are Euclidean, from the centre of a voxel to that of the nearest chosen one.
    """
    mask = np.zeros(chosen.shape, np.float32)
    # The distance transform is slow: only the part of the box that the mask reaches.
    margin = int(np.ceil(extend_px + edge_px)) + 1
    window = tuple(
        slice(max(0, part.start - margin), part.stop + margin)
        for part in ndimage.find_objects(chosen.astype(np.int8))[0]
    )
    distance = ndimage.distance_transform_edt(~chosen[window])
    # Without an edge, `soft_edge` is 0 at the outer radius itself.
    mask[window] = np.where(distance <= extend_px, 1.0, soft_edge(distance, extend_px + edge_px, edge_px))
    return mask


@dataclass(frozen=True, slots=True)
class Particle:
    """The voxels of a particle, and how they were found."""

    voxels: NDArray[np.bool_]
    """(N, N, N)"""
    threshold: Threshold
    low_pass_angstrom: float


def find_particle(
    density: NDArray[np.float32],
    noise: NDArray[np.float32] | None,
    pixel_size: float,
    warn: Warn,
    *,
    threshold: float | None = None,
    low_pass_angstrom: float | None = None,
    components: int = 1,
) -> Particle:
    """The particle in a map `(N, N, N)`: connected density above a threshold.

    `noise` is that of the map (see `HalfMaps`), None for a single map.  What is None is found.

    Raises
    ------
    DataError
        if nothing is above the threshold, or only specks smaller than the filter can show.
    """
    if low_pass_angstrom is None:
        low_pass_angstrom = LOW_PASS_ANGSTROM
        if noise is not None:
            agreement = resolution_angstrom(fsc(density + noise, density - noise), len(density), pixel_size)
            low_pass_angstrom = max(low_pass_angstrom, agreement)
    smooth, smooth_noise = density, noise
    if low_pass_angstrom > 2 * pixel_size:
        smooth = low_pass(density, pixel_size, low_pass_angstrom)
        smooth_noise = None if noise is None else low_pass(noise, pixel_size, low_pass_angstrom)
    if threshold is None:
        cut = automatic_threshold(smooth, smooth_noise)
    else:
        cut = Threshold(threshold, 0.0, "given by --threshold")
    particle, sizes = largest_components(smooth > cut.value, components)
    resolved = max(1.0, (low_pass_angstrom / 2 / pixel_size) ** 3)
    if not sizes or (threshold is None and sizes[0] < resolved):
        raise DataError(
            "the mask would be empty: no particle stands out in the map",
            where="--i" if threshold is None else "--threshold",
            expected=f"connected density above {cut.value:.4g}",
            found=f"values from {float(smooth.min()):.4g} to {float(smooth.max()):.4g} after a low-pass filter of "
            f"{low_pass_angstrom:.3g} Å, largest piece {sizes[0] if sizes else 0} voxels",
            fix="give --threshold, or a larger --low-pass; check that density is positive (white) in the map",
        )
    rest = sizes[components:]
    if rest and rest[0] > 0.1 * sizes[0]:
        warn(
            f"a separate piece of {rest[0]} voxels was left out ({rest[0] / sizes[0]:.0%} of the largest): "
            "keep it by --components, or join it by a lower --threshold"
        )
    return Particle(particle, cut, low_pass_angstrom)


def soft_mask(
    voxels: NDArray[np.bool_], pixel_size: float, warn: Warn, extend: float | None = None, edge: float | None = None
) -> NDArray[np.float32]:
    """Mask of a particle, `extend` and `edge` in Å (default 3 and 6 pixels); warns where the box cuts it off."""
    extend_px = EXTEND_PX if extend is None else extend / pixel_size
    edge_px = EDGE_PX if edge is None else edge / pixel_size
    mask = widened(voxels, extend_px, edge_px)
    if any(np.take(mask, side, axis=axis).max() > 0.5 for axis in range(3) for side in (0, -1)):
        warn("the mask is cut off at the edge of the box: use a larger box, or less of --extend and --edge")
    return mask


def mask_of(
    path: Path | None, halves: HalfMaps, job: Job, note: Callable[[str], None]
) -> tuple[NDArray[np.float32], Path]:
    """Mask of a file, or one that is found or resampled and written to the job folder; and its path.

    `note` is told what was assumed of a file, and changed.
    """
    if path is not None:
        job.add_input(path)
        mask = read_mask(path, halves.size, halves.pixel_size, note=note)
        if np.array_equal(mask, read_map(path)[0]):
            return mask, path
    else:
        with job.timing("mask"):
            found = find_particle(halves.mean, halves.noise, halves.pixel_size, job.warn)
            mask = soft_mask(found.voxels, halves.pixel_size, job.warn)
    path = job.path("mask.mrc")
    write_map(path, mask, halves.pixel_size)
    job.add_output(path, "Mask3D.mrc.relion")
    return mask, path


def run(options: MaskOptions, job: Job, progress: Progress) -> MaskResult:
    """Make a mask; the entry point of `tiltwise mask` and of Python scripts."""
    noise: NDArray[np.float32] | None = None
    inputs: tuple[Path, ...]
    if find_half_maps(options) is None:
        assert options.input is not None
        density, pixel_size = read_cube(options.input, options.pixel_size)
        inputs = (options.input,)
    else:
        halves = load_half_maps(options)
        density, noise, pixel_size, inputs = halves.mean, halves.noise, halves.pixel_size, halves.paths
    for path in inputs:
        job.add_input(path)
    size = density.shape[0]
    progress.title("mask", {"maps": len(inputs), "box_px": size, "pixel_size_angstrom": pixel_size})
    with job.timing("mask"):
        found = find_particle(
            density,
            noise,
            pixel_size,
            job.warn,
            threshold=options.threshold,
            low_pass_angstrom=options.low_pass,
            components=options.components,
        )
        mask = soft_mask(found.voxels, pixel_size, job.warn, options.extend, options.edge)
    path = job.path("mask.mrc")
    write_map(path, mask, pixel_size)
    job.add_output(path, "Mask3D.mrc.relion")
    volume = float(found.voxels.sum()) * pixel_size**3
    job.metric("threshold", found.threshold.value)
    job.metric("noise_sigma", found.threshold.noise_sigma)
    job.metric("low_pass_angstrom", found.low_pass_angstrom)
    job.metric("volume_angstrom3", volume)
    job.metric("share_of_box", float(mask.mean()))
    return MaskResult(mask, density, pixel_size, found.threshold, volume, found.low_pass_angstrom, {"mask": path})
