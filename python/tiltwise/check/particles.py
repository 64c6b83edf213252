"""Particles as their table states them: columns, names, half sets, optics groups, offsets."""

from __future__ import annotations

from collections import Counter

import numpy as np

from tiltwise.check.findings import Findings, some
from tiltwise.check.project import Project, numbers, refuse_columns
from tiltwise.io.optics import TOLERANCE
from tiltwise.io.particles import (
    ANGLE_LABELS,
    CENTRED_LABELS,
    ORIGIN_LABELS,
    PIXEL_LABELS,
    SUBTOMOGRAM_ANGLE_LABELS,
)
from tiltwise.io.star import StarBlock

_UNEQUAL = 0.1
"""Difference of the half sets over their mean from which it is worth a word."""
_LARGE_ORIGIN_PX = 20.0
_SHARED = (
    ("rlnTomoTiltSeriesPixelSize", "TW-PIXEL-02", "Å"),
    ("rlnVoltage", "TW-OPTICS-01", "kV"),
    ("rlnSphericalAberration", "TW-OPTICS-01", "mm"),
    ("rlnAmplitudeContrast", "TW-OPTICS-01", ""),
)


def check_particles(project: Project, findings: Findings) -> None:
    """All that the table of particles can tell by itself and beside the tomogram set."""
    block = project.particles
    if block is None or project.document is None:
        return
    centred = any(label in block for label in CENTRED_LABELS)
    coordinates = CENTRED_LABELS if centred else PIXEL_LABELS
    triplets = [t for t in (ANGLE_LABELS, ORIGIN_LABELS, SUBTOMOGRAM_ANGLE_LABELS) if any(one in block for one in t)]
    needed = ("rlnTomoName", *coordinates, *(label for triplet in triplets for label in triplet))
    refuse_columns(block, needed, needed[1:], findings)
    _names(block, findings)
    _tomograms(project, block, findings)
    _halves(block, findings)
    optics = project.document.get("optics")
    if optics is not None:
        _optics(project, block, optics, findings)
    _origins(project, block, findings)
    if centred and all(label in block for label in PIXEL_LABELS):
        _two_kinds(project, block, findings)


def _names(block: StarBlock, findings: Findings) -> None:
    if "rlnTomoParticleName" not in block:
        return
    names = block.text("rlnTomoParticleName")
    if len(set(names)) < len(names):
        seen: set[str] = set()
        repeated = [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
        findings.add(
            "TW-DOUBLE-03",
            f"{len(repeated)} particle names occur twice",
            block.where(label="rlnTomoParticleName"),
            found=some(repeated),
        )


def _tomograms(project: Project, block: StarBlock, findings: Findings) -> None:
    if project.tomograms is None or "rlnTomoName" not in block:
        return
    known = project.tomograms.text("rlnTomoName")
    used = block.text("rlnTomoName")
    counts = Counter(used)
    unknown = sorted(set(counts) - set(known))
    if unknown:
        count = sum(counts[name] for name in unknown)
        findings.add(
            "TW-SET-01",
            f"{count} of {len(used)} particles belong to tomograms that are not in the set",
            block.where(label="rlnTomoName"),
            expected=some(known),
            found=some(unknown),
        )
    idle = [name for name in known if name not in counts]
    if idle:
        findings.add("TW-SET-02", f"{len(idle)} tilt series have no particles", idle)


def _halves(block: StarBlock, findings: Findings) -> None:
    where = block.where(label="rlnRandomSubset")
    if "rlnRandomSubset" not in block:
        findings.add("TW-HALF-05", "there are no half sets", block.where())
        return
    half = numbers(block, "rlnRandomSubset")
    wrong = np.flatnonzero((half != 1) & (half != 2))
    if len(wrong):
        text = block.columns["rlnRandomSubset"][int(wrong[0])]
        where = block.where(int(wrong[0]), "rlnRandomSubset")
        findings.add("TW-HALF-01", f"{len(wrong)} half sets are neither 1 nor 2", where, expected="1 or 2", found=text)
        return
    one, two = int((half == 1).sum()), int((half == 2).sum())
    if not one or not two:
        findings.add("TW-HALF-02", "a half set is empty", where, found=f"{one} and {two} particles")
    # Halves drawn at random differ by the square root of their sum; three of those are no reason to worry.
    elif abs(one - two) > max(_UNEQUAL * len(half) / 2, 3 * np.sqrt(len(half))):
        findings.add("TW-HALF-03", "half sets differ in size", where, found=f"{one} and {two} particles")


def _optics(project: Project, block: StarBlock, optics: StarBlock, findings: Findings) -> None:
    refuse_columns(optics, ("rlnOpticsGroup",), ("rlnOpticsGroup",), findings)
    groups = numbers(optics, "rlnOpticsGroup")
    own = numbers(block, "rlnOpticsGroup")
    if "rlnOpticsGroup" not in block:
        if len(optics) > 1:
            refuse_columns(block, ("rlnOpticsGroup",), (), findings)
            return
        own = np.full(len(block), groups[0] if len(groups) else 1.0)
    unknown = np.flatnonzero(~np.isin(own, groups))
    if len(unknown):
        findings.add(
            "TW-OPTICS-02",
            f"{len(unknown)} particles belong to an unknown optics group",
            block.where(int(unknown[0]), "rlnOpticsGroup"),
            expected=f"one of {', '.join(f'{number:g}' for number in groups)}",
            found=f"{own[unknown[0]]:g}",
        )
    binning = numbers(optics, "rlnTomoSubtomogramBinning")
    image, unbinned = numbers(optics, "rlnImagePixelSize"), numbers(optics, "rlnTomoTiltSeriesPixelSize")
    off = np.flatnonzero(np.abs(image - binning * unbinned) > 1e-3 * image)
    if len(off):
        row = int(off[0])
        findings.add(
            "TW-PIXEL-03",
            "the pixel size of extracted images is not binning times that of the tilt images",
            optics.where(row, "rlnImagePixelSize"),
            expected=f"{binning[row]:g} x {unbinned[row]:g} = {binning[row] * unbinned[row]:g} Å",
            found=f"{image[row]:g} Å",
        )
    if project.tomograms is None or "rlnTomoName" not in block:
        return
    row_of = {name: row for row, name in enumerate(project.tomograms.text("rlnTomoName"))}
    belong = set(groups.tolist())
    used = set(zip(block.text("rlnTomoName"), own.tolist(), strict=True))
    pairs = sorted((name, group) for name, group in used if name in row_of and group in belong)
    for label, code, unit in _SHARED:
        mine, theirs = numbers(optics, label), numbers(project.tomograms, label)
        bad = [
            (name, mine[groups == group][0], theirs[row_of[name]])
            for name, group in pairs
            if abs(mine[groups == group][0] - theirs[row_of[name]]) > TOLERANCE
        ]
        if bad:
            findings.add(
                code,
                f"optics groups and tilt series differ in {label}",
                [name for name, _, _ in bad],
                expected=f"{bad[0][2]:g} {unit} as in the tomogram set".replace("  ", " "),
                found=f"{bad[0][1]:g} {unit} in {optics.where(label=label)}".replace("  ", " "),
            )


def _origins(project: Project, block: StarBlock, findings: Findings) -> None:
    if project.tomograms is None or not all(label in block for label in ORIGIN_LABELS):
        return
    pixel = float(np.nanmedian(numbers(project.tomograms, "rlnTomoTiltSeriesPixelSize")))
    length = np.linalg.norm(np.stack([numbers(block, label) for label in ORIGIN_LABELS], axis=1), axis=1)
    large = np.flatnonzero(length > _LARGE_ORIGIN_PX * pixel * _largest_binning(project))
    if len(large) > 0.01 * len(block):
        row = int(large[0])
        findings.add(
            "TW-COORD-07",
            f"{len(large)} of {len(block)} particles have large origin offsets",
            block.where(row, ORIGIN_LABELS[0]),
            expected="a few pixels",
            found=f"{length[row]:.0f} Å",
        )


def _largest_binning(project: Project) -> float:
    optics = None if project.document is None else project.document.get("optics")
    if optics is None or "rlnTomoSubtomogramBinning" not in optics:
        return 1.0
    return max(1.0, float(np.nanmax(numbers(optics, "rlnTomoSubtomogramBinning"))))


def _two_kinds(project: Project, block: StarBlock, findings: Findings) -> None:
    if project.tomograms is None:
        return
    row_of = {name: row for row, name in enumerate(project.tomograms.text("rlnTomoName"))}
    rows = np.array([row_of.get(name, 0) for name in block.text("rlnTomoName")])
    pixel = numbers(project.tomograms, "rlnTomoTiltSeriesPixelSize")[rows]
    for axis, (centred, corner) in enumerate(zip(CENTRED_LABELS, PIXEL_LABELS, strict=True)):
        size = numbers(project.tomograms, f"rlnTomoSize{'XYZ'[axis]}")[rows]
        apart = np.abs(numbers(block, centred) / pixel + size / 2 - numbers(block, corner))
        if (apart > 1.5).any():
            findings.add(
                "TW-COORD-06",
                "two kinds of coordinates do not say the same",
                block.where(int(np.nanargmax(apart)), centred),
                found=f"they differ by up to {np.nanmax(apart):.0f} px",
            )
            return
