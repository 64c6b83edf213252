"""Images extracted before: 2D stacks with and without hidden tilts, pseudo-subtomograms in three layouts."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiltwise.errors import DataError
from tiltwise.io.mrc import read_map, write_map
from tiltwise.io.optimisation_set import load_optimisation_set
from tiltwise.io.stacks import read_pseudo_subtomogram, read_stack
from tiltwise.io.tilt_images import TiltImages


def stacks(project: Any, visible: str, sections: int) -> Any:
    """Project with one 2D stack per particle, section k filled with k."""
    names = []
    for i in range(3):
        images = np.broadcast_to(np.arange(sections, dtype=np.float32)[:, None, None], (sections, 8, 8))
        write_map(project.root / f"{i}_stack2d.mrcs", images, 4.0)
        names.append(f"{i}_stack2d.mrcs")
    project.column("particles.star", "general", "rlnTomoSubTomosAre2DStacks", ["1"])
    project.column("particles.star", "particles", "rlnImageName", names)
    project.column("particles.star", "particles", "rlnTomoVisibleFrames", [visible] * 3)
    return load_optimisation_set(project.set)


def test_stacks_without_the_hidden_tilts(project: Any) -> None:
    tilts, images = read_stack(stacks(project, "[0,1,1,0,1]", 3), 1)
    assert tilts.tolist() == [1, 2, 4]
    assert images[:, 0, 0].tolist() == [0.0, 1.0, 2.0]
    assert images.dtype == np.float32


def test_stacks_with_the_hidden_tilts(project: Any) -> None:
    tilts, images = read_stack(stacks(project, "[0,1,1,0,1]", 5), 1)
    assert tilts.tolist() == [1, 2, 4]
    assert images[:, 0, 0].tolist() == [1.0, 2.0, 4.0]


def test_stacks_that_fit_neither_way(project: Any) -> None:
    with pytest.raises(
        DataError, match=r"does not fit[\s\S]*3 visible tilts, or of all 5[\s\S]*found: 4 images of 8 x 8"
    ):
        read_stack(stacks(project, "[0,1,1,0,1]", 4), 1)


def test_there_are_no_stacks(project: Any) -> None:
    with pytest.raises(DataError, match="no 2D stacks"):
        read_stack(load_optimisation_set(project.set), 0)
    with pytest.raises(DataError, match="no pseudo-subtomograms"):
        read_pseudo_subtomogram(load_optimisation_set(project.set), 0)


def test_real_stacks_of_relion_and_warp(shared_data: Path) -> None:
    golden = load_optimisation_set(
        shared_data / "golden/refine/relion/stack2d/particles.star",
        tomograms=shared_data / "golden/refine/tomograms.star",
    )
    tilts, images = read_stack(golden, 1)
    assert (len(tilts), images.shape) == (31, (31, 64, 64))
    warp = load_optimisation_set(
        shared_data / "data/real_70S_warptools_2dstacks"
        "/warptools_test_4-tomos_10-ptcls_box-32_angpix-12_optimisation_set.star",
        need_images=False,
    )
    hidden = 0
    for i in range(len(warp.particles)):
        tilts, images = read_stack(warp, i)
        assert images.shape == (len(tilts), 32, 32)
        assert np.isfinite(images).all()
        hidden += 37 - len(tilts)
    assert hidden > 0


def test_real_outputs_of_relion5_extraction(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shared_data / "data/relion5_stack2d_outputs"
    monkeypatch.chdir(folder)
    for kind in ("even", "odd", "blank", "-999"):
        optset = load_optimisation_set(folder / f"Extract/job001_{kind}/optimisation_set.star", need_images=False)
        tilts, images = read_stack(optset, 1)
        assert (len(tilts), images.shape) == (31, (31, 64, 64))
        assert optset.optics[0].image_size == 64


def pseudo(shared_data: Path) -> Any:
    return load_optimisation_set(
        shared_data / "golden/refine/relion/pseudo3d/particles.star",
        tomograms=shared_data / "golden/refine/tomograms.star",
    )


def test_pseudo_subtomograms_of_relion(shared_data: Path) -> None:
    image = read_pseudo_subtomogram(pseudo(shared_data), 0)
    assert image.data.shape == (64, 64, 64)
    assert image.ctf2.shape == (64, 64, 33)
    assert image.pixel_size_angstrom == 4.0
    assert image.multiplicity is not None
    # 31 tilts meet at the origin, each spread over neighbouring voxels by the insertion kernel.
    assert 0 < image.ctf2[0, 0, 0] < image.multiplicity[0, 0, 0]
    assert 25 < image.multiplicity[0, 0, 0] < 45
    assert np.all(image.ctf2 <= image.multiplicity * (1 + 1e-5) + 1e-5)


def test_full_cubes_hold_the_same_in_another_order(shared_data: Path, tmp_path: Path) -> None:
    """`_multi.mrc` is the multiplicity as a full cube, origin at N // 2: read as such it must equal M."""
    optset = pseudo(shared_data)
    image = read_pseudo_subtomogram(optset, 0)
    cube = shared_data / "golden/refine/relion/pseudo3d/1_multi.mrc"
    files = (str(cube), *optset.particles.ctf_files[1:])
    other = read_pseudo_subtomogram(replace(optset, particles=replace(optset.particles, ctf_files=files)), 0)
    assert image.multiplicity is not None
    assert other.multiplicity is None
    # The cube holds one of the two conjugates at the Nyquist planes, which differ; compare inside.
    inside = np.s_[1:32, 1:32, :32]
    np.testing.assert_allclose(other.ctf2[inside], image.multiplicity[inside], rtol=1e-5, atol=1e-6)
    negative = np.s_[33:, 33:, :32]
    np.testing.assert_allclose(other.ctf2[negative], image.multiplicity[negative], rtol=1e-5, atol=1e-6)


def test_full_cubes_are_read_at_minus_k(shared_data: Path, tmp_path: Path) -> None:
    """A cube that is not even in k tells k from -k, as squared CTFs do not."""
    optset = pseudo(shared_data)
    cube = np.zeros((64, 64, 64))
    cube[32 - 3, 32 + 2, 32 - 5] = 1
    write_map(tmp_path / "w.mrc", cube, 0.25)
    files = (str(tmp_path / "w.mrc"), *optset.particles.ctf_files[1:])
    image = read_pseudo_subtomogram(replace(optset, particles=replace(optset.particles, ctf_files=files)), 0)
    assert np.argwhere(image.ctf2).tolist() == [[3, 64 - 2, 5]]


def test_half_layout_and_faults(shared_data: Path, tmp_path: Path) -> None:
    optset = pseudo(shared_data)
    shutil.copy(optset.particles.image_files[0], tmp_path / "data.mrc")
    weights = tmp_path / "weights.mrc"
    files = replace(
        optset,
        particles=replace(optset.particles, image_files=(str(tmp_path / "data.mrc"),), ctf_files=(str(weights),)),
    )
    both = np.array(read_raw(optset.particles.ctf_files[0]))
    write_map(weights, -both[:64], 0.25)
    half = read_pseudo_subtomogram(files, 0)
    assert half.multiplicity is None
    np.testing.assert_array_equal(half.ctf2, np.abs(both[:64]))
    write_map(weights, both[:100], 0.25)
    with pytest.raises(DataError, match=r"do not fit[\s\S]*33 x 64 x 128[\s\S]*found: 33 x 64 x 100"):
        read_pseudo_subtomogram(files, 0)
    both[100, 3, 3] = -1
    write_map(weights, both, 0.25)
    with pytest.raises(DataError, match="multiplicity is negative"):
        read_pseudo_subtomogram(files, 0)
    write_map(tmp_path / "data.mrc", np.ones((64, 64, 32)), 4.0)
    with pytest.raises(DataError, match="not an even cube"):
        read_pseudo_subtomogram(files, 0)
    damaged = bytearray((shared_data / "golden/refine/relion/pseudo3d/1_data.mrc").read_bytes())
    damaged[2000:2004] = np.float32(np.nan).tobytes()
    (tmp_path / "data.mrc").write_bytes(bytes(damaged))
    write_map(weights, np.abs(both), 0.25)
    with pytest.raises(DataError, match="NaN"):
        read_pseudo_subtomogram(files, 0)


def read_raw(path: str) -> np.ndarray:
    return read_map(path)[0]


def test_images_of_a_series_that_has_none(project: Any) -> None:
    (project.root / "tilt_series/TS_1.mrcs").unlink()
    optset = load_optimisation_set(project.set, need_images=False)
    with pytest.raises(DataError, match=r"not at hand[\s\S]*TS_1"):
        TiltImages(optset.series[0])


def test_one_file_per_tilt(project: Any) -> None:
    names = []
    for tilt in range(5):
        write_map(project.root / f"tilt_series/{tilt}.mrc", np.full((1, 48, 64), float(tilt)), 2.0)
        names.append(f"tilt_series/{tilt}.mrc")
    project.column("tilt_series/TS_1.star", "TS_1", "rlnMicrographName", names[::-1])
    optset = load_optimisation_set(project.set)
    images = TiltImages(optset.series[0])
    assert [images.image(tilt)[0, 0] for tilt in range(5)] == [4.0, 3.0, 2.0, 1.0, 0.0]
