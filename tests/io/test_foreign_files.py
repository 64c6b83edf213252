"""Real files of other programs, with what is known about their numbers."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tiltwise.errors import FormatError
from tiltwise.io.foreign import aretomo, ctffind, dynamo, em, gctf, imod_alignment, imod_commands, imod_model, mdoc
from tiltwise.io.foreign import stopgap as stopgap_files


@pytest.fixture
def real(shared_data: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Path of a file in data/, unpacked where it is gzipped."""

    def find(name: str) -> Path:
        path = shared_data / "data" / name
        if not path.is_file():
            pytest.skip(f"there is no {path}")
        if path.suffix != ".gz":
            return path
        plain = tmp_path / path.stem
        plain.write_bytes(gzip.decompress(path.read_bytes()))
        return plain

    return find


ETOMO, ALN, CZ, CRYO = (
    "pypi_formats/etomofiles/TS_001",
    "pypi_formats/alnfile",
    "pypi_formats/cryoet_alignment",
    "cryocat_formats",
)


def test_an_etomo_project(real: Callable[[str], Path]) -> None:
    project = imod_commands.read_etomo_project(real(f"{ETOMO}/TS_001.edf"))
    assert (project.dataset_name, project.exclude_views) == ("TS_001", (40,))
    assert (project.pixel_size_nm, project.image_rotation_deg) == (0.6192, 83.9)
    transforms = imod_alignment.read_xf(real(f"{ETOMO}/TS_001.xf"), views=40)
    raw = imod_alignment.read_angles(real(f"{ETOMO}/TS_001.rawtlt"), views=40)
    refined = imod_alignment.read_angles(real(f"{ETOMO}/TS_001.tlt"), views=40)
    about_x = imod_alignment.read_angles(real(f"{ETOMO}/TS_001.xtilt"), views=40)
    assert (raw[0], refined[0], about_x[0]) == (-60.0, -57.12, -0.01)
    # eTomo added the offset it wrote into the project, 2.85, and refined every angle a little
    assert np.abs(refined - raw - 2.85).max() < 0.4
    # rotations, nearly, and by the angle that was entered
    determinant = np.linalg.det(transforms.matrix)
    assert np.abs(determinant - 1).max() < 0.01
    axis = np.degrees(np.arctan2(transforms.matrix[:, 0, 1], transforms.matrix[:, 0, 0]))
    assert np.abs(axis - 83.9).max() < 0.5
    assert not transforms.is_identity.any()
    with pytest.raises(FormatError, match="angles are missing"):
        imod_alignment.read_angles(real(f"{ETOMO}/TS_001.tlt"), views=41)


def test_command_files(real: Callable[[str], Path]) -> None:
    tilt = imod_commands.read_tilt_command(real(f"{CZ}/convert/imod_1/tilt.com"))
    newst = imod_commands.read_newst_command(real(f"{CZ}/convert/imod_1/newst.com"))
    assert (tilt.full_image, tilt.thickness, tilt.image_binned, tilt.subset_start) == ((3708, 3832), 2000, 4, (-2, 0))
    assert (newst.bin_by_factor, newst.size_to_output) == (4, (928, 958))
    assert (tilt.tilt_file, tilt.x_tilt_file) == ("mka2018-10-01-1.tlt", "mka2018-10-01-1.xtilt")
    assert (newst.input_file, newst.transform_file) == ("mka2018-10-01-1.mrc", "mka2018-10-01-1.xf")
    for name, views in (("tilt_1.xf", 59), ("tilt_1.tlt", 59), ("tilt_1.xtilt", 59)):
        path = real(f"{CZ}/convert/imod_1/{name}")
        read = imod_alignment.read_xf if name.endswith(".xf") else imod_alignment.read_angles
        read(path, views=views)
    other = imod_commands.read_tilt_command(real(f"{CZ}/tilt.com"))
    assert (other.full_image, other.thickness, other.image_binned) == ((2032, 2032), 900, 2)
    assert imod_commands.read_newst_command(real(f"{CZ}/newst.com")).size_to_output is None
    third = imod_commands.read_tilt_command(real(f"{CRYO}/TS_017/tilt.com"))
    assert (third.full_image, third.thickness, third.x_tilt_file, third.exclude_views) == ((4096, 4096), 1500, None, ())
    assert len(imod_alignment.read_xf(real(f"{CZ}/test.xf")).matrix) == 3
    assert imod_alignment.read_angles(real(f"{CZ}/test.rawtlt")).tolist() == [-66.0, -64.5, -63.0]


def test_models(real: Callable[[str], Path]) -> None:
    several = imod_model.read_model(real("pypi_formats/imodmodel/multiple_objects_example.mod"))
    assert several.object_names == ("", "chemo-array", "chemo-array")
    assert several.volume_size == (956, 924, 300)
    assert (len(several.points), set(several.object_number.tolist())) == (6, {2, 3})
    assert several.pixel_unit == "nm"
    np.testing.assert_allclose(several.points[0], [367.0, 661.8333, 134.0], atol=1e-3)
    two = imod_model.read_model(real("pypi_formats/imodmodel/two_contour_example.mod"))
    assert (len(two.points), set(two.contour_number.tolist())) == (25, {1, 2})
    np.testing.assert_allclose(two.points[0], [64.33333, 64.66667, 80.0], atol=1e-4)
    sizes = imod_model.read_model(real("pypi_formats/imodmodel/point_sizes_example.mod"))
    assert sizes.object_names[:2] == ("SCATTERED_POINT_SIZE", "OPEN_NO_POINTSIZE")
    assert (len(sizes.points), sizes.points[0, :2].tolist()) == (18, [438.5, 898.5])
    slicer = imod_model.read_model(real("pypi_formats/imodmodel/slicer_angle_example.mod"))
    assert slicer.contour_number.tolist() == [1, 2, 3, 4]
    for model in (several, two, sizes, slicer):
        assert model.volume_size is not None
        assert (model.points >= 0).all()
        assert (model.points <= model.volume_size).all()


def test_aretomo_alignments(real: Callable[[str], Path]) -> None:
    both = aretomo.read_aln(real(f"{ALN}/global_and_local.aln"))
    assert (both.raw_size, len(both.tilt_deg), both.thickness_px) == ((4096, 4096, 51), 37, 1910)
    # stage angles are 2 degrees apart: the rows that are kept continue where the dark ones end
    stage = np.concatenate([both.dark_tilt_deg, both.nominal_tilt_deg])
    assert np.abs(stage - np.arange(-68, 34, 2)).max() < 0.02
    assert both.local is not None
    assert both.local.shift_px.shape == (37, 16, 2)
    np.testing.assert_array_equal(both.local.shift_px[0, 0], [-6.93, -36.22])
    np.testing.assert_array_equal(both.local.position_px[36, 15], [1483.93, 997.39])
    assert not both.local.good[36, 12]
    only = aretomo.read_aln(real(f"{ALN}/global_no_local.aln"))
    assert only.local is None
    assert only.alpha_offset_deg == -7.0
    angles = imod_alignment.read_angles(real(f"{ALN}/global_no_local.tlt"), views=61)
    assert np.abs(only.tilt_deg - angles).max() < 0.006
    # shifts agree with the .xf that came with it: -A^-1 d
    transforms = imod_alignment.read_xf(real(f"{ALN}/global_no_local.xf"), views=61)
    shift = -np.linalg.solve(transforms.matrix, transforms.shift_px[..., None])[..., 0]
    assert np.abs(shift - only.shift_px).max() < 2e-3


@pytest.mark.parametrize("name", ["test.aln", "test_thickness.aln"])
def test_shortened_alignments_are_refused(real: Callable[[str], Path], name: str) -> None:
    """Both were cut by hand: they announce 90 sections and hold 8."""
    with pytest.raises(FormatError, match="4 kept and 4 dark"):
        aretomo.read_aln(real(f"{CZ}/{name}"))


def test_ctf_tables(real: Callable[[str], Path]) -> None:
    table = ctffind.read_ctffind(real(f"{CRYO}/TS_017/017_ctffind4.txt"), views=60)
    np.testing.assert_array_equal(table.defocus_angstrom[0], [14477.870117, 13500.001953])
    assert (table.program, table.hand) == ("CTFFIND", None)
    assert ((table.defocus_angstrom > 10000) & (table.defocus_angstrom < 75000)).all()
    with_hand = ctffind.read_ctffind(real(f"{CZ}/test_8col_CTF.txt"), views=31)
    assert with_hand.program == "AreTomo"
    assert with_hand.hand is not None
    assert set(with_hand.hand.tolist()) == {-1}
    assert ctffind.read_ctffind(real(f"{CZ}/test_CTF.txt")).fit_spacing_angstrom.tolist() == [24.6784, 23.3444, 11.0736]
    gctf_table = gctf.read_gctf(real(f"{CRYO}/TS_017/017_gctf.star"))
    assert (len(gctf_table.angle_deg), gctf_table.micrograph_names[-1]) == (60, "split.mrc.60")
    # the wedge list was made from the same fits: mean defocus in micrometres
    wedges = stopgap_files.read_wedges(real(f"{CRYO}/wedgeutils_data/wedge_list_017.star"))
    assert wedges.defocus_um is not None
    np.testing.assert_allclose(gctf_table.defocus_angstrom.mean(1) / 1e4, wedges.defocus_um, atol=1e-6)
    relion = gctf.read_gctf(real(f"{CRYO}/dc02t01_ctf.star"))
    assert relion.tilt_deg is not None
    assert len(relion.tilt_deg) == 47


def test_mdoc_of_a_tilt_series(real: Callable[[str], Path]) -> None:
    series = mdoc.read_mdoc(real(f"{CRYO}/TS_017/017.mdoc"))
    angles = imod_alignment.read_angles(real(f"{CRYO}/TS_017/017.tlt"), views=60)
    assert np.abs(series.tilt_deg - angles).max() < 0.04
    assert (series.tilt_axis_deg, series.voltage_kv, series.image_size) == (82.9, 300.0, (4096, 4096))
    order = mdoc.acquisition_order(series)
    assert np.abs(series.tilt_deg[order[:4]] - [8, 10, 12, 6]).max() < 0.05
    before = mdoc.pre_exposure(series)
    assert before is not None
    assert (np.diff(before[order]) > 0).all()
    # the list of doses that cryoCAT made from it includes the image itself
    doses = imod_alignment.read_dose_list(real(f"{CRYO}/TS_017/017_corrected_dose.txt"), views=60)
    assert np.abs(before + series.exposure_dose - doses).max() < 0.01
    wedges = stopgap_files.read_wedges(real(f"{CRYO}/wedgeutils_data/wedge_list_017.star"))
    assert np.abs(wedges.tilt_deg - angles).max() < 1e-5
    assert wedges.tomogram_size[0].tolist() == [4096, 4096, 1500]


def test_mdoc_without_doses(real: Callable[[str], Path]) -> None:
    for name in ("pypi_formats/mdocfile/tilt_series.mdoc", "pypi_formats/tiltstack/TS_01.mrc.mdoc"):
        series = mdoc.read_mdoc(real(name))
        order = mdoc.acquisition_order(series)
        assert len(order) == 41
        assert np.round(series.tilt_deg[order[:5]]).tolist() == [0, 3, -3, -6, 6]
        assert mdoc.pre_exposure(series) is None
        assert (series.tilt_axis_deg, series.target_defocus_um[0]) == (85.3, -4)
        assert series.sub_frame_path[0].endswith("TS_01_000_0.0.mrc")


def test_mdocs_of_movies_and_montages(real: Callable[[str], Path], shared_data: Path) -> None:
    single = mdoc.read_mdoc(real("pypi_formats/mdocfile/frame_set_single.mdoc"))
    assert (single.kind, single.tilt_deg.tolist(), single.sub_frames.tolist()) == ("FrameSet", [32.984], [12])
    several = mdoc.read_mdoc(real("pypi_formats/mdocfile/frame_set_multiple.mdoc"))
    assert (several.kind, several.exposure_dose.tolist()) == ("FrameSet", [291.302])
    for name, pieces in (("montage_section", 62), ("montage_section_multiple", 90)):
        montage = mdoc.read_mdoc(real(f"pypi_formats/mdocfile/{name}.mdoc"))
        assert (montage.montage, len(montage.section)) == (True, pieces)
    frames = sorted((shared_data / "data" / CRYO / "frames_mdoc").glob("*.mdoc"))
    if frames:
        movies = [mdoc.read_mdoc(path) for path in frames]
        assert len(movies) == 61
        times = [movie.time[0] for movie in movies]
        assert times == sorted(times, key=str)
        doses = np.array([movie.prior_dose[0] for movie in movies])
        assert (np.diff(doses) > 0).all()
        assert doses[0] == 0.0728312
        named = [float(path.name.split("_")[3].removesuffix(".mrc.mdoc")) for path in frames]
        assert np.abs(np.array([movie.tilt_deg[0] for movie in movies]) - named).max() < 0.05


@pytest.mark.parametrize(
    "name, shape, tomograms, first",
    [
        ("pypi_formats/dynamotable/t_double.tbl", (300, 35), 2, [141.28, 114.71, 163.08]),
        ("pypi_formats/dynamotable/t_complex.tbl.gz", (8742, 41), 48, [1018.9, 759.36, 641.59]),
        ("cryocat_formats/motl_data/crop.tbl.gz", (4485, 35), None, [781.5, 254.5, 219.5]),
        ("cryocat_formats/motl_data/b4_motl_CR_tm_topbott_clean600_1_dynamo.tbl.gz", (1343, 26), None, [507, 548, 167]),
    ],
)
def test_dynamo_tables(
    real: Callable[[str], Path], name: str, shape: tuple[int, int], tomograms: int | None, first: list[float]
) -> None:
    table = dynamo.read_table(real(name))
    assert table.values.shape == shape
    assert table.coordinate[0].tolist() == first
    assert len(np.unique(table.tag)) == shape[0]
    numbers = set(table.tomogram_number.tolist())
    assert tomograms is None or len(numbers) == tomograms
    if tomograms == 48:
        names = dynamo.read_tomogram_list(real("pypi_formats/dynamotable/tmap_complex.doc")).names
        assert numbers <= set(names)
        assert names[48] == "tomo_ts99.mrc_15.00Apx.mrc"


def test_motive_lists(real: Callable[[str], Path]) -> None:
    motives = stopgap_files.read_motives(real("cryocat_formats/motl_data/class6_er_mr1_1_sg.star.gz"))
    assert len(motives.score) == 14561
    assert motives.coordinate[0].tolist() == [824, 754, 673]
    assert motives.shift[0].tolist() == [0.2121, 0.6012, 5.4676]
    assert motives.angles_deg[0].tolist() == [33.2584, 65.255699, 8.6516]
    assert motives.half_set is not None
    assert set(motives.half_set) <= {"A", "B"}
    av3 = em.read_motives(real("cryocat_formats/motl_data/au_1.em"))
    assert av3.values.shape == (64, 20)
    assert av3.coordinate[:2].tolist() == [[230, 201, 178], [222, 185, 183]]
    np.testing.assert_allclose(av3.angles_deg[0], [49.184898, 52.307846, 128.014435], atol=1e-4)
    assert set(av3.tomogram_number.tolist()) == {160}
    # one row per tomogram: number, lowest and highest angle
    wedge = em.read_em(real("cryocat_formats/wedgeutils_data/wedge_list.em"))
    np.testing.assert_allclose(wedge[0], [[17, -52.01, 65.97], [18, -54.01, 69.97]], atol=1e-4)
    assert len(stopgap_files.read_wedges(real("cryocat_formats/wedgeutils_data/wedge_list.star")).tilt_deg) == 120
    assert len(stopgap_files.read_wedges(real("cryocat_formats/wedgeutils_data/wedge_list_018.star")).tilt_deg) == 60
