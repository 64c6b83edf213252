"""Refinement without a starting map: half maps from the poses in the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.helpers.refinements import run_refine, simulated

from tiltwise.em.refine import RefineResult
from tiltwise.errors import ConfigError, DataError
from tiltwise.io.optimisation_set import load_optimisation_set, write_optimisation_set, write_particles
from tiltwise.jobs.manifest import read_manifest
from tiltwise.sim.score import score_poses
from tiltwise.sim.simulate import SimulatedData

NEAR = {"reference": None, "ini_high": None, "healpix_order": None}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SimulatedData:
    return simulated(tmp_path_factory.mktemp("poses"), particles=12)


@pytest.fixture(scope="module")
def first(data: SimulatedData, tmp_path_factory: pytest.TempPathFactory) -> RefineResult:
    return run_refine(data, tmp_path_factory.mktemp("poses") / "first", iterations=8)


def near(data: SimulatedData, first: RefineResult, folder: Path) -> RefineResult:
    """From the poses of a refinement."""
    start = replace(data, optimisation_set=first.outputs["optimisation_set"])
    return run_refine(start, folder, iterations=8, **NEAR)


def median_error(data: SimulatedData, result: RefineResult) -> float:
    truth = load_optimisation_set(data.truth.parent / "optimisation_set.star", need_images=False)
    return float(np.median(score_poses(result.optset, truth).angle_deg))


def test_good_poses_need_few_iterations(data: SimulatedData, first: RefineResult, tmp_path: Path) -> None:
    result = near(data, first, tmp_path / "near")
    assert result.history[0]["local"]
    assert len(result.history) < len(first.history)
    assert result.stop_reason.startswith("converged")
    assert result.resolution_angstrom < 1.02 * first.resolution_angstrom
    assert median_error(data, result) < 1.1 * median_error(data, first)
    manifest = read_manifest(tmp_path / "near")
    assert manifest is not None
    assert not manifest["warnings"]
    again = near(data, first, tmp_path / "again")
    np.testing.assert_array_equal(again.map, result.map)


def test_poses_that_were_moved_come_back(data: SimulatedData, first: RefineResult, tmp_path: Path) -> None:
    """By 3°: no map is given, and what is left of it in the half maps is enough."""
    optset = first.optset
    rng = np.random.default_rng(1)
    angles = optset.particles.angles_deg + rng.normal(scale=3.0, size=(len(optset.particles), 3))
    moved = replace(optset, particles=replace(optset.particles, angles_deg=angles))
    write_particles(tmp_path / "particles.star", moved)
    start = tmp_path / "optimisation_set.star"
    write_optimisation_set(start, particles=tmp_path / "particles.star", tomograms=optset.paths["tomograms"])
    result = run_refine(replace(data, optimisation_set=start), tmp_path / "out", iterations=8, **NEAR)
    assert median_error(data, result) < 1.5 * median_error(data, first)


def test_poses_that_make_no_map_are_refused(data: SimulatedData, first: RefineResult, tmp_path: Path) -> None:
    optset = first.optset
    angles = np.random.default_rng(1).uniform(0.0, 180.0, (len(optset.particles), 3))
    shifts = np.random.default_rng(2).normal(scale=60.0, size=angles.shape)
    particles = replace(optset.particles, angles_deg=angles, origin_angstrom=shifts)
    write_particles(tmp_path / "particles.star", replace(optset, particles=particles))
    start = tmp_path / "optimisation_set.star"
    write_optimisation_set(start, particles=tmp_path / "particles.star", tomograms=optset.paths["tomograms"])
    with pytest.raises(DataError, match=r"do not agree(.|\n)*--ref"):
        run_refine(replace(data, optimisation_set=start), tmp_path / "out", **NEAR)


def test_half_sets_that_are_drawn_now_are_warned_about(
    data: SimulatedData, first: RefineResult, tmp_path: Path
) -> None:
    optset = first.optset
    particles = replace(optset.particles, half_set=np.zeros(len(optset.particles), np.int64))
    write_particles(tmp_path / "particles.star", replace(optset, particles=particles))
    start = tmp_path / "optimisation_set.star"
    write_optimisation_set(start, particles=tmp_path / "particles.star", tomograms=optset.paths["tomograms"])
    run_refine(replace(data, optimisation_set=start), tmp_path / "out", **{**NEAR, "iterations": 1})
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None
    assert any("no half sets" in warning for warning in manifest["warnings"])


def test_half_sets_other_than_those_of_the_poses_are_warned_about(
    data: SimulatedData, first: RefineResult, tmp_path: Path
) -> None:
    start = replace(data, optimisation_set=first.outputs["optimisation_set"])
    run_refine(start, tmp_path / "out", **{**NEAR, "iterations": 1, "split": "random", "seed": 7})
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None
    assert any("not those of the file" in warning for warning in manifest["warnings"])


def test_options_of_a_starting_map_need_one(data: SimulatedData, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="without --ref"):
        run_refine(data, tmp_path / "out", reference=None)
