"""Maps of two jobs laid on each other: what was planted between them is found and taken away."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.kernels.select import load_backend
from tiltwise.maps import superpose
from tiltwise.maps.turning import mirrored, turned
from tiltwise.report.overlay import Overlay, lay, overlay_sections
from tiltwise.sim.density import sample_map
from tiltwise.sim.phantom import build_phantom

BOX, PIXEL = 24, 10.0
BACKEND = load_backend("auto")


def phantom(symmetry: str = "C1") -> NDArray[np.float32]:
    return np.asarray(sample_map(build_phantom(150.0, 900, symmetry, 2), BOX, PIXEL), np.float32)


def laid(first: NDArray[np.float32], second: NDArray[np.float32], symmetry: str = "C1") -> Overlay:
    return lay(first, second, PIXEL, 10.0, 30.0, symmetry_matrices(symmetry), BACKEND)


@pytest.mark.parametrize("degrees, hand", [(5.0, False), (70.0, True)])
def test_a_map_that_was_moved_is_laid_back(degrees: float, hand: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(superpose, "CANDIDATES", 1)  # the climbs take most of the time
    density = phantom()
    turn = Rotation.from_rotvec(np.radians(degrees) * np.array([0.6, 0.0, 0.8])).as_matrix()
    other = 3.0 * turned(mirrored(density) if hand else density, turn, np.array([1.0, -0.5, 0.3]), BACKEND)
    one = laid(density, other)
    assert one.pose is not None
    assert one.pose.mirrored == hand
    assert one.curve[1:9].min() >= 0.98
    assert one.before[1:9].min() < 0.9
    assert one.scale == pytest.approx(1 / 3, rel=0.03)
    inside = one.sphere > 0.9
    assert np.abs(one.second - density)[inside].max() <= 0.1 * density.max()
    if not hand:
        assert one.angle_deg == pytest.approx(degrees, abs=0.5)
    assert len(overlay_sections(one, ("A", "B"))) == 3


def test_a_map_that_lies_on_the_other_stays() -> None:
    density = phantom("C3")
    one = laid(density, 2.0 * density, "C3")
    assert one.pose is None
    assert one.words == "B lies on A as it is"
    assert one.scale == pytest.approx(0.5, rel=1e-3)


def test_maps_that_have_nothing_in_common_are_shown_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(superpose, "CANDIDATES", 1)
    monkeypatch.setattr(superpose, "ORDER", 1)
    rng = np.random.default_rng(3)
    first, second = (rng.normal(size=(BOX,) * 3).astype(np.float32) for _ in range(2))
    one = laid(first, second)
    assert one.scale > 0
    assert np.isfinite(one.curve).all()
