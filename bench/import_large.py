"""Import, select and write many particles: `import_large.py [PARTICLES]`.

Run with `PYTHONPATH=python`.  Makes a project of RELION (26 columns, as after a refinement of 2D stacks) in a temporary
folder, then in a new process: imports it, writes it, checks what was written, keeps the particles of one half set that
lie near the centre and writes these.  Prints seconds of every step and peak memory.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

SERIES, TILTS, SIZE, PIXEL = 43, 41, (4000, 4000, 2000), 1.35
GLOBAL = """
rlnTomoName rlnVoltage rlnSphericalAberration rlnAmplitudeContrast rlnMicrographOriginalPixelSize rlnTomoHand
rlnOpticsGroupName rlnTomoTiltSeriesPixelSize rlnTomoTiltSeriesStarFile rlnTomoSizeX rlnTomoSizeY rlnTomoSizeZ
"""
TILT = """
rlnTomoNominalStageTiltAngle rlnMicrographPreExposure rlnDefocusU rlnDefocusV rlnDefocusAngle rlnTomoXTilt rlnTomoYTilt
rlnTomoZRot rlnTomoXShiftAngst rlnTomoYShiftAngst rlnCtfScalefactor
"""
OPTICS = """
rlnOpticsGroup rlnOpticsGroupName rlnVoltage rlnSphericalAberration rlnAmplitudeContrast rlnTomoTiltSeriesPixelSize
rlnImagePixelSize rlnImageSize rlnImageDimensionality
"""
PARTICLE = """
rlnTomoName rlnTomoSubtomogramRot rlnTomoSubtomogramTilt rlnTomoSubtomogramPsi rlnAngleRot rlnAngleTilt rlnAnglePsi
rlnAngleTiltPrior rlnAnglePsiPrior rlnOpticsGroup rlnTomoParticleName rlnTomoVisibleFrames rlnImageName rlnOriginXAngst
rlnOriginYAngst rlnOriginZAngst rlnCenteredCoordinateXAngst rlnCenteredCoordinateYAngst rlnCenteredCoordinateZAngst
rlnGroupNumber rlnClassNumber rlnNormCorrection rlnRandomSubset rlnLogLikeliContribution rlnMaxValueProbDistribution
rlnNrOfSignificantSamples
"""


def loop(name: str, labels: str, rows: list[str]) -> str:
    """One table of a STAR file."""
    head = "".join(f"_{label}\n" for label in labels.split())
    return f"\ndata_{name}\n\nloop_\n{head}" + "\n".join(rows) + "\n"


def make(folder: Path, count: int) -> None:
    """Project with `tomograms.star`, `tilt_series/` and `particles.star`, without images."""
    random = np.random.default_rng(1)
    (folder / "tilt_series").mkdir()
    series = [f"TS_{i:02d}" for i in range(SERIES)]
    for name in series:
        rows = [
            f"{3.0 * (tilt - 20)} {3.0 * tilt} 30000.0 29500.0 35.0 0.0 {3.0 * (tilt - 20)} 85.3 "
            f"{random.normal() * 20:.6f} {random.normal() * 20:.6f} 1.0"
            for tilt in range(TILTS)
        ]
        (folder / f"tilt_series/{name}.star").write_text(loop(name, TILT, rows))
    sizes = " ".join(map(str, SIZE))
    rows = [f"{name} 300.0 2.7 0.1 {PIXEL} -1 optics1 {PIXEL} tilt_series/{name}.star {sizes}" for name in series]
    (folder / "tomograms.star").write_text(loop("global", GLOBAL, rows))
    angles = random.uniform(-180, 180, (count, 6))
    place = random.uniform(-0.5, 0.5, (count, 3)) * np.array(SIZE) * PIXEL
    shift = random.normal(size=(count, 3)) * 3
    rows = []
    for i in range(count):
        name = series[i * SERIES // count]
        visible = ",".join("1" if (i + tilt) % 7 else "0" for tilt in range(TILTS))
        numbers = [" ".join(f"{value:.6f}" for value in values) for values in (angles[i], shift[i], place[i])]
        rows.append(
            f"{name} {numbers[0]} 90.0 0.0 1 {name}/{i} [{visible}] Extract/job071/{name}/{i}_stack2d.mrcs "
            f"{numbers[1]} {numbers[2]} 1 1 1.000000 {1 + i % 2} 1.5e+06 0.100000 12"
        )
    optics = loop("optics", OPTICS, [f"1 optics1 300.0 2.7 0.1 {PIXEL} {PIXEL} 192 2"])
    text = "\ndata_general\n\n_rlnTomoSubTomosAre2DStacks 1\n" + optics + loop("particles", PARTICLE, rows)
    (folder / "particles.star").write_text(text)


def measure(folder: Path) -> None:
    """Import, select, write, and print what each took."""
    began = time.perf_counter()
    from tiltwise.check.options import CheckOptions
    from tiltwise.check.run import check
    from tiltwise.interchange.options import ImportOptions
    from tiltwise.interchange.programs import choose
    from tiltwise.interchange.run import visibility
    from tiltwise.io.optimisation_set import write_particles, write_tomograms
    from tiltwise.jobs.progress import choose_progress
    from tiltwise.model.poses import poses_of

    times = {"start": time.perf_counter() - began}

    def done(name: str) -> None:
        times[name] = time.perf_counter() - began - sum(times.values())

    options = ImportOptions(
        input=folder / "particles.star", tomograms=folder / "tomograms.star", output=folder, image_size="3710,3838"
    )
    optset = choose(options).read(options).optset
    done("import")
    inside, _ = visibility(optset)
    done("visibility")
    out = folder / "out"
    out.mkdir()
    write_tomograms(out / "tomograms.star", optset)
    write_particles(out / "particles.star", optset)
    done("write")
    result = check(
        CheckOptions(particles=out / "particles.star", tomograms=out / "tomograms.star"),
        choose_progress(quiet=True, json=False),
    )
    done(f"check ({len(result.findings)} findings)")
    centre = np.array([one / 2 * PIXEL for one in SIZE])
    near = np.abs(poses_of(optset)[1] - centre).max(axis=1) < 2000
    rows = np.flatnonzero(near & (optset.particles.half_set == 1))
    selected = replace(optset, particles=optset.particles.take(rows))
    write_particles(out / "selected.star", selected)
    done("select and write")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    steps = ", ".join(f"{name} {value:.2f} s" for name, value in times.items())
    print(f"{len(optset.particles)} particles, {inside} inside, {len(rows)} selected: {steps}; ", end="")
    print(f"{sum(times.values()):.2f} s in all, peak {peak:.2f} GB")


def main() -> None:
    """Makes the project and measures in a process of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("particles", type=int, nargs="?", default=100_000)
    parser.add_argument("--measure", type=Path)
    chosen = parser.parse_args()
    if chosen.measure is not None:
        measure(chosen.measure)
        return
    with tempfile.TemporaryDirectory() as name:
        make(Path(name), chosen.particles)
        subprocess.run([sys.executable, __file__, "--measure", name], check=True)


if __name__ == "__main__":
    main()
