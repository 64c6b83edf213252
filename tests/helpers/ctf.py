"""Evidence about CTFs from random slices in Fourier space: statistics alone, without images or interpolation."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from helpers.particles import tilt_series
from tiltwise.ctf.evidence import TERMS, Block, Evidence
from tiltwise.ctf.series import SeriesModel, Settings
from tiltwise.extract.ctf_plan import CtfPlan
from tiltwise.kernels.select import load_backend
from tiltwise.model import OpticsGroup, TiltSeries
from tiltwise.spectral.disc import FourierDisc

BOX, PIXEL_SIZE = 64, 2.0
DEFOCUS = 25000.0
BFACTOR = 80.0
"""Power of the slices: snr exp(-80 k^2 / 2) over unit noise."""
OPTICS = OpticsGroup(1, "og", 300.0, 2.7, 0.07, PIXEL_SIZE)


def settings(**changes: object) -> Settings:
    """Everything fitted, no prior unless asked for."""
    values: dict[str, object] = {
        "defocus": True,
        "scale": True,
        "kmin_angstrom": 30.0,
        "scale_kmin_angstrom": 30.0,
        "range_angstrom": (-3000.0, 3000.0),
        "sigma_defocus": float("inf"),
        "sigma_astigmatism": float("inf"),
    }
    return Settings(**{**values, **changes})  # type: ignore[arg-type]


@dataclass
class Planted:
    """A series with stated CTFs, and what images with other CTFs say."""

    series: TiltSeries
    evidence: Evidence

    def model(self, **changes: object) -> SeriesModel:
        """With `settings` changed."""
        return SeriesModel(self.series, self.evidence, settings(**changes), load_backend("auto"), 1)


def planted(
    change: NDArray[np.float64],
    *,
    particles: int = 60,
    snr: float = 0.02,
    scale: NDArray[np.float64] | float = 1.0,
    depth: float = 1000.0,
    blocks: int = 2,
    odd: NDArray[np.float64] | None = None,
    even: NDArray[np.float64] | None = None,
    seed: int = 0,
    signal: bool = True,
) -> Planted:
    """Images whose CTFs differ from the stated ones by `change` (F, 3) Å and a scale.

    `odd` and `even` (K,) or (F, K) are phases in radians that the metadata do not know.  Half of the `blocks` are of
    half set 1.
    """
    n_tilts = len(change)
    rng = np.random.default_rng(seed)
    disc = FourierDisc.create(BOX, 0.98 * BOX / 2)
    step = 1.0 / (BOX * PIXEL_SIZE)
    kx, ky = (disc.frequencies * step).T
    ones = np.ones(n_tilts)
    stated = replace(
        tilt_series(np.linspace(-60.0, 60.0, n_tilts), PIXEL_SIZE),
        defocus_u_angstrom=DEFOCUS * ones,
        defocus_v_angstrom=DEFOCUS * ones,
        amplitude_contrast=0.07,
    )
    plan = CtfPlan.create(stated, OPTICS, kx, ky)
    wavelength = -2.0 * plan.turns_per_angstrom[-1] / (kx[-1] ** 2 + ky[-1] ** 2)
    basis = -np.pi * wavelength * np.stack([kx**2 + ky**2, kx**2 - ky**2, 2 * kx * ky])
    depths = rng.uniform(-depth, depth, particles)
    block_of = np.arange(particles) % blocks
    sums, counts = np.zeros((blocks, n_tilts, TERMS, len(disc))), np.zeros((blocks, n_tilts), np.int64)
    for tilt in range(n_tilts):
        gamma = 2 * np.pi * (plan.turns[tilt] + np.outer(depths, plan.turns_per_angstrom))
        slices = normal(rng, particles, len(disc)) * np.sqrt(snr * np.exp(-(kx**2 + ky**2) * BFACTOR / 2))
        error = change[tilt] @ basis + (0.0 if even is None else np.broadcast_to(even, (n_tilts, len(kx)))[tilt])
        images = -np.sin(gamma + error) * slices * np.broadcast_to(scale, n_tilts)[tilt] * float(signal)
        images = images * np.exp(1j * (0.0 if odd is None else odd)) + normal(rng, particles, len(disc))
        d = -np.stack([np.sin(gamma), np.cos(gamma)])
        energy, product = np.abs(slices) ** 2, images * slices.conj()
        rows = [energy * d[0] * d[0], energy * d[0] * d[1], energy * d[1] * d[1]]
        rows += [
            product.real * d[0],
            product.real * d[1],
            product.imag * d[0],
            product.imag * d[1],
            np.abs(images) ** 2,
        ]
        for block in range(blocks):
            mine = block_of == block
            sums[block, tilt], counts[block, tilt] = [row[mine].sum(axis=0) for row in rows], mine.sum()
    which = [Block(1 + block % 2, block // 2, 0) for block in range(blocks)]
    amplitude = plan.amplitude.astype(np.float64)
    evidence = Evidence(disc, step, which, sums, counts, {}, amplitude, 1.0)
    add_up(evidence)
    return Planted(stated, evidence)


def add_up(evidence: Evidence) -> None:
    """Makes the sums of the halves those of their blocks, in place."""
    for half in (1, 2):
        evidence.halves[half] = sum(
            (sums for sums, block in zip(evidence.sums, evidence.blocks, strict=True) if block.half == half),
            np.zeros(evidence.sums.shape[1:]),
        )


def normal(rng: np.random.Generator, *shape: int) -> NDArray[np.complex128]:
    """Complex numbers with E|n|^2 = 1."""
    return np.asarray((rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / np.sqrt(2.0))


def changes(n_tilts: int, defocus: float, seed: int = 5, astigmatism: float = 0.0) -> NDArray[np.float64]:
    """(F, 3) random changes with these standard deviations in Å."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n_tilts, 3)) * [defocus, astigmatism, astigmatism]
