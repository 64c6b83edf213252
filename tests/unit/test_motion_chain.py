"""Normal equations along the chain of tilts are those of all modes together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from helpers.alignments import moving, observed, planted, specimen
from helpers.compare import assert_close
from tiltwise.motion.chain import ChainSolver
from tiltwise.motion.curvature import Curvature
from tiltwise.motion.geometry import Alignment, Specimen
from tiltwise.motion.normal import ImageBlocks, NormalEquations, Solver
from tiltwise.motion.objective import Evidence, Free, gradient

CASES = [Free(), Free(angles=False), Free(positions=False), Free(shifts=False, positions=False)]


def problem(position_sigma_px: float = np.inf) -> tuple[Specimen, Evidence, Alignment]:
    """Nine particles in seven tilts at different doses; one particle and one tilt are seen nowhere."""
    rng = np.random.default_rng(21)
    one = moving(specimen(9, 7, rng), 2500.0, 0.3)
    one = replace(one, step_px=one.step_px * rng.uniform(0.5, 2.0, 6), position_sigma_px=position_sigma_px)
    evidence = observed(one, planted(one, rng, motion=True), 0.7, rng, hidden=0.2)
    evidence = evidence.only((evidence.particle != 4) & (evidence.tilt != 3))
    return one, replace(evidence, observed=np.zeros((len(evidence.tilt), 2))), planted(one, rng, motion=True)


def both(free: Free, position_sigma_px: float = np.inf, damping: float = 0.0) -> tuple[ChainSolver, Solver]:
    one, evidence, at = problem(position_sigma_px)
    blocks = ImageBlocks.of(one, evidence, at)
    return (
        ChainSolver(one, at, blocks, free, damping),
        Solver(NormalEquations.from_blocks(one, at, blocks), free, damping),
    )


@pytest.mark.parametrize("free", CASES, ids=str)
@pytest.mark.parametrize("position_sigma_px", [np.inf, 3.0])
def test_steps_and_determinants_agree(free: Free, position_sigma_px: float) -> None:
    one, evidence, at = problem(position_sigma_px)
    chain, dense = both(free, position_sigma_px)
    here = gradient(one, evidence, at)
    for found, expected in zip(chain.step(here), dense.step(here), strict=True):
        assert_close(found, expected, 2e-5)
    assert chain.log_determinant() == pytest.approx(dense.log_determinant(), abs=1e-3)


@pytest.mark.parametrize("free", CASES, ids=str)
def test_variances_agree(free: Free) -> None:
    chain, dense = both(free, 3.0)
    for found, expected in zip(chain.covariance(), dense.covariance(), strict=True):
        assert_close(found, expected, 2e-5)


def test_draws_have_the_covariance() -> None:
    chain, dense = both(Free(), 3.0)
    rng = np.random.default_rng(22)
    modes = chain.modes
    drawn = [chain.draw(rng, modes) for _ in range(1500)]
    tilts, particles, _ = dense.covariance()
    found = np.mean([step[0].ravel() ** 2 for step in drawn], axis=0)
    seen = tilts > 0
    assert not found[~seen].any()
    # of 1500 draws: 4 % each
    assert np.abs(found[seen] / tilts[seen] - 1).max() <= 0.2
    of_particles = np.mean([step[1][:, :, None] * step[1][:, None] for step in drawn], axis=0)
    assert np.linalg.norm(of_particles - particles) <= 0.1 * np.linalg.norm(particles)
    # modes, and how they go with the rest: what a step of the dense solver makes of the same covariance
    expected = np.mean([dense.draw(rng, modes)[2].ravel() ** 2 for _ in range(1500)], axis=0)
    ratio = np.mean([step[2].ravel() ** 2 for step in drawn], axis=0) / expected
    assert abs(ratio.mean() - 1) <= 0.02


def test_the_cheaper_way_is_taken() -> None:
    one, evidence, at = problem()
    assert Curvature(one, evidence, at, Free()).chained
    many = replace(one, position_px=np.tile(one.position_px, (99, 1)))
    assert not ChainSolver.serves(many, at)
    still = replace(one, step_px=one.step_px * np.arange(6))  # no dose between two tilts: no step to divide by
    assert not ChainSolver.serves(still, at)
