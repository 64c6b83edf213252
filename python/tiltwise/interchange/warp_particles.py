"""Particles of Warp (pixels, RELION's labels) and species of M (Å, one pose per time point)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import DataError, FormatError
from tiltwise.interchange import choices
from tiltwise.interchange.conventions import M_SPECIES, RELION_ANGLES, WARP
from tiltwise.interchange.drafts import ParticleDraft
from tiltwise.interchange.options import ImportOptions
from tiltwise.interchange.spline import grid_values
from tiltwise.io.foreign.warp import WarpGrid
from tiltwise.io.star import StarBlock, StarDocument, read_star

F64 = NDArray[np.float64]
NAME_LABELS = ("wrpSourceName", "rlnTomoName", "rlnMicrographName")
LEFT_OUT = ("rlnImageName", "rlnCtfImage", "rlnMicrographName", "rlnTomoName", "rlnRandomSubset", "rlnOpticsGroup")
"""Columns that are not handed on: images of another program's particles, and what is written anew.  RELION sorts by
rlnMicrographName, and must not find it."""


@dataclass(frozen=True, slots=True)
class WarpParticles:
    """A list of particles, and where each is at every time point."""

    draft: ParticleDraft
    samples_angstrom: F64
    """(P, S, 3) displacement from `draft.coordinate`, Å, at S times of equal distance in dose; zero for S = 1"""

    def positions_angstrom(self, rows: NDArray[np.intp], base: F64, dose: F64) -> F64:
        """Positions `(len(rows), F, 3)` in Å at the times of doses `(F,)`; `base` `(len(rows), 3)` Å."""
        count = self.samples_angstrom.shape[1]
        if count == 1:
            return np.repeat(base[:, None], len(dose), axis=1)
        span = float(np.ptp(dose))
        times = (dose - dose.min()) / span if span > 0 else np.zeros(len(dose))
        # The spline is linear in its nodes: one evaluation per node serves all particles.
        weights = np.stack(
            [grid_values(WarpGrid(np.eye(count)[i], (0.0,)), times[:, None]) for i in range(count)], axis=1
        )
        return np.asarray(base[:, None] + np.einsum("fs,psk->pfk", weights, self.samples_angstrom[rows]))


def read_warp_particles(path: Path, pixel_sizes: Mapping[str, float], options: ImportOptions) -> WarpParticles:
    """Particles of a STAR file; `pixel_sizes` are those of the tilt series by name, Å.

    Raises
    ------
    FormatError
        if it cannot be read or has no coordinates, with line and column.
    DataError
        if particles belong to none of the series.
    """
    document = read_star(path)
    block = next(
        (one for one in document if any(label in one for label in ("wrpCoordinateX1", "rlnCoordinateX"))), None
    )
    if block is None or not len(block):
        raise FormatError(
            "a file has no particles with coordinates",
            where=os.fspath(path),
            expected="rlnCoordinateX (Warp) or wrpCoordinateX1 (M)",
            found=" ".join(f"_{label}" for one in document for label in one.columns)[:300] or "no columns",
            fix="give the particles that Warp or M exported, not their images alone",
        )
    tomogram = _tomograms(block, list(pixel_sizes))
    pixel = np.array([pixel_sizes[name] for name in tomogram])
    return (_species if "wrpCoordinateX1" in block else _warp)(document, block, tomogram, pixel, options)


def _species(
    document: StarDocument, block: StarBlock, tomogram: tuple[str, ...], pixel: F64, options: ImportOptions
) -> WarpParticles:
    times = [str(i) for i in range(1, 1000) if f"wrpCoordinateX{i}" in block]
    samples = np.stack(
        [np.stack([block.floats(f"wrpCoordinate{axis}{time}") for axis in "XYZ"], axis=1) for time in times], axis=1
    )
    base = samples.mean(axis=1)
    angles = np.stack([block.floats(f"wrpAngle{name}1") for name in ("Rot", "Tilt", "Psi")], axis=1)
    notes = []
    if any((block.floats(f"wrpAngleTilt{time}") != angles[:, 1]).any() for time in times[1:]):
        notes.append(f"{block.path}: orientations that change with time are taken at the first time point")
    convention = choices.coordinate_convention(M_SPECIES, options)
    draft = ParticleDraft(
        where=block.path,
        tomogram=tomogram,
        coordinate=base,
        convention=convention,
        coordinate_binning=1.0,
        angles_deg=angles,
        euler=RELION_ANGLES,
        half_set=_half_sets(block, "wrpRandomSubset"),
        columns=_columns(block, ("wrpCoordinate", "wrpAngle")),
        notes=tuple(notes),
    )
    return WarpParticles(draft, samples - base[:, None])


def _warp(
    document: StarDocument, block: StarBlock, tomogram: tuple[str, ...], pixel: F64, options: ImportOptions
) -> WarpParticles:
    convention = choices.coordinate_convention(WARP, options)
    stored = np.stack([block.floats(f"rlnCoordinate{axis}") for axis in "XYZ"], axis=1)
    own, source = _pixel_of_file(document, block)
    notes = []
    if convention.unit == "px":
        given = options.coordinate_binning is not None or options.coordinate_pixel_size is not None
        factor = pixel if own is None else own
        if given:
            factor = np.array([choices.coordinate_binning(convention, options, one) for one in pixel]) * pixel
        elif own is not None:
            notes.append(
                f"{block.path}: coordinates taken in pixels of {own[0]:g} Å ({source}); if they count other pixels, "
                "give --coord-angpix"
            )
        stored = stored * (factor / pixel)[:, None]
    angles = None
    if "rlnAngleRot" in block:
        angles = np.stack([block.floats(f"rlnAngle{name}") for name in ("Rot", "Tilt", "Psi")], axis=1)
    draft = ParticleDraft(
        where=block.path,
        tomogram=tomogram,
        coordinate=stored,
        convention=convention,
        coordinate_binning=1.0,
        angles_deg=angles,
        euler=None if angles is None else RELION_ANGLES,
        shift=_shift(block, own, pixel if convention.unit == "px" else np.ones(len(pixel))),
        half_set=_half_sets(block, "rlnRandomSubset"),
        columns=_columns(block, ("rlnCoordinate", "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOrigin")),
        notes=tuple(notes),
    )
    return WarpParticles(draft, np.zeros((len(block), 1, 3)))


def _shift(block: StarBlock, own: F64 | None, unit: F64) -> F64 | None:
    """Minus the origins, in the unit of the coordinates (Å per unit: `unit`)."""
    if "rlnOriginXAngst" in block:
        angstrom = np.stack([block.floats(f"rlnOrigin{axis}Angst") for axis in "XYZ"], axis=1)
    elif "rlnOriginX" in block and own is not None:
        angstrom = np.stack([block.floats(f"rlnOrigin{axis}") for axis in "XYZ"], axis=1) * own[:, None]
    else:
        return None
    return np.asarray(-angstrom / unit[:, None])


def _pixel_of_file(document: StarDocument, block: StarBlock) -> tuple[F64 | None, str]:
    """(P,) pixel size of the extracted images, which is the unit of Warp's coordinates, and where it stands."""
    if "optics" in document and "rlnImagePixelSize" in document["optics"]:
        optics = document["optics"]
        sizes = dict(zip(optics.integers("rlnOpticsGroup").tolist(), optics.floats("rlnImagePixelSize"), strict=True))
        groups = block.integers("rlnOpticsGroup").tolist() if "rlnOpticsGroup" in block else [1] * len(block)
        unknown = [row for row, group in enumerate(groups) if group not in sizes]
        if unknown:
            raise DataError(
                "a particle belongs to an unknown optics group",
                where=block.where(unknown[0], "rlnOpticsGroup"),
                expected=f"one of {sorted(sizes)}",
                found=str(groups[unknown[0]]),
                fix="add the group to data_optics, or correct the number",
            )
        return np.array([sizes[group] for group in groups]), "rlnImagePixelSize"
    if "rlnPixelSize" in block:
        return block.floats("rlnPixelSize"), "rlnPixelSize"
    if "rlnDetectorPixelSize" in block and "rlnMagnification" in block:
        return (
            block.floats("rlnDetectorPixelSize") * 1e4 / block.floats("rlnMagnification"),
            "rlnDetectorPixelSize, rlnMagnification",
        )
    return None, ""


def _tomograms(block: StarBlock, known: Sequence[str]) -> tuple[str, ...]:
    """Names of the tilt series, from `TS_1.tomostar`, `.../TS_1_10.00Apx.mrc` or `TS_1`."""
    label = next((name for name in NAME_LABELS if name in block), None)
    if label is None:
        raise FormatError(
            "particles do not say to which tilt series they belong",
            where=block.where(),
            expected=" or ".join(f"_{name}" for name in NAME_LABELS),
            fix="add one of these columns with the name of the tilt series",
        )
    cache: dict[str, str] = {}
    result = []
    for row, text in enumerate(block.text(label)):
        if text not in cache:
            base = text.replace("\\", "/").rsplit("/", 1)[-1]
            stem = base.removesuffix(".tomostar").removesuffix(".xml")
            near = [name for name in known if stem == name] or [
                name for name in known if stem.startswith((f"{name}_", f"{name}."))
            ]
            if not near:
                raise DataError(
                    "particles belong to tilt series that are not imported",
                    where=block.where(row, label),
                    expected=", ".join(known[:5]) + (f" and {len(known) - 5} more" if len(known) > 5 else ""),
                    found=text,
                    fix="give --i the folder with all tilt series, or select these particles",
                )
            cache[text] = max(near, key=len)
        result.append(cache[text])
    return tuple(result)


def _half_sets(block: StarBlock, label: str) -> NDArray[np.int64] | None:
    if label not in block:
        return None
    values = block.integers(label)
    wrong = ~np.isin(values, (1, 2))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(
            "a half set is neither 1 nor 2",
            where=block.where(row, label),
            expected="1 or 2",
            found=str(values[row]),
            fix="correct the value, or take the column out: half sets are then drawn",
        )
    return values


def _columns(block: StarBlock, prefixes: tuple[str, ...]) -> dict[str, list[str]]:
    """Columns that are not read here, as text."""
    return {
        label: block.text(label) for label in block.columns if not label.startswith(prefixes) and label not in LEFT_OUT
    }
