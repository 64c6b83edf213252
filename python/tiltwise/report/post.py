"""Reports of the commands that work on half maps."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiltwise.report import pages
from tiltwise.report.html import Section, Summary, write_report
from tiltwise.report.masked import masked_slices

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tiltwise.post.mask import MaskResult
    from tiltwise.post.options import HalfMapOptions, MaskOptions


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
    write_report(path, f"Mask {options.output}", summary, sections + pages.provenance_sections(manifest))


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


def next_after_mask(options: MaskOptions, result: MaskResult) -> str:
    """Command that uses a new mask."""
    return _command("postprocess", half_map_arguments(options), result.outputs["mask"], options.output)


def half_map_arguments(options: HalfMapOptions) -> list[str]:
    """Arguments that give the same maps again."""
    named = {"--i": options.input, "--half1": options.half1, "--half2": options.half2, "--angpix": options.pixel_size}
    return [text for flag, value in named.items() if value is not None for text in (flag, str(value))]


def _command(name: str, maps: list[str], mask: Path, output: Path) -> str:
    return shlex.join(["tiltwise", name, *maps, "--mask", str(mask), "--o", f"{output}_{name}"])
