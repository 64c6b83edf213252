"""One family of corrections put back: which ones there are, and what does not count as one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tiltwise.cycle.ablation import summed
from tiltwise.cycle.put_back import changes, matched
from tiltwise.errors import DataError
from tiltwise.geometry.rotations import matrix_to_euler
from tiltwise.io.optimisation_set import load_optimisation_set
from tiltwise.model import OptimisationSet
from tiltwise.model.poses import poses_of
from tiltwise.sim.options import SimulateOptions
from tiltwise.sim.simulate import simulate

PLANTED = {"error_defocus": 300.0, "error_shift": 4.0, "error_angle": 0.2, "error_orientation": 3.0}


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[OptimisationSet, OptimisationSet]:
    """The truth, and the same with planted errors."""
    data = simulate(
        SimulateOptions(
            output=tmp_path_factory.mktemp("sets"),
            tilt_series=2,
            particles=12,
            width_px=96,
            height_px=96,
            thickness=200.0,
            particle_diameter=60.0,
            beads=50,
            box=16,
            tilt_step=4.0,
            spacing=0.0,
            signal=False,
            noise=1.0,
            threads=1,
            **PLANTED,
        )
    )
    truth = data.truth.parent / "optimisation_set.star"
    return load_optimisation_set(truth), load_optimisation_set(data.optimisation_set)


def test_families_that_differ_are_found_with_their_sizes(sets: tuple[OptimisationSet, OptimisationSet]) -> None:
    found = {one.family: one for one in changes(*sets)}
    assert set(found) == {"defocus", "tilt shifts", "tilt angles", "places of series", "poses"}
    assert found["defocus"].size == pytest.approx(300.0, rel=0.3)
    assert found["tilt shifts"].size == pytest.approx(4.0, rel=0.3)
    assert found["tilt angles"].size == pytest.approx(0.2, rel=0.3)
    assert found["poses"].words.startswith(f"{found['poses'].size:.3g}°, ")
    assert found["defocus"].parameters == 62
    assert found["tilt shifts"].parameters == 124
    assert changes(sets[0], sets[0]) == []


def test_one_family_is_put_back_and_nothing_else(sets: tuple[OptimisationSet, OptimisationSet]) -> None:
    after, before = sets
    found = {one.family: one.optset.series for one in changes(after, before)}
    for number in range(2):
        new, old = after.series[number], before.series[number]
        defocus, shifts, angles = (found[name][number] for name in ("defocus", "tilt shifts", "tilt angles"))
        np.testing.assert_array_equal(defocus.projection, new.projection)
        np.testing.assert_allclose(defocus.defocus_u_angstrom, old.defocus_u_angstrom, atol=1e-6)
        np.testing.assert_array_equal(shifts.projection[:, :3, :3], new.projection[:, :3, :3])
        assert np.abs(shifts.projection[:, :2, 3] - new.projection[:, :2, 3]).max() > 0.1
        np.testing.assert_array_equal(shifts.defocus_u_angstrom, new.defocus_u_angstrom)
        turned = angles.projection[:, :3, :3] @ np.swapaxes(old.projection[:, :3, :3], 1, 2)
        # the same small turn of the tomogram in all tilts
        own = np.swapaxes(old.projection[:, :3, :3], 1, 2) @ turned @ old.projection[:, :3, :3]
        np.testing.assert_allclose(own, np.broadcast_to(own[0], own.shape), atol=1e-9)


def test_a_specimen_that_turns_as_a_whole_has_not_changed(sets: tuple[OptimisationSet, OptimisationSet]) -> None:
    """Tilts, positions and orientations in another frame of the tomogram."""
    after = sets[0]
    turn, move = Rotation.from_rotvec([0.002, -0.004, 0.003]).as_matrix(), np.array([1.5, -2.0, 0.7])
    inverse = np.eye(4)
    inverse[:3, :3], inverse[:3, 3] = turn.T, -turn.T @ move
    series = tuple(replace(one, projection=one.projection @ inverse) for one in after.series)
    rotation, position = poses_of(after)
    pixel = after.series[0].pixel_size_angstrom
    particles = replace(
        after.particles,
        coordinate_px=position / pixel @ turn.T + move,
        origin_angstrom=np.zeros_like(position),
        angles_deg=matrix_to_euler(turn @ rotation),
        subtomogram_angles_deg=np.zeros_like(position),
    )
    moved = replace(after, series=series, particles=particles)
    assert changes(moved, after) == []


def test_motion_that_all_particles_share_is_a_shift(sets: tuple[OptimisationSet, OptimisationSet]) -> None:
    after = sets[0]
    shared = np.random.default_rng(1).normal(size=(after.series[0].n_tilts, 3)) * 5.0
    own = 0.5 * np.random.default_rng(2).normal(size=(len(after.particles), *shared.shape))
    own -= own.reshape(2, -1, *shared.shape).mean(axis=1).repeat(len(own) // 2, axis=0)
    own -= own.mean(axis=1, keepdims=True)

    def with_motion(motion: np.ndarray[Any, np.dtype[np.float64]]) -> OptimisationSet:
        series = []
        for one in after.series:
            projection = one.projection.copy()
            seen = np.einsum("fij,fj->fi", projection[:, :2, :3], shared) / one.pixel_size_angstrom
            projection[:, :2, 3] -= seen
            series.append(replace(one, projection=projection))
        return replace(after, series=tuple(series), trajectories=dict(zip(after.particles.name, motion, strict=True)))

    assert changes(with_motion(np.broadcast_to(shared, own.shape)), after) == []
    (found,) = changes(with_motion(shared + own), after)
    assert found.family == "motion"
    assert found.size == pytest.approx(np.sqrt((own**2).mean()))
    # without it, every image is where it was before
    np.testing.assert_allclose(found.optset.series[0].projection, after.series[0].projection, atol=1e-9)


def test_particles_that_were_not_there_before(sets: tuple[OptimisationSet, OptimisationSet]) -> None:
    after, before = sets
    fewer = replace(before, particles=before.particles.take(np.arange(5)))
    with pytest.raises(DataError, match="not there before"):
        matched(after, fewer)
    cut = replace(before.series[0], projection=before.series[0].projection[:5])
    with pytest.raises(DataError, match="not the same before and after"):
        changes(after, replace(before, series=(cut, before.series[1])))


def test_gains_are_summed_over_blocks_that_have_particles() -> None:
    """Two blocks of 3 and 7 nats; one between them has nobody left, and a particle belongs to none."""
    gains = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    assert summed(gains, np.array([0, 0, 2, 2, -1])) == pytest.approx((10.0, 4.0, 2))
    with pytest.raises(DataError, match="too few particles"):
        summed(gains, np.array([1, 1, -1, -1, -1]))
