"""A mask that follows the density too closely: what it does to the resolution, and what is said about it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers.refinements import run_refine, simulated
from tiltwise.errors import ConfigError
from tiltwise.io.mrc import read_map, write_map
from tiltwise.jobs.progress import SilentProgress
from tiltwise.sim.simulate import SimulatedData
from tiltwise.spectral.filters import low_pass
from tiltwise.spectral.masks import soft_sphere


class Warnings(SilentProgress):
    """Keeps the warnings."""

    def __init__(self) -> None:
        super().__init__()
        self.warnings = list[str]()

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SimulatedData:
    return simulated(tmp_path_factory.mktemp("masked"), 6)


@pytest.fixture(scope="module")
def tight(data: SimulatedData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mask without a soft edge around what is densest."""
    truth, pixel_size = read_map(data.true_map)
    path = tmp_path_factory.mktemp("mask") / "tight.mrc"
    write_map(path, (low_pass(truth, pixel_size, 15.0) > 0.15 * truth.max()).astype(np.float32), pixel_size)
    return path


def test_a_tight_mask_is_warned_about_and_corrected(data: SimulatedData, tight: Path, tmp_path: Path) -> None:
    heard = Warnings()
    plain = run_refine(data, tmp_path / "plain", heard, iterations=1, mask=tight)
    assert sum("the mask is tight" in text for text in heard.warnings) == 2
    assert any("--solvent-correct-fsc" in text for text in heard.warnings)
    heard = Warnings()
    corrected = run_refine(data, tmp_path / "corrected", heard, iterations=1, mask=tight, solvent_correct_fsc=True)
    assert not any("tight" in text for text in heard.warnings)
    # both stages: the last FSC, and the prior that the references were made with
    assert corrected.resolution_angstrom > plain.resolution_angstrom
    assert corrected.history[0]["resolution_angstrom"] > plain.history[0]["resolution_angstrom"]
    assert corrected.masked is not None
    # spheres do not count
    assert (corrected.fsc <= corrected.masked.corrected).all()
    np.testing.assert_allclose(corrected.fsc, corrected.masked.corrected, atol=0.02)


def test_a_wide_soft_mask_is_not_warned_about(data: SimulatedData, tmp_path: Path) -> None:
    _, pixel_size = read_map(data.true_map)
    write_map(tmp_path / "wide.mrc", soft_sphere(32, 15.5, 6.0).astype(np.float32), pixel_size)
    heard = Warnings()
    run_refine(data, tmp_path / "job", heard, iterations=1, mask=tmp_path / "wide.mrc")
    assert not any("tight" in text for text in heard.warnings)


def test_nothing_to_correct_without_a_mask(data: SimulatedData, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--mask"):
        run_refine(data, tmp_path / "job", solvent_correct_fsc=True)
