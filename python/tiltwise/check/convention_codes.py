"""Entries of the registry for what the images say of the conventions (`tiltwise check --ref MAP`)."""

from __future__ import annotations

from typing import Literal

CONVENTIONS: tuple[tuple[str, Literal["error", "warning", "note"], str, str, str], ...] = (
    (
        "TW-CONV-01",
        "error",
        "the images prefer the opposite hand",
        "Defocus changes along the beam with the other sign. The resolution suffers more the larger the depth of the "
        "specimen and the finer the detail.",
        "change the sign of rlnTomoHand",
    ),
    (
        "TW-CONV-02",
        "error",
        "the images prefer tilt angles of the opposite sign",
        "Particles away from the middle of the slab are missed at high tilt, and maps have the wrong hand.",
        "change the sign of the tilt angles (rlnTomoYTilt), and run the check again for the hand",
    ),
    (
        "TW-CONV-03",
        "error",
        "the images prefer another tilt axis",
        "The axis is off by 180°, or its angle has the wrong sign.",
        "correct rlnTomoZRot (the rotation of the import), and run the check again for the hand",
    ),
    (
        "TW-CONV-04",
        "error",
        "the images prefer other shifts of the tilts",
        "Shifts along x and y are swapped, or have the wrong sign.",
        "correct rlnTomoXShiftAngst and rlnTomoYShiftAngst, or import the alignment again",
    ),
    (
        "TW-CONV-05",
        "error",
        "coordinates are in binned pixels, or scaled twice",
        "The images show the particles where the coordinates, times a whole factor, say.",
        "import the coordinates again with the binning of the tomogram they were picked in",
    ),
    (
        "TW-CONV-06",
        "error",
        "coordinates are in Å where pixels are expected, or pixels where Å are expected",
        "The images show the particles where the coordinates, times or over the pixel size, say.",
        "import the coordinates again with their unit",
    ),
    (
        "TW-CONV-07",
        "error",
        "coordinates count from the other origin",
        "From the corner of the tomogram where the centre is expected, or the other way round.",
        "import the coordinates again with their origin",
    ),
    (
        "TW-CONV-08",
        "error",
        "all particles lie one pixel off along every axis",
        "Programs count pixels from 0 or 1: RELION-4 adds (1, 1, 1), RELION-5 does not.",
        "add (or take away) one unbinned pixel to all coordinates",
    ),
    (
        "TW-CONV-09",
        "error",
        "the images prefer another order of the dose",
        "The most damaged images are given the most weight at high resolution.",
        "import again with the order of acquisition",
    ),
    (
        "TW-CONV-10",
        "error",
        "the contrast is inverted",
        "Particles are dark in tilt images; these are white, or the reference is black.",
        "multiply the images, or the reference, by -1",
    ),
    (
        "TW-CONV-11",
        "error",
        "the images prefer another z axis of the coordinates",
        "The tomogram was flipped or turned after the coordinates were picked, or before.",
        "import the coordinates again with the flips of their tomogram",
    ),
    (
        "TW-CONV-12",
        "error",
        "the images prefer inverted rotations",
        "Angles take the reference into the tomogram; other programs store the inverse.",
        "import the particles again with the program that wrote the angles",
    ),
    (
        "TW-CONV-13",
        "warning",
        "the reference is the mirror image of the particles",
        "Either the map has the wrong hand, or the tomograms are mirrored.",
        "give the other hand of the map; if that one is known to be wrong, check the sign of the tilts",
    ),
    (
        "TW-CONV-14",
        "warning",
        "all particles lie off their coordinates by the same distance",
        "Not by a pixel of the origin: another binning of the tomogram, a cropped volume, or a shift of the alignment.",
        "add the offset to all coordinates, or let a refinement find it (--offset-range)",
    ),
    (
        "TW-CONV-15",
        "warning",
        "the images do not show the reference at the particles",
        "Nothing can be said about conventions: positions or orientations are wrong by more than one convention, the "
        "map is of another particle, or the data are too few.",
        "check positions on the images (report.html), the pixel size of the map, and use more particles",
    ),
    (
        "TW-CONV-16",
        "note",
        "conventions on which the images do not decide",
        "Too few particles, or the alternative makes no difference to these data.",
        "nothing to do; use a map of higher resolution or more particles to know",
    ),
)
