"""Classes with symmetries of their own: rings of three, and rings that have lost one of their subunits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import rotate

from helpers.classes import classify_options, mixed, run_classify
from helpers.mixed import MixedData
from tiltwise.classes.classify import Classification, ClassifyResult
from tiltwise.errors import ConfigError
from tiltwise.io.mrc import read_map, write_map
from tiltwise.io.star import read_star
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.progress import SilentProgress
from tiltwise.sim.density import sample_map
from tiltwise.spectral.filters import low_pass

RING = {"symmetry": "C3", "beads": 180}


def references(sample: MixedData, folder: Path) -> str:
    """The ring that has lost a subunit, then the whole one."""
    whole, pixel = read_map(sample.data.true_map)
    write_map(folder / "whole.mrc", whole, pixel)
    write_map(folder / "lacking.mrc", whole - sample_map(sample.without, len(whole), pixel), pixel)
    return f"{folder / 'lacking.mrc'},{folder / 'whole.mrc'}"


def asymmetry(density: NDArray[np.float32], pixel_size: float) -> float:
    """How much of a map at 25 Å a third of a turn about z changes."""
    density = low_pass(density, pixel_size, 25.0)
    # voxel N // 2 is the origin: with one voxel less at the front it is the middle
    odd = density[1:, 1:, 1:]
    turned = rotate(odd, 120.0, axes=(1, 2), reshape=False, order=3)
    return float(np.linalg.norm(turned - odd) / np.linalg.norm(odd))


def check(sample: MixedData, result: ClassifyResult, *, lacking: int = 0) -> None:
    """Particles are sorted, the class of whole rings is symmetric and the other is not."""
    assert np.mean((result.state.classes - 1 == lacking) == (sample.kind == 1)) >= 0.94
    assert asymmetry(result.maps[1 - lacking].map, result.pixel_size) <= 0.12
    assert asymmetry(result.maps[lacking].map, result.pixel_size) >= 0.4


@pytest.fixture(scope="module")
def rings(tmp_path_factory: pytest.TempPathFactory) -> MixedData:
    return mixed(tmp_path_factory.mktemp("rings"), 20, 1 / 3, RING)


def test_classes_have_symmetries_of_their_own(rings: MixedData, tmp_path: Path) -> None:
    names = references(rings, tmp_path)
    folder = tmp_path / "job"
    check(rings, run_classify(rings, folder, symmetry="c1,C3", references=names, ini_high=30.0))
    assert read_star(folder / "run_model.star")["model_classes"].text("rlnSymmetryGroup") == ["C1", "C3"]
    told = json.loads((folder / "classes.json").read_text())["classes"]
    assert [one["symmetry"] for one in told] == ["C1", "C3"]


def test_a_symmetric_class_is_more_than_a_symmetric_difference(rings: MixedData, tmp_path: Path) -> None:
    """The average lacks half of a subunit: what it needs to be symmetric is part of the class."""
    options = classify_options(rings, tmp_path / "job", symmetry="C1,C3")
    with FolderJob(options, ["tiltwise", "classify"], SilentProgress()) as job:
        run = Classification(options, job, SilentProgress())
        work = run.prepare()
    pixel = run.data.pixel_of(run.grid)
    sorted_right = np.stack([rings.kind == 1, rings.kind == 0], axis=1).astype(np.float64)
    folds, totals = work.maps(sorted_right)
    average = asymmetry(work.average.map, pixel)
    assert average >= 0.15
    assert asymmetry(work.average.map + totals[1], pixel) <= 0.4 * average
    assert asymmetry(work.average.without(0) + folds[1][0], pixel) <= 0.4 * average
    assert asymmetry(work.average.map + totals[0], pixel) >= average


def test_without_references_groups_go_to_the_clusters_they_fit(rings: MixedData, tmp_path: Path) -> None:
    check(rings, run_classify(rings, tmp_path / "job", symmetry="C3,C1", iterations=1), lacking=1)


def test_too_many_ways_to_give_groups_are_refused(rings: MixedData, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="too many ways to give the point groups"):
        run_classify(rings, tmp_path / "job", classes=5, symmetry="C3,C3,C6,C1,C1")


def test_aligned_classes_have_symmetries_of_their_own(tmp_path: Path) -> None:
    planted: dict[str, Any] = {**RING, "error_orientation": 4.0, "error_position": 3.0, "snr": 0.6}
    sample = mixed(tmp_path, 8, 1 / 3, planted)
    names = references(sample, tmp_path)
    local = {"align": "local", "healpix_order": 3, "sigma_ang": 4.0, "offset_range_px": 1.5}
    result = run_classify(
        sample,
        tmp_path / "job",
        symmetry="C1,C3",
        references=names,
        ini_high=30.0,
        iterations=1,
        strict_highres_exp=20.0,
        **local,
    )
    check(sample, result)
