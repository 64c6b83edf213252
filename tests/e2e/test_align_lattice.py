"""Lattices: alignments do not lock in on neighbours, and make nothing of noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.lattice import SPACING, OneLook, aligned_array, array_options, ghosts, locked, simulated_array
from tiltwise.em import reconstruct
from tiltwise.em.options import ReconstructOptions
from tiltwise.errors import DataError
from tiltwise.io.mrc import read_map
from tiltwise.io.optimisation_set import load_optimisation_set
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.progress import SilentProgress
from tiltwise.maps import cross_fit
from tiltwise.maps.masks import focus_mask
from tiltwise.sim.simulate import simulate
from tiltwise.spectral.fsc import fsc


def test_a_lattice_does_not_lock_in(tmp_path: Path) -> None:
    options = array_options(tmp_path / "data", error_shift=16.0, seed=8)
    data = simulate(options)
    plain = aligned_array(data, tmp_path / "plain", OneLook, position_sigma=1e4)
    assert locked(data, plain).tilts > 0  # such data are hard
    found = aligned_array(data, tmp_path / "found")
    here = locked(data, found)
    assert here.tilts == 0
    assert here.particles == 0.0
    assert here.rms_angstrom < 5.0
    score = [
        ghosts(options, data, load_optimisation_set(path))
        for path in (data.optimisation_set, found.outputs["optimisation_set"])
    ]
    assert score[0] > 6.0
    assert abs(score[1]) < 3.5


def test_a_lattice_of_noise_has_no_resolution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = simulated_array(tmp_path / "data", signal=False, snr=None, noise=1.0)
    with pytest.raises(DataError, match="do not agree"):
        aligned_array(data, tmp_path / "refused")

    def believed(curve: NDArray[np.float64], least: float) -> NDArray[np.float64]:
        return np.where(np.arange(len(curve)) <= 8, 0.3, 0.0)

    # even if references of noise are used, what is shared by the half sets must not make them alike
    monkeypatch.setattr(cross_fit, "usable", believed)
    found = aligned_array(data, tmp_path / "out")
    assert found.series[0].alignment.displacement_px.any()
    halves = half_maps(found.outputs["optimisation_set"], tmp_path / "maps")
    curve = fsc(*halves, focus_mask(None, SPACING, 32, 5.0))[2:9]
    assert float(curve.mean()) < 0.15
    assert not any(verdict.improved for verdict in found.series[0].verdicts)


def half_maps(path: Path, folder: Path) -> tuple[Any, Any]:
    options = ReconstructOptions(input=path, output=folder, box=48, crop=32, particle_diameter=SPACING, threads=1)
    with FolderJob(options, ["tiltwise", "reconstruct"], SilentProgress()) as job:
        reconstruct.run(options, job, SilentProgress())
    return read_map(folder / "half1.mrc")[0], read_map(folder / "half2.mrc")[0]
