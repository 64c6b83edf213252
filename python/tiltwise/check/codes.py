"""The registry of findings: code, severity, what it means, what to do.

`tiltwise explain CODE` prints an entry, `docs/checking.md` lists them all, and a finding can only be made with a code
that is here.  An error means that results would be wrong or a job would stop; a warning that they probably are; a
note says what was assumed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tiltwise.check.convention_codes import CONVENTIONS

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True, slots=True)
class Code:
    """One kind of finding."""

    name: str
    severity: Severity
    title: str
    why: str
    """what it does to a result, and where it usually comes from"""
    fix: str


_ENTRIES: tuple[tuple[str, Severity, str, str, str], ...] = (
    (
        "TW-FILE-01",
        "error",
        "a file that the set names is missing",
        "Names are tried from the current directory, then from the folder of the file that names them and its parents.",
        "run in the project folder, or correct the path in the STAR file",
    ),
    (
        "TW-FILE-02",
        "warning",
        "tilt images are missing",
        "Work on extracted particles is possible without them; everything else needs them.",
        "run in the project folder, or correct rlnMicrographName or rlnTomoTiltSeriesName",
    ),
    (
        "TW-FILE-03",
        "error",
        "a file cannot be read",
        "It is truncated, of another format, or contradicts another file in a way that no other finding names.",
        "see the place and the values found; repeat the job that wrote the file, or copy it again",
    ),
    (
        "TW-FILE-04",
        "note",
        "checks that were not made",
        "Something they need is missing or unreadable, so other findings may be hidden.",
        "correct the errors and run the check again",
    ),
    (
        "TW-IMAGE-01",
        "error",
        "a tilt stack and its table differ in length",
        "Rows and sections are matched by number: from the first tilt that only one of them has, every tilt gets the "
        "angle, dose and defocus of another. Excluded views are the usual reason.",
        "remove the same tilts from the stack and from the table",
    ),
    (
        "TW-IMAGE-02",
        "error",
        "the images of a tilt series differ in size",
        "The centre of the image enters the projection, so tilts of another size are displaced.",
        "crop or pad the images to one size, or leave the odd tilts out",
    ),
    (
        "TW-IMAGE-03",
        "error",
        "tilt images contain NaN or infinite pixels",
        "One such pixel makes every particle near it unusable.",
        "repeat the job that wrote the images, or leave these tilts out",
    ),
    (
        "TW-IMAGE-04",
        "error",
        "a tilt image is empty",
        "All its pixels are equal. Its noise power is zero, and a likelihood divides by it.",
        "leave the tilt out of the table and of the stack",
    ),
    (
        "TW-IMAGE-05",
        "warning",
        "the noise of a tilt is far from that of its neighbours",
        "Noise much below the other tilts gives the tilt far too much weight (a blank or padded image, another scale); "
        "noise much above them is a bad image.",
        "look at the image; leave the tilt out, or bring it to the scale of the others",
    ),
    (
        "TW-IMAGE-06",
        "note",
        "a stack has sections that the table leaves out",
        "Tilts that were excluded, if the section numbers of the rows are right.",
        "check that N@stack of the other rows still names the right sections",
    ),
    (
        "TW-COLUMN-01",
        "error",
        "a column is missing",
        "Without it the set cannot be used; it is better to know now than six jobs later.",
        "use the file of the job that makes this column, or add it",
    ),
    (
        "TW-COLUMN-02",
        "error",
        "a column holds NaN or text where a number is needed",
        "A failed CTF or alignment of single tilts often leaves such values.",
        "repeat the job that wrote them, or remove these rows",
    ),
    (
        "TW-PIXEL-01",
        "warning",
        "the pixel size of the images is not the one stated",
        "Positions, defocus and resolution all scale with it. Binned images with the pixel size of the movie are the "
        "usual reason; headers are also often just not set.",
        "check the binning of motion correction; correct rlnTomoTiltSeriesPixelSize, or the header",
    ),
    (
        "TW-PIXEL-02",
        "error",
        "optics groups and tilt series differ in pixel size",
        "RELION and tiltwise refuse such a set: particles and tilt series were made from different images.",
        "use the tomogram set these particles were made with",
    ),
    (
        "TW-PIXEL-03",
        "error",
        "the pixel size of extracted images is not binning times that of the tilt images",
        "The CTF of the extracted images is then computed at wrong frequencies.",
        "correct rlnImagePixelSize or rlnTomoSubtomogramBinning, or extract again",
    ),
    (
        "TW-PIXEL-04",
        "warning",
        "tilt series differ in pixel size",
        "tiltwise works on the series of one pixel size at a time.",
        "split the set by pixel size",
    ),
    (
        "TW-COORD-01",
        "error",
        "particles lie outside every tilt image",
        "Units, binning or origin of the coordinates are wrong, or they belong to other tomograms. A few particles at "
        "the edge are harmless and are left out by a refinement.",
        "check units, binning and origin with which the coordinates were imported, or remove these particles",
    ),
    (
        "TW-COORD-02",
        "warning",
        "particles lie outside the tomogram",
        "The images may show them all the same, but coordinates are rarely picked outside the volume.",
        "check tomogram size, units, binning and origin of the coordinates",
    ),
    (
        "TW-COORD-03",
        "warning",
        "particles are seen in few tilts",
        "At the edge of the field tilted images lose the particle. Such particles have a large missing wedge.",
        "leave them out if their number matters, or check the origin of the coordinates",
    ),
    (
        "TW-COORD-04",
        "warning",
        "coordinates fill a small part of the field only",
        "So do coordinates in binned pixels that are read as unbinned ones, or pixels read as Å.",
        "check the unit of the coordinates; tiltwise check --ref MAP finds it from the images",
    ),
    (
        "TW-COORD-05",
        "note",
        "the tomogram size is odd",
        "Centred coordinates count from size / 2 but projections from size // 2: half a pixel apart, as in RELION-5.",
        "use even sizes if you can choose",
    ),
    (
        "TW-COORD-06",
        "note",
        "two kinds of coordinates in one file",
        "rlnCenteredCoordinate takes precedence over rlnCoordinate; here they do not say the same.",
        "remove the columns that are out of date",
    ),
    (
        "TW-COORD-07",
        "warning",
        "origin offsets are large",
        "Offsets of many pixels are usually pixels in a column of Å, or offsets that were applied to the coordinates "
        "and not set to zero.",
        "set rlnOrigin[XYZ]Angst to zero if the coordinates include them already",
    ),
    (
        "TW-DOUBLE-01",
        "warning",
        "particles occur twice",
        "Two copies of one particle in different half sets make the FSC agree with itself.",
        "tiltwise star filter, or RELION's removal of duplicates",
    ),
    (
        "TW-DOUBLE-02",
        "warning",
        "particles lie closer together than particles can",
        "They are probably the same particle, picked twice or drawn together by a refinement.",
        "remove all but one of them, keeping the better score",
    ),
    (
        "TW-DOUBLE-03",
        "error",
        "a particle name occurs twice",
        "Names tie particles to their trajectories and images.",
        "remove the duplicates, or the column rlnTomoParticleName: names are then made anew",
    ),
    (
        "TW-HALF-01",
        "error",
        "a half set is neither 1 nor 2",
        "Every particle belongs to one of two halves.",
        "remove rlnRandomSubset: half sets are then drawn anew",
    ),
    (
        "TW-HALF-02",
        "error",
        "a half set is empty",
        "There is no resolution without two halves.",
        "remove rlnRandomSubset: half sets are then drawn anew",
    ),
    (
        "TW-HALF-03",
        "warning",
        "half sets differ in size",
        "The smaller half decides the resolution. Selections that favour one half are a common reason.",
        "remove rlnRandomSubset if the halves need not be kept",
    ),
    (
        "TW-HALF-04",
        "warning",
        "neighbours that overlap are in different half sets",
        "They share pixels, noise included, and the FSC counts that as agreement: the resolution is too good. "
        "Alternating half sets on a lattice do this.",
        "tiltwise refine --split object draws half sets that keep neighbours together",
    ),
    (
        "TW-HALF-05",
        "note",
        "there are no half sets",
        "A refinement draws them.",
        "nothing to do",
    ),
    (
        "TW-DOSE-01",
        "error",
        "a dose is negative",
        "rlnMicrographPreExposure is the dose in e/Å² before the tilt, 0 for the first one.",
        "correct the dose of these tilts",
    ),
    (
        "TW-DOSE-02",
        "warning",
        "tilts have equal doses",
        "Each tilt adds dose, so no two have the same before them. Often the dose per tilt stands in the place of the "
        "sum.",
        "import again with the order of acquisition, or from the mdoc files",
    ),
    (
        "TW-DOSE-03",
        "note",
        "the dose has gaps",
        "Tilts were left out of the set, or their dose was lost.",
        "nothing to do if tilts were excluded on purpose",
    ),
    (
        "TW-DOSE-04",
        "warning",
        "the order of the dose looks reversed",
        "The lowest dose is at high tilt and the highest near zero; schemes begin near zero. Weights would favour the "
        "most damaged images.",
        "check the order of acquisition; tiltwise check --ref MAP finds it from the images",
    ),
    (
        "TW-DOSE-05",
        "warning",
        "the dose is out of the ordinary",
        "A total of 60 to 180 e/Å² is usual; far more or less hints at another unit or at dose per frame.",
        "check the dose per tilt in e/Å²",
    ),
    (
        "TW-DOSE-06",
        "warning",
        "dose and order of acquisition contradict each other",
        "A later image must have had more dose.",
        "import again from the mdoc files",
    ),
    (
        "TW-CTF-01",
        "error",
        "defoci are not in Å",
        "Values around 3 are µm; rlnDefocusU of a 3 µm defocus is 30000.",
        "multiply rlnDefocusU and rlnDefocusV by 10000 (µm)",
    ),
    (
        "TW-CTF-02",
        "warning",
        "defoci are unusually small: are they nm?",
        "A defocus of 0.3 µm and less occurs with phase plates only; 300 to 3000 is what 3000 to 30000 Å are in nm.",
        "multiply rlnDefocusU and rlnDefocusV by 10 if they are nm",
    ),
    (
        "TW-CTF-03",
        "warning",
        "defoci are out of range",
        "Negative (overfocus), or above 15 µm.",
        "check the fit of the CTF and its units",
    ),
    (
        "TW-CTF-04",
        "warning",
        "single tilts have a defocus far from that of their series",
        "At high tilt a fit often finds a wrong ring; the defocus of the specimen's middle changes little from tilt to "
        "tilt.",
        "correct them by the median of the series, or with tiltwise refine-ctf",
    ),
    (
        "TW-CTF-05",
        "warning",
        "the astigmatism is large",
        "More than a fifth of the defocus is rarely real.",
        "check the fit of the CTF",
    ),
    (
        "TW-CTF-06",
        "warning",
        "a phase shift looks like radians",
        "rlnPhaseShift is in degrees.",
        "multiply rlnPhaseShift by 57.2958",
    ),
    (
        "TW-CTF-07",
        "warning",
        "a contrast scale is not positive",
        "rlnCtfScalefactor multiplies the CTF: zero hides the tilt, a negative one inverts its contrast. RELION's fit "
        "of scales leaves such values in tilts without signal.",
        "leave the tilt out, or set the scale to cos(tilt)",
    ),
    (
        "TW-TILT-01",
        "warning",
        "the range of tilts is unusual",
        "Less than 60° in total leaves most of the map unseen; angles beyond 80° are rarely real.",
        "check the tilt angles",
    ),
    (
        "TW-TILT-02",
        "note",
        "tilts have equal angles",
        "Two images of one angle are allowed, but often a view was taken twice and the bad one kept.",
        "leave the worse image out",
    ),
    (
        "TW-TILT-03",
        "warning",
        "aligned and nominal tilt angles have opposite signs",
        "One of the two programs counts the other way round. The sign decides the hand of the map and the slope of the "
        "defocus.",
        "check it with tiltwise check --ref MAP",
    ),
    (
        "TW-TILT-04",
        "error",
        "projection matrices mirror the tomogram",
        "Their determinant is -1: IMOD's flip of y and z without that of z. Maps come out with the wrong hand, and "
        "RELION-5's angles cannot describe them.",
        "import again with both flips",
    ),
    (
        "TW-TILT-05",
        "warning",
        "aligned tilt angles are far from the nominal ones",
        "Tilts were probably matched by row with views left out of one of the lists.",
        "join angles by acquisition, not by row",
    ),
    (
        "TW-TILT-06",
        "warning",
        "shifts of tilt images are a large part of the image",
        "Shifts in pixels of binned images, or nm, in the place of Å give wrong sizes; swapped axes do too.",
        "check units and order of rlnTomoXShiftAngst and rlnTomoYShiftAngst",
    ),
    (
        "TW-HAND-01",
        "error",
        "the hand is neither 1 nor -1",
        "rlnTomoHand is the sign with which defocus changes along the beam.",
        "set it to -1 (RELION's default) and check it with tiltwise check --ref MAP",
    ),
    (
        "TW-HAND-02",
        "warning",
        "tilt series differ in hand",
        "The hand belongs to the microscope and the import; within one session it is the same.",
        "give all series of a session one hand",
    ),
    (
        "TW-OPTICS-01",
        "error",
        "optics groups and tilt series differ",
        "Voltage, spherical aberration or amplitude contrast of the particles are not those of their tilt series.",
        "use the tomogram set these particles were made with, or correct the wrong file",
    ),
    (
        "TW-OPTICS-02",
        "error",
        "particles belong to an unknown optics group",
        "rlnOpticsGroup must name a row of data_optics.",
        "correct rlnOpticsGroup, or add the group",
    ),
    (
        "TW-OPTICS-03",
        "warning",
        "the optics are unusual",
        "Voltages are 80 to 400 kV, spherical aberrations 0 to 8 mm, amplitude contrasts 0 to 0.3.",
        "check rlnVoltage, rlnSphericalAberration and rlnAmplitudeContrast",
    ),
    (
        "TW-SET-01",
        "error",
        "particles belong to tomograms that are not in the set",
        "rlnTomoName of particles and tomograms must agree to the letter.",
        "give the tomogram set in which the particles were picked, or correct the names",
    ),
    (
        "TW-SET-02",
        "note",
        "tilt series without particles",
        "They are read but not used.",
        "nothing to do",
    ),
)

CODES: dict[str, Code] = {entry[0]: Code(*entry) for entry in (*_ENTRIES, *CONVENTIONS)}


def code_named(text: str) -> Code | None:
    """Entry of a code as people type it (`coord-1`, `TW-COORD-01`), None if there is none."""
    parts = text.strip().upper().removeprefix("TW-").split("-")
    name = "-".join(["TW", *parts[:-1], parts[-1].zfill(2)])
    return CODES.get(name)
