"""Optics groups divided by tilt series or acquisition area."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tiltwise.ctf.optics_groups import areas, joined, split
from tiltwise.errors import ConfigError
from tiltwise.io.optimisation_set import (
    load_optimisation_set,
    write_optimisation_set,
    write_particles,
    write_tomograms,
)
from tiltwise.io.star import read_star
from tiltwise.sim.options import SimulateOptions
from tiltwise.sim.simulate import SimulatedData, simulate


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SimulatedData:
    """Three series of few particles."""
    return simulate(
        SimulateOptions(
            output=tmp_path_factory.mktemp("three"),
            tilt_series=3,
            particles=2,
            width_px=64,
            height_px=64,
            box=16,
            particle_diameter=60.0,
            beads=30,
            tilt_step=60.0,
            margin_px=4,
        )
    )


def test_areas_from_names() -> None:
    names = ["Position_1", "Position_1_2", "Position_12_3"]
    assert areas(names, "series") == names
    assert areas(names, r"^Position_(\d+)") == ["1", "1", "12"]
    assert areas(names, r"Position_1") == ["Position_1"] * 3
    with pytest.raises(ConfigError, match="do not tell their acquisition area"):
        areas([*names, "test"], r"Position_(\d+)")
    with pytest.raises(ConfigError, match="not a regular expression"):
        areas(names, "(")


def test_split_sets_are_written_and_read_alike(data: SimulatedData, tmp_path: Path) -> None:
    """Particles and tomograms name the same groups; what the optics table held besides stays."""
    optset = load_optimisation_set(data.optimisation_set)
    apart = split(optset, "series")
    assert [one.name for one in apart.optics] == [f"opticsGroup1_TS_0{i}" for i in (1, 2, 3)]
    assert [one.number for one in apart.optics] == [1, 2, 3]
    optics = tuple(replace(one, odd_zernike=np.full(6, 0.1 * i)) for i, one in enumerate(apart.optics))
    apart = replace(apart, optics=optics)
    write_particles(tmp_path / "particles.star", apart)
    write_tomograms(tmp_path / "tomograms.star", optset, series=apart.series)
    write_optimisation_set(
        tmp_path / "set.star", tomograms=tmp_path / "tomograms.star", particles=tmp_path / "particles.star"
    )
    again = load_optimisation_set(tmp_path / "set.star")
    assert [one.optics_group_name for one in again.series] == [one.name for one in again.optics]
    for particle, index in enumerate(again.particles.optics_index):
        assert again.optics[index].name.endswith(again.particles.tomogram[particle])
    for one, other in zip(again.optics, apart.optics, strict=True):
        np.testing.assert_allclose(one.odd_zernike, other.odd_zernike)
    before, after = (read_star(path)["optics"] for path in (optset.paths["particles"], tmp_path / "particles.star"))
    assert set(before.columns) <= set(after.columns)
    back = joined(apart, optset)
    assert back.optics == optset.optics
    assert [one.optics_group_name for one in back.series] == [one.optics_group_name for one in optset.series]


def test_areas_share_a_group(data: SimulatedData) -> None:
    optset = load_optimisation_set(data.optimisation_set)
    apart = split(optset, "TS_0[12]|TS_03")
    assert len(apart.optics) == 3
    apart = split(optset, "TS_0")
    assert len(apart.optics) == 1
    assert set(apart.particles.optics_index.tolist()) == {0}
