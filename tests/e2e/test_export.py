"""`tiltwise export`: forms that can be read back keep positions to 0.01 px and angles to 0.001 degrees."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.helpers.refinements import simulated

from tiltwise.em import reconstruct
from tiltwise.em.options import ReconstructOptions
from tiltwise.errors import ConfigError, DataError
from tiltwise.export import run as export
from tiltwise.export.options import ExportOptions
from tiltwise.extract.source import ParticleSource
from tiltwise.geometry.rotations import euler_to_matrix
from tiltwise.interchange import run as interchange
from tiltwise.interchange.options import ImportOptions
from tiltwise.interchange.warp_particles import read_warp_particles
from tiltwise.io.mrc import read_map, write_map
from tiltwise.io.optimisation_set import load_optimisation_set
from tiltwise.io.star import read_star
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.progress import SilentProgress
from tiltwise.model import OptimisationSet
from tiltwise.model.poses import poses_of
from tiltwise.report.export import write_export_report
from tiltwise.sim.simulate import SimulatedData


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SimulatedData:
    return simulated(tmp_path_factory.mktemp("export"), particles=6)


def exported(data: SimulatedData, output: Path, form: str, **options: object) -> export.ExportResult:
    chosen = ExportOptions(input=data.optimisation_set, output=output, form=form, threads=1, **options)
    with FolderJob(chosen, ["tiltwise", "export"], SilentProgress()) as job:
        result = export.run(chosen, job, SilentProgress())
        write_export_report(job.path("report.html"), chosen, result, job.content)
    return result


def imported(output: Path, **options: object) -> OptimisationSet:
    chosen = ImportOptions(output=output, **options)
    with FolderJob(chosen, ["tiltwise", "import"], SilentProgress()) as job:
        return interchange.run(chosen, job, SilentProgress()).imported.optset


def same_projections(one: OptimisationSet, other: OptimisationSet) -> None:
    """Image positions to 0.01 px, orientations to 0.001 degrees."""
    (rotations, positions), (others, moved) = poses_of(one), poses_of(other)
    cosine = (np.einsum("pij,pij->p", rotations, others) - 1.0) / 2.0
    assert np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))).max() <= 1e-3
    tomogram = np.array(one.particles.tomogram, dtype=object)
    assert (tomogram == np.array(other.particles.tomogram, dtype=object)).all()
    for series, mate in zip(one.series, other.series, strict=True):
        rows = tomogram == series.name
        seen = series.project(positions[rows] / series.pixel_size_angstrom)[..., :2]
        again = mate.project(moved[rows] / mate.pixel_size_angstrom)[..., :2]
        assert np.abs(seen - again).max() <= 0.01


@pytest.mark.parametrize("form", ["relion5", "relion4"])
def test_sets_of_relion_come_back(data: SimulatedData, tmp_path: Path, form: str) -> None:
    exported(data, tmp_path / form, form)
    back = imported(tmp_path / "back", input=tmp_path / form / "optimisation_set.star", source=form)
    original = load_optimisation_set(data.optimisation_set)
    same_projections(original, back)
    np.testing.assert_array_equal(back.particles.half_set, original.particles.half_set)
    assert back.particles.name == original.particles.name


def test_relion4_and_back_through_relion5(data: SimulatedData, tmp_path: Path) -> None:
    exported(data, tmp_path / "four", "relion4")
    imported(tmp_path / "five", input=tmp_path / "four" / "optimisation_set.star")
    same_projections(
        load_optimisation_set(data.optimisation_set), load_optimisation_set(tmp_path / "five" / "optimisation_set.star")
    )


def test_table_comes_back(data: SimulatedData, tmp_path: Path) -> None:
    exported(data, tmp_path / "csv", "csv")
    original = load_optimisation_set(data.optimisation_set)
    back = imported(
        tmp_path / "back",
        input=tmp_path / "csv" / "particles.csv",
        tomograms=Path(original.paths["tomograms"]),
        coordinate_unit="angstrom",
        coordinate_origin="corner",
    )
    same_projections(original, back)
    with (tmp_path / "csv" / "particles.csv").open() as file:
        row = next(csv.DictReader(file))
    series = original.series[0]
    centre = np.array(series.tomogram_size) / 2 * series.pixel_size_angstrom
    found = [float(row[axis]) - float(row[f"{axis}_from_centre"]) for axis in "xyz"]
    np.testing.assert_allclose(found, centre, atol=1e-4)


@pytest.mark.parametrize("pixel", [None, 10.0])
def test_particles_of_warp_come_back(data: SimulatedData, tmp_path: Path, pixel: float | None) -> None:
    exported(data, tmp_path / "warp", "warp", coordinate_pixel_size=pixel)
    original = load_optimisation_set(data.optimisation_set)
    sizes = {one.name: one.pixel_size_angstrom for one in original.series}
    options = ImportOptions(input=tmp_path, output=tmp_path / "back", coordinate_pixel_size=pixel)
    draft = read_warp_particles(tmp_path / "warp" / "particles.star", sizes, options).draft
    assert draft.tomogram == original.particles.tomogram
    rotations, positions = poses_of(original)
    np.testing.assert_allclose(draft.coordinate * original.series[0].pixel_size_angstrom, positions, atol=0.01)
    assert draft.angles_deg is not None
    np.testing.assert_allclose(euler_to_matrix(draft.angles_deg), rotations, atol=1e-5)


def test_image_series(data: SimulatedData, tmp_path: Path) -> None:
    """Images are the raw ones, each with its direction of projection, its CTF at its depth, and its dose."""
    exported(data, tmp_path / "out", "cryodrgn", box=48, crop=32)
    original = load_optimisation_set(data.optimisation_set)
    source = ParticleSource(original, box_px=48, crop_px=32, binning=1.0, diameter_angstrom=None)
    block = next(iter(read_star(tmp_path / "out" / "particles.star")))
    stack, pixel = read_map(tmp_path / "out" / "particles.mrcs")
    assert pixel == pytest.approx(source.pixel_size)
    assert block.text("rlnImageName")[0] == "000001@particles.mrcs"
    assert len(block) == len(stack)
    rotations, positions = poses_of(original)
    groups = np.array(block.text("rlnGroupName"), dtype=object)
    for particle in (0, 7):
        rows = np.flatnonzero(groups == original.particles.name[particle])
        series = original.series[source.series_of[particle]]
        order = np.argsort(series.pre_exposure, kind="stable")
        assert len(rows) == len(order)  # all tilts see these particles
        np.testing.assert_allclose(block.floats("rlnCtfBfactor")[rows], -4.0 * series.pre_exposure[order], atol=1e-5)
        angles = np.stack([block.floats(f"rlnAngle{name}") for name in ("Rot", "Tilt", "Psi")], axis=1)[rows]
        expected = series.projection[order, :3, :3] @ rotations[particle]
        np.testing.assert_allclose(euler_to_matrix(angles), expected, atol=1e-5)
        loader = source.loader(particle)
        at = positions[particle] / series.pixel_size_angstrom
        depth = loader.depth_defocus(at, order)  # type: ignore[union-attr]
        np.testing.assert_allclose(
            block.floats("rlnDefocusU")[rows], series.defocus_u_angstrom[order] + depth, atol=0.01
        )
        _, images = loader.stack(at, premultiplied=False)  # type: ignore[union-attr]
        np.testing.assert_array_equal(stack[rows], images[order])


def test_scene_of_chimerax(data: SimulatedData, tmp_path: Path) -> None:
    exported(data, tmp_path / "out", "chimerax", map=data.reference)
    original = load_optimisation_set(data.optimisation_set)
    _, positions = poses_of(original)
    for series in original.series:
        rows = np.array(original.particles.tomogram, dtype=object) == series.name
        text = (tmp_path / "out" / f"{series.name}.bild").read_text()
        found = np.array([line.split()[1:4] for line in text.splitlines() if line.startswith(".arrow")], float)
        np.testing.assert_allclose(found, positions[rows], atol=0.01)
    opened = re.search(r'open "(.+)"', (tmp_path / "out" / "map.cxc").read_text())
    assert opened is not None
    assert Path(opened[1]).resolve() == Path(data.reference).resolve()


@pytest.fixture
def halves(data: SimulatedData, tmp_path: Path) -> tuple[Path, Path]:
    options = ReconstructOptions(input=data.optimisation_set, output=tmp_path / "maps", box=48, crop=32, threads=1)
    with FolderJob(options, ["tiltwise", "reconstruct"], SilentProgress()) as job:
        outputs = reconstruct.run(options, job, SilentProgress()).outputs
    return outputs["half1"], outputs["half2"]


def test_package_for_the_emdb(data: SimulatedData, halves: tuple[Path, Path], tmp_path: Path) -> None:
    exported(data, tmp_path / "out", "emdb", half1=halves[0], half2=halves[1])
    folder = tmp_path / "out"
    maps: dict[str, NDArray[np.float32]] = {}
    for name in ("map", "half_map_1", "half_map_2", "mask"):
        maps[name], _ = read_map(folder / f"emd_{name}.mrc")
    np.testing.assert_array_equal(maps["half_map_1"], read_map(halves[0])[0])
    np.testing.assert_allclose(maps["map"], (maps["half_map_1"] + maps["half_map_2"]) / 2, atol=1e-6)
    assert "<fsc title=" in (folder / "emd_fsc.xml").read_text()
    fields = json.loads((folder / "deposition.json").read_text())
    assert fields["particles"] == 12
    assert fields["tilt_series"] == 2
    inside = maps["map"] > fields["contour_level"]
    assert 0.001 < inside.mean() < 0.5
    assert "12 particles from 2 tilt series" in (folder / "methods.txt").read_text()
    assert (folder / "emd_image.png").read_bytes()[:4] == b"\x89PNG"


def test_bad_requests(data: SimulatedData, halves: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs the size of the images"):
        exported(data, tmp_path / "1", "cryodrgn")
    with pytest.raises(ConfigError, match="needs half maps"):
        exported(data, tmp_path / "2", "emdb")
    small = tmp_path / "small.mrc"
    write_map(small, np.random.default_rng(1).random((16, 16, 16)), 6.0)
    with pytest.raises(DataError, match="another grid"):
        exported(data, tmp_path / "3", "emdb", half1=halves[0], half2=halves[1], map=small)


def test_a_stack_that_fails_leaves_nothing(
    data: SimulatedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise DataError("spoiled")

    monkeypatch.setattr("tiltwise.io.stack_writer.check_finite", fail)
    with pytest.raises(DataError, match="spoiled"):
        exported(data, tmp_path / "out", "tomodrgn", box=48, crop=32)
    assert not list((tmp_path / "out").glob("*.mrcs*"))
