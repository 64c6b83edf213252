"""Conventions of other programs: every origin, offset, sign and axis order, in one place.

Inside tiltwise a position is 0-based, in unbinned pixels from the corner of the tomogram, voxel centres at integers,
and an orientation is the matrix that maps the reference into the tomogram (see `docs/conventions.md`).  An entry here
says how the numbers of one program, in the versions it names, are turned into these.  `docs/interchange.md` shows the
same entries; a test keeps the two together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tiltwise.geometry.rotations import euler_to_matrix, rotation_x, rotation_z

F64 = NDArray[np.float64]
Centre = Literal["N/2", "N//2", "(N-1)/2", "N/2-1", "0"]


@dataclass(frozen=True, slots=True)
class CoordinateConvention:
    """How a program stores positions in a tomogram.

    A stored value `s` of a voxel of `binning` unbinned pixels and size N (unbinned pixels) lies at

    - corner, px: `(s - first) * binning + offset`, and `(binning - 1) / 2` more if `average`
    - centre, px: `s * binning + centre(N)`
    - centre, Å: `s / pixel_size + centre(N)`; corner, Å: `s / pixel_size - first`

    with `centre(N)` one of N / 2, N // 2, (N - 1) / 2 and N / 2 - 1.
    """

    program: str
    version: str
    columns: str
    unit: Literal["px", "Å"]
    origin: Literal["corner", "centre"]
    first: float = 0.0
    """stored value of the centre of the first voxel, where the origin is the corner"""
    centre: Centre = "N/2"
    """unbinned position of the centre, where the origin is the centre"""
    offset: float = 0.0
    """unbinned pixels that the program adds to what it stores, where the origin is the corner"""
    average: bool = False
    """true where binned voxels are averages, whose centre is (binning - 1) / 2 beside that of their first pixel"""
    remark: str = ""

    @property
    def key(self) -> str:
        """Name of the entry."""
        return f"{self.program} {self.version}".strip()

    def to_position_px(
        self, stored: ArrayLike, *, binning: ArrayLike, tomogram_size: ArrayLike, pixel_size_angstrom: ArrayLike
    ) -> F64:
        """Positions `(P, 3)`, 0-based unbinned pixels from the corner.

        `stored` is `(P, 3)`; `binning` and `pixel_size_angstrom` (unbinned) are one number or `(P,)`, `tomogram_size`
        `(3,)` or `(P, 3)` unbinned pixels.
        """
        values = np.asarray(stored, np.float64)
        factor = np.asarray(binning, np.float64)[..., None]
        pixel = np.asarray(pixel_size_angstrom, np.float64)[..., None]
        if self.unit == "Å":
            zero = centre_px(tomogram_size, self.centre) if self.origin == "centre" else -self.first
            return np.asarray(values / pixel + zero)
        if self.origin == "centre":
            return np.asarray(values * factor + centre_px(tomogram_size, self.centre))
        corner = self.offset + ((factor - 1.0) / 2.0 if self.average else 0.0)
        return np.asarray((values - self.first) * factor + corner)

    def to_stored(
        self, position_px: ArrayLike, *, binning: ArrayLike, tomogram_size: ArrayLike, pixel_size_angstrom: ArrayLike
    ) -> F64:
        """What the program stores for positions `(P, 3)`: the inverse of `to_position_px`."""
        settings: dict[str, ArrayLike] = {
            "binning": binning,
            "tomogram_size": tomogram_size,
            "pixel_size_angstrom": pixel_size_angstrom,
        }
        # Positions are linear in what is stored, axis by axis: two values give the line.
        positions = np.asarray(position_px, np.float64)
        zero = self.to_position_px(np.zeros_like(positions), **settings)
        one = self.to_position_px(np.ones_like(positions), **settings)
        return np.asarray((positions - zero) / (one - zero))


@dataclass(frozen=True, slots=True)
class EulerConvention:
    """How a program stores orientations."""

    program: str
    version: str
    columns: str
    """names of the three angles in the order in which `to_matrix` takes them"""
    formula: str
    """matrix reference -> tomogram"""
    remark: str = ""

    @property
    def key(self) -> str:
        """Name of the entry."""
        return f"{self.program} {self.version}".strip()

    def to_matrix(self, angles_deg: ArrayLike) -> F64:
        """Matrices `(..., 3, 3)` that map the reference into the tomogram; angles `(..., 3)` in degrees."""
        angles = np.asarray(angles_deg, np.float64)
        if self.formula == RELION_EULER:
            return np.asarray(euler_to_matrix(angles))
        first, second, third = (angles[..., i] for i in range(3))
        if self.formula == DYNAMO_EULER:  # tdrot, tilt, narot
            return np.asarray(rotation_z(-first) @ rotation_x(-second) @ rotation_z(-third))
        return np.asarray(rotation_z(second) @ rotation_x(third) @ rotation_z(first))  # phi, psi, theta


@dataclass(frozen=True, slots=True)
class AlignmentConvention:
    """How a program describes the geometry of a tilt series.

    A point r (unbinned pixels) is seen at `q = R (r - centre(tomogram)) + shift + centre(image)`, where `rotation` and
    `shift` say how R and the shift follow from the numbers of the program.
    """

    program: str
    version: str
    files: str
    rotation: str
    shift: str
    image_centre: Centre
    tomogram_centre: Centre
    hand: str
    """sign of defocus against depth that belongs to this frame"""
    remark: str = ""

    @property
    def key(self) -> str:
        """Name of the entry."""
        return f"{self.program} {self.version}".strip()

    @property
    def applied(self) -> str:
        """The convention as a sentence."""
        centres = f"centre of the image {self.image_centre}, of the tomogram {self.tomogram_centre}"
        return f"alignment as of {self.key}: R = {self.rotation}, shift = {self.shift}, {centres}"

    def projection(
        self,
        rotation: ArrayLike,
        shift_px: ArrayLike,
        *,
        image_size: tuple[int, int],
        tomogram_size: tuple[int, int, int],
    ) -> F64:
        """Matrices `(F, 4, 4)` from `(F, 3, 3)` rotations and `(F, 2)` shifts of the image in unbinned pixels."""
        turned = np.asarray(rotation, np.float64)
        matrices = np.zeros((len(turned), 4, 4))
        matrices[:, :3, :3] = turned
        matrices[:, :3, 3] = -turned @ centre_px(tomogram_size, self.tomogram_centre)
        matrices[:, :2, 3] += np.asarray(shift_px, np.float64) + centre_px(image_size, self.image_centre)
        matrices[:, 3, 3] = 1.0
        return matrices


def centre_px(size: ArrayLike, centre: Centre) -> F64:
    """0-based position of the centre of an image or tomogram of `size` pixels."""
    numbers = np.asarray(size, np.float64)
    if centre == "N//2":
        return np.asarray(np.floor(numbers / 2.0))
    if centre == "0":
        return np.zeros_like(numbers)
    return np.asarray(numbers / 2.0 - {"N/2": 0.0, "(N-1)/2": 0.5, "N/2-1": 1.0}[centre])


RELION_EULER = "Rz(-psi) Ry(-tilt) Rz(-rot)"
DYNAMO_EULER = "Rz(-tdrot) Rx(-tilt) Rz(-narot)"
AV3_EULER = "Rz(psi) Rx(theta) Rz(phi)"

RELION4 = CoordinateConvention(
    "RELION",
    "4",
    "rlnCoordinateX/Y/Z",
    "px",
    "corner",
    offset=1.0,
    remark="RELION-4 adds 1 to what it stores; its matrices from IMOD expect it",
)
RELION5 = CoordinateConvention(
    "RELION",
    "5",
    "rlnCenteredCoordinateX/Y/ZAngst",
    "Å",
    "centre",
    remark="the centre of projection is N//2: half a pixel apart where N is odd",
)
RELION5_PIXEL = CoordinateConvention("RELION", "5 px", "rlnCoordinateX/Y/Z", "px", "corner", remark="never plus 1")
WARP = CoordinateConvention(
    "Warp", "2, M", "rlnCoordinateX/Y/Z", "px", "corner", remark="pixels of the extracted images"
)
M_SPECIES = CoordinateConvention("M", "species", "wrpCoordinateX1/Y1/Z1", "Å", "corner")
IMOD = CoordinateConvention(
    "IMOD",
    "4",
    "model2point x y z",
    "px",
    "corner",
    first=0.5,
    average=True,
    remark="x and y count from the pixel edge; z counts slices from 0, and 0.5 is added to it first",
)
DYNAMO = CoordinateConvention(
    "Dynamo",
    "1",
    "tbl 24-26 + 4-6",
    "px",
    "corner",
    first=1.0,
    remark="others add half a voxel more or none: look at a particle that is known",
)
STOPGAP = CoordinateConvention("STOPGAP", "0.7", "orig_x/y/z + x/y/z_shift", "px", "corner", first=1.0)
EM_MOTL = CoordinateConvention("AV3", ".em", "rows 8-10 + 11-13", "px", "corner", first=1.0)
CSV_PIXEL = CoordinateConvention("CSV", "px", "x y z", "px", "corner")
CSV_ANGSTROM = CoordinateConvention("CSV", "Å", "x y z", "Å", "corner")

COORDINATES = (
    RELION4,
    RELION5,
    RELION5_PIXEL,
    WARP,
    M_SPECIES,
    IMOD,
    DYNAMO,
    STOPGAP,
    EM_MOTL,
    CSV_PIXEL,
    CSV_ANGSTROM,
)

RELION_ANGLES = EulerConvention("RELION", "3 to 5, Warp, M", "rot tilt psi", RELION_EULER)
DYNAMO_ANGLES = EulerConvention(
    "Dynamo", "1", "tdrot tilt narot", DYNAMO_EULER, "rot = narot - 90, tilt, psi = tdrot + 90"
)
AV3_ANGLES = EulerConvention(
    "STOPGAP, AV3", "", "phi psi theta", AV3_EULER, "rot = 90 - phi, tilt = theta, psi = -90 - psi"
)

EULER = (RELION_ANGLES, DYNAMO_ANGLES, AV3_ANGLES)

RELION5_ALIGNMENT = AlignmentConvention(
    "RELION",
    "5",
    "tilt_series/NAME.star",
    "Rz(ZRot) Ry(YTilt) Rx(XTilt)",
    "(XShiftAngst, YShiftAngst) / pixel size",
    "N//2",
    "N//2",
    "rlnTomoHand",
)

IMOD_ALIGNMENT = AlignmentConvention(
    "IMOD",
    "4",
    ".xf, .tlt, tilt.com",
    "Rz(atan2(A12, A11)) Ry(tlt) Rx(xtilt)",
    "-A^-1 (DX, DY)",
    "(N-1)/2",
    "(N-1)/2",
    "-1",
    remark="tomogram as after trimvol -rx; SHIFT moves its centre by (x, 0, -z)",
)
IMOD_AS_RELION5 = AlignmentConvention(
    "IMOD",
    "4 as RELION-5 reads it",
    ".xf, .tlt",
    "Rz(atan2(A12, A11)) Ry(tlt)",
    "-A^-1 (DX, DY)",
    "N//2",
    "N//2",
    "-1",
    remark="--imod-centre relion5",
)
ARETOMO_ALIGNMENT = AlignmentConvention(
    "AreTomo",
    "2, 3",
    ".aln",
    "Rz(ROT) Ry(TILT)",
    "(TX, TY)",
    "N//2",
    "N//2",
    "-1",
    remark="local alignment: motion of the particles, or deformation of the images",
)

WARP_ALIGNMENT = AlignmentConvention(
    "Warp",
    "1, 2, M",
    "NAME.xml, NAME.tomostar",
    "Rz(AxisAngle) Ry(-(Angle + LevelAngleY)) Rx(LevelAngleX)",
    "(AxisOffsetX, AxisOffsetY) / pixel size",
    "N/2",
    "N/2",
    "+1; -1 where AreAnglesInverted",
    "Rz(GridAngleZ) Ry(GridAngleY) Rx(GridAngleX) stands before R for orientations; GridMovement and GridVolumeWarp "
    "become motion of the particles",
)
WARP_EXPORT = AlignmentConvention(
    "WarpTools",
    "2 (ts_export_particles --2d)",
    "*_tomograms.star",
    "rlnTomoProjX/Y/Z as they are",
    "0",
    "0",
    "0",
    "-1; +1 where inverted",
    "mirrored along z against Warp's own frame, with its particles: maps are mirror images; no translations, so only "
    "stacks can be used",
)

ALIGNMENTS = (
    RELION5_ALIGNMENT,
    IMOD_ALIGNMENT,
    IMOD_AS_RELION5,
    ARETOMO_ALIGNMENT,
    WARP_ALIGNMENT,
    WARP_EXPORT,
)


def coordinate_rows() -> list[str]:
    """Rows of the table of positions in the documentation."""
    rows = []
    for one in COORDINATES:
        origin = f"centre {one.centre}" if one.origin == "centre" else f"first voxel is {one.first:g}"
        binned = "b i" + (f" + {one.offset:g}" if one.offset else "") + (" + (b - 1) / 2" if one.average else "")
        rows.append(f"| {one.key} | {one.columns} | {one.unit} | {origin} | {binned} | {one.remark} |")
    return rows


def euler_rows() -> list[str]:
    """Rows of the table of orientations in the documentation."""
    return [f"| {one.key} | {one.columns} | `{one.formula}` | {one.remark} |" for one in EULER]


def alignment_rows() -> list[str]:
    """Rows of the table of alignments in the documentation."""
    return [
        f"| {one.key} | {one.files} | `{one.rotation}` | `{one.shift}` | {one.image_centre} | {one.tomogram_centre} | "
        f"{one.hand} | {one.remark} |"
        for one in ALIGNMENTS
    ]
