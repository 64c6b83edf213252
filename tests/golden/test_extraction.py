"""2D stacks and pseudo-subtomograms against files written by RELION-5 (--b 128 --crop 64 --bin 1)."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import pytest
from numpy.typing import NDArray

from tiltwise.export import extract
from tiltwise.export.options import ExtractOptions
from tiltwise.extract.pseudo import pseudo_subtomogram
from tiltwise.extract.source import ParticleSource, Poses
from tiltwise.geometry.rotations import euler_to_matrix
from tiltwise.io.optimisation_set import load_optimisation_set, write_particles
from tiltwise.io.stacks import PseudoSubtomogram
from tiltwise.io.star import read_star
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.progress import SilentProgress

BOX, CROP = 128, 64
PARTICLES = [1, 7]

# Both programs work in single precision: 2e-7 to 4e-7 are left by rounding.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def golden(shared_data: Path) -> Path:
    return shared_data / "golden/refine"


@pytest.fixture(scope="module")
def source(golden: Path) -> ParticleSource:
    optset = load_optimisation_set(golden / "optimisation_set.star")
    return ParticleSource(optset, box_px=BOX, crop_px=CROP, binning=1.0, diameter_angstrom=None)


def read(path: Path) -> NDArray[np.float64]:
    with mrcfile.open(path, permissive=True) as file:
        return np.array(file.data, dtype=np.float64)


def difference(found: NDArray[np.floating], expected: NDArray[np.float64]) -> float:
    assert found.shape == expected.shape
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def position(source: ParticleSource, number: int) -> tuple[int, NDArray[np.float64]]:
    row = number - 1
    assert source.optset.particles.name[row] == f"TS_01/{number}"
    displacement = Poses.of(source.optset).displacement_angstrom[row] / 4.0
    return row, source.optset.particles.coordinate_px[row] + displacement


def pseudo(source: ParticleSource, number: int, **options: bool) -> PseudoSubtomogram:
    row, centre = position(source, number)
    frame = euler_to_matrix(source.optset.particles.subtomogram_angles_deg[row])
    return pseudo_subtomogram(source.loader(row), centre, None, frame, **options)


def full_cube(half: NDArray[np.float32]) -> NDArray[np.float32]:
    """RELION's cube with the origin at c / 2.  Of every pair of mates in its plane x = -c / 2 the file shows the
    value stored for the one with z < 0, or z = 0 and y <= 0."""
    size = len(half)
    z, y, x = np.meshgrid(*(np.arange(-size // 2, size // 2),) * 3, indexing="ij")
    mirrored = np.where(x == -size // 2, (z > 0) | ((z == 0) & (y > 0)), x < 0)
    sign = np.where(mirrored, -1, 1)
    return half[(sign * z) % size, (sign * y) % size, np.abs(x)]


@pytest.mark.parametrize("number", PARTICLES)
def test_stack_of_images(golden: Path, source: ParticleSource, number: int) -> None:
    row, centre = position(source, number)
    tilts, images = source.loader(row).stack(centre)
    np.testing.assert_array_equal(tilts, np.arange(31))
    assert difference(images, read(golden / f"relion/stack2d/{number}_stack2d.mrcs")) <= TOLERANCE


@pytest.mark.parametrize("number", PARTICLES)
def test_pseudo_subtomogram(golden: Path, source: ParticleSource, number: int) -> None:
    result = pseudo(source, number)
    folder = golden / "relion/pseudo3d"
    weights = read(folder / f"{number}_weights.mrc")
    assert result.multiplicity is not None
    assert result.pixel_size_angstrom == 4.0
    assert difference(result.data, read(folder / f"{number}_data.mrc")) <= TOLERANCE
    assert difference(result.ctf2, weights[:CROP]) <= TOLERANCE
    assert difference(result.multiplicity, weights[CROP:]) <= TOLERANCE
    assert difference(full_cube(result.multiplicity), read(folder / f"{number}_multi.mrc")) <= TOLERANCE


def test_independent_samples_give_the_same_subtomogram(source: ParticleSource) -> None:
    """Cropping before the transform changes how noise is interpolated, not what is measured."""
    ours, relion = pseudo(source, 1, relion_compatible=False), pseudo(source, 1)
    assert ours.multiplicity is not None
    assert relion.multiplicity is not None
    # The area factor makes RELION's sums comparable: totals agree but for frequency zero, counted twice there.
    assert ours.multiplicity.sum() == pytest.approx(relion.multiplicity.sum(), rel=0.005)
    assert ours.ctf2.sum() == pytest.approx(relion.ctf2.sum(), rel=0.005)
    # Noise aliased by the coarser sampling of slices is all that differs: 0.98 to 0.99 measured.
    assert np.corrcoef(ours.data.ravel(), relion.data.ravel())[0, 1] >= 0.97
    assert ours.data.std() == pytest.approx(relion.data.std(), rel=0.06)


@pytest.mark.parametrize("form", ["stack2d", "pseudo3d"])
def test_the_command_writes_what_relion_writes(golden: Path, tmp_path: Path, form: str) -> None:
    """Files and rows of particles 1 and 7."""
    rows = [number - 1 for number in PARTICLES]
    optset = load_optimisation_set(golden / "optimisation_set.star")
    write_particles(tmp_path / "two.star", optset, particles=optset.particles.take(np.array(rows)))
    options = ExtractOptions(
        particles=tmp_path / "two.star",
        tomograms=Path(optset.paths["tomograms"]),
        output=tmp_path,
        box=BOX,
        crop=CROP,
        stack2d=form == "stack2d",
        threads=2,
    )
    with FolderJob(options, ["tiltwise", "extract"], SilentProgress()) as job:
        result = extract.run(options, job, SilentProgress())
    ours, theirs = read_star(result.outputs["particles"]), read_star(golden / "relion" / form / "particles.star")
    for label in ("X", "Y", "Z"):
        found = ours["particles"].floats(f"rlnCenteredCoordinate{label}Angst")
        np.testing.assert_allclose(found, theirs["particles"].floats(f"rlnCenteredCoordinate{label}Angst"), atol=1e-4)
        assert not ours["particles"].floats(f"rlnOrigin{label}Angst").any()
    for label in ("Rot", "Tilt", "Psi"):
        found = ours["particles"].floats(f"rlnAngle{label}")
        np.testing.assert_allclose(found, theirs["particles"].floats(f"rlnAngle{label}"), atol=1e-4)
    assert set(theirs["particles"].columns) <= set(ours["particles"].columns)
    for label in theirs["optics"].columns:
        assert float_or_text(ours["optics"].text(label)[0]) == float_or_text(theirs["optics"].text(label)[0]), label
    for number in PARTICLES:
        for file in sorted((golden / "relion" / form).glob(f"{number}_*.mrc*")):
            if "multi" not in file.name:
                written = tmp_path / "Subtomograms/TS_01" / file.name
                assert difference(read(written), read(file)) <= TOLERANCE
                with mrcfile.open(written, permissive=True) as one, mrcfile.open(file, permissive=True) as other:
                    assert one.voxel_size.x == pytest.approx(other.voxel_size.x, rel=1e-5)


def float_or_text(value: str) -> float | str:
    try:
        return float(value)
    except ValueError:
        return value
