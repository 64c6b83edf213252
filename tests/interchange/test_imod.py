"""IMOD projects: matrices that are known, excluded views, sizes, joins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tiltwise.cli.main import main
from tiltwise.errors import DataError
from tiltwise.geometry.projection import project_points
from tiltwise.geometry.rotations import euler_to_matrix, rotation_y, rotation_z
from tiltwise.interchange import imod
from tiltwise.interchange.options import ImportOptions
from tiltwise.io.mrc import write_map
from tiltwise.io.optimisation_set import load_optimisation_set
from tiltwise.io.star import read_star

TILT = """$tilt -StandardInput
InputProjections {name}_ali.mrc
IMAGEBINNED 1
TILTFILE {name}.tlt
THICKNESS {size[2]}
XAXISTILT {x_tilt}
FULLIMAGE {size[0]} {size[1]}
SHIFT {shift[0]} {shift[1]}
OFFSET {offset}
{exclude}
"""


def write_project(
    folder: Path,
    name: str,
    turn_deg: np.ndarray,
    tilt_deg: np.ndarray,
    shift_px: np.ndarray,
    *,
    size: tuple[int, int, int] = (400, 360, 100),
    x_tilt: float = 0.0,
    shift: tuple[float, float] = (0.0, 0.0),
    offset: str = "0.0",
    exclude: str = "",
    digits: int = 7,
) -> Path:
    """IMOD alignment of which a specimen point p is seen at Rz(turn) Ry(tilt) p + shift."""
    folder.mkdir(parents=True, exist_ok=True)
    inverse = np.swapaxes(rotation_z(turn_deg)[:, :2, :2], 1, 2)
    moved = -np.einsum("fij,fj->fi", inverse, shift_px)
    rows = np.concatenate([inverse.reshape(-1, 4), moved], axis=1)
    (folder / f"{name}.xf").write_text("".join(" ".join(f"{v:.{digits}f}" for v in row) + "\n" for row in rows))
    (folder / f"{name}.tlt").write_text("".join(f"{angle:.6f}\n" for angle in tilt_deg))
    text = TILT.format(name=name, size=size, x_tilt=x_tilt, shift=shift, offset=offset, exclude=exclude)
    (folder / "tilt.com").write_text(text)
    return folder


def options_of(folder: Path, **values: object) -> ImportOptions:
    order = folder / "order.csv"
    if not order.exists():
        angles = np.loadtxt(next(folder.glob("*.tlt")), ndmin=1)
        rank = np.argsort(np.abs(angles), kind="stable")
        order.write_text("".join(f"{i},{angles[k]}\n" for i, k in enumerate(rank, 1)))
    defaults: dict[str, object] = {
        "image_size": "380,420",
        "pixel_size": 2.0,
        "order_list": order,
        "dose_per_view": 3.0,
    }
    return ImportOptions(input=folder, output=folder / "out", **{**defaults, **values})


SMALL = {
    "turn_deg": np.array([85.0, 85.2, 85.4, 85.6]),
    "tilt_deg": np.array([-20.0, -0.5, 19.5, 40.0]),
    "shift_px": np.array([[3.0, -2.0], [0.5, 0.25], [-4.0, 1.0], [2.0, 5.0]]),
}


@pytest.mark.parametrize("name", [f"220728_TS_{n}" for n in ("01", "03", "43", "45", "54")])
def test_the_known_matrices(shared_data: Path, tmp_path: Path, name: str) -> None:
    """41 matrices of each of five real series, which RELION-5 made of an IMOD alignment."""
    path = shared_data / f"data/relion_projection_matrices/tilt_series/{name}.star"
    if not path.is_file():
        pytest.skip(f"there is no {path}")
    block = read_star(path).blocks[0]
    shift = np.stack([block.floats("rlnTomoXShiftAngst"), block.floats("rlnTomoYShiftAngst")], axis=1) / 1.35
    known = np.stack([np.array(block.vectors(f"rlnTomoProj{axis}")) for axis in "XYZW"], axis=1)
    dose = block.floats("rlnMicrographPreExposure")
    tilt = block.floats("rlnTomoYTilt")
    folder = write_project(
        tmp_path / name, name, block.floats("rlnTomoZRot"), tilt, shift, size=(4000, 4000, 3000), digits=9
    )
    (folder / "order.csv").write_text("".join(f"{i},{tilt[k]:.2f}\n" for i, k in enumerate(np.argsort(dose))))
    options = options_of(folder, image_size="3710,3838", pixel_size=1.35, imod_centre="relion5")
    series = imod.read(options).optset.series[0]
    assert series.projection.shape == known.shape == (41, 4, 4)
    # tolerances of tests/golden/test_projection_matrices.py: single precision and 5 decimals in the known matrices
    assert np.abs(series.projection - known)[:, :3, :3].max() <= 1e-6
    assert np.abs(series.projection - known)[:, :2, 3].max() <= 1e-3
    np.testing.assert_array_equal(np.argsort(series.pre_exposure), np.argsort(dose))
    # IMOD's own centre: half a pixel in the image and in the tomogram
    exact = imod.read(options_of(folder, image_size="3710,3838", pixel_size=1.35)).optset.series[0]
    moved = exact.projection - series.projection
    half = series.projection[:, :3, :3] @ np.full(3, 0.5) - np.array([0.5, 0.5, 0.0])
    np.testing.assert_allclose(moved[:, :3, 3], half, atol=1e-9)


def test_a_worked_example(tmp_path: Path) -> None:
    """A particle in a raw stack of 3710 x 3838, FULLIMAGE 3838 3710, THICKNESS 1400, as RELION-4 projects it."""
    (tmp_path / "T.xf").write_text("0.0819385 0.9966374 -0.9966374 0.0819385 12.34 -5.67\n")
    (tmp_path / "T.tlt").write_text("-21.0\n")
    (tmp_path / "tilt.com").write_text(
        TILT.format(name="T", size=(3838, 3710, 1400), x_tilt=0, shift=(0, 0), offset="0", exclude="")
    )
    series = imod.read(options_of(tmp_path, image_size="3710,3838", pixel_size=1.35)).optset.series[0]
    offset = euler_to_matrix([30.0, 45.0, 60.0]) @ np.array([2.70, -1.35, 4.05]) / 1.35
    # RELION-4 has the tilt axis at z = t / 2 - 2 of its voxels, IMOD in the middle, (t - 1) / 2
    position = np.array([1024.0, 2100.5, 650.25 + 1.5]) - offset
    seen = project_points(series.projection, position[None])[0, 0]
    np.testing.assert_allclose(seen[:2], [1536.0498917, 1114.7396356], atol=2e-5)


def test_shift_and_offset_of_the_tomogram(tmp_path: Path) -> None:
    plain = imod.read(options_of(write_project(tmp_path / "a", "TS", **SMALL))).optset.series[0]
    shifted = write_project(tmp_path / "b", "TS", shift=(7.0, -11.0), offset="2.5 4.0", **SMALL)
    moved = imod.read(options_of(shifted)).optset.series[0]
    point = np.array([[210.0, 150.0, 60.0]])
    # SHIFT moves what is in the tomogram by (x, 0, -z); the second value of OFFSET moves the tilt axis in the image
    more = {**SMALL, "tilt_deg": SMALL["tilt_deg"] + 2.5}
    turned = imod.read(options_of(write_project(tmp_path / "c", "TS", **more)))
    expected = project_points(turned.optset.series[0].projection, point)[0, :, :2]
    expected = expected + 4.0 * rotation_z(SMALL["turn_deg"])[:, :2, 0]
    found = project_points(moved.projection, point + np.array([7.0, 0.0, 11.0]))[0, :, :2]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.abs(plain.projection - moved.projection).max() > 1


def test_aligned_images_that_are_cut(tmp_path: Path) -> None:
    folder = write_project(tmp_path, "TS", **SMALL)
    plain = imod.read(options_of(folder)).optset.series[0].projection
    newst = "$newstack -StandardInput\nInputFile TS.mrc\nOutputFile TS_ali.mrc\nTransformFile TS.xf\nBinByFactor 2\n"
    for size, subset, move in (("202,180", "-2 0", 0.0), ("200,180", "0 0", 0.0), ("200,180", "6 0", -6.0)):
        (folder / "newst.com").write_text(newst + f"SizeToOutputInXandY {size}\n")
        text = TILT.format(name="TS", size=(400, 360, 100), x_tilt=0, shift=(0, 0), offset="0", exclude="")
        (folder / "tilt.com").write_text(text + f"SUBSETSTART {subset}\n")
        found = imod.read(options_of(folder)).optset.series[0].projection
        expected = plain.copy()
        expected[:, :2, 3] += move * rotation_z(SMALL["turn_deg"])[:, :2, 0]
        np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("culled", [False, True])
def test_excluded_views(tmp_path: Path, culled: bool) -> None:
    """Views 1 and 3 are out: nothing moves to another view, whether the .tlt has their angles or not."""
    full = imod.read(options_of(write_project(tmp_path / "all", "TS", **SMALL))).optset.series[0]
    folder = write_project(tmp_path / "some", "TS", exclude="EXCLUDELIST 1\nEXCLUDELIST2 3", **SMALL)
    (folder / "order.csv").write_text((tmp_path / "all/order.csv").read_text())
    if culled:
        (folder / "TS.tlt").write_text("-0.5\n40.0\n")
        with pytest.raises(DataError, match=r"put TS\.rawtlt beside"):
            imod.read(options_of(folder))
        (folder / "TS.rawtlt").write_text("-20.0\n-0.5\n19.5\n40.0\n")
    (folder / "TS_output.txt").write_text("".join(f"{i} {20000 + i} {19000 + i} {i} 0 0.1 5\n" for i in range(1, 5)))
    imported = imod.read(options_of(folder))
    series = imported.optset.series[0]
    np.testing.assert_allclose(series.projection, full.projection[[1, 3]])
    assert series.image_index.tolist() == [1, 3]
    assert series.pre_exposure.tolist() == full.pre_exposure[[1, 3]].tolist() == [0.0, 9.0]
    assert series.defocus_u_angstrom.tolist() == [20002, 20004]
    assert any("views 1, 3 are excluded" in note for note in imported.notes)
    (folder / "TS.tlt").write_text("-0.5\n40.0\n1.0\n")
    with pytest.raises(DataError, match="differ in the number of views"):
        imod.read(options_of(folder))


def test_an_offset_of_a_step_does_not_move_doses_or_defocus(tmp_path: Path) -> None:
    """eTomo has added 19.5 degrees to the angles, and tilt.com 20 more: steps of the scheme, nearly."""
    stage = SMALL["tilt_deg"]
    aligned = {**SMALL, "tilt_deg": stage + 19.5}
    folder = write_project(tmp_path, "TS", exclude="EXCLUDELIST 4", offset="20.0", **aligned)
    (folder / "order.csv").write_text("".join(f"{i},{stage[k]}\n" for i, k in enumerate([1, 0, 2, 3])))
    ranges = [f"{i} {i} {a} {a} {2000 + i} {1990 + i} 30\n" for i, a in enumerate(stage + 19.5, 1)]
    (folder / "TS.defocus").write_text("1 0 0. 0. 0 3\n" + "".join(ranges))
    series = imod.read(options_of(folder)).optset.series[0]
    assert series.pre_exposure.tolist() == [3.0, 0.0, 6.0]
    assert series.defocus_u_angstrom.tolist() == [20010, 20020, 20030]
    tilt = np.degrees(np.arctan2(-series.projection[:, 2, 0], series.projection[:, 2, 2]))
    np.testing.assert_allclose(tilt, stage[:3] + 39.5, atol=1e-6)


def test_views_that_were_not_aligned(tmp_path: Path) -> None:
    folder = write_project(tmp_path, "TS", **SMALL)
    lines = (folder / "TS.xf").read_text().splitlines()
    (folder / "TS.xf").write_text("\n".join(["1 0 0 1 0 0", *lines[1:]]) + "\n")
    imported = imod.read(options_of(folder))
    assert imported.optset.series[0].n_tilts == 3
    assert any("views 1 have no alignment" in note for note in imported.notes)


def test_rotation_about_x(tmp_path: Path) -> None:
    folder = write_project(tmp_path, "TS", x_tilt=5.0, **SMALL)
    with pytest.raises(DataError, match="rotates the specimen about x"):
        imod.read(options_of(folder))
    kinds = ("ignore", "apply", "reverse")
    imported = [imod.read(options_of(folder, x_tilt=kind)) for kind in kinds]
    ignored, applied, reverse = (one.optset.series[0].projection for one in imported)
    for found, sign in ((applied, 1.0), (reverse, -1.0)):
        turned = found[:, :3, :3].swapaxes(1, 2) @ ignored[:, :3, :3]
        angle = np.degrees(np.arctan2(-turned[:, 1, 2], turned[:, 1, 1]))
        np.testing.assert_allclose(angle, -sign * 5.0, atol=1e-6)


@pytest.mark.parametrize("axis, word", [(84.0, None), (70.0, "at 85.3 degrees"), (-94.7, "turned by 180 degrees")])
def test_the_tilt_axis_of_the_mdoc(tmp_path: Path, axis: float, word: str | None) -> None:
    folder = write_project(tmp_path, "TS", **SMALL)
    sections = "".join(
        f"[ZValue = {i}]\nTiltAngle = {a}\nPriorRecordDose = {3 * i}\n" for i, a in enumerate(SMALL["tilt_deg"])
    )
    (folder / "TS.mdoc").write_text(f"[T =     Tilt axis angle = {axis}, binning = 1]\n" + sections)
    imported = imod.read(options_of(folder, order_list=None, dose_per_view=None))
    assert imported.optset.series[0].pre_exposure.tolist() == [0, 3, 6, 9]
    said = [note for note in imported.notes if "tilt axis" in note]
    assert len(said) == (word is not None)
    assert all(str(word) in note for note in said)


def test_stretch_is_left_out_and_said(tmp_path: Path) -> None:
    folder = write_project(tmp_path, "TS", **SMALL)
    values = np.loadtxt(folder / "TS.xf")
    values[:, :4] *= 1.002
    np.savetxt(folder / "TS.xf", values, fmt="%.7f")
    imported = imod.read(options_of(folder))
    rotation = imported.optset.series[0].projection[:, :3, :3]
    np.testing.assert_allclose(rotation @ rotation.swapaxes(1, 2), np.broadcast_to(np.eye(3), (4, 3, 3)), atol=1e-9)
    np.testing.assert_allclose(rotation, rotation_z(SMALL["turn_deg"]) @ rotation_y(SMALL["tilt_deg"]), atol=1e-6)
    assert any("magnification or stretch" in note for note in imported.notes)


def test_what_is_missing_is_asked_for(tmp_path: Path) -> None:
    folder = write_project(tmp_path, "TS", **SMALL)
    for values, what in (
        ({"image_size": None}, "size of the tilt images"),
        ({"pixel_size": None}, "pixel size"),
        ({"order_list": None}, "dose before every view"),
        ({"dose_per_view": None}, "dose before every view"),
    ):
        with pytest.raises(DataError, match=what):
            imod.read(options_of(folder, **values))
    (folder / "tilt.com").unlink()
    with pytest.raises(DataError, match="size of the tomogram"):
        imod.read(options_of(folder))


def test_a_real_project(shared_data: Path, tmp_path: Path) -> None:
    """Files of eTomo: 40 views of which one is excluded; pixel size of the .edf."""
    source = shared_data / "data/pypi_formats/etomofiles/TS_001"
    if not source.is_dir():
        pytest.skip(f"there is no {source}")
    for ending in ("xf", "tlt", "rawtlt", "xtilt", "edf"):
        (tmp_path / f"TS_001.{ending}").write_bytes((source / f"TS_001.{ending}").read_bytes())
    raw = np.loadtxt(source / "TS_001.rawtlt")
    rank = np.argsort(np.abs(raw), kind="stable")
    (tmp_path / "order.csv").write_text("".join(f"{i},{raw[k]}\n" for i, k in enumerate(rank)))
    imported = imod.read(options_of(tmp_path, pixel_size=None, image_size="5760,4092", tomogram_size="4092,5760,2000"))
    series = imported.optset.series[0]
    assert (series.n_tilts, series.pixel_size_angstrom) == (39, pytest.approx(6.192))
    assert series.image_index.tolist() == list(range(39))
    np.testing.assert_array_equal(series.nominal_tilt_deg, raw[:39])
    turn = np.degrees(np.arctan2(-series.projection[:, 0, 1], series.projection[:, 1, 1]))
    assert np.abs(turn - 83.9).max() < 0.5
    assert series.pre_exposure.max() == 3.0 * 39


@pytest.mark.parametrize("table", ["017_ctffind4.txt", "017_gctf.star"])
def test_dose_and_ctf_of_a_real_series(shared_data: Path, tmp_path: Path, table: str) -> None:
    """mdoc, angles, tilt.com and CTF of 60 views, of which two are excluded; an alignment that only turns."""
    source = shared_data / "data/cryocat_formats/TS_017"
    if not source.is_dir():
        pytest.skip(f"there is no {source}")
    for name in ("017.mdoc", "017.tlt", table):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    (tmp_path / "tilt.com").write_text((source / "tilt.com").read_text() + "\n$tilt\nEXCLUDELIST 2,59\n")
    c, s = np.cos(np.radians(82.9)), np.sin(np.radians(82.9))
    (tmp_path / "017.xf").write_text(f"{c:.7f} {s:.7f} {-s:.7f} {c:.7f} 0.5 -0.25\n" * 60)
    imported = imod.read(
        options_of(tmp_path, order_list=None, dose_per_view=None, image_size="4096,4096", pixel_size=1.971)
    )
    series = imported.optset.series[0]
    kept = np.delete(np.arange(60), [1, 58])
    assert series.image_index.tolist() == kept.tolist()
    # a list that another program made of the mdoc holds the dose with the view itself, 2.238 each
    doses = np.loadtxt(source / "017_corrected_dose.txt")[kept]
    assert np.abs(series.pre_exposure + 2.23843 - doses).max() < 0.01
    if table.endswith(".txt"):
        known = np.loadtxt(source / table)[kept]
        np.testing.assert_array_equal(series.defocus_u_angstrom, known[:, 1])
        np.testing.assert_array_equal(series.defocus_angle_deg, known[:, 3])
    else:
        lines = [line.split() for line in (source / table).read_text().splitlines() if line.startswith("split")]
        np.testing.assert_array_equal(series.defocus_v_angstrom, np.array([float(line[3]) for line in lines])[kept])
    assert not [note for note in imported.notes if "tilt axis" in note]


def test_the_command(tmp_path: Path) -> None:
    """Two data sets in folders with stacks, joined with mdocs; the result can be loaded with its images."""
    random = np.random.default_rng(2)
    for name in ("TS_1", "TS_2"):
        folder = write_project(tmp_path / "imod" / name, name, **SMALL)
        write_map(folder / f"{name}.mrc", random.normal(size=(4, 42, 38)), 2.0, "float32")
        sections = "".join(
            f"\n[ZValue = {i}]\nTiltAngle = {SMALL['tilt_deg'][i]}\nExposureDose = 3\n"
            f"DateTime = 30-Nov-15  15:2{k}:00\n"
            for i, k in enumerate([2, 0, 1, 3])
        )
        (folder / f"{name}.mrc.mdoc").write_text("PixelSpacing = 2.0\nImageSize = 38 42\n" + sections)
        table = "1 0 0. 0. 0 3\n" + "".join(
            f"{i + 1} {i + 1} {a} {a} {2000 + i} {1990 + i} {30 + i}\n" for i, a in enumerate(SMALL["tilt_deg"])
        )
        (folder / f"{name}.defocus").write_text(table)
    points = "tomogram,x,y,z\nTS_1,200,180,50\nTS_2,210.5,170,40\nTS_2,190,175,60\n"
    (tmp_path / "points.csv").write_text(points)
    arguments = ["import", "--i", str(tmp_path / "imod"), "--o", str(tmp_path / "out")]
    arguments += ["--p", str(tmp_path / "points.csv")]
    arguments += ["--coord-units", "px", "--coord-origin", "corner", "--coord-first", "0", "--coord-binning", "1"]
    assert main(arguments) == 0
    optset = load_optimisation_set(tmp_path / "out/optimisation_set.star")
    assert [one.name for one in optset.series] == ["TS_1", "TS_2"]
    first = optset.series[0]
    assert first.pre_exposure.tolist() == [6.0, 0.0, 3.0, 9.0]
    assert first.defocus_u_angstrom.tolist() == [20000, 20010, 20020, 20030]
    assert first.defocus_angle_deg.tolist() == [30, 31, 32, 33]
    assert (first.image_size, first.tomogram_size) == ((38, 42), (400, 360, 100))
    np.testing.assert_allclose(optset.particles.coordinate_px[1], [210.5, 170, 40], atol=1e-5)
    assert (tmp_path / "out/report.html").is_file()
