from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tiltwise.sim.options import SimulateOptions
from tiltwise.sim.simulate import SimulatedData, simulate


@pytest.fixture
def tiltwise(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `tiltwise` as a process of its own in `tmp_path`."""

    def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tiltwise", *arguments],
            cwd=cwd or tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> SimulatedData:
    """Good data: 6 particles in 9 tilt images of 128 pixels.  Tests copy them before they spoil them."""
    options = SimulateOptions(
        output=tmp_path_factory.mktemp("tiny") / "data",
        tilt_series=1,
        particles=6,
        width_px=128,
        height_px=128,
        thickness=300.0,
        pixel_size=8.0,
        box=24,
        particle_diameter=90.0,
        beads=60,
        tilt_step=15.0,
        snr=1.0,
        spacing=0.0,
        margin_px=20,
        reference_resolution=30.0,
        threads=1,
    )
    return simulate(options)
