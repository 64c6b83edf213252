"""Deformations in tomogram sets of RELION-5 and RELION-4."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiltwise.errors import DataError, FormatError
from tiltwise.geometry.deformation import Deformation, DeformationKind, DeformationModel
from tiltwise.io.optimisation_set import load_optimisation_set, notes_of, refuse_nonrigid, write_tomograms
from tiltwise.io.star import StarDocument, read_star, write_star
from tiltwise.io.tomograms import MATRIX_LABELS
from tiltwise.model import OptimisationSet, TiltSeries

GRIDS: dict[DeformationKind, tuple[int, int]] = {"affine": (3, 3), "fourier": (4, 5), "spline": (3, 2)}


def deformed(series: TiltSeries, kind: DeformationKind) -> TiltSeries:
    """With a random field that moves points by some pixels."""
    model = DeformationModel(kind, GRIDS[kind], series.image_size)
    values = np.random.default_rng(1).normal(size=(series.n_tilts, model.n_coefficients))
    return replace(series, deformation=Deformation(model, values * (1e-2 if kind == "affine" else 2.0)))


def points() -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.random.default_rng(2).uniform(0, 1, (100, 3)) * np.array([100, 90, 40])


def written(optset: OptimisationSet, series: tuple[TiltSeries, ...], path: Path) -> OptimisationSet:
    write_tomograms(path, optset, series=series)
    return load_optimisation_set(optset.paths["particles"], tomograms=path)


@pytest.mark.parametrize("kind", ["affine", "fourier", "spline"])
def test_deformation_round_trip(project: Any, tmp_path: Path, kind: DeformationKind) -> None:
    optset = load_optimisation_set(project.set)
    first = deformed(optset.series[0], kind)
    again = written(optset, (first, optset.series[1]), tmp_path / "t.star")
    assert np.abs(again.series[0].project(points()) - first.project(points())).max() <= 1e-6
    moved = first.project(points()) - optset.series[0].project(points())
    assert np.abs(moved[..., :2]).max() > 0.5
    # beside it RELION wants a type for every series
    assert again.series[1].deformation is None
    table = read_star(tmp_path / "t.star")["global"]
    name = {"affine": "linear", "fourier": "Fourier", "spline": "spline"}[kind]
    assert table.text("rlnTomoDeformationType") == [name, name]
    zeros = read_star(tmp_path / "tilt_series/TS_2.star")["TS_2"].vectors("rlnTomoDeformationCoefficients")
    assert not np.any(zeros)
    # what does not change keeps its text, what changes does not
    third = written(again, again.series, tmp_path / "copy/t.star")
    for name in ("TS_1", "TS_2"):
        one, other = (
            read_star(folder / f"tilt_series/{name}.star")[name].columns["rlnTomoDeformationCoefficients"]
            for folder in (tmp_path, tmp_path / "copy")
        )
        assert one == other
    straight = replace(third.series[0], deformation=None)
    last = written(third, (straight, deformed(third.series[1], kind)), tmp_path / "last/t.star")
    assert last.series[0].deformation is None
    assert last.series[1].deformation is not None


def test_waves_are_padded_as_relion_reads_them(project: Any, tmp_path: Path) -> None:
    optset = load_optimisation_set(project.set)
    written(optset, (deformed(optset.series[0], "fourier"), optset.series[1]), tmp_path / "t.star")
    vector = read_star(tmp_path / "tilt_series/TS_1.star")["TS_1"].vectors("rlnTomoDeformationCoefficients")[0]
    assert len(vector) == 4 * (4 // 2 + 1) * 5
    assert vector[:4].all()


def test_deformations_in_relion4_sets(project: Any, tmp_path: Path) -> None:
    optset = load_optimisation_set(project.set)
    table = read_star(optset.paths["tomograms"])["global"]
    table.drop("rlnTomoTiltSeriesStarFile")
    blocks = [table]
    for one in optset.series:
        block = read_star(project.root / f"tilt_series/{one.name}.star")[one.name]
        for axis, label in enumerate(MATRIX_LABELS):
            block.set_vectors(label, one.projection[:, axis])
        names = block.text("rlnMicrographName")
        block.set_text(
            "rlnMicrographName",
            [str((project.root / "tilt_series" / name).resolve()) if "@" not in name else name for name in names],
        )
        blocks.append(block)
    write_star(project.root / "four.star", StarDocument(blocks))
    four = load_optimisation_set(optset.paths["particles"], tomograms=project.root / "four.star")
    first = deformed(four.series[0], "spline")
    again = written(four, (first, four.series[1]), project.root / "out.star")
    assert not (project.root / "out").exists()
    assert np.abs(again.series[0].project(points()) - first.project(points())).max() <= 1e-6
    assert "rlnTomoDeformationCoefficients" in read_star(project.root / "out.star")["TS_1"]


def columns(project: Any, kind: str | None, grid: tuple[int, int], vector: str) -> None:
    if kind is not None:
        project.column("tomograms.star", "global", "rlnTomoDeformationType", [kind] * 2)
    for axis, size in zip("XY", grid, strict=True):
        project.column("tomograms.star", "global", f"rlnTomoDeformationGridSize{axis}", [str(size)] * 2)
    project.column("tilt_series/TS_1.star", "TS_1", "rlnTomoDeformationCoefficients", [vector] * 5)


def test_bad_deformations_are_refused(project: Any) -> None:
    columns(project, "linear", (3, 3), "[0.1,0.2]")
    with pytest.raises(FormatError, match=r"do not fit its type and grid[\s\S]*3 numbers \(linear, 3 x 3\)"):
        load_optimisation_set(project.set)
    columns(project, "wavelet", (3, 3), "[0.1,0.2]")
    with pytest.raises(FormatError, match=r"unknown type[\s\S]*wavelet"):
        load_optimisation_set(project.set)
    columns(project, "spline", (1, 3), "[0.1,0.2]")
    with pytest.raises(FormatError, match=r"too small[\s\S]*1 x 3"):
        load_optimisation_set(project.set)


def test_series_without_coefficients_beside_others(project: Any) -> None:
    columns(project, "linear", (3, 3), "[0.1,0.2,0.3]")
    optset = load_optimisation_set(project.set)
    assert optset.series[0].deformation is not None
    assert optset.series[1].deformation is None
    assert any("TS_2: no coefficients" in note for note in notes_of(optset))
    columns(project, "empty", (3, 3), "[0.1,0.2,0.3]")  # what RELION-4 writes for series without particles
    assert load_optimisation_set(project.set).series[0].deformation is None


def test_matrices_without_angles_are_refused_beforehand(project: Any) -> None:
    optset = load_optimisation_set(project.set)
    refuse_nonrigid(optset, optset.series)
    stretched = replace(optset.series[1], projection=optset.series[1].projection * np.array([[1.01], [1], [1], [1]]))
    with pytest.raises(DataError, match=r"RELION-5 angles[\s\S]*TS_2: 5 of 5 tilts"):
        refuse_nonrigid(optset, [optset.series[0], stretched])
