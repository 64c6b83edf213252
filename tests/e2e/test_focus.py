"""Refinement of a domain that rocks, with the rest of the particle taken off the images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.refinements import Listener, assert_same_files, refine_options, run_refine, simulated
from tiltwise.em.refine import RefineResult
from tiltwise.errors import Aborted, ConfigError, DataError, ShapeError
from tiltwise.io.mrc import read_map, write_map
from tiltwise.io.optimisation_set import load_optimisation_set
from tiltwise.jobs.progress import SilentProgress
from tiltwise.maps.focus import Frame
from tiltwise.post.mask import widened
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
    before, after, alone = (score_poses(one, truth) for one in (start, found, masked))
    # 3.7° of 4.9°, and 4.7° with the mask alone; 0.9 Å of 3.3 Å
    assert np.median(after.angle_deg) < 0.85 * np.median(before.angle_deg)
    assert np.median(after.angle_deg) < 0.9 * np.median(alone.angle_deg)
    assert np.median(after.distance) < 0.5 * np.median(before.distance)


def test_bytes_do_not_depend_on_threads_and_survive_a_stop(rocking: Rocking, focused: Path, tmp_path: Path) -> None:
    folder = tmp_path / "job"
    with pytest.raises(Aborted):
        rocking.run(folder, Listener(folder, stop=1), threads=2)
    again = Listener(folder)
    rocking.run(folder, again, threads=2)
    assert "continues after iteration 1" in again.notes
    assert_same_files(folder, focused)


def test_pseudo_subtomograms_are_made_of_what_is_left(rocking: Rocking, tmp_path: Path) -> None:
    result, plain = (
        rocking.run(
            tmp_path / name, data_model="pseudo3d", iterations=1, subtract=subtract, skip_align=True, sigma_ang=None
        )
        for name, subtract in (("rest", True), ("all", False))
    )
    truth, _ = read_map(rocking.data.truth.parent / "still.mrc")
    frame = Frame.of(read_map(rocking.mask)[0], PIXEL, "mask")
    still = frame.moved(truth)

    def held(found: RefineResult) -> float:
        density = np.mean(found.halves, axis=0)
        return float((density * still).sum() / np.sqrt((density**2).sum() * (still**2).sum()))

    assert held(plain) > 0.4
    assert abs(held(result)) < 0.5 * held(plain)


def test_bad_input_is_explained(rocking: Rocking, tmp_path: Path) -> None:
    data, mask = rocking.data, read_map(rocking.mask)[0]

    def options(**changes: Any) -> None:
        refine_options(data, tmp_path / "job", **{"focus": rocking.mask, **changes})

    for changes, words in (
        ({"focus": None, "rest": rocking.mask}, "no --focus"),
        ({"focus": None, "subtract": False}, "no --focus"),
        ({"mask": rocking.mask}, "two masks"),
        ({"symmetry": "C3"}, "not the symmetry"),
        ({"workers": 2}, "workers do not subtract"),
        ({"subtract": False, "rest": rocking.mask}, "takes nothing off"),
    ):
        with pytest.raises(ConfigError) as caught:
            options(**changes)
        assert words in str(caught.value)
    options(symmetry="C3", focus_center="box")
    options(solvent_correct_fsc=True)
    small = tmp_path / "small.mrc"
    write_map(small, mask[4:-4, 4:-4, 4:-4], PIXEL)
    with pytest.raises(ShapeError, match=r"--focus .*small") as caught_shape:
        rocking.run(tmp_path / "a", focus=small)
    assert "24 x 24 x 24" in str(caught_shape.value)
    empty = np.zeros_like(mask)
    empty[14:17, 14:17, 2:5] = 1.0
    write_map(tmp_path / "beside.mrc", empty, PIXEL)
    with pytest.raises(DataError, match="misses the particle"):
        rocking.run(tmp_path / "b", focus=tmp_path / "beside.mrc", subtract=False)
