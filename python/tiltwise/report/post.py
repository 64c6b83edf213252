"""Reports of the commands that work on half maps."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tiltwise.post.sharpening import frequencies
from tiltwise.report import pages
from tiltwise.report.curves import fsc_curves, guinier_plot
from tiltwise.report.directional import directional_figure
from tiltwise.report.html import Section, Summary, Table, write_job_report
from tiltwise.report.masked import masked_slices, resolution_histogram, resolution_slices
from tiltwise.report.surface import Colouring, surface_panel
from tiltwise.spectral.fsc import resolution_angstrom

if TYPE_CHECKING:
    from tiltwise.post.local_resolution import LocalResolutionResult
    from tiltwise.post.mask import MaskResult
    from tiltwise.post.options import HalfMapOptions, LocalResolutionOptions, MaskOptions, PostprocessOptions
    from tiltwise.post.postprocess import PostprocessResult
    from tiltwise.post.sharpening import Guinier


def write_mask_report(path: Path, options: MaskOptions, result: MaskResult, manifest: Mapping[str, Any]) -> None:
    """Report of `tiltwise mask`; `manifest` is the content of `job.json`."""
    threshold = result.threshold
    sentence = (
        f"The particle is the connected density above {threshold.value:.4g}: {threshold.reason}. "
        f"It fills {result.volume_angstrom3 / 1000:.0f} nm³."
    )
    facts = {
        "threshold": f"{threshold.value:.4g}",
        "low-pass filter": f"{result.low_pass_angstrom:.3g} Å",
        "noise": f"{threshold.noise_sigma:.2g}" if threshold.noise_sigma > 0 else "not known",
        "share of the box": f"{float(result.mask.mean()):.1%}",
        "pixel size": f"{result.pixel_size:.3g} Å",
        "box": f"{result.mask.shape[0]} px",
    }
    summary = Summary(sentence, facts, manifest["warnings"], next_after_mask(options, result))
    sections = [mask_section(result.density, result.mask, result.pixel_size)]
    write_job_report(path, f"Mask {options.output}", summary, sections + pages.provenance_sections(manifest))


def mask_section(density: NDArray[np.float32], mask: NDArray[np.float32], pixel_size: float) -> Section:
    """Slices of a map with the outline of its mask."""
    return Section(
        "Mask on the map",
        "Slices through the centre of the box and through that of the mask. Solid line: "
        "the mask is 1 inside; dashed line: it is 0 outside. Worry if density of the particle lies outside the solid "
        "line (then raise the extension or lower the threshold), or if the mask follows noise.",
        figure=masked_slices(density, mask, pixel_size),
        form="png",
        shape="wide",
    )


def write_postprocess_report(
    path: Path, options: PostprocessOptions, result: PostprocessResult, manifest: Mapping[str, Any]
) -> None:
    """Report of `tiltwise postprocess`; `manifest` is the content of `job.json`."""
    pixel_size, size = result.pixel_size, result.halves.size
    without = resolution_angstrom(result.curves.unmasked, size, pixel_size)
    facts = {
        "resolution (FSC 0.143)": f"{result.resolution_angstrom:.2f} Å",
        "without mask": f"{without:.2f} Å",
        "chance inside the mask": f"{result.effect.chance:.3f}",
        **({} if result.directional is None else {"directions": f"{result.directional.area_ratio:.2f} of 1"}),
        "B-factor": f"{result.bfactor_angstrom2:.0f} Å²",
        "pixel size": f"{pixel_size:.3g} Å",
        "box": f"{size} px",
    }
    summary = Summary(
        f"{resolution_text(result)}.", facts, manifest["warnings"], next_after_postprocess(options, result)
    )
    maps = {"result": result.map, "mean of halves": result.halves.mean}
    sections = [
        mask_section(result.map, result.mask, pixel_size),
        post_fsc_section(result),
        guinier_section(result),
        *directional_sections(result),
        surface_panel(
            result.map,
            pixel_size,
            resolution_angstrom=result.resolution_angstrom,
            mask=result.mask,
            map_file=result.outputs["map"],
        ),
        pages.map_section(maps, pixel_size),
    ]
    write_job_report(path, f"Post-process {options.output}", summary, sections + pages.provenance_sections(manifest))


def write_local_resolution_report(
    path: Path, options: LocalResolutionOptions, result: LocalResolutionResult, manifest: Mapping[str, Any]
) -> None:
    """Report of `tiltwise local-resolution`; `manifest` is the content of `job.json`."""
    facts = {
        "median": f"{result.median_angstrom:.1f} Å",
        "best tenth": f"below {result.best_angstrom:.1f} Å",
        "worst tenth": f"above {result.worst_angstrom:.1f} Å",
        "pixel size": f"{result.pixel_size:.3g} Å",
        "box": f"{result.mask.shape[0]} px",
    }
    sentence = (
        f"Half of the particle is better than {result.median_angstrom:.1f} Å; four fifths lie between "
        f"{result.best_angstrom:.1f} and {result.worst_angstrom:.1f} Å."
    )
    counts, edges = np.histogram(result.values, bins=60)
    sections = [
        Section(
            "Local resolution",
            "Slices through the centre of the mask: the map filtered by its local resolution, and that resolution. "
            "Worry if the resolution follows the outline of the mask, or if flexible parts look as good as the core.",
            figure=resolution_slices(result.resolution, result.filtered, result.mask, result.pixel_size),
            form="png",
            shape="wide",
        ),
        resolution_surface(result),
        Section(
            "Histogram",
            "Voxels of the particle by resolution. Two peaks are two bodies that move against each other, or a part "
            "that is not always there. Worry if many voxels pile up at Nyquist or at the coarsest resolution.",
            figure=resolution_histogram(result.values),
            data=Table(["from Å", "voxels"], [[float(e), int(n)] for e, n in zip(edges, counts, strict=False)]),
        ),
    ]
    summary = Summary(sentence, facts, manifest["warnings"])
    write_job_report(
        path, f"Local resolution {options.output}", summary, sections + pages.provenance_sections(manifest)
    )


def resolution_surface(result: LocalResolutionResult) -> Section:
    """The filtered map, coloured by its resolution."""
    low, high = float(np.percentile(result.values, 2)), float(np.percentile(result.values, 98))
    # Beyond the mask the resolution is 0, which would bleed into the colours of its edge.
    values = np.where(result.resolution > 0, result.resolution, high).astype(np.float32)
    return surface_panel(
        result.filtered,
        result.pixel_size,
        title="Surface coloured by resolution",
        mask=result.mask,
        colour=Colouring(values, "local resolution (Å)", low, high),
        map_file=result.outputs["filtered"],
    )


def post_fsc_section(result: PostprocessResult) -> Section:
    """The four curves of half maps."""
    curves = result.curves
    drawn = {
        "corrected": curves.corrected,
        "inside the mask": curves.masked,
        "without mask": curves.unmasked,
        "randomised phases": curves.randomised,
    }
    thresholds = {}
    if result.model_fsc is not None:
        drawn["map and model"] = result.model_fsc
        thresholds["map and model"] = 0.5
    frequency = frequencies(result.halves.size, result.pixel_size)
    names = [*drawn, "particle alone"]
    columns = np.stack([frequency, *drawn.values(), result.particle_fsc], axis=1)
    start = ""
    if curves.first_shell < len(frequency):
        first = 1 / frequency[curves.first_shell]
        start = f" Phases are random beyond {first:.1f} Å; what still agrees there is the mask's doing."
    return Section(
        "Fourier shell correlation",
        "Agreement of independent halves. The corrected curve is that inside the mask, freed of what the mask alone "
        f"makes agree.{start} Worry if the randomised curve is not near zero at the resolution (a mask too tight), or "
        "if the corrected curve dips and rises again.",
        figure=fsc_curves(drawn, result.pixel_size, thresholds=thresholds, unmarked=("randomised phases",)),
        data=Table(["shell", "1/Å", *names], [[i, *row] for i, row in enumerate(columns.tolist())]),
    )


def directional_sections(result: PostprocessResult) -> list[Section]:
    """FSC by direction, if it was computed."""
    found = result.directional
    if found is None:
        return []
    rot = np.degrees(np.arctan2(found.axes[:, 1], found.axes[:, 0]))
    tilt = np.degrees(np.arccos(np.clip(found.axes[:, 2], -1.0, 1.0)))
    rows = np.round(np.stack([rot, tilt, found.resolution_angstrom], axis=1), 3).tolist()
    frequency = frequencies(result.halves.size, result.pixel_size)[: found.curves.shape[1]]
    return [
        Section(
            "Resolution by direction",
            "FSC of the half maps inside the mask, in cones of 20° about directions in the frame of the map. Smallest "
            f"area under a curve over the largest: {found.area_ratio:.2f} (1: the same all around; below 0.5: "
            "anisotropic). Worry if bad directions lie together: views along a great circle around them are missing, "
            "and the map is smeared along them.",
            figure=directional_figure(found.axes, found.curves, found.resolution_angstrom, frequency),
            data=Table(["rot", "tilt", "resolution Å"], rows),
            shape="wide",
        )
    ]


def guinier_section(result: PostprocessResult) -> Section:
    """Amplitudes against the square of the frequency, and the fitted line."""
    guinier = result.guinier
    sharpened = guinier.weighted - 0.25 * result.bfactor_angstrom2 * guinier.frequency_squared
    rows = np.stack([guinier.frequency_squared, guinier.original, guinier.weighted, sharpened], axis=1)[1:]
    caption = (
        "Logarithm of the mean amplitude against the square of the frequency. Proteins scatter about evenly beyond "
        "10 Å, so the curve should be flat there; its slope is the blur of images, poses and motion together. Worry "
        "if the fitted range is not straight."
    )
    if not guinier.fitted.any():
        caption += " No line was fitted: there are too few shells beyond the lowest resolution of the fit."
    return Section(
        "Guinier plot",
        caption,
        figure=guinier_plot(guinier.frequency_squared, guinier.original, guinier.weighted, sharpened, _line(guinier)),
        data=Table(
            ["1/Å²", "ln F", "ln F weighted", "ln F sharpened"],
            [[float(v) if np.isfinite(v) else None for v in row] for row in rows],
        ),
    )


def _line(guinier: Guinier) -> tuple[NDArray[np.float64], NDArray[np.float64], float] | None:
    """Ends of the fitted line and the B-factor."""
    if not guinier.fitted.any():
        return None
    x = guinier.frequency_squared[guinier.fitted][[0, -1]]
    return x, guinier.intercept + guinier.slope * x, guinier.bfactor_angstrom2


def resolution_text(result: PostprocessResult) -> str:
    """Resolution in words."""
    inside = "inside the mask, corrected" if result.mask_used else "without mask"
    if result.reaches_nyquist:
        return f"better than {result.resolution_angstrom:.2f} Å, the limit of the pixels (FSC above 0.143, {inside})"
    return f"{result.resolution_angstrom:.2f} Å (FSC 0.143 {inside})"


def next_after_postprocess(options: PostprocessOptions, result: PostprocessResult) -> str:
    """Command that is most useful after post-processing."""
    return _command("local-resolution", half_map_arguments(options), result.outputs["mask"], options.output)


def next_after_mask(options: MaskOptions, result: MaskResult) -> str:
    """Command that uses a new mask."""
    return _command("postprocess", half_map_arguments(options), result.outputs["mask"], options.output)


def half_map_arguments(options: HalfMapOptions) -> list[str]:
    """Arguments that give the same maps again."""
    named = {"--i": options.input, "--half1": options.half1, "--half2": options.half2, "--angpix": options.pixel_size}
    return [text for flag, value in named.items() if value is not None for text in (flag, str(value))]


def _command(name: str, maps: list[str], mask: Path, output: Path) -> str:
    return shlex.join(["tiltwise", name, *maps, "--mask", str(mask), "--o", f"{output}_{name}"])
