"""Optics groups of a particle file, completed from and checked against the tilt series."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import DataError, FormatError
from tiltwise.io.star import StarBlock, StarDocument
from tiltwise.model import OpticsGroup, TiltSeries

TOLERANCE = 1e-3
"""RELION's tolerance for values that occur both in data_optics and in the tomogram set (Å, kV, mm, fraction)"""

_SHARED = (
    ("rlnTomoTiltSeriesPixelSize", "pixel_size_angstrom"),
    ("rlnVoltage", "voltage_kv"),
    ("rlnSphericalAberration", "spherical_aberration_mm"),
    ("rlnAmplitudeContrast", "amplitude_contrast"),
)


def read_optics(
    document: StarDocument, particles: StarBlock, tomograms: Sequence[str], series: dict[str, TiltSeries]
) -> tuple[tuple[OpticsGroup, ...], NDArray[np.int64]]:
    """Optics groups, and the index of the group of every particle `(P,)`.

    Without `data_optics` (fresh picks) the groups are built from the tilt series.

    Raises
    ------
    FormatError
        if a column is missing or a value cannot be read.
    DataError
        if a particle's group is unknown, or its optics differ from its tilt series by more than 1e-3.
    """
    if "optics" not in document:
        return _from_series(tomograms, series)
    block = document["optics"]
    if not len(block):
        raise DataError(
            "data_optics is empty",
            where=block.where(),
            expected="at least one optics group",
            fix="add a row with voltage, Cs, amplitude contrast and pixel size",
        )
    numbers = [int(n) for n in block.integers("rlnOpticsGroup")]
    index = _index_of_particles(block, particles, numbers)
    if "rlnOpticsGroupName" in block:
        names = block.text("rlnOpticsGroupName")
    else:
        names = [f"opticsGroup{number}" for number in numbers]
    groups = []
    for row, (number, name) in enumerate(zip(numbers, names, strict=True)):
        members = np.flatnonzero(index == row)
        first = tomograms[int(members[0])] if len(members) else next(iter(series))
        groups.append(_group(block, row, number, name, series[first]))
    for row, tomogram in sorted({(int(g), t) for g, t in zip(index, tomograms, strict=True)}):
        _check_against(block, row, groups[row], series[tomogram])
    return tuple(groups), index


def _from_series(
    tomograms: Sequence[str], series: dict[str, TiltSeries]
) -> tuple[tuple[OpticsGroup, ...], NDArray[np.int64]]:
    first_of: dict[str, TiltSeries] = {}
    for one in series.values():
        first_of.setdefault(one.optics_group_name, one)
    groups = tuple(
        OpticsGroup(
            number, name, one.voltage_kv, one.spherical_aberration_mm, one.amplitude_contrast, one.pixel_size_angstrom
        )
        for number, (name, one) in enumerate(first_of.items(), 1)
    )
    order = {name: i for i, name in enumerate(first_of)}
    return groups, np.array([order[series[tomogram].optics_group_name] for tomogram in tomograms], np.int64)


def _index_of_particles(block: StarBlock, particles: StarBlock, numbers: list[int]) -> NDArray[np.int64]:
    if "rlnOpticsGroup" not in particles and len(numbers) == 1:
        return np.zeros(len(particles), np.int64)
    order = {number: i for i, number in enumerate(numbers)}
    column = particles.integers("rlnOpticsGroup")
    unknown = ~np.isin(column, numbers)
    if unknown.any():
        row = int(np.flatnonzero(unknown)[0])
        raise DataError(
            "a particle belongs to an unknown optics group",
            where=particles.where(row, "rlnOpticsGroup"),
            expected=f"one of {numbers} ({block.where()})",
            found=f"{int(column[row])} ({int(unknown.sum())} such particles)",
            fix="add the group to data_optics, or correct the numbers of the particles",
        )
    return np.array([order[int(number)] for number in column], np.int64)


def _group(block: StarBlock, row: int, number: int, name: str, series: TiltSeries) -> OpticsGroup:
    def value(label: str) -> float | None:
        return float(block.floats(label)[row]) if label in block else None

    def whole(label: str) -> int | None:
        return int(block.integers(label)[row]) if label in block else None

    def shared(label: str, attribute: str) -> float:
        own = value(label)
        return float(getattr(series, attribute)) if own is None else own

    def zernike(label: str) -> NDArray[np.float64]:
        return block.vectors(label)[row] if label in block else np.zeros(0)

    premultiplied = whole("rlnCtfDataAreCtfPremultiplied")
    if premultiplied not in (None, 0, 1):
        raise FormatError(
            "a value cannot be read",
            where=block.where(row, "rlnCtfDataAreCtfPremultiplied"),
            expected="0 or 1",
            found=str(premultiplied),
            fix="write 1 if images were multiplied by their CTF, else 0",
        )
    pixel, voltage, cs, contrast = (shared(label, attribute) for label, attribute in _SHARED)
    return OpticsGroup(
        number=number,
        name=name,
        voltage_kv=voltage,
        spherical_aberration_mm=cs,
        amplitude_contrast=contrast,
        pixel_size_angstrom=pixel,
        even_zernike=zernike("rlnEvenZernike"),
        odd_zernike=zernike("rlnOddZernike"),
        image_pixel_size_angstrom=value("rlnImagePixelSize"),
        image_size=whole("rlnImageSize"),
        image_dimensionality=whole("rlnImageDimensionality"),
        binning=value("rlnTomoSubtomogramBinning"),
        ctf_premultiplied=None if premultiplied is None else bool(premultiplied),
    )


def _check_against(block: StarBlock, row: int, group: OpticsGroup, series: TiltSeries) -> None:
    for label, attribute in _SHARED:
        own, other = float(getattr(group, attribute)), float(getattr(series, attribute))
        if not abs(own - other) <= TOLERANCE:
            raise DataError(
                "particles and tilt series differ in their optics",
                where=block.where(row, label),
                expected=f"{other:g} as in the tomogram set ({series.name})",
                found=f"{own:g}",
                fix="use the tomogram set these particles were made with, or correct the wrong file",
            )
