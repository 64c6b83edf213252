"""Every fault of an input gives an error that says what, where, expected and found."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tiltwise.errors import DataError, FormatError
from tiltwise.io.optimisation_set import load_optimisation_set

P, T, G = "particles.star", "tilt_series/TS_1.star", "tomograms.star"


@pytest.mark.parametrize(
    ("file", "block", "label", "values", "error", "message"),
    [
        (P, "particles", "rlnTomoName", None, FormatError, r"missing: _rlnTomoName|block is missing: data_particles"),
        (P, "particles", "rlnCenteredCoordinateYAngst", None, FormatError, r"missing: _rlnCenteredCoordinateYAngst"),
        (P, "particles", "rlnTomoName", ["TS_1", "TS_9", "TS_9"], DataError,
         r"not in the tomogram set\n  where: .*particles.star, line \d+, .*\n.*TS_1, TS_2\n  found: TS_9 \(2 of 3"),
        (P, "particles", "rlnTomoParticleName", ["a", "b", "a"], DataError, r"occurs twice[\s\S]*a, also in row 1"),
        (P, "particles", "rlnAngleTilt", ["1", "nan", "2"], FormatError, r"NaN[\s\S]*line \d+.*_rlnAngleTilt"),
        (P, "particles", "rlnCenteredCoordinateXAngst", ["inf", "1", "2"], FormatError, r"NaN or infinite"),
        (P, "particles", "rlnAngleRot", ["1", "?", "2"], FormatError, r"a number\n  found: \?"),
        (P, "particles", "rlnRandomSubset", ["1", "3", "0"], DataError, r"neither 1 nor 2[\s\S]*3 \(2 such"),
        (P, "particles", "rlnOpticsGroup", ["1", "2", "1"], DataError, r"unknown optics group[\s\S]*found: 2 \(1 such"),
        (P, "particles", "rlnTomoVisibleFrames", ["[1,1,1,1,1]", "[1,1,1,1]", "[]"], DataError,
         r"visible frames do not fit[\s\S]*5 values[\s\S]*found: 4 values"),
        (P, "particles", "rlnTomoVisibleFrames", ["[1,1,1,1,2]"] * 3, DataError, r"visible frames[\s\S]*\[1,1,1,1,2\]"),
        (P, "optics", "rlnTomoTiltSeriesPixelSize", ["2.002"], DataError,
         r"differ in their optics[\s\S]*line \d+.*rlnTomoTiltSeriesPixelSize\n  expected: 2 .*\n  found: 2.002"),
        (P, "optics", "rlnVoltage", ["200"], DataError, r"differ in their optics[\s\S]*found: 200"),
        (P, "optics", "rlnCtfDataAreCtfPremultiplied", ["2"], FormatError, r"expected: 0 or 1\n  found: 2"),
        (G, "global", "rlnTomoName", ["TS_1", "TS_1"], DataError, r"tilt series occurs twice"),
        (G, "global", "rlnTomoName", ["TS_1", "TS_3"], FormatError,
         r"table of a tilt series is missing[\s\S]*data_TS_3[\s\S]*found: data_TS_2"),
        (G, "global", "rlnTomoTiltSeriesPixelSize", ["2", "0"], DataError, r"out of range[\s\S]*above 0"),
        (G, "global", "rlnTomoHand", ["-1", "0"], DataError, r"out of range[\s\S]*1 or -1"),
        (G, "global", "rlnVoltage", ["300000", "300"], DataError, r"out of range[\s\S]*kV"),
        (G, "global", "rlnTomoHand", None, FormatError, r"missing: _rlnTomoHand"),
        (G, "global", "rlnTomoTiltSeriesStarFile", ["tilt_series/TS_1.star", "x.star"], FormatError,
         r"tilt series STAR files is missing[\s\S]*x.star"),
        (T, "TS_1", "rlnDefocusU", None, FormatError, r"missing: _rlnDefocusU"),
        (T, "TS_1", "rlnMicrographPreExposure", None, FormatError, r"missing: _rlnMicrographPreExposure"),
        (T, "TS_1", "rlnTomoYTilt", None, FormatError, r"no geometry"),
        (T, "TS_1", "rlnTomoXShiftAngst", None, FormatError, r"missing: _rlnTomoXShiftAngst"),
        (T, "TS_1", "rlnMicrographName", None, FormatError, r"missing: _rlnMicrographName"),
        (T, "TS_1", "rlnMicrographName", [f"{i}@tilt_series/TS_1.mrcs" for i in (1, 2, 3, 4, 6)], DataError,
         r"no such section[\s\S]*N from 1 to 5[\s\S]*found: 6@"),
        (T, "TS_1", "rlnMicrographName", ["tilt_series/TS_1.mrcs"] * 5, DataError, r"no such section"),
        (T, "TS_1", "rlnMicrographName", [f"img/{i}.mrc" for i in range(5)], FormatError, r"5 tilt images missing"),
    ],
)  # fmt: skip
def test_faults(project: Any, file: str, block: str, label: str, values: Any, error: type, message: str) -> None:
    project.column(file, block, label, values)
    with pytest.raises(error, match=message) as caught:
        load_optimisation_set(project.set)
    text = str(caught.value)
    assert "where: " in text
    place = re.search(r"where: (.*), line (\d+)", text)
    found = re.search(r"found: ([^\s,]+)", text)
    if place and found and "values" not in text.partition("found:")[2]:
        assert found.group(1) in Path(place.group(1)).read_text().split("\n")[int(place.group(2)) - 1]


def test_the_project_itself_is_sound(project: Any) -> None:
    assert len(load_optimisation_set(project.set).particles) == 3


def test_pixel_sizes_within_relions_tolerance_are_accepted(project: Any) -> None:
    project.column(P, "optics", "rlnTomoTiltSeriesPixelSize", ["2.0009"])
    load_optimisation_set(project.set)


@pytest.mark.parametrize(("file", "block"), [(P, "particles"), (P, "optics"), (G, "global"), (T, "TS_1")])
def test_empty_tables(project: Any, file: str, block: str) -> None:
    def clear(document: Any) -> None:
        for values in document[block].columns.values():
            values.clear()

    project.edit(file, clear)
    with pytest.raises(DataError, match="is empty"):
        load_optimisation_set(project.set)


def test_truncated_tilt_series(project: Any) -> None:
    path = project.root / "tilt_series/TS_1.mrcs"
    path.write_bytes(path.read_bytes()[:-100])
    for need_images in (True, False):
        with pytest.raises(FormatError, match="truncated"):
            load_optimisation_set(project.set, need_images=need_images)


def test_missing_images_are_listed_unless_not_needed(project: Any) -> None:
    from tiltwise.io.optimisation_set import notes_of

    (project.root / "tilt_series/TS_1.mrcs").unlink()
    with pytest.raises(FormatError, match=r"tilt images is missing[\s\S]*tilt_series/TS_1.mrcs"):
        load_optimisation_set(project.set)
    optset = load_optimisation_set(project.set, need_images=False)
    assert optset.series[0].image_files == ()
    assert optset.series[0].image_size == (0, 0)
    assert len(optset.series[1].image_files) == 5
    assert any("TS_1" in note and "not found" in note for note in notes_of(optset))


def test_images_of_different_sizes(project: Any) -> None:
    import numpy as np

    from tiltwise.io.mrc import write_map

    write_map(project.root / "tilt_series/other.mrc", np.ones((1, 10, 10)), 2.0)
    names = [f"{i}@tilt_series/TS_1.mrcs" for i in (1, 2, 3, 4)] + ["tilt_series/other.mrc"]
    project.column(T, "TS_1", "rlnMicrographName", names)
    with pytest.raises(DataError, match=r"differ in size[\s\S]*64 x 48[\s\S]*found: 10 x 10"):
        load_optimisation_set(project.set)


def test_files_that_are_not_given_or_not_there(project: Any, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"no tomograms file is given[\s\S]*--t"):
        load_optimisation_set(project.root / P)
    with pytest.raises(FormatError, match=r"no particles file is given[\s\S]*--p"):
        load_optimisation_set(project.root / G)
    with pytest.raises(FormatError, match="no tomograms file is given"):
        load_optimisation_set()
    with pytest.raises(FormatError, match="neither an optimisation set nor a particle file"):
        load_optimisation_set(project.root / T)
    with pytest.raises(FormatError, match="cannot be read"):
        load_optimisation_set(tmp_path / "absent.star")
    project.column("optimisation_set.star", "optimisation_set", "rlnTomoTomogramsFile", ["gone.star"])
    with pytest.raises(FormatError, match=r"the file of _rlnTomoTomogramsFile is missing[\s\S]*gone.star"):
        load_optimisation_set(project.set)


def test_sizes_are_needed_where_positions_count_from_a_corner(project: Any) -> None:
    from tiltwise.io.optimisation_set import notes_of

    project.column(G, "global", "rlnTomoSizeX", ["-999", "-999"])
    optset = load_optimisation_set(project.set)
    assert optset.series[0].tomogram_size == (0, 0, 0)
    assert any("sizes are not set" in note for note in notes_of(optset))

    def to_pixels(document: Any) -> None:
        block = document["particles"]
        for axis in "XYZ":
            block.set_floats(f"rlnCoordinate{axis}", [1.0, 2.0, 3.0])
            block.drop(f"rlnCenteredCoordinate{axis}Angst")

    project.edit(P, to_pixels)
    with pytest.raises(DataError, match="size of the tomograms is unknown"):
        load_optimisation_set(project.set)


def test_coordinates_in_angstrom_have_no_binning(project: Any) -> None:
    with pytest.raises(DataError, match="no coordinate binning"):
        load_optimisation_set(project.set, coordinate_binning=4.0)
    project.column(P, "particles", "rlnCenteredCoordinateXAngst", None)
    project.column(P, "particles", "rlnCenteredCoordinateYAngst", None)
    project.column(P, "particles", "rlnCenteredCoordinateZAngst", None)
    with pytest.raises(FormatError, match="no coordinates"):
        load_optimisation_set(project.set)
