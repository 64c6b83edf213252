"""CTF tables as STAR files: Gctf, and RELION's `micrographs_ctf.star`.

Defocus in Å, underfocus positive; angle in degrees from x to the first defocus; phase shift in degrees.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import FormatError
from tiltwise.io.foreign.text import read_text
from tiltwise.io.star import parse_star


@dataclass(frozen=True, slots=True)
class GctfTable:
    """CTF of F micrographs."""

    path: str
    micrograph_names: tuple[str, ...]
    defocus_angstrom: NDArray[np.float64]
    """(F, 2) U and V"""
    angle_deg: NDArray[np.float64]
    phase_shift_deg: NDArray[np.float64] | None
    figure_of_merit: NDArray[np.float64] | None
    resolution_angstrom: NDArray[np.float64] | None
    voltage_kv: NDArray[np.float64] | None
    spherical_aberration_mm: NDArray[np.float64] | None
    amplitude_contrast: NDArray[np.float64] | None
    tilt_deg: NDArray[np.float64] | None
    """(F,) nominal stage angle, where the file has it"""


def read_gctf(path: str | os.PathLike[str]) -> GctfTable:
    """Read the first block that has both rlnMicrographName and rlnDefocusU.

    Raises
    ------
    FormatError
        if there is no such block, or a value is not a finite number.
    """
    file = read_text(path)
    document = parse_star("\n".join(file.lines) + "\n", file.path)
    block = next((one for one in document if "rlnMicrographName" in one and "rlnDefocusU" in one), None)
    if block is None or not len(block):
        raise FormatError(
            "a STAR file holds no CTF of micrographs",
            where=f"{file.path}, line {len(file.lines)}",
            expected="rows of _rlnMicrographName and _rlnDefocusU",
            found=", ".join(f"data_{one.name}" for one in document),
            fix="give the file that Gctf writes for all micrographs, micrographs_all_gctf.star",
        )

    def optional(*labels: str) -> NDArray[np.float64] | None:
        return next((block.floats(label) for label in labels if label in block), None)

    return GctfTable(
        path=file.path,
        micrograph_names=tuple(block.text("rlnMicrographName")),
        defocus_angstrom=np.stack([block.floats("rlnDefocusU"), block.floats("rlnDefocusV")], axis=1),
        angle_deg=block.floats("rlnDefocusAngle"),
        phase_shift_deg=optional("rlnPhaseShift"),
        figure_of_merit=optional("rlnCtfFigureOfMerit"),
        resolution_angstrom=optional("rlnFinalResolution", "rlnCtfMaxResolution"),
        voltage_kv=optional("rlnVoltage"),
        spherical_aberration_mm=optional("rlnSphericalAberration"),
        amplitude_contrast=optional("rlnAmplitudeContrast"),
        tilt_deg=optional("rlnTomoNominalStageTiltAngle"),
    )
