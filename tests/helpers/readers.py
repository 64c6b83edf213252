"""Every reader of a text format, with a good file for it: what `test_fuzz.py` damages.

Add one entry per format.  `sample` is the text of a good file, short enough that a hundred damaged copies are read in a
second; `read` takes a path and returns anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from helpers.foreign import ALN, SAMPLES
from tiltwise.interchange.options import ImportOptions
from tiltwise.interchange.programs import choose


@dataclass(frozen=True)
class Reader:
    """One reader and a good file."""

    name: str
    suffix: str
    sample: str
    read: Callable[[Path], object]
    beside: tuple[tuple[str, str], ...] = ()
    """(name, text) of other good files in the same folder that `read` needs"""


def _import(path: Path, **values: object) -> object:
    options = ImportOptions(input=path, output=path.parent / "out", **values)
    return choose(options).read(options)


_TILTS = "".join(
    f"[1,0,0,{10 + i}] [0,0.8,-0.6,20] [0,0.6,0.8,-5] [0,0,0,1] {20000 + i}.0 19000.0 30.0 {3 * i}.0\n"
    for i in range(5)
)
RELION4_TOMOGRAMS = (
    "\n# version 30001\n\ndata_global\n\nloop_\n_rlnTomoName #1\n_rlnTomoTiltSeriesName #2\n_rlnTomoFrameCount #3\n"
    "_rlnTomoSizeX #4\n_rlnTomoSizeY #5\n_rlnTomoSizeZ #6\n_rlnTomoHand #7\n_rlnTomoTiltSeriesPixelSize #8\n"
    "_rlnVoltage #9\n_rlnSphericalAberration #10\n_rlnAmplitudeContrast #11\n"
    "TS_1 TS_1.mrc 5 400 400 200 -1.0 1.35 300.0 2.7 0.1\n\ndata_TS_1\n\nloop_\n_rlnTomoProjX #1\n_rlnTomoProjY #2\n"
    "_rlnTomoProjZ #3\n_rlnTomoProjW #4\n_rlnDefocusU #5\n_rlnDefocusV #6\n_rlnDefocusAngle #7\n"
    "_rlnMicrographPreExposure #8\n" + _TILTS
)
RELION4_PARTICLES = (
    "\ndata_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnOpticsGroupName #2\n_rlnVoltage #3\n_rlnSphericalAberration #4\n"
    "_rlnTomoTiltSeriesPixelSize #5\n1 opticsGroup1 300.0 2.7 1.35\n\ndata_particles\n\nloop_\n_rlnTomoName #1\n"
    "_rlnCoordinateX #2\n_rlnCoordinateY #3\n_rlnCoordinateZ #4\n_rlnAngleRot #5\n_rlnAngleTilt #6\n_rlnAnglePsi #7\n"
    "_rlnOriginXAngst #8\n_rlnOriginYAngst #9\n_rlnOriginZAngst #10\n_rlnRandomSubset #11\n_rlnMystery #12\n"
    + "".join(
        f"TS_1 {100 + i}.5 {90 + i}.25 {80 + i}.0 {i}.0 {2 * i}.0 {3 * i}.0 0.5 0.25 -0.5 {1 + i % 2} m{i}\n"
        for i in range(9)
    )
)


def _grid(name: str, size: tuple[int, int, int]) -> str:
    axes = " ".join(f'{axis}="{n}"' for axis, n in zip(("Width", "Height", "Depth"), size, strict=True))
    nodes = "\n".join(
        f'  <Node X="{x}" Y="{y}" Z="{z}" Value="{0.5 * x - 0.25 * y + 0.125 * z}" />'
        for z in range(size[2])
        for y in range(size[1])
        for x in range(size[0])
    )
    return f'<{name} {axes} MarginX="0" MarginY="0" MarginZ="0">\n{nodes}\n</{name}>\n'


WARP_SERIES = (
    '<?xml version="1.0" encoding="utf-8"?>\n<TiltSeries AreAnglesInverted="False" PlaneNormal="0, 0, 1" '
    'LevelAngleX="0.5" LevelAngleY="-1"\n MagnificationCorrection="1, 0, 0, 1"\n'
    ' VolumeDimensionsAngstrom="540, 540, 270"\n'
    ' ImageDimensionsAngstrom="500, 540">\n'
    + "".join(
        f"<{tag}>{values}</{tag}>\n"
        for tag, values in (
            ("Angles", "-20\n0\n20.5"),
            ("Dose", "3.1\n0\n6.2"),
            ("UseTilt", "True\nTrue\nFalse"),
            ("AxisAngle", "84.5\n84.5\n84.5"),
            ("AxisOffsetX", "1.5\n0\n-2"),
            ("AxisOffsetY", "0\n0\n3.25"),
            ("MoviePath", "a.tif\nb.tif\nc.tif"),
        )
    )
    + '<CTF>\n<Param Name="PixelSize" Value="1.35" />\n<Param Name="Voltage" Value="300" />\n</CTF>\n'
    + _grid("GridCTF", (1, 1, 3))
    + _grid("GridMovementX", (3, 2, 3))
    + "</TiltSeries>\n"
)
TOMOSTAR = (
    "\ndata_\n\nloop_\n_wrpMovieName #1\n_wrpAngleTilt #2\n_wrpAxisAngle #3\n_wrpDose #4\n"
    "a.eer -3.0 84.5 3.0\nb.eer 0.0 84.5 0.0\nc.eer 3.0 84.5 6.0\n"
)
SPECIES = (
    "\ndata_\n\nloop_\n_wrpCoordinateX1 #1\n_wrpCoordinateY1 #2\n_wrpCoordinateZ1 #3\n_wrpAngleRot1 #4\n"
    "_wrpAngleTilt1 #5\n_wrpAnglePsi1 #6\n_wrpRandomSubset #7\n_wrpSourceName #8\n"
    "100.5 200.25 50.0 10.0 20.0 30.0 1 good.tomostar\n110.5 210.25 55.0 -10.0 2.0 3.0 2 good.tomostar\n"
)
_SIZES = {"image_size": "400,400", "tomogram_size": "400,400,200", "pixel_size": 1.35}

READERS = [
    Reader("warp series", ".xml", WARP_SERIES, lambda path: _import(path, source="warp")),
    Reader("tomostar", ".tomostar", TOMOSTAR, lambda path: _import(path, **_SIZES)),
    Reader(
        "species of M",
        ".star",
        SPECIES,
        lambda path: _import(path.parent / "good.xml", particles=path),
        (("good.xml", WARP_SERIES),),
    ),
    Reader("relion4 tomograms", ".star", RELION4_TOMOGRAMS, lambda path: _import(path, source="relion4")),
    Reader(
        "relion4 particles",
        ".star",
        RELION4_PARTICLES,
        lambda path: _import(path, tomograms=path.parent / "tomograms_good.star"),
        (("tomograms_good.star", RELION4_TOMOGRAMS),),
    ),
    Reader(
        "aretomo",
        ".aln",
        ALN,
        lambda path: _import(
            path, source="aretomo", pixel_size=1.5, order_list=path.parent / "order.csv", dose_per_view=3.0
        ),
        (("order.csv", "1,0.01\n2,3.0\n3,-3.01\n4,6.02\n"),),
    ),
    Reader(
        "imod",
        ".xf",
        "0.1 0.995 -0.995 0.1 2.5 -3.5\n0.1 0.995 -0.995 0.1 -1.5 0.25\n0.1 0.995 -0.995 0.1 0.5 4.0\n",
        lambda path: _import(
            path.parent, **_SIZES, source="imod", order_list=path.parent / "order.csv", dose_per_view=3.0
        ),
        (("damaged.tlt", "-3.01\n0.01\n3.0\n"), ("order.csv", "1,0.01\n2,3.0\n3,-3.01\n")),
    ),
    *(Reader(sample.name, ".txt", sample.text, sample.read) for sample in SAMPLES),
]
