"""Several optics groups in one set: each has its aberrations; images must have one size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from helpers.particles import tilt_series
from tiltwise.errors import ConfigError, DataError
from tiltwise.extract.source import ParticleSource
from tiltwise.model import OpticsGroup, OptimisationSet, Particles


def stacks(*groups: OpticsGroup) -> OptimisationSet:
    """One particle in each optics group, all in one series, with 2D stacks."""
    count = len(groups)
    zeros = np.zeros((count, 3))
    particles = Particles(
        name=tuple(str(i) for i in range(count)),
        tomogram=("TS",) * count,
        coordinate_px=zeros + 50.0,
        origin_angstrom=zeros,
        angles_deg=zeros,
        subtomogram_angles_deg=zeros,
        half_set=np.ones(count, np.int64),
        optics_index=np.arange(count),
        image_files=("stack.mrcs",) * count,
        ctf_files=(),
        visible=(np.ones(3, bool),) * count,
    )
    return OptimisationSet((tilt_series(3, 4.0),), particles, groups, {}, True, None, {})


GROUP = OpticsGroup(
    1, "one", 300.0, 2.7, 0.1, 4.0, image_pixel_size_angstrom=8.0, image_size=32, ctf_premultiplied=True
)


def source(optset: OptimisationSet) -> ParticleSource:
    return ParticleSource(optset, box_px=64, crop_px=64, binning=1.0, diameter_angstrom=None)


def test_groups_of_one_size_have_their_own_aberrations() -> None:
    found = source(stacks(GROUP, replace(GROUP, number=2, name="two", even_zernike=np.ones(4))))
    assert (found.box, found.pixel_size) == (32, 8.0)
    first, second = found.loader(0), found.loader(1)
    assert first is not second
    tilts, still = np.arange(3), np.zeros(3)
    assert np.any(first.plan.evaluate(still, tilts, None) != second.plan.evaluate(still, tilts, None))


@pytest.mark.parametrize("change", [{"image_pixel_size_angstrom": 8.1}, {"image_size": 48}])
def test_groups_of_several_sizes_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(DataError, match=r"one: 32 px of 8 Å; two: .*px of") as error:
        source(stacks(GROUP, replace(GROUP, number=2, name="two", **change)))
    assert "rlnOpticsGroup" in str(error.value)


def test_unknown_sizes_are_refused() -> None:
    with pytest.raises(DataError, match="rlnImageSize"):
        source(stacks(replace(GROUP, image_size=None)))


def test_series_of_several_pixel_sizes_are_refused() -> None:
    optset = stacks(GROUP)
    other = replace(tilt_series(3, 5.0), name="TS2")
    with pytest.raises(ConfigError, match="4, 5 Å"):
        source(replace(optset, series=(*optset.series, other)))
