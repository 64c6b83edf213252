"""What a point group does to the signal of a map, and what the report says of one that the particle does not have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tiltwise.em import reconstruct, refine
from tiltwise.em.options import ReconstructOptions, RefineOptions
from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.progress import SilentProgress
from tiltwise.report.commands import write_refine_report
from tiltwise.sim.options import SimulateOptions
from tiltwise.sim.simulate import SimulatedData, simulate

DIAMETER = 130.0


def simulated(folder: Path, symmetry: str, **changes: Any) -> SimulatedData:
    values: dict[str, Any] = {
        "tilt_series": 2,
        "particles": 10,
        "width_px": 160,
        "height_px": 160,
        "thickness": 400.0,
        "pixel_size": 6.0,
        "box": 32,
        "particle_diameter": DIAMETER,
        "beads": 480,
        "tilt_step": 10.0,
        "spacing": 0.0,
        "margin_px": 24,
        "reference_resolution": 30.0,
        "threads": 1,
    }
    return simulate(SimulateOptions(output=folder, symmetry=symmetry, **(values | changes)))


def ratio_of_signal(data: SimulatedData, folder: Path, symmetry: str) -> float:
    """Signal-to-noise ratio, FSC / (1 - FSC), of the symmetric map over that without symmetry, true poses.

    Over shells from the fourth on in which both FSCs are between 0.1 and 0.99.
    """
    curves: list[NDArray[np.float64]] = []
    for name in (symmetry, "C1"):
        options = ReconstructOptions(
            input=data.optimisation_set,
            output=folder / name,
            box=48,
            crop=32,
            symmetry=name,
            particle_diameter=DIAMETER + 20.0,
            threads=1,
        )
        with FolderJob(options, ["tiltwise", "reconstruct"], SilentProgress()) as job:
            curves.append(reconstruct.run(options, job, SilentProgress()).fsc)
    used = np.all([(curve > 0.1) & (curve < 0.99) for curve in curves], axis=0)
    used[:4] = False
    assert used.sum() >= 3
    with_group, without = ((curve[used] / (1.0 - curve[used])).sum() for curve in curves)
    return float(with_group / without)


@pytest.mark.parametrize(("symmetry", "snr"), [("C6", 0.02), ("D7", 0.01), ("O", 0.006)])
def test_symmetry_gains_as_many_particles_as_it_has_operators(tmp_path: Path, symmetry: str, snr: float) -> None:
    """Geometric mean over three data sets; single ones scatter by a quarter."""
    found = []
    for seed in (1, 2, 3):
        data = simulated(tmp_path / f"data{seed}", symmetry, snr=snr, seed=seed)
        found.append(ratio_of_signal(data, tmp_path / f"maps{seed}", symmetry))
    gain = float(np.exp(np.mean(np.log(found)))) / len(symmetry_matrices(symmetry))
    if not 0.7 <= gain <= 1.4:
        pytest.fail(f"{gain:.2f} of the expected gain: {found}")


def test_symmetry_that_the_particle_does_not_have_is_reported(tmp_path: Path) -> None:
    data = simulated(tmp_path / "data", "C1", snr=0.3, error_orientation=3.0)
    options = RefineOptions(
        input=data.optimisation_set,
        reference=data.reference,
        output=tmp_path / "job",
        box=48,
        crop=32,
        symmetry="C2",
        particle_diameter=DIAMETER + 20.0,
        ini_high=30.0,
        healpix_order=3,
        auto_local_healpix_order=3,
        offset_range_px=2.0,
        iterations=1,
        threads=1,
    )
    with FolderJob(options, ["tiltwise", "refine"], SilentProgress()) as job:
        result = refine.run(options, job, SilentProgress())
    assert result.symmetry is not None
    assert result.symmetry.broken
    manifest = json.loads((tmp_path / "job" / "job.json").read_text())
    assert any("symmetry C2" in warning for warning in manifest["warnings"])
    write_refine_report(tmp_path / "report.html", options, result, manifest)
    page = (tmp_path / "report.html").read_text()
    assert "Symmetry C2" in page
    assert "does not have this symmetry" in page
