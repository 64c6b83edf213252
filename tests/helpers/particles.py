"""Simulated particles without files: a reference, poses, CTFs and noise, straight to whitened images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tiltwise.em.likelihood import Scorer, shift_phases
from tiltwise.extract.images import ParticleImages
from tiltwise.geometry.projection import projection_matrices_from_angles
from tiltwise.kernels.select import load_backend
from tiltwise.maps.volumes import reference_volume
from tiltwise.maps.whitening import WhitenedImages, whiten
from tiltwise.model import Particles, TiltSeries
from tiltwise.spectral.disc import FourierDisc


def tilt_series(tilts: int | NDArray[np.float64], pixel_size: float) -> TiltSeries:
    """A series without images: so many tilts from -60 to 60 degrees, or those given."""
    tilt = np.linspace(-60.0, 60.0, tilts) if isinstance(tilts, int) else tilts
    zero, one = np.zeros(len(tilt)), np.ones(len(tilt))
    size = (200, 200, 100)
    return TiltSeries(
        name="TS",
        optics_group_name="og",
        pixel_size_angstrom=pixel_size,
        image_size=(200, 200),
        tomogram_size=size,
        projection=projection_matrices_from_angles(zero, tilt, zero + 85.0, zero, zero, pixel_size, size, (200, 200)),
        defocus_u_angstrom=zero,
        defocus_v_angstrom=zero,
        defocus_angle_deg=zero,
        phase_shift_deg=zero,
        ctf_scale=one,
        ctf_bfactor_angstrom2=zero,
        pre_exposure=zero,
        nominal_tilt_deg=tilt,
        voltage_kv=300.0,
        spherical_aberration_mm=2.7,
        amplitude_contrast=0.1,
        hand=-1.0,
        defocus_slope=1.0,
        bfactor_per_dose=0.0,
        image_files=(),
        image_index=np.arange(len(tilt)),
    )


def particles_at(coordinates: NDArray[np.float64]) -> Particles:
    """Particles of the series TS at positions (n, 3), unturned, without images of their own."""
    n = len(coordinates)
    zero = np.zeros((n, 3))
    return Particles(
        name=tuple(f"TS/{i + 1}" for i in range(n)),
        tomogram=("TS",) * n,
        coordinate_px=np.asarray(coordinates, float),
        origin_angstrom=zero,
        angles_deg=zero,
        subtomogram_angles_deg=zero,
        half_set=np.zeros(n, np.int64),
        optics_index=np.zeros(n, np.int64),
        image_files=(),
        ctf_files=(),
        visible=(),
    )


def blobs(box: int, count: int, spread: float, width: float, seed: int = 2) -> NDArray[np.float32]:
    """`count` Gaussians of `width` pixels, their centres within `spread` pixels of the origin along each axis."""
    rng = np.random.default_rng(seed)
    axis = np.arange(box) - box // 2
    total = np.zeros((box,) * 3)
    for centre in rng.uniform(-spread, spread, (count, 3)):
        z, y, x = (np.exp(-((axis - c) ** 2) / (2 * width**2)) for c in centre)
        total += z[:, None, None] * y[:, None] * x
    return total.astype(np.float32)


@dataclass
class SimulatedParticles:
    """Particles of one series with known poses."""

    scorer: Scorer
    series: TiltSeries
    disc: FourierDisc
    pixel_size: float
    rotations: NDArray[np.float64]
    shifts: NDArray[np.float64]
    """(n, 3) Å"""
    raw: list[ParticleImages]
    whitened: list[WhitenedImages]
    noise_power: NDArray[np.float64]

    @classmethod
    def create(
        cls,
        n: int,
        *,
        box: int,
        tilts: int,
        pixel_size: float,
        nats: float,
        radius: float,
        reach_angstrom: float,
        threads: int = 1,
        backend: str = "auto",
        seed: int = 1,
        density: NDArray[np.float32] | None = None,
    ) -> SimulatedParticles:
        """`nats` is the mean power of the signal over the noise, sum of B |V|^2 below `radius`."""
        rng = np.random.default_rng(seed)
        series, disc, every = tilt_series(tilts, pixel_size), FourierDisc.create(box), np.arange(tilts)
        density = blobs(box, 40, 0.25 * box, 1.2) if density is None else density
        scorer = Scorer(load_backend(backend), reference_volume(density), 2.0, threads)
        rotations = Rotation.random(n, rng=rng).as_matrix()
        shifts = rng.normal(size=(n, 3)) * reach_angstrom / 2.5
        ctf = np.cos(0.08 * disc.shells + 0.2 * every[:, None])
        models = [scorer.slices(series, every, r[None], disc.frequencies3d()).reshape(tilts, -1) for r in rotations]
        count = disc.count(radius)
        signal = np.mean([(np.abs(ctf * m)[:, 1:count] ** 2).sum() for m in models])
        sigma = np.sqrt(signal / nats)
        noise_power = np.full((tilts, disc.n_shells), sigma**2)
        raw = []
        for model, shift in zip(models, shifts, strict=True):
            back = shift_phases(series, every, shift[None], disc, pixel_size, len(disc)).reshape(tilts, -1).conj()
            noise = rng.normal(size=(2, *model.shape)) * sigma / np.sqrt(2)
            data = (ctf * (ctf * model * back + noise[0] + 1j * noise[1])).astype(np.complex64)
            raw.append(ParticleImages(every, data, data, (ctf**2).astype(np.float32), noise_power))
        whitened = [whiten(images, disc, noise_power, len(disc)) for images in raw]
        return cls(scorer, series, disc, pixel_size, rotations, shifts, raw, whitened, noise_power)
