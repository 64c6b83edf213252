"""The simulator's images of the golden particle, from the golden truth, against the golden images.

Those were made by another program.  Pixel by pixel they must differ by the white noise of the set (sigma 0.8) and by
nothing else: this fixes every sign of geometry, CTF, depth, damage and contrast at once.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tiltwise.geometry.rotations import euler_to_matrix
from tiltwise.io.mrc import open_stack, read_map
from tiltwise.io.optimisation_set import load_optimisation_set
from tiltwise.sim.density import VoxelDensity
from tiltwise.sim.images import SeriesImager
from tiltwise.sim.models import Model
from tiltwise.sim.projector import SplineProjector


@pytest.mark.parametrize("name", ["TS_01", "TS_02"])
def test_golden_images_are_reproduced_up_to_their_noise(shared_data: Path, name: str) -> None:
    folder = shared_data / "golden" / "refine"
    truth = json.loads((folder / "truth/truth.json").read_text())
    true = truth["tomograms"][name]
    values, pixel = read_map(folder / "truth/reference.mrc")
    density = VoxelDensity.create(values, pixel)
    model = Model(density, SplineProjector(density, 0.5 / pixel), values, 210.0)
    series = next(
        s for s in load_optimisation_set(folder / "optimisation_set.star").series if s.name == name
    )  # its tilts have no errors
    rotation = euler_to_matrix(np.stack([true["rot"], true["tilt"], true["psi"]], axis=-1))
    imager = SeriesImager.create(
        model, series, np.array(true["position_px"]), np.array(true["displacement_px"]), rotation
    )
    sigma = truth["args"]["sigma"]
    with open_stack(series.image_files[0]) as stack:
        for tilt in (0, 15, 27):
            image, golden = (a.astype(np.float64) for a in (imager.image(tilt), stack.section(tilt)))
            scale = float((golden * image).sum() / (image * image).sum())
            # 147456 pixels: the noise is known to 0.2 %, the scale to 0.4 % where half the power is noise;
            # maps are stored as float16, and the golden set shows ringing beyond Nyquist
            assert scale == pytest.approx(1.0, abs=0.012)
            assert np.std(golden - scale * image) == pytest.approx(sigma, rel=0.01)
