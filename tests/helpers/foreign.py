"""Small valid files of every foreign text format, and their readers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tiltwise.io.foreign.aretomo import read_aln
from tiltwise.io.foreign.csv_coordinates import read_coordinates
from tiltwise.io.foreign.ctffind import read_ctffind
from tiltwise.io.foreign.ctfplotter import read_defocus
from tiltwise.io.foreign.dynamo import read_table, read_tomogram_list
from tiltwise.io.foreign.gctf import read_gctf
from tiltwise.io.foreign.imod_alignment import read_angles, read_dose_list, read_order_list, read_xf
from tiltwise.io.foreign.imod_commands import read_etomo_project, read_newst_command, read_tilt_command
from tiltwise.io.foreign.imod_model import read_points
from tiltwise.io.foreign.mdoc import read_mdoc
from tiltwise.io.foreign.stopgap import read_motives, read_wedges


@dataclass(frozen=True)
class Sample:
    """A valid file, its reader, and a number in it (line from 0, token) that the reader must look at."""

    name: str
    read: Callable[[Path], object]
    text: str
    number: tuple[int, int]


MDOC = """PixelSpacing = 1.35
Voltage = 300
ImageFile = TS_1.mrc
ImageSize = 512 480
DataMode = 1

[T = SerialEM: somewhere]

[T =     Tilt axis angle = 85.3, binning = 1  spot = 8  camera = 1]
"""
for _i, (_angle, _clock) in enumerate([(-3.01, "10:03:00"), (0.01, "10:01:00"), (3.0, "10:02:00"), (6.02, "10:04:00")]):
    MDOC += f"""
[ZValue = {_i}]
TiltAngle = {_angle}
ExposureDose = {3 + _i / 10}
PixelSpacing = 1.35
RotationAngle = 175.3
TargetDefocus = -4
SubFramePath = D:\\frames\\TS_1_{_i:03d}.tif
NumSubFrames = 8
DateTime = 30-Nov-15  {_clock}
"""

ALN = """# AreTomo Alignment / Priims bprmMn
# RawSize = 512 480 4
# NumPatches = 2
# DarkFrame =     3    3    6.02
# AlphaOffset =     2.50
# BetaOffset =     0.00
# Thickness = 200
# SEC     ROT         GMAG       TX          TY      SMEAN     SFIT    SCALE     BASE     TILT
    0    84.5000    1.00000     1.500     -2.250     1.00     1.00     1.00     0.00     -0.51
    1    84.5000    1.00000     0.000      0.000     1.00     1.00     1.00     0.00      2.51
    2    84.5000    1.00000    -3.125      4.500     1.00     1.00     1.00     0.00      5.50
# Local Alignment
   0   0  -100.00   -80.00    1.50    -0.50   1.0
   0   1   100.00    80.00   -1.50     0.50   1.0
   1   0  -101.00   -81.00    0.25     0.00   1.0
   1   1   101.00    81.00    0.00     0.75   0.0
   2   0  -102.00   -82.00   -1.00    -0.25   1.0
   2   1   102.00    82.00    1.00     0.25   1.0
"""

TILT_COM = """# a comment
$setenv IMOD_OUTPUT_FORMAT MRC
$tilt -StandardInput
InputProjections TS_1_ali.mrc
OutputFile TS_1_full_rec.mrc
IMAGEBINNED 4
TILTFILE TS_1.tlt
XTILTFILE TS_1.xtilt
THICKNESS 200
XAXISTILT 1.5
FULLIMAGE 480 512
OFFSET 0.0
SHIFT 2.0 -3.0
EXCLUDELIST 1,7-9
EXCLUDELIST2 12
$if (-e ./savework) ./savework
"""

NEWST_COM = """$newstack -StandardInput
InputFile\tTS_1.mrc
OutputFile\tTS_1_ali.mrc
TransformFile\tTS_1.xf
SizeToOutputInXandY\t120,128
OffsetsInXandY\t0.0,0.0
BinByFactor\t4
"""

GCTF = """
data_

loop_
_rlnMicrographName #1
_rlnDefocusU #2
_rlnDefocusV #3
_rlnDefocusAngle #4
_rlnPhaseShift #5
split.mrc.01 35268.36 35036.41 21.26 0.0
split.mrc.02 34332.65 35647.82 10.50 0.5
"""

MOTIVES = """
data_stopgap_motivelist

loop_
_motl_idx
_tomo_num
_object
_subtomo_num
_halfset
_orig_x
_orig_y
_orig_z
_score
_x_shift
_y_shift
_z_shift
_phi
_psi
_the
_class

6.000000\t24\t1\t6\tA\t824.0\t754.0\t673.0\t0.5\t0.25\t-0.5\t5.5\t33.25\t65.25\t8.5\t3
7.000000\t24\t1\t7\tB\t693.0\t690.0\t317.0\t0.4\t0.5\t0.5\t0.0\t-10.0\t20.0\t30.0\t1
"""

WEDGES = """
data_stopgap_wedgelist

loop_
_tomo_num
_pixelsize
_tomo_x
_tomo_y
_tomo_z
_z_shift
_tilt_angle
_defocus
_exposure

17 2.4 4096 4096 1500 0.0 -3.0 3.5 6.0
17 2.4 4096 4096 1500 0.0 0.0 3.4 0.0
"""

_TBL = "{tag} 1 1 0.5 -0.25 1.5 30 60 -90 0.15 0 0 0 -60 60 -60 60 0 0 {tomogram} 1 2 0 101 202.5 303\n"

SAMPLES = [
    Sample("xf", read_xf, "0.1 0.995 -0.995 0.1 2.5 -3.5\n 0.2 0.98 -0.98 0.2 0 0\n", (1, 4)),
    Sample("tlt", read_angles, " -57.12\n -54.11\n0.5\n", (1, 0)),
    Sample("dose", read_dose_list, "0.0\n3.1\n6.2\n", (1, 0)),
    Sample("order", read_order_list, "1,0.0\n2,3.0\n3,-3.0\n", (1, 0)),
    Sample("tilt.com", read_tilt_command, TILT_COM, (8, 1)),
    Sample("newst.com", read_newst_command, NEWST_COM, (6, 1)),
    Sample(
        "edf",
        read_etomo_project,
        "#Wed\nSetup.DatasetName=TS_1\nSetup.PixelSize= 0.135\nSetup.ImageRotationA= 85.3\n"
        "Setup.AxisA.ExcludeProjections=3,5-6\n",
        (2, 1),
    ),
    Sample("points", read_points, "1 1 10.5 20.5 30\n1 2 11.5 21.5 31\n", (1, 3)),
    Sample("aln", read_aln, ALN, (9, 3)),
    Sample("tbl", read_table, _TBL.format(tag=1, tomogram=1) + _TBL.format(tag=2, tomogram=4), (1, 24)),
    Sample("doc", read_tomogram_list, "1\ttomo_1.mrc\n4\ttomo_4.mrc\n", (1, 0)),
    Sample("stopgap", read_motives, MOTIVES, (22, 6)),
    Sample("wedges", read_wedges, WEDGES, (15, 6)),
    Sample(
        "ctffind",
        read_ctffind,
        "# Output from CTFFind version 4.1.14, run on 2023-02-02 15:13:07\n"
        "# Input file: TS_1.mrc ; Number of micrographs: 3\n"
        "# Columns: #1 - micrograph number; #2 - defocus 1 [Angstroms]; #3 - defocus 2; #4 - azimuth of astigmatism\n"
        "1.0 14477.87 13500.0 75.0 0.0 0.001 12.14\n2.0 18332.73 17896.3 -84.1 0.5 0.007 inf\n"
        "3.0 19371.8 18665.5 40.0 0.0 0.007 16.3\n",
        (4, 1),
    ),
    Sample(
        "defocus",
        read_defocus,
        "1 0 0. 0. 0 3\n1 1 -57.12 -57.12 3100.5 3050.25 33.5\n2 2 -54.11 -54.11 3200.0 3150.0 34.0\n",
        (2, 4),
    ),
    Sample("gctf", read_gctf, GCTF, (10, 2)),
    Sample("mdoc", read_mdoc, MDOC, (11, 1)),
    Sample("csv", read_coordinates, "tomogram,x,y,z,score\nTS_1,1.5,2,3e1,0.5\nTS_2,4,5,6,0.25\n", (2, 1)),
]
