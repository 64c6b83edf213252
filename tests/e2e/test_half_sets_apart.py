"""Half sets do not know of each other before the last iteration, but for what they share on purpose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.compare import assert_close, relative_l2
from helpers.refinements import refine_options, run_refine, simulated
from tiltwise.em.refine import Refinement
from tiltwise.geometry.rotations import angular_distance_deg
from tiltwise.io.optimisation_set import load_optimisation_set, write_particles
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.progress import SilentProgress
from tiltwise.model.poses import poses_of
from tiltwise.sim.simulate import SimulatedData


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SimulatedData:
    return simulated(tmp_path_factory.mktemp("apart"), 8)


def test_swapped_labels_swap_the_half_maps(data: SimulatedData, tmp_path: Path) -> None:
    """Two iterations and the last one; sums over both halves are added in another order."""
    optset = load_optimisation_set(data.optimisation_set)
    particles = replace(optset.particles, half_set=3 - optset.particles.half_set)
    write_particles(tmp_path / "swapped.star", replace(optset, particles=particles))
    found = run_refine(data, tmp_path / "swapped", iterations=2, particles=tmp_path / "swapped.star")
    expected = run_refine(data, tmp_path / "job", iterations=2)
    for half, other in zip(found.halves, expected.halves[::-1], strict=True):
        assert_close(half, other, 1e-5)
    assert relative_l2(found.halves[0], expected.halves[0]) >= 0.1
    assert_close(found.map, expected.map, 1e-5)
    (rotation, position), (other_rotation, other_position) = poses_of(found.optset), poses_of(expected.optset)
    assert angular_distance_deg(rotation, other_rotation).max() <= 1e-3
    assert np.abs(position - other_position).max() <= 1e-3


def test_particles_of_one_half_leave_the_sums_of_the_other_alone(data: SimulatedData, tmp_path: Path) -> None:
    """One iteration from one state, in which a particle of half 1 is looked for where there is only noise.

    What the halves share (noise power, prior on shifts, sampling, and data below --low-resol-join-halves) is made
    after these sums.
    """
    found = []
    for name, away in (("job", 0.0), ("altered", 1.0)):
        options = refine_options(data, tmp_path / name)
        with FolderJob(options, ["tiltwise", "refine"], SilentProgress()) as job:
            refinement = Refinement(options, job, SilentProgress())
            state = refinement.start()
            victim = int(np.flatnonzero(refinement.halves == 1)[0])
            state.poses.displacement_angstrom[victim] += away * np.array([90.0, -60.0, 30.0])
            found.append(refinement.iterate(state, final=False))
    (sums, poses), (other_sums, other_poses) = found
    assert np.array_equal(sums.totals[2].data, other_sums.totals[2].data)
    assert np.array_equal(sums.totals[2].weight, other_sums.totals[2].weight)
    assert relative_l2(other_sums.totals[1].data, sums.totals[1].data) >= 1e-2
    same = [a.log_evidence == b.log_evidence for a, b in zip(poses, other_poses, strict=True)]
    assert [i for i, equal in enumerate(same) if not equal] == [victim]
