"""Rates of slicing and its transpose beside those of torch-fourier-slice, on the CPU and on the same work.

pip install torch torch-fourier-slice torch-ctf
python bench/torch_slices.py [--backend NAME] [--threads N ...] [--rotations N ...] [--mojo]

Central slices of a volume of 128 voxels (maps of 64, padded) at the Fourier pixels up to Nyquist, from real
noise and random rotations.  Each program runs with several numbers of rotations per call, and the rate of the
number that suits it best counts, in Fourier samples per second of its own.  Before that, answers must agree.

What differs, and how it is accounted for:

* torch-fourier-slice has images and volumes with frequency zero in the middle of y and z.
* It computes both halves of the column kx = 0 when it extracts, and pixels on the Nyquist circle: its samples
  are a few more, and counted as such.
* Samples beyond its last voxel, towards z or y = +N/2, are zero or dropped, where tiltwise goes on to the plane
  at -N/2: answers are compared at pixels that stay below, `COMMON`.
* Its insertion starts from zeros, adds Friedel mates on the plane x = 0 and keeps its sums in float32.  That of
  tiltwise is therefore timed with what makes this of it: empty accumulators, in float64, and their completion.
* The voxel of frequency zero is its own mate: added once there, twice by tiltwise.  It is left out.

`--mojo` adds the kernels of `torch_fourier_slice.experimental`.  They need the package mojo in the version that
their source was written for (1.0.0b2 for torch-fourier-slice 0.6.0), and a GPU that its compiler knows even for
the CPU, or their module built by hand for one (`mojo build --target-accelerator`).  They use all cores that the
process may run on, so they appear in the rows of that many threads only: `taskset -c 0` compares single cores.

Shortest times of several calls count, but on a machine that is busy with other work even these say little.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
import torch_fourier_slice
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tiltwise.kernels.api import Backend
from tiltwise.kernels.select import default_threads, load_backend
from tiltwise.maps.volumes import Accumulator
from tiltwise.spectral.disc import FourierDisc

BOX, PADDED = 64, 128
NYQUIST = PADDED / 2
COMMON = NYQUIST - 1.5
"""|k| below which both programs know the eight voxels of every sample; no pixel is exactly this far out"""
CHECKED = 41
"""rotations of the comparison of answers"""
TOLERANCE = 1e-4
"""relative L2; coordinates are rounded to float32 in other units there"""


@dataclass(frozen=True)
class Work:
    """What all programs are given, in the conventions of `tiltwise.kernels.api`."""

    disc: FourierDisc
    volume: NDArray[np.complex64]
    rotations: NDArray[np.float32]
    slices: NDArray[np.complex64]
    """(n, K), what `insert` adds"""

    @classmethod
    def create(cls, count: int, backend: Backend) -> Work:
        """The transform of a real volume of noise, so that its plane x = 0 is its own Friedel mate."""
        rng = np.random.default_rng(1)
        disc = FourierDisc.create(PADDED)
        volume = np.fft.rfftn(rng.normal(size=(PADDED,) * 3)).astype(np.complex64)
        rotations = np.ascontiguousarray(Rotation.random(count, rng=rng).as_matrix(), np.float32)
        return cls(disc, volume, rotations, backend.project(volume, rotations, disc.frequencies3d(), NYQUIST))

    def images(self) -> NDArray[np.complex64]:
        """The slices as half-complex images, (n, M, M // 2 + 1)."""
        images = np.zeros((len(self.slices), PADDED, PADDED // 2 + 1), np.complex64)
        images[:, self.disc.rows, self.disc.columns] = self.slices
        return images


@dataclass(frozen=True)
class Program:
    """Two jobs for the first n rotations, at pixels up to |k|, and what turns answers into those of tiltwise."""

    name: str
    pixels: dict[str, int]
    """Fourier samples of each slice, by job"""
    project: Callable[[int, float], Any]
    insert: Callable[[int, float], Any]
    read_slices: Callable[[Any], Any]
    """-> (n, M, M // 2 + 1), FFT order"""
    read_sums: Callable[[Any], tuple[Any, Any]]
    """-> data and weight (M, M, M // 2 + 1), FFT order"""

    def job(self, name: str) -> Callable[[int, float], Any]:
        """`project` or `insert`."""
        return self.insert if name == "insert" else self.project


def tiltwise_kernels(work: Work, backend: Backend, threads: int) -> Program:
    """The kernels of a backend."""
    every = work.disc.frequencies3d()
    weights = np.ones(work.slices.shape, np.float32)

    def project(n: int, limit: float) -> Any:
        k = every[: work.disc.count(limit)]
        return backend.project(work.volume, work.rotations[:n], k, NYQUIST, threads=threads)

    def insert(n: int, limit: float) -> Accumulator:
        count = work.disc.count(limit)
        # Contiguous already, and not copied, with all pixels.
        slices, ones = np.ascontiguousarray(work.slices[:n, :count]), np.ascontiguousarray(weights[:n, :count])
        sums = Accumulator.empty(BOX, PADDED // BOX)
        backend.insert(
            slices, ones, work.rotations[:n], every[:count], NYQUIST, sums.data, sums.weight, threads=threads
        )
        return sums.complete()

    def read_slices(slices: Any) -> Any:
        images = np.zeros((len(slices), PADDED, PADDED // 2 + 1), np.complex64)
        count = slices.shape[1]
        images[:, work.disc.rows[:count], work.disc.columns[:count]] = slices
        return images

    pixels = dict.fromkeys(("project", "insert"), len(work.disc))
    return Program("tiltwise", pixels, project, insert, read_slices, lambda sums: (sums.data, sums.weight))


def torch_pixels() -> dict[str, int]:
    """Pixels that torch-fourier-slice takes with its cutoff at Nyquist: |k| <= M / 2, and no mates in insertion."""
    ky, kx = np.meshgrid(np.arange(-PADDED // 2, PADDED // 2), np.arange(PADDED // 2 + 1), indexing="ij")
    disc = kx * kx + ky * ky <= NYQUIST**2
    return {"project": int(disc.sum()), "insert": int((disc & ((kx > 0) | (ky >= 0))).sum())}


def torch_functions(work: Work, threads: int) -> Program:
    """What torch-fourier-slice exports."""
    volume = torch.from_numpy(np.fft.fftshift(work.volume, axes=(0, 1)))
    images = torch.from_numpy(np.fft.fftshift(work.images(), axes=1))
    rotations = torch.from_numpy(work.rotations)

    def project(n: int, limit: float) -> Any:
        torch.set_num_threads(threads)
        return torch_fourier_slice.extract_central_slices_rfft_3d(volume, rotations[:n], fftfreq_max=limit / PADDED)

    def insert(n: int, limit: float) -> Any:
        torch.set_num_threads(threads)
        return torch_fourier_slice.insert_central_slices_rfft_3d(
            images[:n], (PADDED,) * 3, rotations[:n], fftfreq_max=limit / PADDED
        )

    def read_sums(sums: Any) -> tuple[Any, Any]:
        data, weight = (np.fft.ifftshift(a.numpy(), axes=(0, 1)) for a in sums)
        return data, weight

    return Program(
        "torch-fourier-slice",
        torch_pixels(),
        project,
        insert,
        lambda slices: np.fft.ifftshift(slices.numpy(), axes=1),
        read_sums,
    )


def mojo_kernels(work: Work) -> Program:
    """Its experimental kernels: FFT order, matrices for coordinates (z, y, x), all cores of the process."""
    from torch_fourier_slice import experimental

    if not experimental.mojo_kernels_available():
        raise SystemExit("--mojo: the kernels of torch_fourier_slice.experimental cannot be built here")
    volume, images = torch.from_numpy(work.volume), torch.from_numpy(work.images())
    rotations = torch.from_numpy(np.ascontiguousarray(work.rotations[:, ::-1, ::-1]))
    weights = torch.ones(images.shape)

    def project(n: int, limit: float) -> Any:
        return experimental.extract_central_slices_rfft_3d(volume, rotations[:n], fourier_radius_cutoff=limit)

    def insert(n: int, limit: float) -> Any:
        return experimental.insert_central_slices_rfft_3d(
            images[:n], rotations[:n], weights=weights[:n], fourier_radius_cutoff=limit
        )

    return Program(
        "the same, Mojo kernels",
        torch_pixels(),
        project,
        insert,
        lambda slices: slices.numpy(),
        lambda sums: (sums[0].numpy(), sums[1].numpy()),
    )


def difference(found: Any, expected: Any, what: str) -> float:
    """Relative L2 difference; stops the benchmark when it is too large."""
    error = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    if not error <= TOLERANCE:
        raise SystemExit(f"{what}: answers differ by {error:.2e}")
    return error


def compare(work: Work, ours: Program, other: Program) -> tuple[float, float, float]:
    """Differences of slices, of sums of data and of sums of weights."""
    count = min(CHECKED, len(work.rotations))
    common = slice(0, work.disc.count(COMMON))
    pixels = work.disc.rows[common], work.disc.columns[common]
    found, expected = (p.read_slices(p.project(count, NYQUIST))[:, *pixels] for p in (other, ours))
    (data, weight), (our_data, our_weight) = (p.read_sums(p.insert(count, COMMON)) for p in (other, ours))
    for array in (data, weight, our_data, our_weight):
        array[0, 0, 0] = 0
    return (
        difference(found, expected, f"project, {other.name}"),
        difference(data, our_data, f"insert, data, {other.name}"),
        difference(weight, our_weight, f"insert, weights, {other.name}"),
    )


def fastest(works: Sequence[Callable[[], Any]], rounds: int = 4, turn: float = 0.12) -> list[float]:
    """Shortest time of one call of each; they take turns, of at least two calls and `turn` seconds."""
    best = [np.inf] * len(works)
    for _ in range(rounds):
        for i, work in enumerate(works):
            spent, calls = 0.0, 0
            while spent < turn or calls < 2:
                began = time.perf_counter()
                work()
                took = time.perf_counter() - began
                best[i], spent, calls = min(best[i], took), spent + took, calls + 1
    return best


def measure(programs: Sequence[Program], job: str, counts: Sequence[int]) -> list[tuple[float, int]]:
    """Fourier samples per second of each program, and the rotations per call that gave it."""
    rates: list[list[tuple[float, int]]] = [[] for _ in programs]
    for count in counts:
        times = fastest([partial(program.job(job), count, NYQUIST) for program in programs])
        for program, took, found in zip(programs, times, rates, strict=True):
            found.append((program.pixels[job] * count / took, count))
    return [max(found) for found in rates]


def main() -> None:
    """Compare answers, measure and print."""
    cores, usual = len(os.sched_getaffinity(0)), default_threads()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, min(2, usual)}))
    parser.add_argument("--rotations", type=int, nargs="+", default=[8, 41, 164], help="per call")
    parser.add_argument("--mojo", action="store_true", help="also the experimental kernels")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    backend = load_backend(options.backend)
    work = Work.create(max(options.rotations), backend)
    print(f"torch-fourier-slice {version('torch-fourier-slice')}, torch {torch.__version__}; backend {backend.name}")
    for threads in options.threads:
        ours = tiltwise_kernels(work, backend, threads)
        others = [torch_functions(work, threads)]
        if options.mojo and threads == cores:
            others.append(mojo_kernels(work))
        for other in others:
            a, b, c = compare(work, ours, other)
            print(f"{threads} threads, {other.name}: slices differ by {a:.1e}, inserted data {b:.1e}, weights {c:.1e}")
        for job in ("project", "insert"):
            programs = [ours, *others]
            found = measure(programs, job, options.rotations)
            for program, (rate, count) in zip(programs, found, strict=True):
                head = f"{job:8} {threads} threads  {program.name:22} {program.pixels[job]} samples x {count:3}"
                ratio = "" if program is ours else f"  tiltwise is {found[0][0] / rate:5.1f} times as fast"
                print(f"{head}  {rate / 1e6:7.2f} Msamples/s{ratio}")


if __name__ == "__main__":
    main()
