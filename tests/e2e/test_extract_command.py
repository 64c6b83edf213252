"""`tiltwise extract`: files RELION and `refine` can read, the same images as those cut from tilt series."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.helpers.refinements import simulated

from tiltwise.errors import ConfigError, DataError, OutputError
from tiltwise.export import extract
from tiltwise.export.options import ExtractOptions
from tiltwise.extract.source import ParticleSource
from tiltwise.io.mrc import read_header, read_map
from tiltwise.io.optimisation_set import load_optimisation_set, write_optimisation_set, write_particles
from tiltwise.io.stacks import read_pseudo_subtomogram, read_stack
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.progress import SilentProgress
from tiltwise.model.poses import poses_of
from tiltwise.report.extract import write_extract_report
from tiltwise.sim.simulate import SimulatedData

BOX, CROP = 48, 32


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SimulatedData:
    return simulated(tmp_path_factory.mktemp("extract"), particles=6)


def extracted(data: SimulatedData, output: Path, **options: object) -> extract.ExtractResult:
    values: dict[str, object] = {"input": data.optimisation_set, "box": BOX, "crop": CROP, "threads": 1}
    chosen = ExtractOptions(output=output, **(values | options))
    with FolderJob(chosen, ["tiltwise", "extract"], SilentProgress()) as job:
        result = extract.run(chosen, job, SilentProgress())
        write_extract_report(job.path("report.html"), chosen, result, job.content)
    return result


@pytest.mark.parametrize("stack2d", [True, False])
def test_the_written_set_has_the_same_poses(data: SimulatedData, tmp_path: Path, stack2d: bool) -> None:
    result = extracted(data, tmp_path / "out", stack2d=stack2d)
    read = load_optimisation_set(result.outputs["optimisation_set"])
    assert not read.particles.origin_angstrom.any()
    assert read.optics[0].image_size == CROP
    assert read.optics[0].image_dimensionality == (2 if stack2d else 3)
    rotations, positions = poses_of(read)
    expected = poses_of(load_optimisation_set(data.optimisation_set))
    np.testing.assert_allclose(rotations, expected[0], atol=1e-6)
    np.testing.assert_allclose(positions, expected[1], atol=1e-4)
    if stack2d:
        tilts, images = read_stack(read, 3)
        assert images.shape == (len(tilts), CROP, CROP)
    else:
        sums = read_pseudo_subtomogram(read, 3)
        assert sums.multiplicity is not None
        assert sums.data.shape == (CROP, CROP, CROP)


def test_images_read_back_are_those_of_the_tilt_series(data: SimulatedData, tmp_path: Path) -> None:
    """Where the tilt images are gone, the stacks give the likelihood the same data and CTFs."""
    moved = load_optimisation_set(extracted(data, tmp_path / "out").outputs["optimisation_set"])
    blind = replace(moved, series=tuple(replace(series, image_files=()) for series in moved.series))
    geometry = {"box_px": BOX, "crop_px": CROP, "binning": 1.0, "diameter_angstrom": None}
    still = np.zeros(3)
    for particle in range(len(moved.particles)):
        fresh = ParticleSource(moved, **geometry).load(particle, still)  # type: ignore[arg-type]
        read = ParticleSource(blind, **geometry).load(particle, still)  # type: ignore[arg-type]
        np.testing.assert_array_equal(fresh.tilts, read.tilts)
        assert np.linalg.norm(fresh.data - read.data) <= 1e-5 * np.linalg.norm(fresh.data)
        np.testing.assert_allclose(fresh.ctf2, read.ctf2, atol=1e-5)


def test_half_precision_is_close_and_half_as_large(data: SimulatedData, tmp_path: Path) -> None:
    single, half = (extracted(data, tmp_path / str(k), float16=bool(k)) for k in (0, 1))
    assert half.single_precision == 0
    paths = [Path(r.optset.particles.image_files[0]) for r in (single, half)]
    assert read_header(paths[1]).dtype == np.float16
    one, other = (read_map(path)[0] for path in paths)
    assert np.linalg.norm(one - other) <= 5e-4 * np.linalg.norm(one)
    assert paths[1].stat().st_size < 0.6 * paths[0].stat().st_size
    assert half.bytes_written == sum(Path(f).stat().st_size for f in half.optset.particles.image_files)


def test_orientations_can_be_turned_into_the_box(data: SimulatedData, tmp_path: Path) -> None:
    result = extracted(data, tmp_path / "out", stack2d=False, apply_orientations=True)
    read = load_optimisation_set(result.outputs["optimisation_set"])
    assert not read.particles.angles_deg.any()
    np.testing.assert_allclose(poses_of(read)[0], poses_of(load_optimisation_set(data.optimisation_set))[0], atol=1e-6)


def test_tilts_of_a_high_dose_are_left_out(data: SimulatedData, tmp_path: Path) -> None:
    series = load_optimisation_set(data.optimisation_set).series[0]
    limit = float(np.median(series.pre_exposure))
    result = extracted(data, tmp_path / "out", max_dose=limit)
    read = load_optimisation_set(result.outputs["optimisation_set"])
    assert not read.particles.visible[0][series.pre_exposure > limit].any()
    assert read_header(read.particles.image_files[0]).shape[0] == read.particles.visible[0].sum()


def test_raw_images_hold_what_the_premultiplied_lack(data: SimulatedData, tmp_path: Path) -> None:
    raw = extracted(data, tmp_path / "out", raw=True)
    assert not load_optimisation_set(raw.outputs["optimisation_set"]).optics[0].ctf_premultiplied
    premultiplied = extracted(data, tmp_path / "premultiplied")
    power = [np.var(read_map(r.optset.particles.image_files[0])[0]) for r in (raw, premultiplied)]
    assert power[0] > 1.5 * power[1]


def test_goes_on_where_it_stopped(data: SimulatedData, tmp_path: Path) -> None:
    """Files of a killed run that are complete stay, the missing are written, with the same bytes."""
    first = extracted(data, tmp_path / "out")
    files = [Path(name) for name in first.optset.particles.image_files]
    before = [file.read_bytes() for file in files]
    kept, lost = files[0].stat().st_mtime_ns, files[2]
    lost.unlink()
    again = extracted(data, tmp_path / "out")
    assert [Path(name).read_bytes() for name in again.optset.particles.image_files] == before
    assert files[0].stat().st_mtime_ns == kept


def test_particles_outside_are_left_out(data: SimulatedData, tmp_path: Path) -> None:
    optset = load_optimisation_set(data.optimisation_set)
    coordinates = optset.particles.coordinate_px.copy()
    coordinates[1] += 1e4
    write_particles(tmp_path / "p.star", optset, particles=replace(optset.particles, coordinate_px=coordinates))
    write_optimisation_set(tmp_path / "s.star", particles=tmp_path / "p.star", tomograms=optset.paths["tomograms"])
    result = extracted(data, tmp_path / "out", input=tmp_path / "s.star")
    assert result.left_out == 1
    assert optset.particles.name[1] not in load_optimisation_set(result.outputs["optimisation_set"]).particles.name


def test_bad_requests(data: SimulatedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="no particle is seen in enough tilts"):
        extracted(data, tmp_path / "1", min_frames=1000)
    with pytest.raises(ConfigError, match="sums of CTF-multiplied"):
        extracted(data, tmp_path / "2", raw=True, stack2d=False)
    with pytest.raises(ConfigError, match="no orientation"):
        extracted(data, tmp_path / "3", apply_orientations=True)
    monkeypatch.setattr(extract, "HEADER_BYTES", 10**18)
    with pytest.raises(OutputError, match="no room"):
        extracted(data, tmp_path / "4")
    assert not (tmp_path / "4" / "Subtomograms").exists()
