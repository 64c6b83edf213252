"""Work units: every particle once, in an order that only the data decide."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiltwise.em.estimates import PoseEstimate
from tiltwise.em.maximisation import NoiseSums
from tiltwise.em.units import AUDIT, RunningSums, Unit, UnitSums, total_noise, units_of
from tiltwise.maps.volumes import Accumulator

BOX, TILTS, SHELLS = 4, 2, 3


@given(
    st.lists(st.tuples(st.integers(1, 2), st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=200),
    st.integers(1, 50),
)
def test_units_hold_every_particle_once(labels: list[tuple[int, int, int]], size: int) -> None:
    halves, folds, series = (np.array(column) for column in zip(*labels, strict=True))
    units = units_of(halves, folds, series, size)
    assert sorted(np.concatenate([unit.particles for unit in units])) == list(range(len(labels)))
    keys = [unit.key for unit in units]
    assert keys == sorted(keys), "units of one accumulator follow each other"
    for unit in units:
        assert 1 <= len(unit.particles) <= size
        assert [number for number, _ in unit.parts] == sorted({number for number, _ in unit.parts})
        for number, members in unit.parts:
            assert (np.diff(members) > 0).all()
            assert all(labels[p] == (*unit.key, number) for p in members)
        # none is a small remainder
        mates = [len(u.particles) for u in units if u.key == unit.key]
        assert max(mates) - min(mates) <= 1
    audited = [unit for unit in units if unit.audited]
    assert len(audited) >= min(4, len(units))
    assert len(audited) < 8
    assert {unit.audited for unit in audited} == {AUDIT}


def sums_of(unit: Unit, seed: int) -> UnitSums:
    rng = np.random.default_rng(seed)
    accumulator = Accumulator.empty(BOX)
    accumulator.data += rng.normal(size=accumulator.data.shape)
    accumulator.weight += rng.random(accumulator.weight.shape)
    noise = {number: NoiseSums(*rng.random((4, TILTS, SHELLS))) for number, _ in unit.parts}
    estimates = [
        PoseEstimate(
            rotation=np.eye(3),
            shift_angstrom=rng.normal(size=3),
            log_evidence=-1.5,
            max_probability=1.0,
            n_significant=1,
            n_effective=1.0,
            std_deg=0.5,
            std_angstrom=0.5,
            square_offset=float(p),
            sharp=True,
        )
        for p in unit.particles
    ]
    return UnitSums(accumulator, noise, estimates, [0.1] * unit.audited)


def test_running_sums_hold_the_sums_of_their_units() -> None:
    units = units_of(np.array([1] * 7), np.zeros(7, np.int64), np.array([0, 0, 1, 1, 1, 1, 1]), 3)
    assert [[len(members) for _, members in unit.parts] for unit in units] == [[2, 1], [2], [2]]
    total = RunningSums(Accumulator.empty(BOX))
    for number, unit in enumerate(units):
        total.add(unit, sums_of(unit, number))
    assert total.done == 3
    parts = [sums_of(unit, number) for number, unit in enumerate(units)]
    np.testing.assert_allclose(total.accumulator.data, sum(p.accumulator.data for p in parts), rtol=1e-14)
    np.testing.assert_allclose(total.accumulator.weight, sum(p.accumulator.weight for p in parts), rtol=1e-14)
    for name in ("power", "explained", "weight"):
        expected = sum(getattr(part.noise[1], name) for part in parts)
        np.testing.assert_allclose(getattr(total.noise[1], name), expected, rtol=1e-14)
        twice = total_noise([total, total], 0, TILTS, SHELLS)
        np.testing.assert_allclose(getattr(twice, name), 2 * getattr(parts[0].noise[0], name), rtol=1e-14)
    assert [total.estimates[i].square_offset for i in range(7)] == pytest.approx(range(7))
    assert len(total.missed) == sum(unit.audited for unit in units)
