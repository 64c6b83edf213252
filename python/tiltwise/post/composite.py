"""`tiltwise composite`: parts that were refined one by one and the consensus for the rest in one map, half by half."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tiltwise.errors import DataError, FormatError, ShapeError
from tiltwise.exec import Job, Progress
from tiltwise.io.mrc import write_map
from tiltwise.io.star import read_star
from tiltwise.maps.masks import read_mask
from tiltwise.maps.rigid import placed, rigid_change
from tiltwise.maps.whole import part_of
from tiltwise.post.half_maps import PIXEL_TOLERANCE, HalfMaps, load_half_maps
from tiltwise.post.options import CompositeOptions, PostprocessOptions
from tiltwise.spectral.filters import low_pass
from tiltwise.spectral.fsc import fsc, resolution_angstrom
from tiltwise.spectral.randomised import masked_fsc

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

MASK, PARTICLES = "run_focus_mask.mrc", "run_data.star"
"""Files of a refinement with --focus."""
NAME, HALF = "rlnTomoParticleName", "rlnRandomSubset"
FIT_ROUNDS = 3
LEAST_MOTION_PX = 0.1
"""Root mean square displacement of a part against the consensus below which it stays as it is."""
MOST_MOTION_PX = 4.0
"""The same beyond which the fit, which is one of small motions, is not believed."""
SAME_SCALE = (0.5, 2.0)
"""Grey scale of the consensus over that of a part, inside the mask: outside of this they are not the same density."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part in the box of the consensus."""

    folder: Path
    mask: F32
    """(N, N, N), before overlaps are shared out"""
    halves: tuple[F32, F32]
    """(N, N, N) as it lies on the consensus"""
    centre_angstrom: F64
    """(3,) x, y, z from the middle of the box"""
    turn_deg: F64
    """(3,) rotation vector that laid it on the consensus"""
    shift_angstrom: F64
    """(3,) the same of its centre"""
    scale: float
    """grey scale of the consensus over its own"""
    before: F64
    """FSC of the consensus inside its mask, corrected for it"""
    after: F64
    """the same of the part"""


@dataclass(frozen=True, slots=True)
class CompositeResult:
    """Half maps of everything, each voxel from the part it belongs to."""

    halves: tuple[F32, F32]
    consensus: HalfMaps
    parts: tuple[Part, ...]
    share: F32
    """(N, N, N) of what comes from parts, 0 to 1"""
    outputs: Mapping[str, Path]

    @property
    def map(self) -> F32:
        """Mean of the halves."""
        return np.asarray((self.halves[0] + self.halves[1]) / 2, np.float32)


def run(options: CompositeOptions, job: Job, progress: Progress) -> CompositeResult:
    """Put parts into the consensus; the entry point of `tiltwise composite` and of Python scripts.

    Raises
    ------
    FormatError, ShapeError, DataError
        if maps or masks cannot be read, are of other boxes or pixel sizes, or parts are not where they should be.
    """
    consensus = load_half_maps(options)
    for path in consensus.paths:
        job.add_input(path)
    facts = {"parts": len(options.folders), "box_px": consensus.size, "pixel_size_angstrom": consensus.pixel_size}
    progress.title("composite", facts)
    known, parts = _halves(consensus.paths[0].parent), []
    with job.timing("parts"), progress.task("parts", len(options.folders)) as task:
        for folder in options.folders:
            job.check_abort()
            parts.append(_part(folder, consensus, options, job))
            _warn_of_other_halves(folder, known, job)
            task.advance(1)
    total = np.sum([part.mask for part in parts], axis=0, dtype=np.float32)
    excess = np.maximum(total, np.float32(1.0))
    share = np.minimum(total, np.float32(1.0))
    pairs = zip((consensus.first, consensus.second), zip(*(part.halves for part in parts), strict=True), strict=True)
    first, second = (
        np.asarray(
            whole * (1.0 - share) + sum(part.mask / excess * own for part, own in zip(parts, mine, strict=True)),
            np.float32,
        )
        for whole, mine in pairs
    )
    outputs = {name: job.path(f"{name}.mrc") for name in ("half1", "half2", "composite", "share")}
    result = CompositeResult((first, second), consensus, tuple(parts), share, outputs)
    labels = {"half1": "halfmap.composite", "half2": "halfmap.composite", "composite": "composite"}
    for name, density in (("half1", first), ("half2", second), ("composite", result.map), ("share", share)):
        write_map(outputs[name], density, consensus.pixel_size)
        kind = f"DensityMap.mrc.relion.{labels[name]}" if name in labels else "Mask3D.mrc.relion"
        job.add_output(outputs[name], kind)
    return result


def _part(folder: Path, consensus: HalfMaps, options: CompositeOptions, job: Job) -> Part:
    """A part from the folder of its refinement, laid on the consensus."""
    own = load_half_maps(PostprocessOptions(input=folder, output=job.folder, pixel_size=options.pixel_size))
    if abs(own.pixel_size - consensus.pixel_size) > PIXEL_TOLERANCE * consensus.pixel_size:
        raise ShapeError(
            "part and consensus differ in pixel size",
            where=f"--parts {folder}",
            expected=f"{consensus.pixel_size:g} Å",
            found=f"{own.pixel_size:g} Å",
            fix="refine them with the same --bin, or reconstruct the consensus with that of the part",
        )
    for name in (MASK, PARTICLES):
        if not (folder / name).is_file():
            raise FormatError(
                "the folder is not that of a refined part",
                where=f"--parts {folder}",
                expected=f"{MASK} and {PARTICLES}",
                found=f"no {name}",
                fix="give the folder of a finished refinement with --focus",
            )
        job.add_input(folder / name)
    for path in own.paths:
        job.add_input(path)
    pixel, size = consensus.pixel_size, consensus.size
    mask = read_mask(folder / MASK, own.size, pixel, "--parts")
    centre = part_of(folder / PARTICLES)
    there = [placed(half, np.eye(3), -centre / pixel, own.size) for half in (consensus.first, consensus.second)]
    before, after = masked_fsc(there[0], there[1], mask), masked_fsc(own.first, own.second, mask)
    known = resolution_angstrom(fsc(there[0], there[1], mask), own.size, pixel, 0.5)
    whole = low_pass(np.asarray((there[0] + there[1]) / 2, np.float32), pixel, max(known, 2.5 * pixel))
    smooth = low_pass(own.mean, pixel, max(known, 2.5 * pixel))
    scale = _scale(whole, smooth, mask, folder)
    rotation, shift = _fitted(whole, np.float32(scale) * smooth, mask, pixel, folder, FIT_ROUNDS * options.fit)
    turn = np.degrees(Rotation.from_matrix(rotation).as_rotvec())
    if _displacement(turn, shift, mask, pixel) < LEAST_MOTION_PX * pixel:
        rotation, turn, shift = np.eye(3), np.zeros(3), np.zeros(3)
    at = (centre + shift) / pixel
    moved, first, second = (placed(one, rotation, at, size) for one in (mask, own.first, own.second))
    return Part(
        folder,
        np.clip(moved, 0.0, 1.0),
        (first, second),
        centre,
        turn,
        shift,
        scale,
        before.corrected,
        after.corrected,
    )


def _halves(folder: Path) -> dict[str, int]:
    """Half sets of the particles of a refinement, by name; empty where they are not known."""
    if not (folder / PARTICLES).is_file():
        return {}
    for block in read_star(folder / PARTICLES):
        if NAME in block and HALF in block:
            return dict(zip(block.text(NAME), block.integers(HALF).tolist(), strict=True))
    return {}


def _warn_of_other_halves(folder: Path, known: Mapping[str, int], job: Job) -> None:
    """Warns if particles of a part are in the other half of the consensus: half maps then share their noise."""
    own = _halves(folder)
    common = [name for name in own if name in known]
    moved = sum(own[name] != known[name] for name in common)
    if moved:
        job.warn(
            f"--parts {folder}: {moved} of {len(common)} particles are in the other half set of the consensus, so that "
            "halves of the composite share noise where masks are soft or overlap, and their FSC is too good; refine "
            "the part from the set of the consensus, without --split"
        )


def _scale(whole: F32, part: F32, mask: F32, folder: Path) -> float:
    """Grey scale of the consensus over that of a part, inside its mask."""
    scale = float((whole * mask * part * mask).sum(dtype=np.float64))
    scale /= max(float(((part * mask) ** 2).sum(dtype=np.float64)), 1e-300)
    if not SAME_SCALE[0] < scale < SAME_SCALE[1]:
        raise DataError(
            "the part is not the density that the consensus has there",
            where=f"--parts {folder}",
            expected=f"a ratio of grey scales of 1, {SAME_SCALE[0]:g} to {SAME_SCALE[1]:g}",
            found=f"{scale:.2g}, inside {MASK}",
            fix="give the consensus that the part was refined from, with --i",
        )
    return scale


def _fitted(whole: F32, part: F32, mask: F32, pixel: float, folder: Path, rounds: int) -> tuple[F64, F64]:
    """Rotation (3, 3) and shift (3,) in Å that lay a part on the consensus in its box, in so many steps."""
    rotation, shift, moved, window = np.eye(3), np.zeros(3), part, mask
    for _ in range(rounds):
        turn, move = rigid_change(whole * window, moved * window, pixel)
        step = Rotation.from_rotvec(np.radians(turn)).as_matrix()
        rotation, shift = step @ rotation, step @ shift + move
        total = np.degrees(Rotation.from_matrix(rotation).as_rotvec())
        if not _displacement(total, shift, mask, pixel) < MOST_MOTION_PX * pixel:
            raise DataError(
                "the part does not lie on the consensus",
                where=f"--parts {folder}",
                expected=f"a displacement below {MOST_MOTION_PX * pixel:.1f} Å",
                found=f"{np.linalg.norm(total):.1f}° and {np.linalg.norm(shift):.1f} Å",
                fix="look at the map of the part; --no-fit puts it where its poses have it",
            )
        if _displacement(turn, move, mask, pixel) < LEAST_MOTION_PX * pixel / 10:
            break
        moved, window = (placed(one, rotation, shift / pixel, len(part)) for one in (part, mask))
    return rotation, shift


def _displacement(turn_deg: F64, shift_angstrom: F64, mask: F32, pixel: float) -> float:
    """Root mean square displacement in Å of the voxels of a mask (N, N, N) by a small motion."""
    axis = (np.arange(len(mask)) - len(mask) // 2) * pixel
    sums = [mask.sum(axis=tuple(a for a in range(3) if a != along), dtype=np.float64) for along in (2, 1, 0)]
    weight = max(float(mask.sum(dtype=np.float64)), 1e-300)
    radius2 = sum(float(one @ axis**2) for one in sums) / weight
    turned = np.radians(np.linalg.norm(turn_deg)) ** 2 * radius2 * 2.0 / 3.0
    return float(np.sqrt(turned + (shift_angstrom**2).sum()))
