"""`tiltwise postprocess`: how far two half maps agree, and the map to look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiltwise.exec import Job, Progress
from tiltwise.io.mrc import write_map
from tiltwise.kernels.threads import default_threads
from tiltwise.post.directional import ANISOTROPIC, DirectionalFsc, directional_fsc
from tiltwise.post.half_maps import HalfMaps, load_half_maps
from tiltwise.post.mask import mask_of
from tiltwise.post.model import model_map
from tiltwise.post.options import PostprocessOptions
from tiltwise.post.postprocess_files import Postprocessed, write_fsc_xml, write_postprocess_star
from tiltwise.post.sharpening import (
    Guinier,
    bfactor_filter,
    fit_guinier,
    frequencies,
    fsc_weights,
    read_mtf,
)
from tiltwise.spectral.fft import irfft3, rfft3
from tiltwise.spectral.filters import low_pass_gain
from tiltwise.spectral.fsc import fsc, resolution_angstrom
from tiltwise.spectral.randomised import MaskedFsc, MaskEffect, mask_effect, masked_fsc
from tiltwise.spectral.shells import radii, shell_means, spread

F64 = NDArray[np.float64]

THRESHOLD = 0.143
MODEL_THRESHOLD = 0.5
"""A model has no noise: 0.5 means what 0.143 does for half maps."""
NARROW_FIT = 0.8
"""Share of the lowest resolution of the fit that the resolution must be below for a B-factor to be trusted."""
PROTEIN_SHARE = 0.476
"""Share of the box that a protein may fill where the FSC of the particle alone is estimated from its volume, as
cisTEM has it; the same factor as RELION."""
DALTON_PER_ANGSTROM3 = 0.81
"""Density of protein."""


@dataclass(frozen=True, slots=True)
class PostprocessResult:
    """Curves, filters and maps; curves are `(N // 2 + 1,)`."""

    halves: HalfMaps
    mask: NDArray[np.float32]
    curves: MaskedFsc
    particle_fsc: F64
    """FSC that the particle alone would have, from the unmasked one and the share of the box it fills"""
    fsc: F64
    """the curve that counts: corrected; or unmasked, where the mask was discarded"""
    mask_used: bool
    effect: MaskEffect
    resolution_angstrom: float
    """interpolated between shells"""
    reaches_nyquist: bool
    """the curve never falls below 0.143: the resolution is that of the pixels"""
    guinier: Guinier
    bfactor_angstrom2: float
    """applied; 0: none"""
    directional: DirectionalFsc | None
    model_fsc: F64 | None
    """of the mean of the halves and `--model`, inside the mask"""
    map: NDArray[np.float32]
    outputs: Mapping[str, Path]

    @property
    def pixel_size(self) -> float:
        """Å"""
        return self.halves.pixel_size


def run(options: PostprocessOptions, job: Job, progress: Progress) -> PostprocessResult:
    """Compare the halves, sharpen and weight their mean; the entry point of `tiltwise postprocess`."""
    halves = load_half_maps(options)
    size, pixel_size = halves.size, halves.pixel_size
    for path in halves.paths:
        job.add_input(path)
    progress.title("postprocess", {"box_px": size, "pixel_size_angstrom": pixel_size})
    mask, mask_path = mask_of(options.mask, halves, job, progress.note)
    job.check_abort()
    with job.timing("FSC"):
        first_shell = None
        if options.randomise_at is not None:
            first_shell = round(size * pixel_size / options.randomise_at)
        curves = masked_fsc(
            halves.first,
            halves.second,
            mask,
            seed=options.seed,
            threshold=options.randomise_at_fsc,
            first_shell=first_shell,
            stored_once=options.relion_compatible,
        )
    effect = mask_effect(curves, size, pixel_size)
    curve, mask_used = _curve_that_counts(curves, options, halves, job)
    resolution = resolution_angstrom(curve, size, pixel_size, THRESHOLD)
    reaches_nyquist = bool((curve[1:] >= THRESHOLD).all())
    _warn(job, effect if mask_used else None, resolution, reaches_nyquist)
    job.check_abort()
    with job.timing("sharpening"):
        sharpened, guinier, bfactor = sharpen(options, halves.mean, curve, pixel_size, resolution, job)
    directional = _directional(options, halves, mask, resolution, job) if options.directions else None
    model_fsc = _model_fsc(options, halves, mask, job) if options.model is not None else None
    share = PROTEIN_SHARE / max(float(np.mean(mask > 0.5)), 1e-9)
    if options.mass is not None:
        share = PROTEIN_SHARE * (size * pixel_size) ** 3 * DALTON_PER_ANGSTROM3 / (1000.0 * options.mass)
    outputs = {
        "map": job.path("postprocess.mrc"),
        "masked": job.path("postprocess_masked.mrc"),
        "star": job.path("postprocess.star"),
        "xml": job.path("postprocess_fsc.xml"),
        "mask": mask_path,
    }
    write_map(outputs["map"], sharpened, pixel_size)
    write_map(outputs["masked"], sharpened * mask, pixel_size)
    result = PostprocessResult(
        halves,
        mask,
        curves,
        fsc_of_particle(curves.unmasked, share),
        curve,
        mask_used,
        effect,
        resolution,
        reaches_nyquist,
        guinier,
        bfactor,
        directional,
        model_fsc,
        sharpened,
        outputs,
    )
    _write_tables(result, share)
    job.add_output(outputs["map"], "DensityMap.mrc.relion.postprocess")
    job.add_output(outputs["masked"], "DensityMap.mrc.relion.postprocess")
    job.add_output(outputs["star"], "ProcessData.star.relion.postprocess")
    job.add_output(outputs["xml"])
    job.metric("resolution_angstrom", resolution)
    job.metric("resolution_unmasked_angstrom", resolution_angstrom(curves.unmasked, size, pixel_size, THRESHOLD))
    job.metric("bfactor_angstrom2", bfactor)
    return result


def fsc_of_particle(unmasked: F64, share: float) -> F64:
    """`f FSC / (1 + (f - 1) FSC)`: FSC if the box held the particle alone, which fills 1/f of it (as cisTEM has it).

    Noise is in the whole box and signal in the particle: without the solvent, the ratio of signal to noise, FSC /
    (1 - FSC), is f times as large.
    """
    return np.asarray(share * unmasked / (1.0 + (share - 1.0) * unmasked))


def sharpen(
    options: PostprocessOptions,
    density: NDArray[np.float32],
    curve: F64,
    pixel_size: float,
    resolution: float,
    job: Job,
) -> tuple[NDArray[np.float32], Guinier, float]:
    """Map `(N, N, N)` after detector, FSC weights, B-factor and low-pass filter; the Guinier plot; the B-factor.

    `curve` is the FSC of the half maps `(N // 2 + 1,)`, `resolution` in Å.
    """
    size, threads = density.shape[0], options.threads or default_threads()
    frequency, radius = frequencies(size, pixel_size), radii(size, 3)
    spectrum = rfft3(density, threads, norm="forward")
    weights = fsc_weights(curve) if options.fsc_weighting else np.ones(len(curve))
    detector, gain = np.ones(len(frequency)), spread(weights, size, 3)
    if options.mtf is not None:
        job.add_input(options.mtf)
        mtf_pixel_size = options.mtf_pixel_size or pixel_size
        detector = 1.0 / read_mtf(options.mtf, frequency, mtf_pixel_size)
        gain /= read_mtf(options.mtf, np.minimum(radius, size // 2) / (size * pixel_size), mtf_pixel_size)
    guinier = fit_guinier(
        shell_means(np.abs(spectrum), size, 3, stored_once=options.relion_compatible),
        detector * weights,
        frequency,
        options.fit_low,
        options.fit_high or 2 * pixel_size,
    )
    bfactor = _bfactor(options, guinier, resolution, job)
    gain *= bfactor_filter(bfactor, radius / (size * pixel_size))
    cut = options.low_pass
    if cut is None:
        cut = 0.0 if options.fsc_weighting else resolution
    elif cut < 0:
        cut = resolution
    if cut > 0:
        gain *= low_pass_gain(radius, size * pixel_size / cut)
    spectrum *= gain.astype(np.float32)
    return np.asarray(irfft3(spectrum, size, threads, norm="forward"), dtype=np.float32), guinier, bfactor


def _curve_that_counts(curves: MaskedFsc, options: PostprocessOptions, halves: HalfMaps, job: Job) -> tuple[F64, bool]:
    """The corrected FSC; the unmasked one, with a warning, where the resolution is better without the mask."""
    inside, without = (
        resolution_angstrom(c, halves.size, halves.pixel_size, THRESHOLD) for c in (curves.corrected, curves.unmasked)
    )
    if without >= inside or options.force_mask:
        return curves.corrected, True
    job.warn(
        f"the mask was not used: the resolution is {without:.1f} Å without it and {inside:.1f} Å inside it. It may "
        "miss the particle; look at its outline, or insist by --force-mask"
    )
    return curves.unmasked, False


def _directional(
    options: PostprocessOptions, halves: HalfMaps, mask: NDArray[np.float32], resolution: float, job: Job
) -> DirectionalFsc:
    """FSC by direction, somewhat beyond the resolution; warns if directions differ much."""
    job.check_abort()
    last = min(halves.size // 2, int(1.5 * halves.size * halves.pixel_size / resolution) + 2)
    with job.timing("FSC by direction"):
        threads = options.threads or default_threads()
        result = directional_fsc(halves.first, halves.second, mask, halves.pixel_size, last, threads)
    job.metric("directional_area_ratio", result.area_ratio)
    if result.area_ratio < ANISOTROPIC:
        best, worst = (result.resolution_angstrom[i] for i in (result.best, result.worst))
        job.warn(
            f"the resolution depends on the direction: {best:.1f} to {worst:.1f} Å (ratio of areas "
            f"{result.area_ratio:.2f}, below {ANISOTROPIC:g}). Views are missing: look at the angular "
            "distribution"
        )
    return result


def _model_fsc(options: PostprocessOptions, halves: HalfMaps, mask: NDArray[np.float32], job: Job) -> F64:
    """FSC of the mean of the half maps and a model, inside the mask.

    Raises
    ------
    ConfigError, FormatError, ShapeError
        if the model cannot be read, does not fit the box, or is a map of another size.
    """
    assert options.model is not None
    job.add_input(options.model)
    with job.timing("model"):
        model = model_map(options.model, options.model_bfactor, halves.size, halves.pixel_size)
        curve = fsc(halves.mean, model, mask)
    job.metric("model_resolution_angstrom", resolution_angstrom(curve, halves.size, halves.pixel_size, MODEL_THRESHOLD))
    if not float(curve[1:4].mean()) > MODEL_THRESHOLD:
        job.warn(
            f"model and map do not agree even at low resolution (FSC {float(curve[1:4].mean()):.2f}): fit the model "
            "into the map first; its coordinates are taken as they are, with the first voxel of the map at (0, 0, 0)"
        )
    return curve


def _warn(job: Job, effect: MaskEffect | None, resolution: float, reaches_nyquist: bool) -> None:
    if effect is not None and effect.tight:
        job.warn(
            f"the mask is tight: maps with random phases agree inside it (FSC {effect.chance:.2f} on average up to "
            f"{effect.before_angstrom:.1f} Å). The corrected curve takes that off; a wider mask with a softer edge "
            "leaves less to correct"
        )
    if reaches_nyquist:
        job.warn(
            f"the FSC never falls below {THRESHOLD:g}: {resolution:.2f} Å is the limit of the pixels and not of the "
            "data, if the halves are independent. Reconstruct with smaller pixels; check that the half sets share no "
            "particles"
        )


def _bfactor(options: PostprocessOptions, guinier: Guinier, resolution: float, job: Job) -> float:
    if options.adhoc_bfactor is not None:
        return options.adhoc_bfactor
    if not options.auto_bfactor:
        return 0.0
    if not guinier.fitted.any():
        job.warn(
            f"no B-factor was fitted, the map is not sharpened: at {resolution:.1f} Å there are too few shells beyond "
            f"--autob-lowres {options.fit_low:g} Å. Give a larger one, or --adhoc-bfac"
        )
    elif guinier.slope > 0:
        job.warn(
            f"amplitudes rise with the frequency (B-factor {guinier.bfactor_angstrom2:.0f} Å²): the map is not "
            "blurred, or was sharpened before. It is not sharpened; --adhoc-bfac does so all the same"
        )
        return 0.0
    elif resolution > NARROW_FIT * options.fit_low:
        job.warn(
            f"the B-factor is that of a narrow range, {options.fit_low:g} to {resolution:.1f} Å: look at the "
            "Guinier plot; --autob-lowres with a larger value, or --adhoc-bfac"
        )
    return guinier.bfactor_angstrom2


def _write_tables(result: PostprocessResult, share: float) -> None:
    """`postprocess.star` and the XML file for the EMDB."""
    halves, guinier = result.halves, result.guinier
    frequency = frequencies(halves.size, halves.pixel_size)
    length = halves.size * halves.pixel_size
    last_shell = max(1, int(length / result.resolution_angstrom + 1e-6))
    tables = Postprocessed(
        half_maps=halves.paths,
        map=result.outputs["map"],
        masked_map=result.outputs["masked"],
        mask=result.outputs["mask"] if result.mask_used else None,
        resolution_angstrom=length / last_shell,
        randomise_from_angstrom=length / result.curves.first_shell,
        bfactor_angstrom2=result.bfactor_angstrom2,
        box_over_particle=share,
        frequency=frequency,
        corrected=result.fsc,
        particle=result.particle_fsc,
        curves=result.curves,
        guinier=guinier,
        sharpened=guinier.weighted - 0.25 * result.bfactor_angstrom2 * guinier.frequency_squared,
    )
    write_postprocess_star(result.outputs["star"], tables)
    write_fsc_xml(result.outputs["xml"], frequency, result.fsc)
