"""Real particles: 40 ribosomes give a ribosome, and its halves agree as far as so few can.

Misread geometry, CTF or stacks, which data of our own making would hide, show here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers.real_70s import SPLITS, Ribosomes
from tiltwise.em.reconstruct import ReconstructResult


@pytest.fixture(scope="module")
def ribosomes(shared_data: Path) -> Ribosomes:
    folder = shared_data / "data/real_70S_warptools_2dstacks"
    if not folder.is_dir():
        pytest.skip(f"{folder} is missing")
    return Ribosomes.open(folder)


@pytest.fixture(scope="module")
def splits(ribosomes: Ribosomes, tmp_path_factory: pytest.TempPathFactory) -> list[ReconstructResult]:
    folder = tmp_path_factory.mktemp("splits")
    return [ribosomes.reconstruct(folder / "job", seed, threads=1) for seed in range(SPLITS)]


def test_random_halves_agree(ribosomes: Ribosomes, splits: list[ReconstructResult]) -> None:
    assert len({result.halves[0].tobytes() for result in splits}) == SPLITS
    values = [ribosomes.agreement(*result.halves) for result in splits]
    # 0.184 +- 0.019
    assert np.mean(values) >= 0.15


def test_map_is_the_mirror_of_the_supplied_one(ribosomes: Ribosomes, splits: list[ReconstructResult]) -> None:
    density = splits[0].map
    # 0.493, and 0.076 for the wrong hand
    assert ribosomes.agreement(density, ribosomes.mirrored) >= 0.45
    assert ribosomes.agreement(density, ribosomes.supplied) <= 0.2
