"""Loading RELION-4, RELION-5 and Warp projects: positions, geometry, paths, options."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiltwise.errors import DataError
from tiltwise.geometry.projection import depth_offset_px, project_points
from tiltwise.io.mrc import write_map
from tiltwise.io.optimisation_set import load_optimisation_set, notes_of, write_optimisation_set, write_trajectories
from tiltwise.io.star import StarBlock, StarDocument, read_star, write_star
from tiltwise.io.tilt_images import TiltImages


def test_golden_set_matches_its_truth(shared_data: Path) -> None:
    folder = shared_data / "golden/refine"
    optset = load_optimisation_set(folder / "optimisation_set.star")
    truth = json.loads((folder / "truth/truth.json").read_text())["tomograms"]
    assert notes_of(optset) == ()
    for series in optset.series:
        own = truth[series.name]
        assert series.image_size == (384, 384)
        assert series.n_tilts == 31
        assert series.hand == -1
        np.testing.assert_allclose(series.defocus_u_angstrom, own["defocus"], atol=1e-6 * 30000)
        rows = [i for i, name in enumerate(optset.particles.tomogram) if name == series.name]
        offset = (optset.particles.coordinate_px[rows] - own["position_px"]) * series.pixel_size_angstrom
        # Planted: 5 Å rms per axis.
        assert 3.5 < np.sqrt(np.mean(offset**2)) < 6.5
        images = TiltImages(series)
        assert images.image(30).shape == (384, 384)
        np.testing.assert_array_equal(images.window(2, slice(3, 9), slice(5, 7)), images.image(2)[3:9, 5:7])
    assert optset.paths["particles"] == str(folder / "particles.star")
    assert set(optset.particles.half_set) == {1, 2}
    assert optset.stacks_are_2d
    assert optset.particles.image_files == ()


def test_trajectories_of_a_real_job(shared_data: Path) -> None:
    folder = shared_data / "golden/align"
    optset = load_optimisation_set(
        folder / "optimisation_set.star", trajectories=folder / "relion/align/motion.star", need_images=False
    )
    assert len(optset.trajectories) == 120
    motion = optset.trajectories["TS_01/1"]
    assert motion.shape == (31, 3)
    assert motion[0].tolist() == [-2.82511, 2.102257, -1.26001]
    # RELION makes displacement zero at the tilt without dose.
    assert not motion[int(np.argmin(optset.series[0].pre_exposure))].any()


def test_matrices_and_angles_of_one_series_agree(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "data/relion_projection_matrices"
    by_matrix = load_set_without_particles(source / "tilt_series.star", tmp_path / "m", [])
    by_angles = load_set_without_particles(
        source / "tilt_series.star", tmp_path / "a", [f"rlnTomoProj{row}" for row in "XYZW"]
    )
    assert sum("override" in note for note in notes_of(by_matrix)) == 5
    assert not any("override" in note for note in notes_of(by_angles))
    image = np.array([3710, 3838])
    for one, other in zip(by_matrix.series, by_angles.series, strict=True):
        np.testing.assert_allclose(one.projection[:, :3, :3], other.projection[:, :3, :3], atol=2e-7)
        # No images here, so angles give positions relative to their centre; matrices know the image size.
        shift = one.projection[:, :2, 3] - other.projection[:, :2, 3]
        np.testing.assert_allclose(shift, np.tile(image // 2, (one.n_tilts, 1)), atol=1e-3)
        np.testing.assert_array_equal(one.nominal_tilt_deg, other.nominal_tilt_deg)


def load_set_without_particles(tomograms: Path, folder: Path, dropped: list[str]) -> Any:
    """The tomogram set with some columns removed and one particle in the first series."""
    document = read_star(tomograms)
    table = document["global"].copy()
    (folder / "t").mkdir(parents=True)
    names = table.text("rlnTomoName")
    for name in names:
        tilts = read_star(tomograms.parent / f"tilt_series/{name}.star")
        tilts[name].drop(*dropped)
        write_star(folder / f"t/{name}.star", tilts)
    table.set_text("rlnTomoTiltSeriesStarFile", [f"t/{name}.star" for name in names])
    write_star(folder / "tomograms.star", document.replace(table))
    particles = StarBlock("particles", "loop", {})
    particles.set_text("rlnTomoName", names[:1])
    for axis in "XYZ":
        particles.set_floats(f"rlnCenteredCoordinate{axis}Angst", [0.0])
    write_star(folder / "particles.star", StarDocument([particles]))
    return load_optimisation_set(folder / "particles.star", tomograms=folder / "tomograms.star", need_images=False)


@pytest.mark.parametrize("job", ["Polish/job030", "Refine3D/job074"])
def test_the_tutorial_project_at_full_size(shared_data: Path, tmp_path: Path, job: str) -> None:
    source = shared_data / "data/relion5_sta_tutorial_metadata/extracted"
    name = "particles.star.gz" if job.startswith("Polish") else "run_data.star.gz"
    particles = tmp_path / "particles.star"
    particles.write_bytes(gzip.decompress((source / job / name).read_bytes()))
    optset = load_optimisation_set(particles, tomograms=source / "Polish/job070/tomograms.star", need_images=False)
    assert len(optset.particles) == 9053
    assert [series.n_tilts for series in optset.series] == [40, 40, 41, 41, 41]
    block = read_star(particles)["particles"]
    # C / px + N / 2 for 1.35 Å and 4000 x 4000 x 2000.
    expected = np.stack([block.floats(f"rlnCenteredCoordinate{a}Angst") for a in "XYZ"], axis=1) / 1.35 + [
        2000,
        2000,
        1000,
    ]
    np.testing.assert_allclose(optset.particles.coordinate_px, expected, atol=1e-9)
    assert len(optset.particles.visible) == 9053
    assert optset.optics[0].binning == 1.0
    assert optset.optics[0].ctf_premultiplied is True
    assert optset.optics[0].image_dimensionality == 2
    assert optset.series[0].image_files == ()
    assert sum("not found" in note for note in notes_of(optset)) == 6


RELION4 = """
data_global

loop_
_rlnTomoName #1
_rlnTomoTiltSeriesName #2
_rlnTomoFrameCount #3
_rlnTomoSizeX #4
_rlnTomoSizeY #5
_rlnTomoSizeZ #6
_rlnTomoHand #7
_rlnTomoTiltSeriesPixelSize #8
_rlnVoltage #9
_rlnSphericalAberration #10
_rlnAmplitudeContrast #11
TS_1 raw.st:mrc 2 3838 3710 1400 -1 1.35 300 2.7 0.07

data_{table}

loop_
_rlnTomoProjX #1
_rlnTomoProjY #2
_rlnTomoProjZ #3
_rlnTomoProjW #4
_rlnDefocusU #5
_rlnDefocusV #6
_rlnDefocusAngle #7
_rlnMicrographPreExposure #8
{matrix} 31250 30875 42.5 18
{matrix} 31250 30875 42.5 0

"""

RELION4_PARTICLES = """
data_optics

loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
_rlnVoltage #3
_rlnSphericalAberration #4
_rlnTomoTiltSeriesPixelSize #5
1 opticsGroup1 300 2.7 1.35

data_particles

loop_
_rlnTomoName #1
_rlnCoordinateX #2
_rlnCoordinateY #3
_rlnCoordinateZ #4
_rlnOriginXAngst #5
_rlnOriginYAngst #6
_rlnOriginZAngst #7
_rlnTomoSubtomogramRot #8
_rlnTomoSubtomogramTilt #9
_rlnTomoSubtomogramPsi #10
TS_1 1024.0 2100.5 650.25 2.70 -1.35 4.05 30 45 60
"""


def relion4(folder: Path, *, table: str = "TS_1", general: str = "") -> Any:
    matrix = (
        "[0.076496178,-0.996637375,-0.029364132,3570.789709234] [0.930441146,0.081938498,-0.357162893,218.304285622] "
        "[0.358367950,0,0.933580426,-1340.459997274] [0,0,0,1]"
    )
    (folder / "tomograms.star").write_text(RELION4.format(table=table, matrix=matrix))
    (folder / "particles.star").write_text(general + RELION4_PARTICLES)
    write_map(folder / "raw.st", np.ones((2, 60, 70)), 1.35)
    return folder / "particles.star", folder / "tomograms.star"


def test_relion4_worked_example(tmp_path: Path) -> None:
    """Numbers of an IMOD import with both flips, hand -1, computed independently of this package."""
    from tiltwise.geometry.projection import particle_positions

    particles, tomograms = relion4(tmp_path)
    optset = load_optimisation_set(particles, tomograms=tomograms)
    series, set_ = optset.series[0], optset.particles
    assert set_.coordinate_px[0].tolist() == [1025.0, 2101.5, 651.25]
    position = particle_positions(set_.coordinate_px, set_.origin_angstrom, set_.subtomogram_angles_deg, 1.35)
    # Angles and matrices are given with nine digits, positions reach 4000 px.
    np.testing.assert_allclose(position[0], [1027.241089835, 2101.350369349, 648.257488176], atol=1e-6)
    q = project_points(series.projection, position)[0, 0]
    np.testing.assert_allclose(q[:2], [1536.0498917, 1114.7396356], atol=2e-5)
    depth = depth_offset_px(series.projection, position, series.tomogram_size)[0, 0]
    assert series.hand * 1.35 * depth == pytest.approx(496.6428713, abs=2e-5)
    assert series.image_files == (str(tmp_path / "raw.st"),) * 2
    assert series.image_index.tolist() == [0, 1]
    assert series.image_size == (70, 60)
    assert series.optics_group_name == "opticsGroup1"
    np.testing.assert_allclose(series.nominal_tilt_deg, -21.0, atol=1e-6)
    assert optset.optics[0].amplitude_contrast == 0.07
    assert set_.name == ("TS_1/1",)
    assert any("(1, 1, 1) added" in note for note in notes_of(optset))


def test_relion5_rules_for_pixel_coordinates(tmp_path: Path) -> None:
    general = "data_general\n\n_rlnTomoSubTomosAre2DStacks 0\n"
    particles, tomograms = relion4(tmp_path, general=general)
    optset = load_optimisation_set(particles, tomograms=tomograms)
    assert optset.particles.coordinate_px[0].tolist() == [1024.0, 2100.5, 650.25]
    assert any("taken as they are" in note for note in notes_of(optset))
    binned = load_optimisation_set(particles, tomograms=tomograms, coordinate_binning=4.0)
    assert binned.particles.coordinate_px[0].tolist() == [4096.0, 8402.0, 2601.0]


def test_tables_of_very_old_files(tmp_path: Path) -> None:
    particles, tomograms = relion4(tmp_path, table="tomo_0")
    optset = load_optimisation_set(particles, tomograms=tomograms)
    assert optset.series[0].n_tilts == 2
    assert any("old name data_tomo_0" in note for note in notes_of(optset))


def test_stack_that_does_not_fit_its_table(tmp_path: Path) -> None:
    particles, tomograms = relion4(tmp_path)
    write_map(tmp_path / "raw.st", np.ones((3, 60, 70)), 1.35)
    with pytest.raises(DataError, match=r"differ in length[\s\S]*2 sections[\s\S]*3 sections, rlnTomoFrameCount 2"):
        load_optimisation_set(particles, tomograms=tomograms)


def test_particles_of_a_warp_export(shared_data: Path) -> None:
    folder = shared_data / "data/real_70S_warptools_2dstacks"
    path = folder / "warptools_test_4-tomos_10-ptcls_box-32_angpix-12_optimisation_set.star"
    optset = load_optimisation_set(path, need_images=False)
    assert len(optset.particles) == len(optset.particles.image_files) == 40
    assert len(optset.series) == len(optset.optics) == 4
    assert optset.stacks_are_2d
    assert optset.particles.coordinate_px[0].tolist() == [494.521, 564.065, 28.146]
    assert any("coordinate binning of 7.19856" in note for note in notes_of(optset))
    binned = load_optimisation_set(path, need_images=False, coordinate_binning=7.19856)
    inside = binned.particles.coordinate_px < np.array([4400, 6000, 1400])
    assert inside.all()
    assert (binned.particles.coordinate_px.max(axis=0) > np.array([2200, 3000, 200])).all()
    for series in optset.series:
        first = optset.particles.tomogram.index(series.name)
        # Warp hides a tilt by visible frame 0 and by scale 0.
        np.testing.assert_array_equal(optset.particles.visible[first], series.ctf_scale > 0)


def test_optics_come_from_the_tomograms_when_particles_have_none(project: Any) -> None:
    def only_picks(document: Any) -> None:
        document.blocks = [document["particles"]]
        document["particles"].drop("rlnOpticsGroup", "rlnTomoParticleName", "rlnRandomSubset")

    project.edit("particles.star", only_picks)
    project.column("tomograms.star", "global", "rlnOpticsGroupName", None)
    optset = load_optimisation_set(project.set)
    assert [group.name for group in optset.optics] == ["TS_1", "TS_2"]
    assert optset.particles.optics_index.tolist() == [0, 0, 1]
    assert optset.particles.name == ("TS_1/1", "TS_1/2", "TS_2/1")
    assert optset.particles.half_set.tolist() == [0, 0, 0]
    assert optset.optics[1].voltage_kv == 300


def test_optional_columns(project: Any) -> None:
    table = "tilt_series/TS_1.star"
    project.column(table, "TS_1", "rlnCtfScalefactor", None)
    project.column(table, "TS_1", "rlnPhaseShift", ["90"] * 5)
    project.column(table, "TS_1", "rlnCtfBfactor", ["1.5"] * 5)
    project.column("tomograms.star", "global", "rlnTomoDefocusSlope", ["0.9", "1"])
    project.column("tomograms.star", "global", "rlnCtfBfactorPerElectronDose", ["2", "0"])
    project.column("particles.star", "optics", "rlnEvenZernike", ["[0,1.5,2]"])
    project.column("particles.star", "optics", "rlnOddZernike", ["[]"])
    optset = load_optimisation_set(project.set)
    series = optset.series[0]
    assert series.ctf_scale.tolist() == [1.0] * 5
    assert series.phase_shift_deg.tolist() == [90.0] * 5
    assert series.ctf_bfactor_angstrom2.tolist() == [1.5] * 5
    assert (series.defocus_slope, series.bfactor_per_dose) == (0.9, 2.0)
    assert optset.optics[0].even_zernike.tolist() == [0.0, 1.5, 2.0]
    assert optset.optics[0].odd_zernike.size == 0


def test_odd_tomograms_are_reported(project: Any) -> None:
    project.column("tomograms.star", "global", "rlnTomoSizeX", ["101", "101"])
    optset = load_optimisation_set(project.set)
    assert any("odd tomogram sizes" in note for note in notes_of(optset))
    assert optset.particles.coordinate_px[0, 0] == 10 / 2 + 50.5


def test_overrides_and_written_sets(project: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.root)
    out = project.root / "job"
    out.mkdir()
    motion = {name: np.full((5, 3), float(i)) for i, name in enumerate(("TS_1/1", "TS_1/2", "TS_2/1"))}
    write_trajectories(out / "motion.star", motion)
    write_optimisation_set(
        out / "set.star",
        particles="particles.star",
        tomograms=project.root / "tomograms.star",
        trajectories=out / "motion.star",
        mask=tmp_path / "mask.mrc",
        half1=None,
    )
    block = read_star(out / "set.star").blocks[0]
    assert block.columns["rlnTomoParticlesFile"] == ["particles.star"]
    assert block.columns["rlnTomoTrajectoriesFile"] == ["job/motion.star"]
    assert block.columns["rlnTomoReferenceMaskFile"] == [str(tmp_path / "mask.mrc")]
    optset = load_optimisation_set(out / "set.star")
    assert any("rlnTomoReferenceMaskFile is not found" in note for note in notes_of(optset))
    assert "mask" not in optset.paths
    assert optset.trajectories["TS_2/1"].tolist() == [[2.0] * 3] * 5
    with pytest.raises(TypeError, match="wrong"):
        write_optimisation_set(out / "set.star", wrong="x.star")


def test_loop_form_of_an_optimisation_set(project: Any) -> None:
    (project.root / "loop.star").write_text(
        "data_\n\nloop_\n_rlnTomoTomogramsFile #1\n_rlnTomoParticlesFile #2\ntomograms.star particles.star\n"
    )
    assert len(load_optimisation_set(project.root / "loop.star").particles) == 3


def test_trajectory_faults(project: Any) -> None:
    motion = {name: np.zeros((5, 3)) for name in ("TS_1/1", "TS_1/2", "TS_2/1", "TS_9/1")}
    path = project.root / "motion.star"
    write_trajectories(path, motion)
    assert len(load_optimisation_set(project.set, trajectories=path).trajectories) == 3
    write_trajectories(path, {**motion, "TS_1/2": np.zeros((4, 3))})
    with pytest.raises(DataError, match=r"does not fit[\s\S]*5 rows[\s\S]*found: 4 rows"):
        load_optimisation_set(project.set, trajectories=path)
    del motion["TS_2/1"]
    write_trajectories(path, motion)
    with pytest.raises(DataError, match=r"no trajectory[\s\S]*1 of 3 particles, first TS_2/1"):
        load_optimisation_set(project.set, trajectories=path)
    write_trajectories(path, {str(i): np.full((5, 3), float(i)) for i in range(3)})
    optset = load_optimisation_set(project.set, trajectories=path)
    assert optset.trajectories["TS_2/1"][0, 0] == 2
    assert any("numbered" in note for note in notes_of(optset))


def test_a_second_warp_export(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "data/cryocat_formats/motl_data/relion5"
    for packed, name in (("warp2_particles_matching", "matching"), ("warp2_matching_tomograms", "matching_tomograms")):
        (tmp_path / f"{name}.star").write_bytes(gzip.decompress((source / f"{packed}.star.gz").read_bytes()))
    (tmp_path / "set.star").write_bytes((source / "warp2_matching_optimisation_set.star").read_bytes())
    optset = load_optimisation_set(tmp_path / "set.star", need_images=False, coordinate_binning=5.06714)
    assert len(optset.particles) == 1218
    assert [series.n_tilts for series in optset.series] == [41] * 5
    size = np.array([series.tomogram_size for series in optset.series]).max(axis=0)
    assert (optset.particles.coordinate_px < size).all()
    assert any("extracted images not found" in note for note in notes_of(optset))
    assert optset.particles.image_files == ()
