"""Maps that classes start from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import ConfigError, DataError
from tiltwise.io.star import read_star
from tiltwise.maps.initial import prepare_map
from tiltwise.spectral.filters import low_pass

ALIKE = 0.9999
"""Correlation above which two references are the same map: their classes would never part."""


def reference_paths(text: str, classes: int, *, or_one: bool = False) -> list[Path]:
    """Files that `--ref` names, separated by commas or listed in a STAR file; one for every class, `or_one` for all.

    Raises
    ------
    ConfigError
        if there are more or fewer than classes.
    FormatError
        if the STAR file cannot be read.
    """
    if text.endswith(".star"):
        path = Path(text)
        block = next((one for one in read_star(path) if "rlnReferenceImage" in one), None)
        if block is None:
            raise DataError(
                "the STAR file lists no references",
                where=f"--ref {text}",
                expected="a column rlnReferenceImage",
                fix="give a STAR file with one map in every row, or maps with commas between them",
            )
        names = [Path(name.rpartition("@")[2]) for name in block.text("rlnReferenceImage")]
        paths = [name if name.is_absolute() or name.exists() else path.parent / name for name in names]
    else:
        paths = [Path(name.strip()) for name in text.split(",") if name.strip()]
    if len(paths) != classes and not (or_one and len(paths) == 1):
        raise ConfigError(
            "references and classes differ in number",
            where="--ref, --k",
            expected=f"{classes} maps, one for every class",
            found=str(len(paths)),
            fix=f"--k {len(paths)}, or other --ref" if paths else "name the maps, separated by commas",
        )
    return paths


def given_differences(
    paths: list[Path],
    average: NDArray[np.float32],
    mask: NDArray[np.float32],
    pixel_size: float,
    resolution: float,
    note: Callable[[str], None],
) -> list[NDArray[np.float32]]:
    """Maps of files less the average (N, N, N), both low-passed, on the grey scale of the average and inside the mask.

    Raises
    ------
    FormatError, DataError
        as `prepare_map`; and if two references are the same map, or one has nothing in common with the average.
    """
    size = len(average)
    coarse = low_pass(average, pixel_size, resolution)
    maps = [prepare_map(path, size, pixel_size, resolution, note) for path in paths]
    refuse_alike(paths, maps)
    result = []
    for path, density in zip(paths, maps, strict=True):
        factor = float(np.vdot(density, coarse)) / max(float(np.vdot(density, density)), 1e-30)
        if not factor > 0:
            raise DataError(
                "a reference has nothing in common with the average of the particles",
                where=f"--ref {path}",
                expected="a map of these particles, in the orientation of their poses, density positive",
                found=f"a factor of {factor:.3g} between the grey scales",
                fix="align the map to a reconstruction of the particles (tiltwise reconstruct)",
            )
        result.append(np.asarray((density * np.float32(factor) - coarse) * mask, np.float32))
    return result


def refuse_alike(paths: list[Path], maps: list[NDArray[np.float32]]) -> None:
    """Raises ConfigError if two maps are the same but for a factor."""
    flat = [(m - m.mean()).ravel().astype(np.float64) for m in maps]
    for i, first in enumerate(flat):
        for j in range(i):
            norm = float(np.linalg.norm(first) * np.linalg.norm(flat[j]))
            if norm > 0 and float(first @ flat[j]) / norm > ALIKE:
                raise ConfigError(
                    f"references {j + 1} and {i + 1} are the same map: their classes would stay the same",
                    where="--ref",
                    found=f"{paths[j]}, {paths[i]}",
                    fix="give different maps, or none: classes then start from the largest differences between "
                    "particles",
                )
