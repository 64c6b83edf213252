"""Model, sampling and optimiser files: units, tables, directions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from helpers.compare import assert_close
from tiltwise.em.relion_files import shell_table
from tiltwise.geometry.directions import direction_shares
from tiltwise.geometry.rotations import matrix_to_euler
from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.io.refine_files import Model, Sampling, ShellTable, write_model, write_optimiser, write_sampling
from tiltwise.io.star import read_star
from tiltwise.kernels.select import load_backend
from tiltwise.maps.volumes import Accumulator, solve_map
from tiltwise.spectral.disc import FourierDisc
from tiltwise.spectral.fft import rfft3
from tiltwise.spectral.shells import shell_means

BOX = 24


def noise_only() -> Accumulator:
    """Sums of 600 images of white noise of power 4."""
    rng = np.random.default_rng(1)
    disc = FourierDisc.create(BOX)
    shape = (600, len(disc))
    images = (rng.normal(size=shape) + 1j * rng.normal(size=shape)) * np.sqrt(4.0 / 2.0)
    accumulator = Accumulator.empty(BOX)
    matrices = np.ascontiguousarray(2.0 * Rotation.random(600, rng=rng).as_matrix(), dtype=np.float32)
    load_backend("auto").insert(
        (images / 4.0).astype(np.complex64),
        np.full(shape, 1 / 4.0, np.float32),
        matrices,
        disc.frequencies3d(),
        BOX,
        accumulator.data,
        accumulator.weight,
        threads=1,
    )
    return accumulator.complete()


def test_noise_of_the_table_is_that_of_the_map() -> None:
    """Power of the voxels of V = FFT(map) / N, within what the attenuation at the rim of the box adds."""
    sums = noise_only()
    fsc = np.full(BOX // 2 + 1, 0.5)
    table = shell_table(sums, fsc, fsc)
    power = shell_means(np.abs(rfft3(solve_map(sums), norm="backward") / BOX) ** 2, BOX, 3)
    ratio = power[3:10] / table.noise_power[3:10]
    assert ratio.min() >= 0.8
    assert ratio.max() <= 1.6
    np.testing.assert_allclose(table.signal_to_noise, 1.0)
    np.testing.assert_allclose(table.signal_power, table.noise_power)


def test_completeness_counts_voxels_with_more_signal_than_noise() -> None:
    """A hundred times the mean weight is needed at FSC 0.01; below shell 5 there is no prior."""
    sums = noise_only()
    fsc = np.full(BOX // 2 + 1, 0.99)
    well = shell_table(sums, fsc, fsc).completeness
    badly = shell_table(sums, fsc, np.full_like(fsc, 0.01)).completeness
    assert well[5:10].min() > 0.9
    assert badly[5:].max() == 0
    assert badly[1:5].min() > 0.9


def model(path: Path) -> Model:
    shells = BOX // 2 + 1
    flat = np.ones(shells)
    return Model(
        map=path.parent / "run_class001.mrc",
        box=BOX,
        pixel_size_angstrom=2.5,
        resolution_angstrom=12.0,
        radius_shells=8,
        padding=2.0,
        tau2_fudge=1.0,
        offset_sigma_angstrom=3.0,
        angular_sigma_deg=None,
        log_likelihood=-5.0,
        max_probability=0.5,
        accuracy_deg=1.0,
        accuracy_angstrom=2.0,
        shells=ShellTable(flat * 0.5, flat * 2000, flat * 4.0, flat * 2.0, flat),
        series=["TS_01", "TS 02", "TS_03"],
        particles=[4, 5, 6],
        scale=[1.0, 0.9, 1.1],
        noise_power=[np.full((2, shells), 3.0), np.full((4, shells), 6.0), np.full((1, shells), 9.0)],
        optics=[np.array([0, 1]), np.array([2])],
        direction_share=np.array([0.25, 0.75]),
    )


def test_model_file_has_relions_tables_in_relions_units(tmp_path: Path) -> None:
    path = tmp_path / "run_model.star"
    write_model(path, model(path))
    document = read_star(path)
    general = document["model_general"]
    assert general.value("rlnCurrentResolution") == "12.000000"
    assert general.value("rlnNrOpticsGroups") == "2"
    assert document["model_classes"].value("rlnReferenceImage").endswith("run_class001.mrc")
    shells = document["model_class_1"]
    np.testing.assert_allclose(shells.floats("rlnAngstromResolution")[1:], BOX * 2.5 / np.arange(1, BOX // 2 + 1))
    np.testing.assert_allclose(shells.floats("rlnReferenceTau2"), 4.0 / (2 * BOX**2), rtol=1e-3)
    assert shells.floats("rlnSsnrMap").max() == 999.0
    assert document["model_groups"].text("rlnGroupName") == ["TS_01", "TS 02", "TS_03"]
    np.testing.assert_allclose(document["model_optics_group_1"].floats("rlnSigma2Noise") * 2 * BOX**2, 5.0, rtol=1e-3)
    np.testing.assert_allclose(document["model_optics_group_2"].floats("rlnSigma2Noise") * 2 * BOX**2, 9.0, rtol=1e-3)
    second = document["model_tilt_noise_2"]
    assert [label for label in second.columns if label.startswith("tiltwise")][-1] == "tiltwiseSigma2NoiseTilt004"


def test_sampling_and_optimiser(tmp_path: Path) -> None:
    directions, _ = direction_shares(1, np.zeros((1, 3)), symmetry_matrices("C1"))
    write_sampling(tmp_path / "s.star", Sampling(1, 0, "C1", 30.0, 8.0, 4.0, directions))
    document = read_star(tmp_path / "s.star")
    assert len(document["sampling_directions"]) == 48
    assert document["sampling_general"].value("rlnOffsetStep") == "4.000000"
    write_optimiser(tmp_path / "o.star", {"rlnModelStarFile": "run_model.star"})
    assert read_star(tmp_path / "o.star")["optimiser_general"].value("rlnModelStarFile") == "run_model.star"
    with pytest.raises(ValueError, match="rlnModleStarFile"):
        write_optimiser(tmp_path / "o.star", {"rlnModleStarFile": "run_model.star"})


@pytest.mark.parametrize("group", ["C1", "C4", "D3", "O"])
def test_shares_of_directions(group: str) -> None:
    """Every particle counts once, at the pixel of the unit that is nearest to it or to one of its mates."""
    symmetry = symmetry_matrices(group)
    rotations = Rotation.random(500, rng=np.random.default_rng(2)).as_matrix()
    directions, shares = direction_shares(3, matrix_to_euler(rotations), symmetry)
    assert abs(shares.sum() - 1.0) <= 1e-12
    assert len(directions) <= 2.2 * 768 / len(symmetry) + 24
    # mates of the particles count at the same pixels where the pixels of mates are mates
    if group in ("C1", "C4"):
        _, turned = direction_shares(3, matrix_to_euler(rotations @ symmetry[-1].T), symmetry)
        assert_close(turned, shares, 1e-12)


def test_direction_of_a_particle_is_its_pixel() -> None:
    directions, _ = direction_shares(2, np.zeros((1, 3)), symmetry_matrices("C1"))
    for number in (0, 17, 191):
        angles = np.append(directions[number], 33.0)[None]
        flipped = angles * [1, -1, 1] + [180, 0, 180]
        for given in (angles, flipped):
            _, shares = direction_shares(2, given, symmetry_matrices("C1"))
            assert np.flatnonzero(shares).tolist() == [number]
