"""Alignments do not depend on the order of tilts in the file, and apply motion where there is motion."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.small_alignments import predicted, run, simulated
from tiltwise.io.optimisation_set import (
    load_optimisation_set,
    write_optimisation_set,
    write_particles,
)


def reordered(path: Path, rows: NDArray[np.intp]) -> str:
    """Text of a STAR file of one table with its rows in another order."""
    lines = path.read_text().splitlines()
    first = max(i for i, line in enumerate(lines) if line.startswith("_rln")) + 1
    values = [line for line in lines[first:] if line.strip()]
    return "\n".join([*lines[:first], *(values[row] for row in rows)]) + "\n"


def test_tilts_in_any_order_give_the_same_alignment(tmp_path: Path) -> None:
    data = simulated(tmp_path)
    optset = load_optimisation_set(data.optimisation_set)
    series = optset.series[0]
    moved = optset.particles.coordinate_px.copy()
    moved[:2, 0] = [-20.0, 260.0]  # some tilts do not show them
    write_particles(tmp_path / "particles.star", optset, particles=replace(optset.particles, coordinate_px=moved))
    places, paths = [], []
    for name, rows in (
        ("file", np.arange(series.n_tilts)),
        ("reversed", np.arange(series.n_tilts)[::-1]),
        ("shuffled", np.random.default_rng(1).permutation(series.n_tilts)),
    ):
        folder = tmp_path / name
        shutil.copytree(data.folder, folder, ignore=shutil.ignore_patterns("*.mrcs"))
        table = folder / "tilt_series" / "TS_01.star"
        table.write_text(reordered(table, rows).replace(str(data.folder) + "/tilt_series/TS_01.star", str(table)))
        top = folder / "tomograms.star"
        top.write_text(top.read_text().replace(str(data.folder), str(folder)))
        write_optimisation_set(
            folder / "set.star", particles=tmp_path / "particles.star", tomograms=folder / "tomograms.star"
        )
        found = run(folder / "set.star", folder / "out", force=True)
        written = load_optimisation_set(found.outputs["optimisation_set"])
        assert np.array_equal(written.series[0].pre_exposure, series.pre_exposure[rows])
        back = np.argsort(rows)
        places.append(predicted(written)[:, back])
        paths.append(np.stack([written.trajectories[one][back] for one in written.particles.name]))
    for place, path in zip(places[1:], paths[1:], strict=True):
        assert np.abs(place - places[0]).max() <= 1e-6
        assert np.abs(path - paths[0]).max() <= 1e-6


@pytest.mark.parametrize(("motion", "seed"), [(0.0, 5), (0.0, 6), (1.0, 5), (1.0, 6)])
def test_motion_is_applied_where_there_is_motion(motion: float, seed: int, tmp_path: Path) -> None:
    data = simulated(tmp_path, motion=motion, seed=seed)
    found = run(data.optimisation_set, tmp_path / "out")
    assert found.series[0].applied["tilts"]
    assert found.series[0].applied["motion"] == (motion > 0)
    written = load_optimisation_set(found.outputs["optimisation_set"])
    assert bool(written.trajectories) == (motion > 0)
