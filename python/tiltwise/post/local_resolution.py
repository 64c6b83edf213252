"""`tiltwise local-resolution`: resolution at every voxel, and a map filtered by it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import DataError
from tiltwise.exec import Job, Progress
from tiltwise.io.mrc import write_map
from tiltwise.kernels.threads import default_threads
from tiltwise.maps.spectra import joined_fsc
from tiltwise.post.half_maps import load_half_maps
from tiltwise.post.local_fsc import Band, band_centres, local_correlations, region_of
from tiltwise.post.mask import mask_of
from tiltwise.post.options import LocalResolutionOptions
from tiltwise.post.sharpening import bfactor_filter
from tiltwise.spectral.fft import rfft3

NOISE_SIGMAS = 3.0
"""A local correlation must be so many standard deviations of noise above zero."""
PARTICLE = 0.5
"""Value of the mask from which on voxels enter the histogram."""


@dataclass(frozen=True, slots=True)
class LocalResolution:
    """Resolution and filtered map, arrays of the shape of the bands'."""

    shell: NDArray[np.float32]
    """where the local correlation falls below its threshold, in shells"""
    filtered: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LocalResolutionResult:
    """Maps `(N, N, N)` and how the resolution is spread."""

    resolution: NDArray[np.float32]
    """Å; 0 outside the mask"""
    filtered: NDArray[np.float32]
    mask: NDArray[np.float32]
    pixel_size: float
    values: NDArray[np.float32]
    """Å, of the voxels of the particle"""
    outputs: Mapping[str, Path]

    @property
    def median_angstrom(self) -> float:
        """Median of the particle."""
        return float(np.median(self.values))

    @property
    def best_angstrom(self) -> float:
        """A tenth of the particle is better."""
        return float(np.percentile(self.values, 10))

    @property
    def worst_angstrom(self) -> float:
        """A tenth of the particle is worse."""
        return float(np.percentile(self.values, 90))


def resolve(
    bands: Iterable[Band], threshold: float, gain: Callable[[float], float], advance: Callable[[], None]
) -> LocalResolution:
    """Shell where the correlation of each voxel first falls below a threshold, and the map of what lies before.

    The threshold is `threshold`, or `NOISE_SIGMAS` standard deviations of noise where that is more.  The crossing is
    linear in frequency between bands; later rises are ignored.  Bands before it enter the map with the weight `sqrt(2 C
    / (1 + C))` of their local correlation and the factor `gain(shell)`.
    """
    shell: NDArray[np.float32] | None = None
    last_shell, last_excess, alive, density = 0.0, np.zeros(0, np.float32), np.zeros(0, bool), np.zeros(0, np.float32)
    for band in bands:
        excess = band.correlation - np.maximum(np.float32(threshold), np.float32(NOISE_SIGMAS) * band.noise_sigma)
        if shell is None:
            shell, alive = np.full(excess.shape, band.shell, np.float32), excess >= 0
            density = np.zeros(excess.shape, np.float32)
        else:
            falls = alive & ~(excess >= 0)
            share = last_excess[falls] / (last_excess[falls] - excess[falls])
            shell[falls] = last_shell + (band.shell - last_shell) * share
            alive &= ~falls
            shell[alive] = band.shell
        weight = np.sqrt(joined_fsc(band.correlation.astype(np.float64))) * gain(band.shell)
        density += np.where(alive, weight * band.mean, 0.0).astype(np.float32)
        last_shell, last_excess = band.shell, excess
        advance()
    assert shell is not None  # there are always two bands
    return LocalResolution(shell, density)


def run(options: LocalResolutionOptions, job: Job, progress: Progress) -> LocalResolutionResult:
    """Local resolution of two half maps; the entry point of `tiltwise local-resolution`."""
    halves = load_half_maps(options)
    size, pixel_size = halves.size, halves.pixel_size
    for path in halves.paths:
        job.add_input(path)
    first_shell = size * pixel_size / options.coarsest
    if not 1.0 <= first_shell < size / 2 - 1:
        raise DataError(
            "the box cannot hold the coarsest resolution",
            where="--coarsest",
            expected=f"from {2 * pixel_size / (1 - 2 / size):.3g} to {size * pixel_size:g} Å for this box",
            found=f"{options.coarsest:g} Å",
            fix="choose another --coarsest",
        )
    mask, mask_path = mask_of(options.mask, halves, job, progress.note)
    threads = options.threads or default_threads()
    centres = band_centres(first_shell, size / 2)
    progress.title("local resolution", {"box_px": size, "pixel_size_angstrom": pixel_size, "bands": len(centres)})
    with job.timing("local resolution"), progress.task("bands", len(centres)) as task:

        def advance() -> None:
            job.check_abort()
            task.advance()

        transforms = [rfft3(v, threads, norm="forward") for v in (halves.first, halves.second)]
        local = resolve(
            local_correlations(transforms[0], transforms[1], mask, centres, options.window, threads),
            options.threshold,
            lambda shell: float(bfactor_filter(options.adhoc_bfactor, np.array(shell / (size * pixel_size)))),
            advance,
        )
    region = region_of(mask)
    resolution, filtered = np.zeros_like(mask), np.zeros_like(mask)
    resolution[region] = np.where(mask[region] > 0, np.float32(size * pixel_size) / local.shell, np.float32(0.0))
    filtered[region] = local.filtered * mask[region]
    outputs = {"resolution": job.path("locres.mrc"), "filtered": job.path("locres_filtered.mrc"), "mask": mask_path}
    write_map(outputs["resolution"], resolution, pixel_size)
    write_map(outputs["filtered"], filtered, pixel_size)
    job.add_output(outputs["resolution"], "Image3D.mrc.relion.localres.resmap")
    job.add_output(outputs["filtered"], "DensityMap.mrc.relion.localres.filteredmap")
    values = resolution[mask >= PARTICLE]
    result = LocalResolutionResult(resolution, filtered, mask, pixel_size, values, outputs)
    if float(np.mean(values >= options.coarsest * (1 - 1e-3))) > 0.5:
        job.warn(f"most of the particle is no better than --coarsest {options.coarsest:g} Å: the halves hardly agree")
    job.metric("median_angstrom", result.median_angstrom)
    job.metric("best_decile_angstrom", result.best_angstrom)
    job.metric("worst_decile_angstrom", result.worst_angstrom)
    return result
