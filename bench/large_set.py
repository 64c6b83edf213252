"""100 000 particles in 100 tilt series, `large_set.py [PARTICLES] [SERIES]`: seconds and memory of check and filter.

Run with `PYTHONPATH=python:tests`.  Every command is a process of its own, started as a user starts it; images are
files with a header and a hole, since metadata do not ask for pixels.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tiltwise.io.mrc import write_map
from tiltwise.io.optimisation_set import write_optimisation_set, write_particles, write_tomograms
from tiltwise.model import OpticsGroup, OptimisationSet, Particles, TiltSeries
from tiltwise.sim.microscope import true_parameters
from tiltwise.sim.options import SimulateOptions

PIXEL, SIZE, TILTS = 1.35, (3838, 3710, 1400), 41


def make(folder: Path, count: int, n_series: int) -> Path:
    """A set as a refinement leaves it, 26 columns; returns its optimisation set."""
    rng = np.random.default_rng(1)
    options = SimulateOptions(
        output=folder, pixel_size=PIXEL, width_px=SIZE[0], height_px=SIZE[1], thickness=SIZE[2] * PIXEL
    )
    series: list[TiltSeries] = []
    (folder / "stacks").mkdir(parents=True)
    small = folder / "stacks" / "header.mrc"
    write_map(small, np.zeros((TILTS, 2, 2), np.float32), PIXEL)
    header = bytearray(small.read_bytes()[:1024])
    header[0:12] = np.array([SIZE[0], SIZE[1], TILTS], "<i4").tobytes()
    header[28:52] = np.concatenate(
        [np.array([SIZE[0], SIZE[1], TILTS], "<i4").view("<f4"), (np.array([SIZE[0], SIZE[1], TILTS]) * PIXEL)]
    ).astype("<f4").tobytes()  # fmt: skip
    for number in range(n_series):
        path = folder / "stacks" / f"TS_{number:03d}.mrcs"
        path.write_bytes(header)
        os.truncate(path, 1024 + 4 * SIZE[0] * SIZE[1] * TILTS)
        series.append(true_parameters(options, rng).series(f"TS_{number:03d}", options, str(path)))
    of = np.sort(rng.integers(0, n_series, count))
    optset = OptimisationSet(
        series=tuple(series),
        particles=Particles(
            name=tuple(f"{series[s].name}/{i}" for i, s in enumerate(of)),
            tomogram=tuple(series[s].name for s in of),
            coordinate_px=rng.uniform(0.1, 0.9, (count, 3)) * SIZE,
            origin_angstrom=rng.normal(0, 2, (count, 3)),
            angles_deg=rng.uniform(-180, 180, (count, 3)),
            subtomogram_angles_deg=rng.uniform(-180, 180, (count, 3)),
            half_set=rng.integers(1, 3, count),
            optics_index=np.zeros(count, np.int64),
            image_files=(),
            ctf_files=(),
            visible=(),
        ),
        optics=(OpticsGroup(1, "opticsGroup1", 300.0, 2.7, 0.1, PIXEL),),
        trajectories={},
        stacks_are_2d=False,
        documents=None,
        paths={},
    )
    extra = {
        "rlnMaxValueProbDistribution": rng.uniform(0, 1, count),
        "rlnLogLikeliContribution": rng.normal(5e4, 1e3, count),
        "rlnNormCorrection": rng.normal(1, 0.1, count),
        "rlnClassNumber": np.ones(count, np.int64),
        "rlnNrOfSignificantSamples": rng.integers(1, 200, count),
        "rlnGroupNumber": of + 1,
        "rlnHelicalTubeID": of,
        "rlnTomoManifoldIndex": of,
    }
    write_tomograms(folder / "tomograms.star", optset)
    write_particles(folder / "particles.star", optset, extra_columns=extra)
    write_optimisation_set(
        folder / "optimisation_set.star", tomograms=folder / "tomograms.star", particles=folder / "particles.star"
    )
    return folder / "optimisation_set.star"


def timed(name: str, *arguments: str) -> float:
    """Runs a command, prints what it took, returns the seconds."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "tiltwise", *arguments], stdout=subprocess.PIPE, text=True)
    output, _ = process.communicate() if process.stdout is None else (process.stdout.read(), None)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    last = output.strip().splitlines()[-1] if output.strip() else ""
    print(
        f"{name:<22} {seconds:5.1f} s {usage.ru_maxrss / 1e6:5.2f} GB  exit {os.waitstatus_to_exitcode(status)}  {last}"
    )
    return seconds


def main() -> None:
    """Prints the table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    n_series = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    with tempfile.TemporaryDirectory() as name:
        path = make(Path(name) / "set", count, n_series)
        particles, out = str(path.parent / "particles.star"), str(path.parent / "good.star")
        print(f"{count} particles, {n_series} tilt series, {os.path.getsize(particles) / 1e6:.0f} MB of particles.star")
        total = timed("check", "check", "--i", str(path), "--particle-diameter", "120")
        total += timed("filter and write", "star", "filter", particles, "rlnMaxValueProbDistribution > 0.3", "--o", out)
        print(f"{'together':<22} {total:5.1f} s")
        timed("stats", "star", "stats", particles, "--columns", "rlnMaxValueProbDistribution")


if __name__ == "__main__":
    main()
