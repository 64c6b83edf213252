"""Classification of particles that were extracted before: 2D stacks and pseudo-subtomograms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from helpers.classes import mixed, run_classify
from helpers.mixed import MixedData, adjusted_rand_index
from helpers.pseudo_files import write_pseudo_subtomograms
from tiltwise.errors import DataError
from tiltwise.export import extract
from tiltwise.export.options import ExtractOptions
from tiltwise.io.optimisation_set import load_optimisation_set
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.progress import SilentProgress
from tiltwise.sim.score import score_poses


def hide_tilt_images(sample: MixedData) -> None:
    """Only what was extracted is at hand."""
    for stack in (sample.data.folder / "tilt_series").glob("*.mrcs"):
        stack.rename(stack.with_suffix(".away"))


def in_frames(sample: MixedData) -> Path:
    """Particle file of pseudo-subtomograms, every one in a frame of its own; the tilt images are gone."""
    optset = load_optimisation_set(sample.data.optimisation_set)
    frames = Rotation.random(len(optset.particles), rng=np.random.default_rng(4)).as_matrix()
    path = write_pseudo_subtomograms(sample.data.folder / "pseudo", optset, 48, 32, frames)
    hide_tilt_images(sample)
    return path


def test_stacks_and_pseudo_subtomograms_of_extract_are_sorted(tmp_path: Path) -> None:
    sample = mixed(tmp_path, 16, 0.25, {"snr": 0.8})
    sets = {}
    for name in ("stack2d", "pseudo3d"):
        options = ExtractOptions(
            input=sample.data.optimisation_set,
            output=tmp_path / name,
            box=48,
            crop=32,
            stack2d=name == "stack2d",
            threads=1,
        )
        with FolderJob(options, ["tiltwise", "extract"], SilentProgress()) as job:
            sets[name] = extract.run(options, job, SilentProgress()).outputs["optimisation_set"]
    hide_tilt_images(sample)
    for name, path in sets.items():
        result = run_classify(sample, tmp_path / f"job_{name}", input=path, data_model=name)
        assert adjusted_rand_index(sample.kind, result.state.classes - 1) >= 0.85, name
        # the same poses, in the frames they had
        read = load_optimisation_set(result.outputs["optimisation_set"], need_images=False)
        np.testing.assert_array_equal(
            read.particles.subtomogram_angles_deg, result.optset.particles.subtomogram_angles_deg
        )
    with pytest.raises(DataError, match=r"no images[\s\S]*classify with --data-model pseudo3d"):
        run_classify(sample, tmp_path / "job", input=sets["pseudo3d"])


def test_particles_are_aligned_in_the_frames_of_their_pseudo_subtomograms(tmp_path: Path) -> None:
    sample = mixed(tmp_path, 7, 0.3, {"error_orientation": 5.0, "error_position": 4.0, "snr": 0.6})
    before = load_optimisation_set(sample.data.optimisation_set)
    local: dict[str, Any] = {"align": "local", "healpix_order": 3, "sigma_ang": 4.0, "offset_range_px": 1.5}
    particles = in_frames(sample)
    result = run_classify(
        sample,
        tmp_path / "job",
        particles=particles,
        data_model="pseudo3d",
        iterations=1,
        strict_highres_exp=20.0,
        **local,
    )
    assert np.mean(result.state.classes - 1 == sample.kind) in (0.0, 1.0)
    truth = load_optimisation_set(sample.data.folder / "truth" / "optimisation_set.star", need_images=False)
    first, last = score_poses(before, truth), score_poses(result.optset, truth)
    assert np.median(last.angle_deg) <= 0.6 * np.median(first.angle_deg)
    assert np.median(last.distance) <= 0.4 * np.median(first.distance)
