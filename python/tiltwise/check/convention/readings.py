"""Ways to read the metadata of a tilt series: as stated, or with one convention changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import DataError
from tiltwise.geometry.projection import angles_from_projection_matrices, projection_matrices_from_angles
from tiltwise.model import TiltSeries

F64 = NDArray[np.float64]

BINNINGS = (2.0, 3.0, 4.0, 6.0, 8.0)
_ALIKE = 0.03
"""Scales closer than this cannot be told apart."""
_MOST_OUTSIDE = 0.5


@dataclass(frozen=True, slots=True)
class Reading:
    """One tilt series and some of its particles, read in one way."""

    series: TiltSeries
    units: F64
    """(P, 3) stored coordinates in what is taken for unbinned pixels, before an origin is chosen"""
    from_centre: bool
    """whether they count from the centre of the tomogram"""
    offset_px: F64
    """(P, 3) what rlnOrigin, and RELION-4's rule, add along tomogram axes"""
    position_px: F64
    """(P, 3) from the corner"""
    rotation: F64
    """(P, 3, 3) reference to tomogram"""
    contrast: float = 1.0
    """-1: images are negatives of what is stated"""
    mirrored: bool = False
    """whether the reference is replaced by its mirror image"""

    @property
    def size(self) -> F64:
        """(3,) of the tomogram in pixels."""
        return np.asarray(self.series.tomogram_size, np.float64)

    def placed(self, units: F64, from_centre: bool) -> Reading:
        """The same with other coordinates."""
        position = units + self.offset_px + (self.size / 2 if from_centre else 0.0)
        return replace(self, units=units, from_centre=from_centre, position_px=position)

    def take(self, rows: NDArray[np.intp]) -> Reading:
        """The same with some of its particles."""
        return replace(
            self,
            units=self.units[rows],
            offset_px=self.offset_px[rows],
            position_px=self.position_px[rows],
            rotation=self.rotation[rows],
        )

    def projected(self, projection: F64) -> Reading:
        """The same with other projection matrices."""
        return replace(self, series=replace(self.series, projection=projection))


@dataclass(frozen=True, slots=True)
class Alternative:
    """A way to read the metadata that differs from the present one in one convention."""

    question: str
    answer: str
    """in words, as a finding says it"""
    codes: tuple[str, ...]
    """findings it stands for"""
    change: Callable[[Reading], Reading | None]
    """None where it cannot be applied, or changes nothing"""
    geometric: bool = True
    """whether it moves particles or tilts, so that low resolution decides"""
    parts: tuple[Alternative, ...] = ()
    """of two alternatives at once"""


def alternatives() -> Iterator[Alternative]:
    """All of them but the coordinates, which depend on what is stored."""
    yield Alternative("sign of the tilt", "the tilt angles have the opposite sign", ("TW-CONV-02",), _opposite_tilt)
    yield Alternative("tilt axis", "the tilt axis is turned by 180°", ("TW-CONV-03",), _half_turn)
    yield Alternative("tilt axis", "the angle of the tilt axis has the opposite sign", ("TW-CONV-03",), _opposite_axis)
    yield Alternative("image shifts", "shifts along x and y are swapped", ("TW-CONV-04",), _swapped_shifts)
    yield Alternative("image shifts", "shifts have the opposite sign", ("TW-CONV-04",), _opposite_shifts)
    yield Alternative("z axis", "z of the particles counts from the other side", ("TW-CONV-11",), _flipped_z)
    yield Alternative("z axis", "y and z of the particles are swapped", ("TW-CONV-11",), _swapped_yz)
    yield Alternative("orientations", "rotations are inverted", ("TW-CONV-12",), _inverted)
    yield Alternative(
        "contrast",
        "the contrast is inverted",
        ("TW-CONV-10",),
        lambda reading: replace(reading, contrast=-reading.contrast),
    )
    yield Alternative(
        "hand of the map",
        "the reference is the mirror image of the particle",
        ("TW-CONV-13",),
        lambda reading: replace(reading, mirrored=not reading.mirrored),
    )
    yield Alternative(
        "hand",
        "defocus changes along the beam with the opposite sign",
        ("TW-CONV-01",),
        lambda reading: replace(reading, series=replace(reading.series, hand=-reading.series.hand)),
        geometric=False,
    )
    yield Alternative("dose", "the order of the dose is reversed", ("TW-CONV-09",), _reversed_dose, geometric=False)
    yield Alternative(
        "dose", "the dose follows the size of the tilt", ("TW-CONV-09",), _symmetric_dose, geometric=False
    )


def coordinate_alternatives(reading: Reading) -> Iterator[Alternative]:
    """Units and origins that the stored coordinates may have instead."""
    pixel = reading.series.pixel_size_angstrom
    scales: list[tuple[float, str, tuple[str, ...]]] = [
        (1.0, "", ()),
        (pixel, "pixels where Å are expected", ("TW-CONV-06",)),
        (1.0 / pixel, "Å where pixels are expected", ("TW-CONV-06",)),
    ]
    scales += [(b, f"pixels of images binned by {b:g}", ("TW-CONV-05",)) for b in BINNINGS]
    scales += [(1.0 / b, f"{b:g} times too large", ("TW-CONV-05",)) for b in BINNINGS]
    merged: list[tuple[float, str, tuple[str, ...]]] = []
    for scale, text, codes in scales:
        for i, (other, before, known) in enumerate(merged):
            if abs(scale / other - 1.0) < _ALIKE:
                merged[i] = (other, f"{before}, or {text}" if before else before, tuple(sorted({*known, *codes})))
                break
        else:
            merged.append((scale, text, codes))
    for scale, unit, codes in merged:
        for centre in (True, False):
            if scale == 1.0 and centre == reading.from_centre:
                continue
            origin = "they count from the centre" if centre else "they count from the corner"
            words = [f"they are {unit}"] if unit else []
            own = codes
            if centre != reading.from_centre:
                words.append(origin)
                own = (*codes, "TW-CONV-07")

            def change(one: Reading, scale: float = scale, centre: bool = centre) -> Reading | None:
                return _if_inside(one.placed(one.units * scale, centre))

            yield Alternative("coordinates", "coordinates: " + " and ".join(words), own, change)


def coordinate_pairs(reading: Reading) -> Iterator[Alternative]:
    """Other coordinates together with another change of the geometry."""
    for first in coordinate_alternatives(reading):
        if first.change(reading) is None:
            continue
        for second in alternatives():
            if not second.geometric or second.question == "contrast":
                continue

            def change(one: Reading, a: Alternative = first, b: Alternative = second) -> Reading | None:
                placed = a.change(one)
                return None if placed is None else b.change(placed)

            yield Alternative(
                f"{first.question} and {second.question}",
                f"{first.answer}; {second.answer}",
                (*first.codes, *second.codes),
                change,
                parts=(first, second),
            )


def _if_inside(reading: Reading) -> Reading | None:
    """The reading unless it throws most particles out of the tomogram."""
    room = 0.05 * reading.size
    inside = ((reading.position_px > -room) & (reading.position_px < reading.size + room)).all(axis=1)
    return reading if inside.mean() >= _MOST_OUTSIDE else None


def _centre(series: TiltSeries) -> F64:
    """Where RELION-5's projection turns a tomogram about."""
    return np.array([size // 2 for size in series.tomogram_size], np.float64)


def _turned(reading: Reading, rotation: F64) -> Reading:
    """Other rotations (F, 3, 3), every image of the tomogram's centre kept."""
    series, centre = reading.series, _centre(reading.series)
    projection = series.projection.copy()
    projection[:, :3, :3] = rotation
    projection[:, :3, 3] += (series.projection[:, :3, :3] - rotation) @ centre
    return reading.projected(projection)


def _opposite_tilt(reading: Reading) -> Reading:
    mirror = np.diag([1.0, 1.0, -1.0])
    return _turned(reading, mirror @ reading.series.projection[:, :3, :3] @ mirror)


def _half_turn(reading: Reading) -> Reading:
    return _turned(reading, np.diag([-1.0, -1.0, 1.0]) @ reading.series.projection[:, :3, :3])


def _angles(reading: Reading, change: Callable[[F64, F64, F64, F64], tuple[F64, F64, F64]]) -> Reading | None:
    """Change (z_rot, x_shift, y_shift) of RELION-5's angles; None for matrices that have none."""
    series = reading.series
    try:
        angles = angles_from_projection_matrices(
            series.projection, series.pixel_size_angstrom, series.tomogram_size, series.image_size
        )
    except DataError:
        return None
    z_rot, x_shift, y_shift = change(
        angles.y_tilt_deg, angles.z_rot_deg, angles.x_shift_angstrom, angles.y_shift_angstrom
    )
    projection = projection_matrices_from_angles(
        angles.x_tilt_deg,
        angles.y_tilt_deg,
        z_rot,
        x_shift,
        y_shift,
        series.pixel_size_angstrom,
        series.tomogram_size,
        series.image_size,
    )
    projection[:, 2, 3] = series.projection[:, 2, 3]
    return reading.projected(projection)


def _opposite_axis(reading: Reading) -> Reading | None:
    return _angles(reading, lambda tilt, axis, x, y: (-axis, x, y))


def _swapped_shifts(reading: Reading) -> Reading | None:
    return _angles(reading, lambda tilt, axis, x, y: (axis, y, x))


def _opposite_shifts(reading: Reading) -> Reading | None:
    return _angles(reading, lambda tilt, axis, x, y: (axis, -x, -y))


def _flipped_z(reading: Reading) -> Reading:
    position = reading.position_px.copy()
    position[:, 2] = reading.size[2] - position[:, 2]
    return replace(reading, position_px=position)


def _swapped_yz(reading: Reading) -> Reading | None:
    centred = reading.position_px - (reading.size / 2 if reading.from_centre else 0.0)
    swapped = centred[:, [0, 2, 1]] + (reading.size / 2 if reading.from_centre else 0.0)
    return _if_inside(replace(reading, position_px=swapped))


def _inverted(reading: Reading) -> Reading:
    return replace(reading, rotation=np.ascontiguousarray(np.swapaxes(reading.rotation, 1, 2)))


def _with_dose(reading: Reading, dose: F64) -> Reading | None:
    if np.allclose(dose, reading.series.pre_exposure):
        return None
    return replace(reading, series=replace(reading.series, pre_exposure=dose))


def _reversed_dose(reading: Reading) -> Reading | None:
    dose = reading.series.pre_exposure
    rank = np.argsort(np.argsort(dose, kind="stable"), kind="stable")
    return _with_dose(reading, np.sort(dose)[len(dose) - 1 - rank])


def _symmetric_dose(reading: Reading) -> Reading | None:
    series = reading.series
    angle = np.round(np.abs(series.nominal_tilt_deg), 2)
    # Which side comes first is not known: as the stated dose has it.
    rank = np.argsort(np.lexsort((series.pre_exposure, angle)), kind="stable")
    return _with_dose(reading, np.sort(series.pre_exposure)[rank])
