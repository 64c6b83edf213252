"""A domain that rocks, refined and exported with the rest of the particle taken off the images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.refinements import Listener, assert_same_files, refine_options, run_refine, simulated
from tiltwise import api
from tiltwise.em import focus as focusing
from tiltwise.em import memory
from tiltwise.em.data import load_set
from tiltwise.em.memory import plan_refine
from tiltwise.em.refine import RefineResult
from tiltwise.errors import Aborted, ConfigError, DataError, ShapeError
from tiltwise.extract.source import ParticleSource
from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.io.documents import Documents
from tiltwise.io.mrc import read_map, write_map
from tiltwise.io.optimisation_set import load_optimisation_set, table_of, with_columns, write_particles
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.manifest import read_manifest
from tiltwise.jobs.progress import SilentProgress
from tiltwise.kernels.select import load_backend
from tiltwise.maps.cross_fit import bytes_of_folds
from tiltwise.maps.focus import Frame
from tiltwise.maps.inputs import source_of
from tiltwise.maps.whole import PART_LABELS, Whole
from tiltwise.model.poses import poses_of
from tiltwise.post.mask import widened
from tiltwise.selection.expand import with_mates
from tiltwise.sim.score import score_poses
from tiltwise.sim.simulate import SimulatedData
from tiltwise.spectral.filters import low_pass

PIXEL = 6.0


@dataclass(frozen=True)
class Rocking:
    """Particles with a domain that rocks, whose poses are a few degrees off, and a mask of it."""

    data: SimulatedData
    mask: Path

    def run(self, folder: Path, listener: SilentProgress | None = None, **changes: Any) -> RefineResult:
        values = {"reference": self.data.true_map, "focus": self.mask, "sigma_ang": 5.0, "iterations": 2}
        return run_refine(self.data, folder, listener, **{**values, **changes})


@pytest.fixture(scope="module")
def rocking(tmp_path_factory: pytest.TempPathFactory) -> Rocking:
    folder = tmp_path_factory.mktemp("rocking")
    data = simulated(
        folder, 16, hinge=10.0, particle_diameter=130.0, snr=1.0, error_orientation=2.0, error_position=2.0, seed=3
    )
    truth, _ = read_map(data.truth.parent / "domain.mrc")
    smooth = low_pass(truth, PIXEL, 25.0)
    mask = folder / "focus.mrc"
    write_map(mask, widened(smooth > 0.2 * smooth.max(), 1.0, 3.0), PIXEL)
    return Rocking(data, mask)


@pytest.fixture(scope="module")
def focused(rocking: Rocking, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Job folder of the refinement that others are compared with."""
    folder = tmp_path_factory.mktemp("focused") / "job"
    rocking.run(folder)
    return folder


def test_domain_is_found_in_its_own_box(rocking: Rocking, focused: Path, tmp_path: Path) -> None:
    """Orientations are found better than with a mask alone: the rest of the particle pulls them to its own."""
    data = rocking.data
    frame = Frame.of(read_map(rocking.mask)[0], PIXEL, "mask")
    assert np.linalg.norm(frame.offset_px) > 2
    true_set = load_optimisation_set(
        tomograms=data.truth.parent / "tomograms.star",
        particles=data.truth.parent / "domain_particles.star",
        need_images=False,
    )
    truth = frame.particles(true_set)
    start = frame.particles(load_optimisation_set(data.optimisation_set, need_images=False))
    found = load_optimisation_set(focused / "run_optimisation_set.star", need_images=False)
    # coordinates are the centres of domains of particles that do not bend
    assert np.allclose(found.particles.coordinate_px, start.particles.coordinate_px, atol=1e-3)
    masked = rocking.run(tmp_path / "job", subtract=False).optset
    crowd = rocking.run(tmp_path / "crowd", subtract_neighbours=True)
    before, after, alone, apart = (score_poses(one, truth) for one in (start, found, masked, crowd.optset))
    # 3.7° of 4.9°, and 4.7° with the mask alone; 0.96 Å of 3.3 Å, and 0.70 Å without neighbours
    assert np.median(after.angle_deg) < 0.85 * np.median(before.angle_deg)
    assert np.median(after.angle_deg) < 0.9 * np.median(alone.angle_deg)
    assert np.median(after.distance) < 0.5 * np.median(before.distance)
    assert np.median(apart.distance) < 0.9 * np.median(after.distance)
    assert crowd.focus is not None
    assert crowd.focus.removal is not None
    assert abs(crowd.focus.removal.scale - 1.0) < 0.02


def test_bytes_do_not_depend_on_threads_and_survive_a_stop(
    rocking: Rocking, focused: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor on the memory that is free when it is continued: folds are those it began with."""
    folder = tmp_path / "job"
    with pytest.raises(Aborted):
        rocking.run(folder, Listener(folder, stop=1), threads=2)
    plan = plan_refine(32, 2, None, folds=5)
    monkeypatch.setattr(focusing, "free_memory_bytes", lambda: 4 * bytes_of_folds(32, 3))
    monkeypatch.setattr(memory, "free_memory_bytes", lambda: 2 * plan.total - 2)
    again = Listener(folder)
    rocking.run(folder, again)
    assert "continues after iteration 1" in again.notes
    assert_same_files(folder, focused)
    warnings = " ".join(read_manifest(folder)["warnings"])  # type: ignore[index]
    assert "memory for maps of the rest in 3 folds, and the run began with 5" in warnings
    assert "the run began with 5 and needs more" in warnings


def test_a_part_of_a_part_is_taken_off_the_whole(rocking: Rocking, focused: Path, tmp_path: Path) -> None:
    """--focus on what --focus has left: the rest is that of the consensus, as if the first had not been."""
    backend, progress = load_backend("auto"), SilentProgress()
    first = refine_options(rocking.data, tmp_path / "first", focus=rocking.mask)
    again = refine_options(
        rocking.data,
        tmp_path / "again",
        input=focused / "run_optimisation_set.star",
        focus=focused / "run_focus_mask.mrc",
        reference=None,
        ini_high=None,
        healpix_order=None,
    )
    found = []
    for options in (first, again):
        with FolderJob(options, ["tiltwise", "refine"], progress) as job:
            moved, halves, focus = focusing.focused(options, load_set(options), backend, 1, job, progress)
            write_particles(job.path("particles.star"), moved)
        assert focus is not None
        assert focus.consensus is not None
        assert focus.removal is not None
        found.append((focus, focus.consensus, focus.removal, halves))
    (one, before, taken, halves), (two, after, still_taken, same) = found
    assert np.array_equal(halves, same)
    assert np.linalg.norm(one.offset_angstrom) > 10.0
    # masks in the middle of their boxes stay there, but for a voxel
    np.testing.assert_allclose(two.offset_angstrom, one.offset_angstrom + two.frame.offset_angstrom, atol=1e-4)
    assert np.abs(two.frame.offset_px).max() <= 1
    assert before.keys == after.keys
    for key, rest in before.rest.items():
        # poses in files are rounded
        assert np.abs(after.rest[key] - rest).max() < 1e-3 * np.abs(rest).max()
    assert abs(taken.scale - still_taken.scale) < 0.02
    whole = load_optimisation_set(rocking.data.optimisation_set, need_images=False)
    for job_folder in (focused, tmp_path / "again"):
        name = "run_data.star" if job_folder == focused else "particles.star"
        own = load_optimisation_set(tomograms=whole.paths["tomograms"], particles=job_folder / name, need_images=False)
        assert Whole.of(own).known
        back = Whole.of(own).placed(own)
        for value, expected in zip(poses_of(back), poses_of(whole), strict=True):
            np.testing.assert_allclose(value, expected, atol=1e-4)


def test_sets_of_parts_that_make_no_sense_are_refused(focused: Path) -> None:
    own = load_optimisation_set(focused / "run_optimisation_set.star", need_images=False)
    far = replace(own, particles=replace(own.particles, coordinate_px=own.particles.coordinate_px + 50.0))
    with pytest.raises(DataError, match="not where the whole particles have their parts"):
        Whole.of(far).refuse_elsewhere(far, 100.0)
    Whole.of(own).refuse_elsewhere(own, 100.0)
    moved = np.arange(len(own.particles)) % 2.0
    with pytest.raises(DataError, match="centred on different parts"):
        Whole.of(with_columns(own, {PART_LABELS[0]: moved}))
    block = table_of(own).copy()
    block.drop(PART_LABELS[0])
    documents = own.documents
    assert isinstance(documents, Documents)
    less = replace(own, documents=replace(documents, particle_table=documents.particle_table.replace(block)))
    with pytest.raises(DataError, match="not known what the particles are parts of"):
        Whole.of(less)
    with pytest.raises(DataError, match="have not their symmetry"):
        with_mates(own, symmetry_matrices("C3"))


def test_mates_of_parts_on_the_axes_take_the_whole_with_them(rocking: Rocking, tmp_path: Path) -> None:
    options = refine_options(rocking.data, tmp_path / "job", focus=rocking.mask, focus_center="box", symmetry="C3")
    backend, group = load_backend("auto"), symmetry_matrices("C3")
    before = load_set(options)
    with FolderJob(options, ["tiltwise", "refine"], SilentProgress()) as job:
        parts, _, _ = focusing.focused(options, before, backend, 1, job, SilentProgress(), subtract=False)
    # turned a little, as a refinement leaves them
    turned = parts.particles.angles_deg + np.array([5.0, 3.0, -2.0])
    write_particles(tmp_path / "parts.star", replace(parts, particles=replace(parts.particles, angles_deg=turned)))
    tomograms = before.paths["tomograms"]
    parts = load_optimisation_set(tomograms=tomograms, particles=tmp_path / "parts.star", need_images=False)
    expanded, columns = with_mates(parts, group)
    write_particles(tmp_path / "mates.star", expanded, extra_columns=columns)
    found = load_optimisation_set(tomograms=tomograms, particles=tmp_path / "mates.star", need_images=False)
    for own, expected in ((found, parts), (Whole.of(found).placed(found), before)):
        (rotation, position), (old, place) = poses_of(own), poses_of(expected)
        for mate, operation in enumerate(group):
            np.testing.assert_allclose(rotation[mate::3], old @ operation, atol=1e-5)
            np.testing.assert_allclose(position[mate::3], place, atol=1e-4)


def test_pseudo_subtomograms_are_made_of_what_is_left(rocking: Rocking, tmp_path: Path) -> None:
    result, plain = (
        rocking.run(
            tmp_path / name, data_model="pseudo3d", iterations=1, subtract=subtract, skip_align=True, sigma_ang=None
        )
        for name, subtract in (("rest", True), ("all", False))
    )
    assert held(rocking, plain) > 0.4
    assert abs(held(rocking, result)) < 0.5 * held(rocking, plain)


def held(rocking: Rocking, found: RefineResult) -> float:
    """Correlation of a map in the box of the domain with the rest of the particle."""
    truth, _ = read_map(rocking.data.truth.parent / "still.mrc")
    still = Frame.of(read_map(rocking.mask)[0], PIXEL, "mask").moved(truth)
    density = np.mean(found.halves, axis=0)
    return float((density * still).sum() / np.sqrt((density**2).sum() * (still**2).sum()))


def test_exported_images_are_those_without_the_rest(
    rocking: Rocking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`tiltwise subtract` and its report; the map of its stacks against that of images with everything."""
    values: dict[str, Any] = {"input": rocking.data.optimisation_set, "box": 48, "crop": 32, "threads": 1}
    progress = SilentProgress()
    result = api.subtract(output=tmp_path / "cut", focus=rocking.mask, progress=progress, **values)
    part = result.extracted.optset
    start = Frame.of(read_map(rocking.mask)[0], PIXEL, "mask").particles(
        load_optimisation_set(rocking.data.optimisation_set, need_images=False)
    )
    assert np.allclose(part.particles.coordinate_px, start.particles.coordinate_px, atol=1e-6)
    assert (part.particles.half_set > 0).all()
    stacks = load_optimisation_set(result.extracted.outputs["optimisation_set"])
    hidden = replace(stacks, series=tuple(replace(one, image_files=()) for one in stacks.series))
    source = ParticleSource(hidden, box_px=48, crop_px=32, binning=1.0, diameter_angstrom=None)
    assert source.from_stacks
    own = ParticleSource(part, box_px=48, crop_px=32, binning=1.0, diameter_angstrom=None)
    plain = [own.load(i, np.zeros(3)) for i in range(4)]
    own.rest = result.focus.rest(own, load_backend("auto"))
    for particle in range(4):
        found, expected = (one.load(particle, np.zeros(3)).data for one in (source, own))
        assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
        assert np.abs(expected - plain[particle].data).max() > 0.1 * np.abs(expected).max()
    page = (tmp_path / "cut" / "report.html").read_text()
    assert "Power that was subtracted" in page
    # one image file is lost, and there is less memory: it is predicted with the folds of the others
    lost = Path(stacks.particles.image_files[0])
    before = lost.read_bytes()
    lost.unlink()
    monkeypatch.setattr(focusing, "free_memory_bytes", lambda: 4 * bytes_of_folds(32, 3))
    again = api.subtract(output=tmp_path / "cut", focus=rocking.mask, progress=progress, **values)
    assert again.focus.rest_folds == result.focus.rest_folds == 5
    assert lost.read_bytes() == before
    with pytest.raises(ConfigError, match="--apply-offsets"):
        api.subtract(output=tmp_path / "b", focus=rocking.mask, progress=progress, apply_offsets=False, **values)


def test_workers_take_the_same_off(rocking: Rocking, tmp_path: Path) -> None:
    """What a process writes and another reads predicts the same, to the bit."""
    options = refine_options(rocking.data, tmp_path / "job", focus=rocking.mask, subtract_neighbours=True)
    backend = load_backend("auto")
    with FolderJob(options, ["tiltwise", "refine"], SilentProgress()) as job:
        moved, _, focus = focusing.focused(options, load_set(options), backend, 1, job, SilentProgress())
    assert focus is not None
    focus.share(tmp_path / "focus.npz")
    again = focusing.shared(options, load_set(options), tmp_path / "focus.npz")
    assert np.array_equal(again.optset.particles.coordinate_px, moved.particles.coordinate_px)
    source = source_of(options, moved)
    images = []
    for one in (None, focus, again):
        source.rest = None if one is None else one.rest(source, backend)
        images.append([source.load(i, np.zeros(3)).data for i in (0, 20)])
    plain, expected, found = images
    for one, other, untouched in zip(found, expected, plain, strict=True):
        assert np.array_equal(one, other)
        assert np.abs(other - untouched).max() > 0.1 * np.abs(untouched).max()
    assert focus.consensus is not None
    assert focus.bytes_kept == 2 * 8 * len(focus.consensus.rest) * 64 * 64 * 33


def test_bad_input_is_explained(rocking: Rocking, tmp_path: Path) -> None:
    data, mask = rocking.data, read_map(rocking.mask)[0]

    def options(**changes: Any) -> None:
        refine_options(data, tmp_path / "job", **{"focus": rocking.mask, **changes})

    for changes, words in (
        ({"focus": None, "rest": rocking.mask}, "no --focus"),
        ({"focus": None, "subtract": False}, "no --focus"),
        ({"mask": rocking.mask}, "two masks"),
        ({"symmetry": "C3"}, "not the symmetry"),
        ({"subtract": False, "rest": rocking.mask}, "takes nothing off"),
        ({"focus": None, "subtract_neighbours": True}, "no --focus"),
        ({"subtract_neighbours": True, "particle_diameter": None}, "how large a neighbour is"),
    ):
        with pytest.raises(ConfigError) as caught:
            options(**changes)
        assert words in str(caught.value)
    options(symmetry="C3", focus_center="box")
    options(solvent_correct_fsc=True)
    small = tmp_path / "small.mrc"
    write_map(small, mask[4:-4, 4:-4, 4:-4], 0.0)
    with pytest.raises(ShapeError, match=r"--focus .*small") as caught_shape:
        rocking.run(tmp_path / "a", focus=small)
    assert "24 x 24 x 24" in str(caught_shape.value)
    empty = np.zeros_like(mask)
    empty[14:17, 14:17, 2:5] = 1.0
    write_map(tmp_path / "beside.mrc", empty, PIXEL)
    with pytest.raises(DataError, match="misses the particle"):
        rocking.run(tmp_path / "b", focus=tmp_path / "beside.mrc", subtract=False)
