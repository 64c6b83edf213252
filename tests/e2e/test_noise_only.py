"""Noise-only images: half maps must not agree, at fixed poses and beyond the starting map after a refinement."""

from __future__ import annotations

from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.refinements import run_refine
from tiltwise.em import reconstruct
from tiltwise.em.half_fsc import HalfFsc
from tiltwise.em.options import ReconstructOptions
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.progress import SilentProgress
from tiltwise.sim.options import SimulateOptions
from tiltwise.sim.simulate import simulate
from tiltwise.spectral.fsc import fsc, noise_sigma
from tiltwise.spectral.masks import soft_sphere

BOX = 32
DATA_SETS = 8
# Shell 0 is one component; that at Nyquist is filled up to half of its width only.
SHELLS = slice(1, BOX // 2)


def normalised_fsc(folder: Path, seed: int) -> NDArray[np.float64]:
    """FSC / sigma of the half maps of 2 x 10 particles, shells `SHELLS`."""
    options = SimulateOptions(
        output=folder / "data",
        tilt_series=2,
        particles=10,
        width_px=160,
        height_px=160,
        thickness=300.0,
        pixel_size=8.0,
        box=BOX,
        particle_diameter=120.0,
        beads=20,
        tilt_step=10.0,
        signal=False,
        noise=1.0,
        spacing=0.0,
        margin_px=BOX // 2,
        seed=seed,
        threads=1,
    )
    data = simulate(options)
    chosen = ReconstructOptions(
        input=data.optimisation_set, output=folder / "maps", box=BOX, split="random", seed=seed, threads=1
    )
    with FolderJob(chosen, ["tiltwise", "reconstruct"], SilentProgress()) as job:
        result = reconstruct.run(chosen, job, SilentProgress())
    sigma = noise_sigma(BOX, soft_sphere(BOX, BOX / 2, 5.0))  # the default mask
    return (result.fsc / sigma)[SHELLS]


def test_half_maps_of_noise_do_not_agree(tmp_path: Path) -> None:
    """Family-wise 99 % over all shells of all data sets, and no common bias that single shells would hide."""
    z = np.array([normalised_fsc(tmp_path / str(seed), seed) for seed in range(1, DATA_SETS + 1)])
    bound = NormalDist().inv_cdf(1.0 - 0.01 / (2 * z.size))
    if not np.abs(z).max() <= bound:
        pytest.fail(f"|FSC| reaches {np.abs(z).max():.2f} sigma; {z.size} shells allow {bound:.2f}")
    # Neighbouring shells are correlated through the mask, hence data sets, not shells, are the independent draws:
    # 4 sigma with the scatter of one whole data set no better than that of a third of its shells.
    limit = 4.0 / np.sqrt(z.size / 3)
    if not abs(z.mean()) <= limit:
        pytest.fail(f"FSC is {z.mean():.3f} sigma on average, at most {limit:.3f} expected")


def test_refinement_of_noise_finds_no_more_than_it_was_given(tmp_path: Path) -> None:
    """Images of noise aligned to a map of 60 Å: neither an iteration nor the end claims more than its soft edge.

    The edge is two shells wide and the mask blurs by one: 192 / (3.2 + 2) = 37 Å.
    """
    common = {
        "tilt_series": 2,
        "particles": 8,
        "width_px": 384,
        "height_px": 384,
        "thickness": 300.0,
        "pixel_size": 6.0,
        "box": BOX,
        "particle_diameter": 110.0,
        "beads": 120,
        "tilt_step": 20.0,
        "spacing": 250.0,
        "margin_px": BOX,
        "reference_resolution": 40.0,
        "threads": 1,
    }
    given = simulate(SimulateOptions(output=tmp_path / "given", seed=9, snr=0.5, **common))
    noise = simulate(SimulateOptions(output=tmp_path / "noise", seed=9, signal=False, noise=1.0, **common))
    result = run_refine(
        noise,
        tmp_path / "job",
        reference=given.reference,
        ini_high=60.0,
        iterations=3,
        offset_range_px=2.0,
        offset_step_px=2.0,
    )
    for row in result.history:
        assert row["resolution_angstrom"] > 45.0
        assert row["fsc0143_angstrom"] > 37.0
    assert result.resolution_angstrom > 37.0


def test_search_of_all_orientations_of_noise_finds_no_more_than_its_reference_has(tmp_path: Path) -> None:
    """Einstein from noise, from a map low-passed at shell 5, which both halves know from the start.

    Flat posteriors fill the map with spheres.  One more shell may hold what the mask brings there.
    """
    shell, box, pixel = 5, 24, 8.0
    data = simulate(
        SimulateOptions(
            output=tmp_path / "data",
            tilt_series=2,
            particles=3,
            width_px=128,
            height_px=128,
            thickness=400.0,
            pixel_size=pixel,
            box=box,
            particle_diameter=110.0,
            beads=200,
            tilt_step=20.0,
            spacing=60.0,
            margin_px=24,
            signal=False,
            noise=1.0,
            seed=2,
            threads=1,
        )
    )
    resolution = box * pixel / (shell + 0.05)
    result = run_refine(
        data,
        tmp_path / "job",
        reference=data.true_map,
        box=40,
        crop=box,
        ini_high=resolution,
        low_resol_join_halves=resolution,
        healpix_order=2,
        auto_local_healpix_order=4,
        oversampling=0,
        offset_range_px=2.0,
        offset_step_px=1.5,
        iterations=1,
    )
    assert result.history[-1]["resolution_angstrom"] >= box * pixel / (shell + 1)
    assert result.resolution_angstrom >= box * pixel / (shell + 1)
    assert result.fsc[shell + 2 :].max() <= 0.4


def test_spheres_that_agree_by_chance_are_no_resolution() -> None:
    """A flat posterior spreads a particle over all orientations: spheres, whose shells agree in all or nothing."""
    rng = np.random.default_rng(1)
    frequency = np.fft.fftfreq(BOX, 1.0 / BOX)
    radius = np.sqrt(sum(axis**2 for axis in np.meshgrid(frequency, frequency, frequency, indexing="ij")))
    shells = np.minimum(np.rint(radius).astype(int), BOX // 2)

    def sphere() -> NDArray[np.float32]:
        density = np.fft.fftshift(np.fft.ifftn(np.abs(rng.normal(size=BOX // 2 + 1))[shells]).real)
        return (density / density.std() + 0.2 * rng.normal(size=density.shape)).astype(np.float32)

    mask = soft_sphere(BOX, 10.0, 4.0)
    first, second = sphere(), sphere()
    assert fsc(first, second, mask)[6:14].min() >= 0.5
    curve = HalfFsc(mask, False, 1).curve(first, second, 1)
    assert np.abs(curve[6:14]).max() <= 0.35
    structure = (10.0 * soft_sphere(BOX, 3.0, 2.0) * rng.normal(size=mask.shape)).astype(np.float32)
    one, other = first + structure, second + structure
    both, plain = HalfFsc(mask, False, 1).curve(one, other, 1), fsc(one, other, mask)
    assert np.array_equal(both[:6], plain[:6])
    assert both[6:14].min() >= 0.5
