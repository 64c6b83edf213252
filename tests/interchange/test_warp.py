"""Warp and M: real tilt series against positions and rotations that Warp's author's own program gives for them."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiltwise.cli.main import main
from tiltwise.errors import ConfigError, DataError, FormatError
from tiltwise.geometry.projection import depth_offset_px, project_points
from tiltwise.geometry.rotations import euler_to_matrix
from tiltwise.interchange.drafts import Imported
from tiltwise.interchange.options import ImportOptions
from tiltwise.interchange.programs import choose
from tiltwise.interchange.spline import grid_values
from tiltwise.interchange.warp_model import WarpModel
from tiltwise.io.foreign.warp import WarpGrid, read_warp_series
from tiltwise.io.mrc import write_map
from tiltwise.io.optimisation_set import load_optimisation_set
from tiltwise.model.poses import poses_of

KNOWN = json.loads((Path(__file__).parent / "warp_known.json").read_text())
ANGLES = np.array([[10.0, 20.0, 30.0], [-100.0, 70.0, 5.0], [0.0, 0.0, 0.0], [170.0, 110.0, -60.0]])


@pytest.fixture(scope="module")
def series_files(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real .xml files in one folder; 017.xml is UTF-16."""
    folder = tmp_path_factory.mktemp("warp")
    data = shared_data / "data"
    (folder / "TS_1.xml").write_bytes(gzip.decompress((data / "pypi_formats/warpxmlfile/TS_1.xml.gz").read_bytes()))
    (folder / "017.xml").write_bytes((data / "cryocat_formats/TS_017/017.xml").read_bytes())
    (folder / "00254.xml").write_bytes((data / "pypi_formats/cryoet_alignment/warp/00254.xml").read_bytes())
    return folder


def model_of(folder: Path, name: str) -> WarpModel:
    known = KNOWN[name]
    series = read_warp_series(folder / ("TS_1.xml" if name == "level" else f"{name}.xml"))
    if name == "level":
        series = replace(series, level_x_deg=2.0, level_y_deg=-1.5, angles_inverted=True)
    pixel = known["pixel"]
    return WarpModel(series, np.array(known["volume"]) * pixel, np.array(known["image"]) * pixel)


def import_series(path: Path, name: str, **values: Any) -> Imported:
    known = KNOWN[name]
    sizes = {
        key: ",".join(map(str, known[value])) for key, value in (("image_size", "image"), ("tomogram_size", "volume"))
    }
    options = ImportOptions(input=path, output=Path("out"), pixel_size=known["pixel"], **sizes, **values)
    program = choose(options)
    assert program.source == "warp"
    return program.read(options)


@pytest.mark.parametrize("name", ["TS_1", "017", "00254", "level"])
def test_positions_defocus_and_rotations_of_real_series(series_files: Path, name: str) -> None:
    known, model = KNOWN[name], model_of(series_files, name)
    tilts, seen = known["tilts"], np.array(known["seen"])
    points = np.repeat(np.array(known["points"])[:, None], model.n_tilts, axis=1)
    image, depth = model.project(points)
    # the other program works in single precision: 1e-7 of 5000 Å, twice
    np.testing.assert_allclose(image[:, tilts], seen[..., :2], rtol=0, atol=2e-3)
    sign = -1.0 if name == "level" else 1.0
    defocus = model.per_tilt("GridCTF") + sign * depth * 1e-4
    np.testing.assert_allclose(defocus[:, tilts], seen[..., 2], rtol=0, atol=2e-6 + 5e-5)
    np.testing.assert_allclose(model.view_rotations()[tilts], known["rotation"], rtol=0, atol=2e-6)


def species(path: Path, name: str) -> Path:
    """Particles of M at the known points."""
    labels = [
        f"wrp{kind}{axis}1"
        for kind, axes in (("Coordinate", "XYZ"), ("Angle", ("Rot", "Tilt", "Psi")))
        for axis in axes
    ]
    rows = [
        " ".join(map(str, (*point, *angles, 1 + i % 2, f"{name}.tomostar", "a1b2")))
        for i, (point, angles) in enumerate(zip(KNOWN[name]["points"], ANGLES, strict=True))
    ]
    names = [*labels, "wrpRandomSubset", "wrpSourceName", "wrpSourceHash"]
    path.write_text("\ndata_\n\nloop_\n" + "".join(f"_{label}\n" for label in names) + "\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize("name", ["TS_1", "017", "00254"])
def test_particles_project_where_warp_has_them(series_files: Path, tmp_path: Path, name: str) -> None:
    """Written and read again: projection with motion to 0.01 pixel, orientation in every tilt, and defocus."""
    known = KNOWN[name]
    imported = import_series(series_files / f"{name}.xml", name, particles=species(tmp_path / "particles.star", name))
    out = tmp_path / "out"
    arguments = ["import", "--i", str(series_files / f"{name}.xml"), "--p", str(tmp_path / "particles.star")]
    sizes = [
        f"--image-size={known['image'][0]},{known['image'][1]}",
        "--tomogram-size",
        "{},{},{}".format(*known["volume"]),
    ]
    assert main([*arguments, *sizes, "--angpix", str(known["pixel"]), "--o", str(out), "--quiet"]) == 0
    written = load_optimisation_set(out / "optimisation_set.star", need_images=False)
    series = written.series[0]
    rotations, positions = poses_of(written)
    np.testing.assert_allclose(positions, known["points"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(rotations, euler_to_matrix(ANGLES), atol=1e-8)
    assert written.particles.half_set.tolist() == [1, 2, 1, 2]
    # The file names the matrices' angles without the size of images that are not at hand: count from their centre.
    shift = np.array([n // 2 for n in known["image"]])
    projection = series.projection.copy()
    projection[:, :2, 3] += shift
    pixel = series.pixel_size_angstrom
    used = np.array(known["tilts"])
    motion = np.array([written.trajectories.get(one, np.zeros((series.n_tilts, 3))) for one in written.particles.name])
    moved = np.einsum("fij,pfj->pfi", projection[:, :2, :3], motion) / pixel
    points = project_points(projection, positions / pixel)[..., :2] + moved
    expected = np.array(known["seen"])
    assert np.abs(points[:, used] * pixel - expected[..., :2]).max() <= 0.01 * pixel
    np.testing.assert_allclose(projection[used, :3, :3], known["rotation"], rtol=0, atol=2e-6)
    depth = depth_offset_px(projection, positions / pixel, series.tomogram_size) * pixel * series.hand
    mean = 0.5 * (series.defocus_u_angstrom + series.defocus_v_angstrom)
    # positions and orientations share one matrix here and not in Warp: up to 3 degrees at 2500 Å from the centre
    limit = {"TS_1": 250.0, "017": 250.0, "00254": 2.0}[name]
    if name != "00254":  # that file has no CTF
        assert np.abs((mean + depth)[:, used] - expected[..., 2] * 1e4).max() <= limit
    assert imported.optset.series[0].n_tilts == series.n_tilts
    report = (out / "report.html").read_text()
    assert ("written as motion of every particle" in report) == (name != "00254")


def test_numbers_of_real_files(series_files: Path) -> None:
    one = import_series(series_files / "TS_1.xml", "TS_1").optset.series[0]
    assert one.n_tilts == 41
    assert one.nominal_tilt_deg[0] == -40.01
    assert one.pre_exposure[0] == 105.600006
    np.testing.assert_allclose(one.defocus_u_angstrom[0], (2.5221846 + 0.00992628 / 2) * 1e4)
    np.testing.assert_allclose(one.defocus_v_angstrom[0], (2.5221846 - 0.00992628 / 2) * 1e4)
    assert one.defocus_angle_deg[0] == 26.671228
    assert one.ctf_scale[0] == 0.22677009
    assert (one.voltage_kv, one.amplitude_contrast, one.hand) == (300.0, 0.07, 1.0)
    assert one.spherical_aberration_mm == pytest.approx(2.51208927762907, abs=1e-6)

    imported = import_series(series_files / "017.xml", "017")
    one = imported.optset.series[0]
    assert one.n_tilts == 60
    assert one.pre_exposure[0] == 134.3059
    np.testing.assert_allclose(one.defocus_u_angstrom[0], (3.409815 + 0.01914939 / 2) * 1e4)
    np.testing.assert_allclose(one.ctf_scale[0], np.cos(np.radians(52)))
    assert any("lowest dose is 2.23843" in note for note in imported.notes)
    assert any("with --p in the same import" in note for note in imported.notes)

    one = import_series(series_files / "00254.xml", "00254").optset.series[0]
    assert one.n_tilts == 41
    assert (one.nominal_tilt_deg[0], one.pre_exposure[0]) == (-60.01, 117.0)


def test_a_folder_is_three_series_with_their_own_optics(series_files: Path) -> None:
    imported = import_series(series_files, "017")
    assert [one.name for one in imported.optset.series] == ["00254", "017", "TS_1"]
    assert [one.optics_group_name for one in imported.optset.series] == [f"opticsGroup{i}" for i in (1, 1, 2)]


def test_what_is_not_known_is_asked_for(series_files: Path) -> None:
    sizes: dict[str, Any] = {"image_size": "3838,3710", "tomogram_size": "3800,3600,1200", "output": Path("out")}

    def attempt(name: str, **values: Any) -> None:
        options = ImportOptions(input=series_files / name, **{**sizes, **values})
        choose(options).read(options)

    with pytest.raises(DataError, match="--angpix"):
        attempt("00254.xml")
    with pytest.raises(DataError, match="--tomogram-size"):
        attempt("TS_1.xml", tomogram_size=None)
    with pytest.raises(DataError, match="--image-size"):
        attempt("TS_1.xml", image_size=None)
    with pytest.raises(ConfigError, match="--image-size"):
        attempt("TS_1.xml", image_size="3838")


def test_tilts_that_are_not_used_and_inverted_angles(series_files: Path, tmp_path: Path) -> None:
    text = (series_files / "TS_1.xml").read_text(encoding="utf-8-sig")
    text = text.replace("<UseTilt>True\nTrue\nTrue", "<UseTilt>False\nTrue\nFalse").replace(
        'AreAnglesInverted="False"', 'AreAnglesInverted="True"'
    )
    (tmp_path / "TS_1.xml").write_text(text)
    whole = import_series(series_files / "TS_1.xml", "TS_1").optset.series[0]
    imported = import_series(tmp_path / "TS_1.xml", "TS_1")
    one = imported.optset.series[0]
    kept = np.delete(np.arange(41), [0, 2])
    np.testing.assert_array_equal(one.projection, whole.projection[kept])
    np.testing.assert_array_equal(one.defocus_u_angstrom, whole.defocus_u_angstrom[kept])
    assert one.hand == -1.0
    assert any("2 tilts that Warp does not use" in note for note in imported.notes)


def test_a_tomostar_and_its_averages(tmp_path: Path) -> None:
    (tmp_path / "frames/average").mkdir(parents=True)
    (tmp_path / "tomostar").mkdir()
    rows = []
    for i, tilt in enumerate((-3.0, 0.0, 3.0)):
        write_map(tmp_path / f"frames/average/TS_9_{i}.mrc", np.zeros((1, 30, 40)), 2.0)
        rows.append(f"../frames/TS_9_{i}.eer {tilt} 84.5 {3.0 * i} 1.0 0.0")
    labels = ("wrpMovieName", "wrpAngleTilt", "wrpAxisAngle", "wrpDose", "wrpAverageIntensity", "wrpMaskedFraction")
    star = tmp_path / "tomostar/TS_9.tomostar"
    star.write_text("\ndata_\n\nloop_\n" + "".join(f"_{label}\n" for label in labels) + "\n".join(rows) + "\n")
    options = ImportOptions(input=star, output=tmp_path, pixel_size=2.0, tomogram_size="40,40,20")
    imported = choose(options).read(options)
    one = imported.optset.series[0]
    assert one.image_size == (40, 30)
    assert [Path(file).name for file in one.image_files] == [f"TS_9_{i}.mrc" for i in range(3)]
    assert one.pre_exposure.tolist() == [0.0, 3.0, 6.0]
    points = project_points(one.projection, np.array([[20.0, 20.0, 10.0]]))[0, :, :2]
    np.testing.assert_allclose(points, [[20.0, 15.0]] * 3)  # the centre is seen at the centre
    assert any("no CTF is known" in note for note in imported.notes)


# ---- particles of Warp --------------------------------------------------------------------------------------


def real_star(shared_data: Path, name: str, folder: Path) -> Path:
    path = folder / "particles.star"
    path.write_bytes(gzip.decompress((shared_data / "data/cryocat_formats/motl_data" / name).read_bytes()))
    return path


def test_real_particles_after_relion(shared_data: Path, series_files: Path, tmp_path: Path) -> None:
    """Names `021.tomostar`, pixels of 4.828 Å, origins in Å: 021 is given the geometry of another series."""
    path = real_star(shared_data, "relion5_1_run_it025_data.star.gz", tmp_path)
    names = sorted(
        {line.split(".tomostar")[0].split()[-1] for line in path.read_text().splitlines() if ".tomostar" in line}
    )
    folder = tmp_path / "series"
    folder.mkdir()
    for name in names:
        (folder / f"{name}.xml").write_bytes((series_files / "00254.xml").read_bytes())
    options = ImportOptions(
        input=folder,
        particles=path,
        output=tmp_path,
        image_size="3710,3838",
        tomogram_size="6000,6000,3000",
        pixel_size=2.414,
    )
    imported = choose(options).read(options)
    particles = imported.optset.particles
    expected = np.array([1614.547, 942.527, 430.1]) * 2.0 - np.array([6.177174, 4.439094, -4.34787]) / 2.414
    np.testing.assert_allclose(particles.coordinate_px[0], expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(
        euler_to_matrix(particles.angles_deg[0]), euler_to_matrix([-29.12356, 60.021487, -74.77946]), atol=1e-12
    )
    assert particles.tomogram[0] == "021"
    assert particles.half_set[0] == 2
    assert any("pixels of 4.828 Å (rlnImagePixelSize)" in note for note in imported.notes)
    columns = imported.particle_columns
    assert "rlnMicrographName" not in columns
    assert columns["rlnLogLikeliContribution"][0] == "6.789623e+06"
    # told otherwise
    options = options.model_copy(update={"coordinate_pixel_size": 2.414})
    told = choose(options).read(options).optset.particles.coordinate_px[0]
    np.testing.assert_allclose(told, expected - np.array([1614.547, 942.527, 430.1]), atol=1e-9)


@pytest.mark.parametrize(("file", "pixel"), [("relion_3.0.star.gz", 5.364), ("bin1_1deg_500.star.gz", 1.971)])
def test_real_particles_of_warp_1(
    shared_data: Path, series_files: Path, tmp_path: Path, file: str, pixel: float
) -> None:
    """Names `.../01006_10.73Apx.mrc`, no optics table."""
    path = real_star(shared_data, file, tmp_path)
    rows = [line.split() for line in path.read_text().splitlines() if ".mrc" in line]
    folder = tmp_path / "series"
    folder.mkdir()
    for row in rows:
        stem = row[0].split("/")[-1].split("_")[0]
        (folder / f"{stem}.xml").write_bytes((series_files / "00254.xml").read_bytes())
    options = ImportOptions(
        input=folder,
        particles=path,
        output=tmp_path,
        image_size="9000,9000",
        tomogram_size="9000,9000,4000",
        pixel_size=pixel,
    )
    particles = choose(options).read(options).optset.particles
    np.testing.assert_allclose(particles.coordinate_px, [[float(v) for v in row[1:4]] for row in rows])
    np.testing.assert_allclose(
        euler_to_matrix(particles.angles_deg),
        euler_to_matrix([[float(v) for v in row[4:7]] for row in rows]),
        atol=1e-12,
    )


def test_particles_of_another_series_are_refused(series_files: Path, tmp_path: Path) -> None:
    path = species(tmp_path / "p.star", "TS_1")
    path.write_text(path.read_text().replace("TS_1.tomostar", "TS_10.tomostar"))
    with pytest.raises(DataError, match=r"p\.star, line 14.*wrpSourceName"):
        import_series(series_files / "TS_1.xml", "TS_1", particles=path)
    path.write_text("data_\n\nloop_\n_rlnAngleRot\n1\n")
    with pytest.raises(FormatError, match="no particles with coordinates"):
        import_series(series_files / "TS_1.xml", "TS_1", particles=path)


def test_positions_that_change_with_dose(series_files: Path, tmp_path: Path) -> None:
    """Species with three time points: the middle of the dose is the second, and a straight path stays straight."""
    path = species(tmp_path / "p.star", "00254")
    lines = path.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("_wrpAngleRot1"))
    more = [
        f"_wrp{kind}{time}"
        for time in (2, 3)
        for kind in ("CoordinateX", "CoordinateY", "CoordinateZ", "AngleRot", "AngleTilt", "AnglePsi")
    ]
    rows = []
    for line in lines[start + 6 :]:
        x, y, z, *angles = line.split()[:6]
        later = [f"{float(x) + step} {y} {float(z) - step} {' '.join(angles)}" for step in (10.0, 20.0)]
        rows.append(" ".join([line, *later]))
    path.write_text("\n".join([*lines[: start + 6], *more, *rows]) + "\n")
    imported = import_series(series_files / "00254.xml", "00254", particles=path)
    optset = imported.optset
    one = optset.series[0]
    path_of = optset.trajectories["00254/1"] + poses_of(optset)[1][0]
    times = (one.pre_exposure - one.pre_exposure.min()) / np.ptp(one.pre_exposure)
    truth = np.array(KNOWN["00254"]["points"][0]) + times[:, None] * np.array([20.0, 0.0, -20.0])
    # motion lies in the plane of the image: what it projects to is what counts
    seen = np.einsum("fij,fj->fi", one.projection[:, :2, :3], path_of)
    np.testing.assert_allclose(seen, np.einsum("fij,fj->fi", one.projection[:, :2, :3], truth), atol=1e-6)


# ---- exports of WarpTools -----------------------------------------------------------------------------------


def test_stacks_of_warptools_come_in_as_they_are(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shared_data / "data/real_70S_warptools_2dstacks"
    monkeypatch.chdir(folder)
    source = folder / "warptools_test_4-tomos_10-ptcls_box-32_angpix-12_optimisation_set.star"
    assert main(["import", "--i", str(source), "--o", str(tmp_path / "out"), "--quiet"]) == 0
    before = load_optimisation_set(source, need_images=False, coordinate_binning=7.19856)
    after = load_optimisation_set(tmp_path / "out/optimisation_set.star", need_images=False)
    assert after.stacks_are_2d
    assert after.particles.image_files == before.particles.image_files
    np.testing.assert_allclose(after.particles.coordinate_px, before.particles.coordinate_px, atol=1e-5)
    for old, new in zip(before.series, after.series, strict=True):
        np.testing.assert_array_equal(new.projection, old.projection)  # no image size, so matrices stay
        assert new.hand == old.hand == -1.0
    report = (tmp_path / "out/report.html").read_text()
    assert "projection matrices are kept" in report
    assert "7.19856 unbinned ones" in report
    # what is said counts more than what is known of WarpTools
    options = ImportOptions(input=source, output=tmp_path, coordinate_binning=1.0)
    told = choose(options).read(options).optset.particles.coordinate_px
    np.testing.assert_allclose(told * 7.19856, before.particles.coordinate_px, atol=1e-5)


@pytest.mark.parametrize(
    ("file", "names"),
    [
        (
            "cryocat_formats/motl_data/relion5/warp2_matching_tomograms.star.gz",
            ["TS_17", "TS_32", "TS_1", "TS_11", "TS_23"],
        ),
        ("pypi_formats/cryoet_alignment/relion/matching_tomograms.star", ["24jul16a_Position_27_1"]),
    ],
)
def test_tomograms_of_warptools(shared_data: Path, tmp_path: Path, file: str, names: list[str]) -> None:
    path = tmp_path / "matching_tomograms.star"
    raw = (shared_data / "data" / file).read_bytes()
    path.write_bytes(gzip.decompress(raw) if file.endswith(".gz") else raw)
    options = ImportOptions(input=path, output=tmp_path, image_size="4092,5760")
    program = choose(options)
    assert program.source == "relion4"
    series = program.read(options).optset.series
    assert [one.name for one in series][: len(names)] == [f"{name}.tomostar" for name in names]
    for one in series:  # matrices are rotations about an axis near the one of the microscope, tilts as in the file
        angles = np.degrees(np.arctan2(-one.projection[:, 2, 0], one.projection[:, 2, 2]))
        assert np.abs(np.sort(angles) - np.sort(one.nominal_tilt_deg)).max() <= 0.05
        assert np.abs(np.diff(np.sort(one.pre_exposure))).max() <= 4.0 * 3.0


def test_a_matching_set_of_warptools(shared_data: Path, tmp_path: Path) -> None:
    """Optimisation set, tomograms and particles of the real export; unbinned, particles fill their tomograms."""
    folder = shared_data / "data/cryocat_formats/motl_data/relion5"
    for name, source in (("matching", "warp2_particles_matching"), ("matching_tomograms", "warp2_matching_tomograms")):
        (tmp_path / f"{name}.star").write_bytes(gzip.decompress((folder / f"{source}.star.gz").read_bytes()))
    (tmp_path / "set.star").write_bytes((folder / "warp2_matching_optimisation_set.star").read_bytes())
    options = ImportOptions(input=tmp_path / "set.star", output=tmp_path)
    optset = choose(options).read(options).optset
    size = np.array(
        [{one.name: one.tomogram_size for one in optset.series}[name] for name in optset.particles.tomogram]
    )
    position = optset.particles.coordinate_px
    assert ((position >= 0) & (position <= size)).all()
    assert (np.ptp(position, axis=0) > 0.4 * size[0]).all()


def test_natural_splines() -> None:
    grid = WarpGrid(np.array([[[0.0, 1.0, 0.0]]]), (0.0, 0.0, 0.0))
    at = np.array([[0.0, 0.3, 0.9], [0.5, 0.0, 0.0], [0.25, 0.5, 0.5]])
    # the natural spline through 0, 1, 0 is 3 t / 2 - t^3 / 2 on its first half, t = 2 x
    np.testing.assert_allclose(grid_values(grid, at), [0.0, 1.0, 0.75 - 0.0625])
    inner = WarpGrid(grid.values, (0.25, 0.0, 0.0))  # nodes reach beyond the edges
    np.testing.assert_allclose(grid_values(inner, at[:1]), [0.75 - 0.0625])
