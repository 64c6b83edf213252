"""B-factor from subsets of sums without images, against the same fit to noise-free curves of the spectrum of the map.

    PYTHONPATH=python python bench/bfactor_bias.py [--snr 0.002] [--radius 12] [--structures 10]

Random structures of B = 300 Å² in boxes of 32 pixels of 3 Å, subsets of 1, 4 and 16 parts, each drawn eight times.
`snr` is that of one part at 10 Å.  Printed are means over structures, their errors, and medians.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from tiltwise.em.bfactor import crossing
from tiltwise.maps.spectra import half_maps
from tiltwise.maps.volumes import Accumulator, PackedSums, padded_shells, reference_volume
from tiltwise.spectral.fft import rfft3
from tiltwise.spectral.fsc import fsc
from tiltwise.spectral.masks import soft_sphere

F64 = NDArray[np.float64]
B, PIXEL, BOX, SIZES, DRAWS = 300.0, 3.0, 32, (1, 4, 16), 8
SHELL = np.arange(BOX // 2 + 1)


def main() -> None:
    """Draw, measure, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--snr", type=float, default=0.002)
    parser.add_argument("--radius", type=float, default=12.0, help="of structure and mask, in pixels")
    parser.add_argument("--structures", type=int, default=10)
    chosen = parser.parse_args()
    rows = np.array([one(seed, chosen.snr, chosen.radius) for seed in range(chosen.structures)])
    means, errors = rows.mean(axis=0), rows.std(axis=0) / np.sqrt(len(rows))
    names = ("single curves - law, Å²", "mean curves - law, Å²", "scatter of the smallest, %", "law, Å²")
    for name, mean, error, middle in zip(names, means, errors, np.median(rows, axis=0), strict=True):
        print(f"{name:28} {mean:7.1f} +- {error:.1f}, median {middle:.1f}")


def one(seed: int, snr: float, radius: float) -> tuple[float, float, float, float]:
    """What is printed, of one structure."""
    rng = np.random.default_rng(seed)
    k = np.fft.fftfreq(BOX, PIXEL)
    k2 = k[:, None, None] ** 2 + k[:, None] ** 2 + k**2
    random = np.fft.ifftn(np.fft.fftn(rng.normal(size=(BOX,) * 3)) * np.exp(-B * k2 / 4)).real
    mask = soft_sphere(BOX, radius, 4).astype(np.float32)
    structure = np.asarray(random * mask, np.float32)
    volume = reference_volume(structure)
    shell = np.maximum(padded_shells(BOX, len(volume)), 0.5)
    tenth = 0.1 * BOX * PIXEL
    weight = tenth / shell
    scale = np.sqrt(snr / np.mean(np.abs(volume[np.abs(shell - tenth) < 1]) ** 2))
    curves: dict[int, list[F64]] = {size: [] for size in SIZES}
    for size in SIZES:
        for _ in range(DRAWS):
            halves = []
            for _ in range(2):
                noise = rfft3(rng.normal(size=(len(volume),) * 3))
                data = size * weight * scale * volume + np.sqrt(size * weight) * noise
                halves.append(PackedSums.of(Accumulator(BOX, data, size * weight), 1.0))
            curves[size].append(fsc(*half_maps(*halves)[:2], mask))
    single = [np.array([length(curve) for curve in curves[size]]) for size in SIZES]
    middle = length(np.mean(curves[SIZES[1]], axis=0))
    power = spectrum(structure * mask)

    def law(level: float, size: int) -> float:
        ratio = np.exp(level) * size * power / np.maximum(SHELL, 0.5)
        return length(ratio / (1.0 + ratio))

    start = -np.log(power[8])
    level = brentq(lambda value: law(value, SIZES[1]) - middle, start - 6, start + 10)
    expected = bfactor([law(level, size) for size in SIZES])
    return (
        bfactor([float(values.mean()) for values in single]) - expected,
        bfactor([length(np.mean(curves[size], axis=0)) for size in SIZES]) - expected,
        100.0 * float(single[0].std() / single[0].mean()),
        expected,
    )


def length(curve: F64) -> float:
    """Resolution in Å."""
    return BOX / crossing(curve) * PIXEL


def bfactor(lengths: list[float]) -> float:
    """From the smallest and the largest subset."""
    x = np.array(lengths) ** -2.0
    return float(2.0 * (np.log(SIZES[-1] / SIZES[0]) - 0.5 * np.log(x[-1] / x[0])) / (x[-1] - x[0]))


def spectrum(values: NDArray[np.float32]) -> F64:
    """(N // 2 + 1,) mean power of shells."""
    k = np.fft.fftfreq(BOX, 1 / BOX)
    shell = np.rint(np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)).astype(int).ravel()
    total = np.bincount(shell, (np.abs(np.fft.fftn(values)) ** 2).ravel())
    return np.asarray((total / np.bincount(shell))[: BOX // 2 + 1])


if __name__ == "__main__":
    main()
