"""Particle files of RELION-4 and RELION-5 to `Particles`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import DataError, FormatError
from tiltwise.io.documents import CoordinateStyle
from tiltwise.io.mrc import split_image_name
from tiltwise.io.optics import read_optics
from tiltwise.io.paths import PathResolver
from tiltwise.io.star import Reader, StarBlock, StarDocument, read_star
from tiltwise.io.tomograms import TomogramSet
from tiltwise.model import OpticsGroup, Particles, TiltSeries

CENTRED_LABELS = ("rlnCenteredCoordinateXAngst", "rlnCenteredCoordinateYAngst", "rlnCenteredCoordinateZAngst")
PIXEL_LABELS = ("rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ")
ORIGIN_LABELS = ("rlnOriginXAngst", "rlnOriginYAngst", "rlnOriginZAngst")
ANGLE_LABELS = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
PRIOR_ANGLE_LABELS = ("rlnAngleRotPrior", "rlnAngleTiltPrior", "rlnAnglePsiPrior")
SUBTOMOGRAM_ANGLE_LABELS = ("rlnTomoSubtomogramRot", "rlnTomoSubtomogramTilt", "rlnTomoSubtomogramPsi")
STACKS_LABEL = "rlnTomoSubTomosAre2DStacks"
VISIBLE_LABEL = "rlnTomoVisibleFrames"
SOURCE_LABEL = "tiltwiseExpandedFrom"
MATE_LABEL = "tiltwiseSymmetryMate"
"""Of a set that was expanded by its symmetry: name of the particle, and which of its mates this is, from 1."""
NO_ANGLE = 999.0
"""RELION's value of an angle that is not known."""


@dataclass(frozen=True, slots=True)
class ParticleSet:
    """Particles, their optics, and the document they came from."""

    particles: Particles
    optics: tuple[OpticsGroup, ...]
    stacks_are_2d: bool
    coordinates: CoordinateStyle
    document: StarDocument
    notes: tuple[str, ...]


def read_particles(
    path: str, tomograms: TomogramSet, *, coordinate_binning: float | None, read: Reader = read_star
) -> ParticleSet:
    """Read a particle file that belongs to a tomogram set.

    Raises
    ------
    FormatError
        if blocks or columns are missing or a value cannot be read.
    DataError
        if the set is empty, a name is unknown or occurs twice, or values contradict the tilt series.
    """
    document = read(path)
    block = _particle_block(document)
    if not len(block):
        raise DataError(
            "a particle set is empty",
            where=block.where(),
            expected="at least one particle",
            found="no rows",
            fix="give the particle file of another job, or select particles less strictly",
        )
    notes: list[str] = []
    series = {one.name: one for one in tomograms.series}
    tomogram = block.text("rlnTomoName")
    _check_tomograms(block, tomogram, series)
    names = particle_names(block)
    optics, optics_index = read_optics(document, block, tomogram, series)
    stacks_are_2d = _stacks_are_2d(document)
    style = _coordinate_style(document, block, tomograms, coordinate_binning, notes)
    images, ctf_files = _image_files(block, stacks_are_2d, notes)
    particles = Particles(
        name=tuple(names),
        tomogram=tuple(tomogram),
        coordinate_px=_coordinates(block, style, [series[name] for name in tomogram]),
        origin_angstrom=_triplet(block, ORIGIN_LABELS),
        angles_deg=_triplet(block, ANGLE_LABELS),
        subtomogram_angles_deg=_triplet(block, SUBTOMOGRAM_ANGLE_LABELS),
        half_set=_half_sets(block),
        optics_index=optics_index,
        image_files=images,
        ctf_files=ctf_files,
        visible=_visible(block, tomogram, series),
        prior_angles_deg=_prior_angles(block),
        source=tuple(block.text(SOURCE_LABEL)) if SOURCE_LABEL in block else (),
    )
    return ParticleSet(particles, optics, stacks_are_2d, style, document, tuple(notes))


def particle_block_name(document: StarDocument) -> str:
    """Name of the block with the particles: `particles`, or the only one with rlnTomoName in other files."""
    return _particle_block(document).name


def particle_names(block: StarBlock) -> list[str]:
    """rlnTomoParticleName, or RELION's default `TOMOGRAM/N` with N from 1 per tomogram in file order.

    Raises
    ------
    DataError
        if a name occurs twice.
    """
    if "rlnTomoParticleName" not in block:
        counts: dict[str, int] = {}
        names = []
        for tomogram in block.text("rlnTomoName"):
            counts[tomogram] = counts.get(tomogram, 0) + 1
            names.append(f"{tomogram}/{counts[tomogram]}")
        return names
    names = block.text("rlnTomoParticleName")
    if len(set(names)) != len(names):
        seen: dict[str, int] = {}
        for row, name in enumerate(names):
            if name in seen:
                raise DataError(
                    "a particle name occurs twice",
                    where=block.where(row, "rlnTomoParticleName"),
                    expected="unique names",
                    found=f"{name}, also in row {seen[name] + 1} ({len(names) - len(set(names))} repeated names)",
                    fix="remove the duplicates, or the column: names are then made anew",
                )
            seen[name] = row
    return names


def _particle_block(document: StarDocument) -> StarBlock:
    if "particles" in document:
        return document["particles"]
    candidates = [block for block in document if "rlnTomoName" in block]
    if len(candidates) == 1:
        return candidates[0]
    return document["particles"]


def _check_tomograms(block: StarBlock, tomogram: Sequence[str], series: dict[str, TiltSeries]) -> None:
    unknown = [row for row, name in enumerate(tomogram) if name not in series]
    if unknown:
        names = list(dict.fromkeys(tomogram[row] for row in unknown))
        known = list(series)
        raise DataError(
            "particles belong to tomograms that are not in the tomogram set",
            where=block.where(unknown[0], "rlnTomoName"),
            expected=", ".join(known[:5]) + (f" and {len(known) - 5} more" if len(known) > 5 else ""),
            found=f"{', '.join(names[:5])} ({len(unknown)} of {len(tomogram)} particles)",
            fix="give --t the tomograms.star these particles were picked in, or --p particles of these tomograms",
        )


def _stacks_are_2d(document: StarDocument) -> bool:
    if "general" not in document or STACKS_LABEL not in document["general"]:
        return False
    return bool(document["general"].integers(STACKS_LABEL)[0])


def _coordinate_style(
    document: StarDocument,
    block: StarBlock,
    tomograms: TomogramSet,
    binning: float | None,
    notes: list[str],
) -> CoordinateStyle:
    if any(label in block for label in CENTRED_LABELS):
        if binning not in (None, 1.0):
            raise DataError(
                "coordinates are in Å, so they have no binning",
                where=block.where(label=CENTRED_LABELS[0]),
                expected="no coordinate binning",
                found=f"{binning:g}",
                fix="leave --coord-binning out",
            )
        return CoordinateStyle()
    if not all(label in block for label in PIXEL_LABELS):
        raise FormatError(
            "particles have no coordinates",
            where=block.where(),
            expected=f"{', '.join(CENTRED_LABELS)} or {', '.join(PIXEL_LABELS)}",
            found=" ".join(f"_{label}" for label in block.columns),
            fix="take the particles.star of the job that picked them; lists of other programs: tiltwise import",
        )
    if not tomograms.sizes_known:
        raise DataError(
            "the size of the tomograms is unknown",
            where=tomograms.document["global"].where(),
            expected="rlnTomoSizeX, Y and Z, because rlnCoordinateX, Y, Z count from a corner",
            fix="add the size the tomograms were reconstructed with",
        )
    # RELION-4 has no 2D stacks: a file that mentions them was written for RELION-5, which never adds 1.
    relion5 = "general" in document and STACKS_LABEL in document["general"]
    offset = 1.0 if tomograms.is_relion4 and not relion5 else 0.0
    if offset:
        notes.append(f"{block.path}: RELION-4 coordinates, (1, 1, 1) added to rlnCoordinateX, Y, Z as RELION-4 does")
    elif tomograms.is_relion4:
        notes.append(
            f"{block.path}: RELION-5 particles on a RELION-4 tomogram set; rlnCoordinateX, Y, Z taken as they are"
        )
    if binning is None and "optics" in document and "rlnTomoSubtomogramBinning" in document["optics"]:
        factors = document["optics"].floats("rlnTomoSubtomogramBinning")
        if relion5 and (factors != 1).any():
            notes.append(
                f"{block.path}: rlnCoordinateX, Y, Z taken as unbinned pixels; if another program wrote them in "
                f"pixels of the extracted images, give a coordinate binning of {float(factors.max()):g}"
            )
    return CoordinateStyle("pixel", offset, 1.0 if binning is None else binning)


def _coordinates(block: StarBlock, style: CoordinateStyle, series: Sequence[TiltSeries]) -> NDArray[np.float64]:
    if style.kind == "pixel":
        return np.stack([block.floats(label) for label in PIXEL_LABELS], axis=1) * style.binning + style.offset
    centred = np.stack([block.floats(label) for label in CENTRED_LABELS], axis=1)
    pixel = np.array([one.pixel_size_angstrom for one in series])
    return np.asarray(centred / pixel[:, None] + np.array([one.tomogram_size for one in series]) / 2.0)


def _triplet(block: StarBlock, labels: tuple[str, str, str]) -> NDArray[np.float64]:
    missing = [label for label in labels if label not in block.columns]
    if 0 < len(missing) < 3:
        raise FormatError(
            "a column is missing",
            where=block.where(),
            expected=", ".join(labels) + ", or none of them",
            found=f"no {', '.join(missing)}",
            fix="add the column, or remove the others",
        )
    zeros = np.zeros(len(block))
    return np.stack([block.floats(label) if label in block else zeros for label in labels], axis=1)


def _prior_angles(block: StarBlock) -> NDArray[np.float64] | None:
    if not any(label in block for label in PRIOR_ANGLE_LABELS):
        return None
    none = np.full(len(block), np.nan)
    columns = [block.floats(label) if label in block else none for label in PRIOR_ANGLE_LABELS]
    angles = np.stack(columns, axis=1)
    return np.where(angles == NO_ANGLE, np.nan, angles)


def _half_sets(block: StarBlock) -> NDArray[np.int64]:
    if "rlnRandomSubset" not in block:
        return np.zeros(len(block), np.int64)
    values = block.integers("rlnRandomSubset")
    wrong = (values != 1) & (values != 2)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(
            "a half set is neither 1 nor 2",
            where=block.where(row, "rlnRandomSubset"),
            expected="1 or 2",
            found=f"{int(values[row])} ({int(wrong.sum())} such particles)",
            fix="remove the column: half sets are then drawn anew",
        )
    return values


def _visible(block: StarBlock, tomogram: Sequence[str], series: dict[str, TiltSeries]) -> tuple[NDArray[np.bool_], ...]:
    if VISIBLE_LABEL not in block:
        return ()
    result = []
    known: dict[tuple[str, str], NDArray[np.bool_]] = {}  # few patterns occur, in many particles
    vectors = zip(block.columns[VISIBLE_LABEL], block.vectors(VISIBLE_LABEL), tomogram, strict=True)
    for row, (text, vector, name) in enumerate(vectors):
        seen = known.get((text, name))
        if seen is None:
            count = series[name].n_tilts
            if len(vector) != count or not np.isin(vector, (0, 1)).all():
                raise DataError(
                    "visible frames do not fit the tilt series",
                    where=block.where(row, VISIBLE_LABEL),
                    expected=f"{count} values 0 or 1, one per tilt of {name}",
                    found=f"{len(vector)} values" if len(vector) != count else text,
                    fix="use the tomogram set the particles were extracted with",
                )
            seen = known.setdefault((text, name), vector.astype(np.bool_))
            seen.setflags(write=False)  # particles share it
        result.append(seen)
    return tuple(result)


def _image_files(block: StarBlock, stacks_are_2d: bool, notes: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Absolute paths of extracted images and of their weights; nothing if one of them is not at hand."""
    resolver = PathResolver(block.path)
    found: list[tuple[str, ...]] = []
    for label in ("rlnImageName",) if stacks_are_2d else ("rlnImageName", "rlnCtfImage"):
        paths: list[str] = []
        if label in block:
            for name in block.text(label):
                path = resolver.find(split_image_name(name)[0])
                if path is None:
                    notes.append(f"{block.path}: extracted images not found, first {name}")
                    return (), ()
                paths.append(path)
        found.append(tuple(paths))
    return found[0], found[1] if len(found) == 2 else ()
