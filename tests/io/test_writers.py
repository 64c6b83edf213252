"""Writers change what changed and keep everything else."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiltwise.errors import DataError
from tiltwise.geometry.rotations import rotation_z
from tiltwise.io.mrc import write_map
from tiltwise.io.optimisation_set import (
    load_optimisation_set,
    write_optimisation_set,
    write_particles,
    write_tomograms,
)
from tiltwise.io.star import StarDocument, read_star
from tiltwise.model import OptimisationSet


def content(document: StarDocument) -> list[tuple[str, str, dict[str, list[str]]]]:
    return [(block.name, block.kind, block.columns) for block in document]


def write_all(optset: OptimisationSet, folder: Path) -> OptimisationSet:
    """Write a set to a folder and load it again."""
    folder.mkdir()
    write_tomograms(folder / "tomograms.star", optset)
    write_particles(folder / "particles.star", optset)
    write_optimisation_set(
        folder / "set.star", tomograms=folder / "tomograms.star", particles=folder / "particles.star"
    )
    return load_optimisation_set(folder / "set.star", need_images=False)


def test_an_unchanged_project_keeps_every_value(project: Any) -> None:
    out = project.root / "job"
    write_all(load_optimisation_set(project.set), out)
    assert content(read_star(out / "particles.star")) == content(read_star(project.root / "particles.star"))
    for name in ("TS_1", "TS_2"):
        written, read = (read_star(f / f"tilt_series/{name}.star") for f in (out, project.root))
        assert content(written) == content(read)
    tomograms, source = (
        read_star(out / "tomograms.star")["global"],
        read_star(project.root / "tomograms.star")["global"],
    )
    label = "rlnTomoTiltSeriesStarFile"
    assert tomograms.columns.pop(label) == [f"project/job/tilt_series/TS_{i}.star" for i in (1, 2)]
    source.drop(label)
    assert tomograms.columns == source.columns


def test_the_tutorial_project_is_written_unchanged(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "data/relion5_sta_tutorial_metadata/extracted"
    for job in ("Polish/job030", "Polish/job070"):
        particles = tmp_path / f"{job[-3:]}.star"
        particles.write_bytes(gzip.decompress((root / job / "particles.star.gz").read_bytes()))
        optset = load_optimisation_set(particles, tomograms=root / job / "tomograms.star", need_images=False)
        out = tmp_path / job[-3:]
        again = write_all(optset, out)
        assert content(read_star(out / "particles.star")) == content(read_star(particles))
        for series in optset.series:
            written, source = (read_star(f / f"tilt_series/{series.name}.star") for f in (out, root / job))
            assert content(written) == content(source)
            assert [b.comments for b in written] == [b.comments for b in source]
        for one, other in zip(optset.series, again.series, strict=True):
            np.testing.assert_array_equal(one.projection, other.projection)


@pytest.mark.parametrize(
    "name", ["data/real_70S_warptools_2dstacks/warptools_test_4-tomos_10-ptcls_box-32_angpix-12_optimisation_set.star",
             "golden/refine/optimisation_set.star"],
)  # fmt: skip
def test_other_real_sets_are_written_unchanged(shared_data: Path, tmp_path: Path, name: str) -> None:
    optset = load_optimisation_set(shared_data / name, need_images=False)
    again = write_all(optset, tmp_path / "out")
    for attribute in ("coordinate_px", "origin_angstrom", "angles_deg", "half_set", "image_files", "name", "tomogram"):
        np.testing.assert_array_equal(getattr(again.particles, attribute), getattr(optset.particles, attribute))
    assert len(again.particles.visible) == len(optset.particles.visible)
    for one, other in zip(optset.series, again.series, strict=True):
        for attribute in one.__dataclass_fields__:
            np.testing.assert_array_equal(getattr(one, attribute), getattr(other, attribute), err_msg=attribute)
    source = read_star(optset.paths["particles"])["particles"]
    written = read_star(tmp_path / "out/particles.star")["particles"]
    # Image names were relative to a folder that is not above the new file; all else is as it was.
    source.drop("rlnImageName")
    written.drop("rlnImageName")
    assert written.columns == source.columns


def test_only_changed_values_of_particles_are_rewritten(project: Any, tmp_path: Path) -> None:
    optset = load_optimisation_set(project.set)
    old = optset.particles
    angles, origins, coordinates = old.angles_deg.copy(), old.origin_angstrom.copy(), old.coordinate_px.copy()
    angles[1, 2], origins[2, 0], coordinates[0, 1] = -12.3456789, 1.25, coordinates[0, 1] + 1
    half = old.half_set[::-1].copy()
    half[0] = 2
    changed = replace(old, angles_deg=angles, origin_angstrom=origins, coordinate_px=coordinates, half_set=half)
    write_particles(
        tmp_path / "p.star",
        replace(optset, particles=changed),
        extra_columns={
            "rlnLogLikeliContribution": [-1234567.5, 2.0, 3.0],
            "rlnNrOfSignificantSamples": [1, 2, 3],
            "rlnMystery": ["x", "y z", ""],
            "rlnSomeVector": [np.array([1.5, 2]), np.zeros(0), [3]],
        },
    )
    block = read_star(tmp_path / "p.star")["particles"]
    assert block.columns["rlnAnglePsi"] == ["-30.00000", "-12.345679", "90.000000"]
    assert block.columns["rlnAngleRot"] == ["10.000000", "40.000000", "70.000000"]
    assert block.columns["rlnOriginXAngst"] == ["0.000000", "0.000000", "1.250000"]
    assert block.columns["rlnOriginYAngst"] == ["0.000000"] * 3  # readers want all three, or none
    assert block.columns["rlnCenteredCoordinateYAngst"] == ["-2.000000", "8.000000", "1e-3"]
    assert block.columns["rlnCenteredCoordinateXAngst"] == ["10.000000", "-20.00000", "0.000000"]
    assert block.columns["rlnRandomSubset"] == ["2", "2", "1"]
    assert block.columns["rlnLogLikeliContribution"][0] == "-1234567.500000"
    assert block.columns["rlnNrOfSignificantSamples"] == ["1", "2", "3"]
    assert block.columns["rlnMystery"] == ["x", '"y z"', '""']
    assert block.columns["rlnSomeVector"] == ["[1.5,2]", "[]", "[3]"]
    with pytest.raises(ValueError, match="2 values for 3"):
        write_particles(tmp_path / "p.star", optset, extra_columns={"rlnX": [1, 2]})


def test_positions_and_angles_survive_to_a_millionth(project: Any, tmp_path: Path) -> None:
    optset = load_optimisation_set(project.set)
    random = np.random.default_rng(11)
    changed = replace(
        optset.particles,
        coordinate_px=random.uniform(0, 4000, (3, 3)),
        angles_deg=random.uniform(-180, 180, (3, 3)),
        subtomogram_angles_deg=random.uniform(-180, 180, (3, 3)),
        origin_angstrom=random.uniform(-10, 10, (3, 3)),
    )
    write_particles(tmp_path / "p.star", optset, particles=changed)
    again = load_optimisation_set(tmp_path / "p.star", tomograms=optset.paths["tomograms"]).particles
    # Six decimals in Å and degrees.
    for attribute in ("coordinate_px", "angles_deg", "subtomogram_angles_deg", "origin_angstrom"):
        np.testing.assert_allclose(getattr(again, attribute), getattr(changed, attribute), rtol=0, atol=0.51e-6)


def test_selections_in_another_order(project: Any, tmp_path: Path) -> None:
    optset = load_optimisation_set(project.set)
    old = optset.particles
    rows = [2, 0]
    picked = replace(
        old,
        name=tuple(old.name[i] for i in rows),
        tomogram=tuple(old.tomogram[i] for i in rows),
        **{
            field: getattr(old, field)[rows]
            for field in (
                "coordinate_px",
                "origin_angstrom",
                "angles_deg",
                "subtomogram_angles_deg",
                "half_set",
                "optics_index",
            )
        },
    )
    write_particles(tmp_path / "p.star", replace(optset, particles=picked))
    block, source = read_star(tmp_path / "p.star")["particles"], read_star(project.root / "particles.star")["particles"]
    assert block.columns == source.take(rows).columns
    with pytest.raises(DataError, match=r"not in the file that was read[\s\S]*first new/1"):
        write_particles(tmp_path / "p.star", replace(optset, particles=replace(old, name=("new/1", *old.name[1:]))))


def test_half_sets_are_all_known_or_absent(project: Any, tmp_path: Path) -> None:
    optset = load_optimisation_set(project.set)
    some = replace(optset.particles, half_set=np.array([1, 0, 2]))
    with pytest.raises(DataError, match="half sets of some particles"):
        write_particles(tmp_path / "p.star", optset, particles=some)
    none = replace(optset.particles, half_set=np.zeros(3, np.int64))
    write_particles(tmp_path / "p.star", optset, particles=none)
    assert "rlnRandomSubset" not in read_star(tmp_path / "p.star")["particles"]


def test_results_that_are_not_finite_are_not_written(project: Any, tmp_path: Path) -> None:
    optset = load_optimisation_set(project.set)
    bad = replace(optset.particles, angles_deg=np.full((3, 3), np.nan))
    with pytest.raises(DataError, match="NaN"):
        write_particles(tmp_path / "p.star", optset, particles=bad)
    assert not (tmp_path / "p.star").exists()


def test_extracted_images_are_named(project: Any) -> None:
    """What an extraction writes: image names, visible tilts, optics, and the flag of 2D stacks."""
    optset = load_optimisation_set(project.set)
    out = project.root / "Extract"
    files = []
    out.mkdir()
    for i in range(3):
        write_map(out / f"{i}.mrcs", np.ones((4, 8, 8)), 4.0)
        files.append(str(out / f"{i}.mrcs"))
    visible = tuple(np.array([True, True, False, True, True]) for _ in range(3))
    optics = replace(
        optset.optics[0],
        image_pixel_size_angstrom=4.0,
        image_size=8,
        image_dimensionality=2,
        binning=2.0,
        ctf_premultiplied=True,
        odd_zernike=np.array([0.5, 0.25]),
    )
    extracted = replace(
        optset,
        particles=replace(optset.particles, image_files=tuple(files), visible=visible),
        optics=(optics,),
        stacks_are_2d=True,
    )
    write_particles(out / "particles.star", extracted)
    document = read_star(out / "particles.star")
    assert document["general"].columns == {"rlnTomoSubTomosAre2DStacks": ["1"]}
    assert document["particles"].columns["rlnImageName"] == [f"project/Extract/{i}.mrcs" for i in range(3)]
    assert document["particles"].columns["rlnTomoVisibleFrames"] == ["[1,1,0,1,1]"] * 3
    again = load_optimisation_set(out / "particles.star", tomograms=optset.paths["tomograms"])
    assert again.stacks_are_2d
    assert again.particles.image_files == tuple(files)
    for field in ("image_size", "binning", "ctf_premultiplied", "image_dimensionality", "image_pixel_size_angstrom"):
        assert getattr(again.optics[0], field) == getattr(optics, field)
    assert again.optics[0].odd_zernike.tolist() == [0.5, 0.25]
    # And back: without images the columns go.
    bare = replace(again, particles=replace(again.particles, image_files=(), visible=()), stacks_are_2d=False)
    write_particles(out / "bare.star", bare)
    block = read_star(out / "bare.star")["particles"]
    assert "rlnImageName" not in block
    assert "rlnTomoVisibleFrames" not in block


def test_fresh_picks_get_names_and_no_optics(project: Any, tmp_path: Path) -> None:
    def only_picks(document: Any) -> None:
        document.blocks = [document["particles"]]
        document["particles"].drop("rlnOpticsGroup", "rlnTomoParticleName", "rlnRandomSubset")

    project.edit("particles.star", only_picks)
    optset = load_optimisation_set(project.set)
    write_particles(tmp_path / "p.star", optset)
    document = read_star(tmp_path / "p.star")
    assert [block.name for block in document] == ["particles"]
    assert document["particles"].text("rlnTomoParticleName") == ["TS_1/1", "TS_1/2", "TS_2/1"]
    assert "rlnOpticsGroup" not in document["particles"]
    other = replace(optset, optics=(replace(optset.optics[0], even_zernike=np.array([1.0])),))
    write_particles(tmp_path / "q.star", other)
    document = read_star(tmp_path / "q.star")
    assert [block.name for block in document] == ["optics", "particles"]
    assert document["particles"].columns["rlnOpticsGroup"] == ["1", "1", "1"]


def test_only_changed_values_of_tilts_are_rewritten(project: Any, tmp_path: Path) -> None:
    optset = load_optimisation_set(project.set)
    first = optset.series[0]
    defocus = first.defocus_u_angstrom.copy()
    defocus[2] += 0.125
    projection = first.projection.copy()
    projection[3, 0, 3] += 1.5
    changed = replace(
        first, defocus_u_angstrom=defocus, phase_shift_deg=np.full(5, 90.0), projection=projection, hand=1.0
    )
    write_tomograms(tmp_path / "t.star", optset, series=(changed, optset.series[1]))
    block = read_star(tmp_path / "tilt_series/TS_1.star")["TS_1"]
    source = read_star(project.root / "tilt_series/TS_1.star")["TS_1"]
    assert block.columns["rlnDefocusU"] == [
        "20000.000000",
        "20100.000000",
        "20200.125000",
        "20300.000000",
        "20400.000000",
    ]
    assert block.columns["rlnPhaseShift"] == ["90.000000"] * 5
    assert block.columns["rlnTomoXShiftAngst"] == ["-2.5", "-1.5", "0.5", "4.500000", "2.5"]
    assert block.columns["rlnTomoZRot"][:3] == ["85.3"] * 3
    assert "rlnCtfBfactor" not in block
    for label in ("rlnSomethingElse", "rlnDefocusV", "rlnCtfScalefactor"):
        assert block.columns[label] == source.columns[label]
    table = read_star(tmp_path / "t.star")["global"]
    assert table.columns["rlnTomoHand"] == ["1.000000", "-1.00000"]
    assert table.columns["rlnNote"] == ['"keep me"', "001"]
    again = load_optimisation_set(optset.paths["particles"], tomograms=tmp_path / "t.star")
    np.testing.assert_allclose(again.series[0].projection, projection, atol=1e-6)
    assert again.series[0].image_files == first.image_files
    with pytest.raises(ValueError, match="4 tilts, 5 were read"):
        write_tomograms(tmp_path / "t.star", optset, series=(replace(first, projection=projection[:4]),))
    with pytest.raises(DataError, match="not in the set that was read"):
        write_tomograms(tmp_path / "t.star", optset, series=(replace(first, name="TS_7"),))


def test_part_of_a_tomogram_set(project: Any, tmp_path: Path) -> None:
    optset = load_optimisation_set(project.set)
    write_tomograms(tmp_path / "t.star", optset, series=optset.series[1:])
    assert read_star(tmp_path / "t.star")["global"].text("rlnTomoName") == ["TS_2"]
    assert [p.name for p in (tmp_path / "tilt_series").iterdir()] == ["TS_2.star"]


def test_matrices_beside_angles_do_not_survive_a_change(shared_data: Path, project: Any, tmp_path: Path) -> None:
    """RELION-5 would prefer the stale matrices."""
    optset = load_optimisation_set(project.set)

    def add(document: Any) -> None:
        for row, axis in enumerate("XYZW"):
            document["TS_1"].set_vectors(f"rlnTomoProj{axis}", optset.series[0].projection[:, row])

    project.edit("tilt_series/TS_1.star", add)
    optset = load_optimisation_set(project.set)
    write_tomograms(tmp_path / "same.star", optset)
    assert "rlnTomoProjX" in read_star(tmp_path / "tilt_series/TS_1.star")["TS_1"]
    projection = optset.series[0].projection.copy()
    turn = np.eye(4)
    turn[:3, :3] = rotation_z(0.5)
    changed = replace(optset.series[0], projection=projection @ turn)
    write_tomograms(tmp_path / "new.star", optset, series=(changed, optset.series[1]))
    block = read_star(tmp_path / "tilt_series/TS_1.star")["TS_1"]
    assert "rlnTomoProjX" not in block
    assert "rlnTomoXTilt" in block
    again = load_optimisation_set(optset.paths["particles"], tomograms=tmp_path / "new.star")
    # Six decimals of a degree at 100 px, and depth offsets are not kept by angles.
    np.testing.assert_allclose(again.series[0].projection[:, :2], changed.projection[:, :2], atol=5e-6)
    mirrored = replace(optset.series[0], projection=projection * np.array([1.0, 1.0, -1.0, 1.0])[:, None])
    with pytest.raises(DataError, match="cannot be written as RELION-5 angles"):
        write_tomograms(tmp_path / "bad.star", optset, series=(mirrored, optset.series[1]))


def test_relion4_sets_stay_relion4(tmp_path: Path) -> None:
    lines = "\n".join(
        f"[0.5,-0.8660254037844386,0,{10 + t}] [0.8660254037844386,0.5,0,20] [0,0,1,-3] [0,0,0,1] 2e4 1.9e4 30 {t}"
        for t in range(2)
    )
    labels = [f"rlnTomoProj{a}" for a in "XYZW"] + [
        "rlnDefocusU",
        "rlnDefocusV",
        "rlnDefocusAngle",
        "rlnMicrographPreExposure",
    ]
    table = "\n".join(f"_{label} #{i}" for i, label in enumerate(labels, 1))
    (tmp_path / "t.star").write_text(
        "data_global\n\nloop_\n_rlnTomoName\n_rlnTomoTiltSeriesName\n_rlnTomoSizeX\n_rlnTomoSizeY\n_rlnTomoSizeZ\n_rlnTomoHand\n"
        "_rlnTomoTiltSeriesPixelSize\n_rlnVoltage\n_rlnSphericalAberration\n_rlnAmplitudeContrast\n"
        "a raw.mrc 100 100 50 1 2 300 2.7 .1\nb raw.mrc 100 100 50 1 2 300 2.7 .1\n\n"
        f"data_a\n\nloop_\n{table}\n{lines}\n\ndata_b\n\nloop_\n{table}\n{lines}\n\ndata_other\n\n_rlnX 1\n"
    )
    (tmp_path / "p.star").write_text(
        "data_particles\nloop_\n_rlnTomoName\n_rlnCoordinateX\n_rlnCoordinateY\n_rlnCoordinateZ\na 1 2 3.25\n"
    )
    optset = load_optimisation_set(tmp_path / "p.star", tomograms=tmp_path / "t.star", need_images=False)
    out = tmp_path / "out"
    again = write_all(optset, out)
    assert content(read_star(out / "tomograms.star")) == content(read_star(tmp_path / "t.star"))
    assert not (out / "tilt_series").exists()
    assert read_star(out / "particles.star")["particles"].columns["rlnCoordinateZ"] == ["3.25"]
    assert again.particles.coordinate_px.tolist() == [[2.0, 3.0, 4.25]]
    projection = optset.series[1].projection.copy()
    projection[1, 1, 3] = 20.123456789
    moved = replace(optset.particles, coordinate_px=np.array([[5.5, 3.0, 4.25]]))
    changed = replace(
        optset, series=(optset.series[0], replace(optset.series[1], projection=projection)), particles=moved
    )
    again = write_all(changed, tmp_path / "out2")
    block = read_star(tmp_path / "out2/tomograms.star")["b"]
    assert block.columns["rlnTomoProjY"] == [
        "[0.8660254037844386,0.5,0,20]",
        "[0.866025403784,0.5,0,20.123456789]",
    ]
    assert block.columns["rlnTomoProjX"][0] == "[0.5,-0.8660254037844386,0,10]"
    assert read_star(tmp_path / "out2/particles.star")["particles"].columns["rlnCoordinateX"] == ["4.500000"]
    assert again.particles.coordinate_px.tolist() == [[5.5, 3.0, 4.25]]
    # 2D stacks are RELION-5's, whose rule for pixel coordinates is another: they become centred.
    (tmp_path / "out3").mkdir()
    write_particles(tmp_path / "out3/particles.star", replace(changed, stacks_are_2d=True))
    block = read_star(tmp_path / "out3/particles.star")["particles"]
    assert "rlnCoordinateX" not in block
    again = load_optimisation_set(tmp_path / "out3/particles.star", tomograms=tmp_path / "t.star", need_images=False)
    np.testing.assert_allclose(again.particles.coordinate_px, [[5.5, 3.0, 4.25]], atol=1e-6)


def test_a_set_that_was_not_read_from_files(project: Any, tmp_path: Path) -> None:
    optset = load_optimisation_set(project.set)
    made = replace(optset, documents=None)
    again = write_all(made, tmp_path / "new")
    assert read_star(tmp_path / "new/tomograms.star")["global"].comments == ["# version 50001"]
    assert again.particles.name == optset.particles.name
    assert again.stacks_are_2d is False
    np.testing.assert_allclose(again.particles.coordinate_px, optset.particles.coordinate_px, atol=1e-6)
    np.testing.assert_allclose(again.particles.angles_deg, optset.particles.angles_deg, atol=1e-6)
    for one, other in zip(optset.series, again.series, strict=True):
        np.testing.assert_allclose(other.projection, one.projection, atol=2e-6)
        assert other.image_files == one.image_files
        np.testing.assert_array_equal(other.image_index, one.image_index)
        assert (other.hand, other.tomogram_size, other.image_size) == (one.hand, one.tomogram_size, one.image_size)
