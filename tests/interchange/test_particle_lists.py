"""Particles of Dynamo, STOPGAP, AV3, IMOD and CSV: where they are and how they are turned."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from helpers.foreign import MOTIVES
from tiltwise.cli.main import main
from tiltwise.errors import ConfigError, DataError
from tiltwise.geometry.rotations import euler_to_matrix
from tiltwise.interchange.options import ImportOptions
from tiltwise.interchange.particle_lists import read, read_particle_lists
from tiltwise.io.optimisation_set import load_optimisation_set
from tiltwise.model import OptimisationSet

SIZE, PIXEL = (400, 380, 200), 2.0
TOMOGRAMS = """
data_global

loop_
_rlnTomoName #1
_rlnVoltage #2
_rlnSphericalAberration #3
_rlnAmplitudeContrast #4
_rlnTomoHand #5
_rlnOpticsGroupName #6
_rlnTomoTiltSeriesPixelSize #7
_rlnTomoTiltSeriesStarFile #8
_rlnTomoSizeX #9
_rlnTomoSizeY #10
_rlnTomoSizeZ #11
_rlnNote #12
TS_1 300 2.7 0.1 -1 optics1 2.0 tilt_series/TS_1.star 400 380 200 kept
TS_2 300 2.7 0.1 -1 optics1 2.0 tilt_series/TS_2.star 400 380 200 kept
"""
TABLE = """
data_{name}

loop_
_rlnTomoYTilt #1
_rlnTomoZRot #2
_rlnTomoXShiftAngst #3
_rlnTomoYShiftAngst #4
_rlnDefocusU #5
_rlnDefocusV #6
_rlnDefocusAngle #7
_rlnMicrographPreExposure #8
_rlnMystery #9
-20 85.3 1.5 2.5 20000 19000 30 3 a
0 85.3 0.5 0.25 20100 19100 30 0 b
20 85.3 -1.5 1.5 20200 19200 30 6 c
"""
NAMES = "24 TS_2\n1\tsomewhere/TS_1_bin4.mrc\n"


@pytest.fixture
def tomograms(tmp_path: Path) -> Path:
    (tmp_path / "tilt_series").mkdir()
    for name in ("TS_1", "TS_2"):
        (tmp_path / f"tilt_series/{name}.star").write_text(TABLE.format(name=name))
    (tmp_path / "names.txt").write_text(NAMES)
    path = tmp_path / "tomograms.star"
    path.write_text(TOMOGRAMS)
    return path


def imported(path: Path, tomograms: Path, **values: object) -> OptimisationSet:
    defaults: dict[str, object] = {"coordinate_binning": 4.0, "tomogram_names": tomograms.parent / "names.txt"}
    options = ImportOptions(input=path, tomograms=tomograms, output=tomograms.parent / "out", **{**defaults, **values})
    return read(options).optset


def axes(first: str, angles: list[float]) -> np.ndarray:
    """Rotation by extrinsic or intrinsic angles, from SciPy: an oracle that shares nothing with the package."""
    return Rotation.from_euler(first, angles, degrees=True).as_matrix()


def test_dynamo(tmp_path: Path, tomograms: Path) -> None:
    path = tmp_path / "particles.tbl"
    row = "{tag} 1 1 0.5 -0.25 1.5 30 60 -90 0.15 0 0 0 -60 60 -60 60 0 0 {tomogram} 1 2 0 51 42.5 23\n"
    path.write_text(row.format(tag=1, tomogram=1) + row.format(tag=7, tomogram=24))
    optset = imported(path, tomograms)
    assert optset.particles.tomogram == ("TS_1", "TS_2")
    # voxels count from 1, four pixels each
    np.testing.assert_allclose(optset.particles.coordinate_px[0], 4 * (np.array([51.5, 42.25, 24.5]) - 1))
    matrix = euler_to_matrix(optset.particles.angles_deg[0])
    # Dynamo turns a particle onto the reference by z, x, z (fixed axes): tdrot, tilt, narot
    np.testing.assert_allclose(matrix.T, axes("zxz", [30, 60, -90]), atol=1e-12)
    np.testing.assert_allclose(matrix, euler_to_matrix([-90 - 90, 60, 30 + 90]), atol=1e-12)


def test_stopgap_and_av3(tmp_path: Path, tomograms: Path) -> None:
    path = tmp_path / "motl.star"
    path.write_text(MOTIVES)
    particles = imported(path, tomograms).particles
    np.testing.assert_allclose(particles.coordinate_px[0], 4 * (np.array([824.25, 753.5, 678.5]) - 1))
    assert particles.half_set.tolist() == [1, 2]
    assert particles.tomogram == ("TS_2", "TS_2")
    # the reference is turned about z by phi, then about x by theta, then about z by psi
    np.testing.assert_allclose(euler_to_matrix(particles.angles_deg[0]), axes("zxz", [33.25, 8.5, 65.25]), atol=1e-12)


def test_csv(tmp_path: Path, tomograms: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_text("tomogram,x,y,z,rot,tilt,psi,my score\nTS_2.mrc,10,20,30,10,20,30,0.5\nTS_1,11,21,31,0,0,0,1\n")
    for unit, origin, first, position in (
        ("px", "corner", 0.0, [40, 80, 120]),
        ("px", "corner", 1.0, [36, 76, 116]),
        ("px", "centre", None, [240, 270, 220]),
        ("angstrom", "corner", None, [5, 10, 15]),
        ("angstrom", "centre", None, [205, 200, 115]),
    ):
        said = {"coordinate_unit": unit, "coordinate_origin": origin, "coordinate_first": first}
        said["coordinate_binning"] = 4.0 if unit == "px" else None
        optset = imported(path, tomograms, **said)
        np.testing.assert_allclose(optset.particles.coordinate_px[0], position)
        assert optset.particles.tomogram == ("TS_2", "TS_1")
    np.testing.assert_allclose(optset.particles.angles_deg[0], [10, 20, 30])
    corner = {"coordinate_unit": "px", "coordinate_origin": "corner"}
    for missing in ({"coordinate_unit": "px"}, {"coordinate_origin": "centre"}, corner):
        with pytest.raises(ConfigError, match="unit and origin"):
            imported(path, tomograms, **missing)
    with pytest.raises(ConfigError, match="binning"):
        imported(path, tomograms, **corner, coordinate_first=0.0, coordinate_binning=None)
    by_size = imported(
        path, tomograms, **corner, coordinate_first=0.0, coordinate_binning=None, coordinate_pixel_size=8.0
    )
    np.testing.assert_allclose(by_size.particles.coordinate_px[0], [40, 80, 120])


def test_points_of_a_model(tmp_path: Path) -> None:
    path = tmp_path / "points.pts"
    path.write_text("1 10.5 20.5 30\n2 11.5 21.5 31\n")
    options = ImportOptions(input=path, particles=path, output=tmp_path / "out", coordinate_binning=4.0)
    draft = read_particle_lists(options, {"TS_1": PIXEL})[0]
    found = draft.convention.to_position_px(
        draft.coordinate, binning=4.0, tomogram_size=SIZE, pixel_size_angstrom=PIXEL
    )
    # voxel (10, 20, 30) of four pixels each, whose middle is at 1.5
    np.testing.assert_allclose(found[0], 4 * np.array([10, 20, 30]) + 1.5)
    with pytest.raises(DataError, match="in which tomogram"):
        read_particle_lists(options, {"TS_1": PIXEL, "TS_2": PIXEL})


def test_a_folder_with_one_list_per_tilt_series(tmp_path: Path, tomograms: Path) -> None:
    folder = tmp_path / "picks"
    folder.mkdir()
    (folder / "TS_1.pts").write_text("10.5 20.5 30\n11.5 21.5 31\n")
    (folder / "TS_2_good.pts").write_text("12.5 22.5 32\n")
    (folder / "TS_2.pts").write_text("13.5 23.5 33\n")
    (folder / "TS_10.pts").write_text("13.5 23.5 33\n")
    optset = imported(folder, tomograms)
    assert optset.particles.tomogram == ("TS_1", "TS_1", "TS_2", "TS_2")
    assert optset.particles.name == ("TS_1/1", "TS_1/2", "TS_2/1", "TS_2/2")
    np.testing.assert_allclose(optset.particles.coordinate_px[:, 0], 4 * np.array([10, 11, 13, 12]) + 1.5)
    notes = read(
        ImportOptions(input=folder, tomograms=tomograms, output=tmp_path / "out", coordinate_binning=4.0)
    ).notes
    assert any("TS_10.pts belong to no tilt series" in note for note in notes)
    for path in folder.glob("TS_[12]*.pts"):
        if path.name != "TS_10.pts":
            path.unlink()
    with pytest.raises(DataError, match="no list in a folder"):
        imported(folder, tomograms)


def test_tomogram_numbers_are_not_guessed(tmp_path: Path, tomograms: Path) -> None:
    path = tmp_path / "motl.star"
    path.write_text(MOTIVES)
    with pytest.raises(ConfigError, match="numbers of tomograms"):
        imported(path, tomograms, tomogram_names=None)
    (tmp_path / "names.txt").write_text("1 TS_1\n")
    with pytest.raises(DataError, match="has no name"):
        imported(path, tomograms)
    (tmp_path / "names.txt").write_text("24 TS_3\n")
    with pytest.raises(DataError, match="no tilt series"):
        imported(path, tomograms)


def test_options_without_effect_are_refused(tmp_path: Path, tomograms: Path) -> None:
    arguments = ["import", "--i", str(tomograms), "--o", str(tmp_path / "out")]
    assert main([*arguments, "--dose", "3"]) == 2
    assert main([*arguments, "--x-tilt", "apply"]) == 2
    assert main(arguments) == 0


def test_the_command_keeps_the_tilt_series(tmp_path: Path, tomograms: Path) -> None:
    path = tmp_path / "motl.star"
    path.write_text(MOTIVES.replace("824.0", "50").replace("754.0", "40").replace("673.0", "20"))
    names = str(tmp_path / "names.txt")
    arguments = ["import", "--i", str(path), "--t", str(tomograms), "--o", str(tmp_path / "out")]
    assert main([*arguments, "--coord-binning", "4", "--tomogram-names", names]) == 0
    optset = load_optimisation_set(tmp_path / "out/optimisation_set.star", need_images=False)
    assert len(optset.particles) == 2
    np.testing.assert_allclose(optset.particles.coordinate_px[0], 4 * (np.array([50.25, 39.5, 25.5]) - 1), atol=1e-5)
    assert "rlnMystery" in (tmp_path / "out/tilt_series/TS_1.star").read_text()
    text = (tmp_path / "out/particles.star").read_text()
    assert "rlnClassNumber" in text
    assert "rlnAutopickFigureOfMerit" in text


@pytest.mark.parametrize(
    "name, count",
    [
        ("pypi_formats/dynamotable/t_complex.tbl.gz", 8742),
        ("cryocat_formats/motl_data/b4_motl_CR_tm_topbott_clean600_1_dynamo.tbl.gz", 1343),
        ("cryocat_formats/motl_data/class6_er_mr1_1_sg.star.gz", 14561),
        ("cryocat_formats/motl_data/au_1.em", 64),
    ],
)
def test_real_lists(shared_data: Path, tmp_path: Path, name: str, count: int) -> None:
    source = shared_data / "data" / name
    if not source.is_file():
        pytest.skip(f"there is no {source}")
    raw = source.read_bytes()
    path = tmp_path / source.name.removesuffix(".gz")
    path.write_bytes(gzip.decompress(raw) if name.endswith(".gz") else raw)
    numbers = tmp_path / "names.txt"
    numbers.write_text("".join(f"{i} T_{i}\n" for i in range(500)))
    options = ImportOptions(input=path, particles=path, output=tmp_path, coordinate_binning=2.0, tomogram_names=numbers)
    draft = read_particle_lists(options, {f"T_{i}": PIXEL for i in range(500)})[0]
    assert len(draft) == count
    assert draft.euler is not None
    assert draft.angles_deg is not None
    matrix = draft.euler.to_matrix(draft.angles_deg)
    np.testing.assert_allclose(np.linalg.det(matrix), 1.0, atol=1e-9)
