"""Subunits of a symmetric assembly that are there or not: expanded, classified one by one, selected, refined."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.mixed import adjusted_rand_index
from helpers.occupancy import OccupiedData, simulate_occupied
from tiltwise.classes import classify
from tiltwise.classes.options import ClassifyOptions
from tiltwise.em import refine
from tiltwise.em.options import RefineOptions
from tiltwise.io.mrc import read_map
from tiltwise.io.optimisation_set import load_optimisation_set
from tiltwise.io.star import read_star
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.progress import SilentProgress
from tiltwise.selection import expand
from tiltwise.selection import run as select
from tiltwise.selection.options import ExpandOptions, SelectOptions

DIAMETER = 130.0


def done(command: Any, options: Any) -> Any:
    with FolderJob(options, ["tiltwise", options.command], SilentProgress()) as job:
        return command.run(options, job, SilentProgress())


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> OccupiedData:
    return simulate_occupied(tmp_path_factory.mktemp("occupied"), "C3", 0.4)


@pytest.fixture(scope="module")
def folder(sample: OccupiedData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the four jobs, one after the other."""
    out = tmp_path_factory.mktemp("jobs")
    done(expand, ExpandOptions(input=sample.data.optimisation_set, output=out / "expand", symmetry="C3"))
    images: dict[str, Any] = {"box": 48, "crop": 32, "particle_diameter": DIAMETER, "threads": 1}
    expanded = out / "expand" / "optimisation_set.star"
    done(classify, ClassifyOptions(input=expanded, output=out / "classify", mask=sample.mask, **images))
    found = out / "classify" / "run_optimisation_set.star"
    done(select, SelectOptions(input=found, output=out / "select", classes=str(with_subunit(sample, out))))
    words: dict[str, Any] = {"focus": sample.mask, "focus_center": "box", "sigma_ang": 3.0, "folds": 2, "iterations": 1}
    selected = out / "select" / "optimisation_set.star"
    done(refine, RefineOptions(input=selected, output=out / "refine", **words, **images))
    return out


def with_subunit(sample: OccupiedData, folder: Path) -> int:
    """Number of the class that has the first subunit."""
    return 1 + int(density(sample, folder, 2) > density(sample, folder, 1))


def density(sample: OccupiedData, folder: Path, number: int) -> float:
    """Of the map of a class in the place of the first subunit, over that of the subunit."""
    found, mask = read_map(folder / "classify" / f"run_class{number:03d}.mrc")[0], read_map(sample.mask)[0]
    return float((found * mask * sample.subunit).sum() / (mask * sample.subunit**2).sum())


def test_mates_are_sorted_one_by_one(sample: OccupiedData, folder: Path) -> None:
    block = read_star(folder / "classify" / "run_data.star")["particles"]
    found = np.asarray(block.integers("rlnClassNumber"))
    assert adjusted_rand_index(found - 1, sample.present.ravel().astype(np.int64)) >= 0.8
    with_it, without = sorted((density(sample, folder, number) for number in (1, 2)), reverse=True)
    assert without < 0.3 * with_it


def test_mates_stay_together_all_the_way(sample: OccupiedData, folder: Path) -> None:
    every = load_optimisation_set(folder / "classify" / "run_optimisation_set.star").particles
    kept = load_optimisation_set(folder / "select" / "optimisation_set.star").particles
    refined = load_optimisation_set(folder / "refine" / "run_optimisation_set.star").particles
    assert len(every) == 120
    assert kept.name == refined.name
    assert kept.has_mates
    for particles in (every, kept, refined):
        halves = dict(zip(particles.source, particles.half_set, strict=True))
        assert [halves[name] for name in particles.source] == particles.half_set.tolist()
        assert set(halves.values()) == {1, 2}


def test_the_subunit_is_refined_with_its_rest_taken_off(sample: OccupiedData, folder: Path) -> None:
    found, mask = read_map(folder / "refine" / "run_class001.mrc")[0], read_map(sample.mask)[0]
    assert np.corrcoef((found * mask).ravel(), (sample.subunit * mask).ravel())[0, 1] > 0.9
