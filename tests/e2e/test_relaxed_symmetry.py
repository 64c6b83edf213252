"""`refine --relax-sym`: particles that were left at any mate of a broken symmetry find the right one."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.pseudo_symmetry import DIAMETER, at_the_right_mate, nearly_symmetric
from helpers.refinements import run_refine


@pytest.mark.parametrize(("group", "data_model"), [("C6", "stack2d"), ("D3", "pseudo3d")])
def test_particles_find_the_right_mate(group: str, data_model: str, tmp_path: Path) -> None:
    data = nearly_symmetric(tmp_path, group=group, missing=1.0, snr=0.3, particles=9, tilt_step=15.0)
    found = {}
    for relaxed in ("C1", group):
        result = run_refine(
            data,
            tmp_path / relaxed,
            particle_diameter=DIAMETER + 20.0,
            ini_high=30.0,
            healpix_order=3,
            sigma_ang=4.0,
            offset_range_px=1.0,
            offset_step_px=2.0,
            iterations=1,
            relax_symmetry=relaxed,
            data_model=data_model,
            threads=1,
        )
        found[relaxed], angle = at_the_right_mate(data, result.optset, group)
    assert found["C1"] < 0.5
    assert found[group] >= 0.9
    assert (angle < 8.0).mean() >= 0.9
