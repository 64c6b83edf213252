"""Images of single particles for files: where a particle is, what cuts it, and whether the disk has room."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import OutputError
from tiltwise.extract.images import ImageExtractor
from tiltwise.extract.source import ParticleSource

F64 = NDArray[np.float64]


def images_of(source: ParticleSource, particle: int) -> ImageExtractor:
    """What cuts the images of a particle; the set was read with the demand for tilt images."""
    loader = source.loader(particle)
    assert isinstance(loader, ImageExtractor)
    return loader


def place_of(source: ParticleSource, particle: int, displacement_angstrom: F64) -> tuple[F64, F64 | None]:
    """Position (3,) and motion (F, 3), or None, in unbinned pixels; the displacement (3,) is from the coordinate."""
    optset = source.optset
    pixel = images_of(source, particle).series.pixel_size_angstrom
    motion = optset.trajectories.get(optset.particles.name[particle])
    position = optset.particles.coordinate_px[particle] + displacement_angstrom / pixel
    return position, None if motion is None else motion / pixel


def seen_tilts(source: ParticleSource, particle: int, displacement_angstrom: F64) -> NDArray[np.intp]:
    """Rows of the tilts that show a particle."""
    images = images_of(source, particle)
    points = images.project(*place_of(source, particle, displacement_angstrom))
    return images.visible_tilts(points, images.visibility_radius_px)


def refuse_without_room(folder: Path, needed: int, output: Path, fix: str) -> None:
    """Raises OutputError if the disk of `folder` has fewer bytes than `needed`."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OutputError(
            "the disk has no room for the images",
            where=f"--o {output}",
            expected=f"{needed / 1e9:.1f} GB free",
            found=f"{free / 1e9:.1f} GB",
            fix=fix,
        )
