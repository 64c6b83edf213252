"""Files of a deposition at the EMDB: primary map, half maps, mask, FSC, contour level, methods in words.

The EMDB asks for half maps that are neither filtered, masked nor sharpened, on the grid of the primary map.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tiltwise import __version__
from tiltwise.errors import ConfigError, DataError
from tiltwise.exec import Job
from tiltwise.export.options import ExportOptions
from tiltwise.files import write_text
from tiltwise.io.mrc import write_map
from tiltwise.model import OptimisationSet
from tiltwise.post.half_maps import PIXEL_TOLERANCE, load_half_maps, read_cube
from tiltwise.post.mask import automatic_threshold, mask_of
from tiltwise.post.options import PostprocessOptions
from tiltwise.post.postprocess import THRESHOLD
from tiltwise.post.postprocess_files import write_fsc_xml
from tiltwise.post.sharpening import frequencies
from tiltwise.spectral.fsc import resolution_angstrom
from tiltwise.spectral.randomised import masked_fsc


def emdb(optset: OptimisationSet, options: ExportOptions, job: Job) -> list[str]:
    """Write the files, `deposition.json` with the numbers the form asks for, and `methods.txt`.  Returns notes.

    Raises
    ------
    ConfigError
        if there are no half maps.
    DataError, ShapeError, FormatError
        if maps cannot be read or do not fit together.
    """
    first = options.half1 or optset.paths.get("half1")
    second = options.half2 or optset.paths.get("half2")
    if first is None or second is None:
        raise ConfigError(
            "a deposition needs half maps",
            where="--half1, --half2",
            expected="a set that names its half maps, as run_optimisation_set.star of a refinement",
            found="neither",
            fix="give --half1 and --half2",
        )
    halves = load_half_maps(PostprocessOptions(half1=Path(first), half2=Path(second), output=job.folder))
    for path in halves.paths:
        job.add_input(path)
    notes = []
    primary, pixel = halves.mean, halves.pixel_size
    if options.map is None:
        notes.append("--map was not given: the primary map is the mean of the half maps, not sharpened")
    else:
        primary, pixel = read_cube(options.map)
        job.add_input(options.map)
    if primary.shape != halves.first.shape or abs(pixel - halves.pixel_size) > PIXEL_TOLERANCE * pixel:
        raise DataError(
            "the primary map is on another grid than the half maps",
            where=f"--map {options.map}",
            expected=f"{halves.size} voxels of {halves.pixel_size:g} Å",
            found=f"{len(primary)} voxels of {pixel:g} Å",
            fix="deposit the map that postprocess made from these half maps",
        )
    mask, _ = mask_of(options.mask, halves, job, notes.append)
    curves = masked_fsc(halves.first, halves.second, mask)
    resolution = resolution_angstrom(curves.corrected, halves.size, pixel, THRESHOLD)
    contour = automatic_threshold(primary, halves.noise if options.map is None else None).value
    maps = {"map": primary, "half_map_1": halves.first, "half_map_2": halves.second, "mask": mask}
    for name, array in maps.items():
        write_map(job.path(f"emd_{name}.mrc"), array, pixel)
        job.add_output(job.path(f"emd_{name}.mrc"))
    write_fsc_xml(job.path("emd_fsc.xml"), frequencies(halves.size, pixel), curves.corrected)
    fields = _fields(optset, halves.paths[0], resolution, contour, pixel, halves.size)
    write_text(job.path("deposition.json"), json.dumps(fields, indent=1) + "\n")
    write_text(job.path("methods.txt"), methods(fields))
    for name in ("emd_fsc.xml", "deposition.json", "methods.txt"):
        job.add_output(job.path(name))
    job.metric("resolution_angstrom", resolution)
    job.metric("contour_level", contour)
    return notes


def _fields(
    optset: OptimisationSet, half_map: Path, resolution: float, contour: float, pixel: float, size: int
) -> dict[str, Any]:
    """Values of the deposition form that the data know."""
    used = set(optset.particles.tomogram)
    series = [one for one in optset.series if one.name in used]
    steps = [float(np.median(np.diff(np.sort(one.nominal_tilt_deg)))) for one in series if one.n_tilts > 1]
    dose = [float(np.max(one.pre_exposure)) for one in series if one.n_tilts]
    return {
        "method": "subtomogram averaging",
        # Half maps of another program are not ours to describe.
        "software": f"tiltwise {__version__}" if (half_map.parent / "job.json").is_file() else None,
        "particles": len(optset.particles),
        "tilt_series": len(used),
        "resolution_angstrom": round(resolution, 2),
        "resolution_method": "FSC 0.143 of half maps inside the mask, corrected by randomised phases",
        "contour_level": round(contour, 6),
        "voxel_size_angstrom": round(pixel, 5),
        "box_voxels": size,
        "voltage_kv": sorted({one.voltage_kv for one in series}),
        "spherical_aberration_mm": sorted({one.spherical_aberration_mm for one in series}),
        "tilt_range_deg": [
            round(min(float(one.nominal_tilt_deg.min()) for one in series), 1),
            round(max(float(one.nominal_tilt_deg.max()) for one in series), 1),
        ],
        "tilt_step_deg": round(float(np.median(steps)), 2) if steps else None,
        "dose_before_last_tilt_electron_per_angstrom2": round(float(np.median(dose)), 1) if dose else None,
    }


def methods(fields: dict[str, Any]) -> str:
    """Methods in sentences, from what `deposition.json` holds; what the data do not know is left to the author."""
    low, high = fields["tilt_range_deg"]
    step = f" in steps of {fields['tilt_step_deg']:g}°" if fields["tilt_step_deg"] is not None else ""
    by = ""
    if fields["software"] is not None:
        by = f" with {fields['software']}, which maximises the regularised likelihood of the tilt images "
        by += "(Zivanov et al., eLife 2022, 11:e83724)"
    voltage = ", ".join(f"{value:g}" for value in fields["voltage_kv"])
    return (
        f"{fields['particles']:,} particles from {fields['tilt_series']} tilt series ({low:g}° to {high:g}°{step}, "
        f"{voltage} kV) were averaged{by}. The resolution is "
        f"{fields['resolution_angstrom']:g} Å ({fields['resolution_method']}). "
        f"The map has voxels of {fields['voxel_size_angstrom']:g} Å; the recommended contour level is "
        f"{fields['contour_level']:g}.\n"
    )
