"""What is taken off tilt images is what they hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tiltwise.errors import DataError
from tiltwise.extract.source import ParticleSource, Poses
from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.io.mrc import read_map
from tiltwise.io.optimisation_set import load_optimisation_set
from tiltwise.kernels.select import load_backend
from tiltwise.maps.focus import Frame
from tiltwise.maps.subtraction import Consensus, Subtraction
from tiltwise.model import OptimisationSet
from tiltwise.sim.options import SimulateOptions
from tiltwise.sim.simulate import simulate

CROP, PIXEL = 32, 6.0
OFFSET = np.array([5, -3, 2])


def made(folder: Path, **changes: object) -> OptimisationSet:
    """True poses, CTFs and motion; one particle to a series, so that nothing else is in its images."""
    values: dict[str, object] = {
        "particle_diameter": 110.0,
        "beads": 120,
        "pixel_size": PIXEL,
        "box": CROP,
        "tilt_series": 3,
        "particles": 1,
        "width_px": 256,
        "height_px": 256,
        "thickness": 300.0,
        "tilt_step": 12.0,
        "noise": 0.0,
        "margin_px": 90,
        "defocus": 15000.0,
        "defocus_spread": 1000.0,
        "astigmatism": 300.0,
        "motion": 2.0,
        "scale_at_60": 0.7,
        "precision": "float32",
        "threads": 1,
    }
    simulate(SimulateOptions(output=folder, **{**values, **changes}))  # type: ignore[arg-type]
    return load_optimisation_set(folder / "truth" / "optimisation_set.star")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("subtraction")


@pytest.fixture(scope="module")
def clean(folder: Path) -> OptimisationSet:
    return made(folder / "clean")


@pytest.fixture(scope="module")
def truth(folder: Path, clean: OptimisationSet) -> NDArray[np.float32]:
    return read_map(folder / "clean" / "truth" / "reference.mrc")[0]


def source_of(optset: OptimisationSet, box: int = 64) -> ParticleSource:
    return ParticleSource(optset, box_px=box, crop_px=CROP, binning=1.0, diameter_angstrom=None)


def all_but_nothing(optset: OptimisationSet, density: NDArray[np.float32], source: ParticleSource) -> Subtraction:
    """Everything is the rest."""
    return Subtraction(source, optset, [(1, 0)] * len(optset.particles), {(1, 0): density}, load_backend("auto"))


def energies(source: ParticleSource) -> tuple[float, float]:
    """Of C X at the Fourier pixels, and of X in the whole box."""
    images = [source.cut(i, np.zeros(3)) for i in range(len(source.optset.particles))]
    assert all(len(one.tilts) == 11 for one in images)
    return sum(float((np.abs(one.data) ** 2).sum()) for one in images), sum(float(one.power.sum()) for one in images)


def interpolation_error(density: NDArray[np.float32]) -> float:
    """Energy of what trilinear interpolation adds to slices, over their own.

    In a box of M voxels a point at x, divided by sinc^2(x / M), has ghosts at x +- M of relative amplitude
    (x / (M - |x|))^2 and (x / (M + |x|))^2, along every axis.
    """
    x, padded = np.abs(np.arange(CROP) - CROP // 2).astype(np.float64), 2.0 * CROP
    ghosts = (x / (padded - x)) ** 4 + (x / (padded + x)) ** 4
    share = density.astype(np.float64) ** 2
    along = ghosts[:, None, None] + ghosts[:, None] + ghosts
    return float((share * along).sum() / share.sum())


@pytest.mark.parametrize("box", [32, 64])
@pytest.mark.parametrize("offset", [np.zeros(3, np.int64), OFFSET], ids=["same box", "box elsewhere"])
def test_all_of_noise_free_images_is_taken_off(
    clean: OptimisationSet, truth: NDArray[np.float32], box: int, offset: NDArray[np.int64]
) -> None:
    """With motion, astigmatism and contrast scales; boxes on the particle, and at a point 37 Å off it."""
    moved = Frame(offset, PIXEL, truth, 100.0).particles(clean)
    source = source_of(moved, box)
    before, _ = energies(source)
    source.rest = all_but_nothing(clean, truth, source)
    after, _ = energies(source)
    # Half of what is left, and more, is beyond the shells that fringes leave the box from.
    tolerance = 2.0 * interpolation_error(truth)
    assert tolerance < 1e-3
    if not after <= tolerance * before:
        pytest.fail(f"{after / before:.2e} of the energy is left, {tolerance:.2e} allowed")


@pytest.mark.parametrize("offset", [np.zeros(3, np.int64), OFFSET], ids=["same box", "box elsewhere"])
def test_neighbours_are_taken_off(folder: Path, truth: NDArray[np.float32], offset: NDArray[np.int64]) -> None:
    """Twelve particles in front of each other: a tenth of the energy is that of others, and none is left."""
    crowd = made(folder / "crowd", particles=12, tilt_series=1, spacing=130.0, margin_px=60, thickness=400.0)
    source = source_of(Frame(offset, PIXEL, truth, 100.0).particles(crowd))
    before, _ = energies(source)
    source.rest = all_but_nothing(crowd, truth, source)
    alone, _ = energies(source)
    whole = np.where(np.abs(truth) > 1e-3, truth, 0.0).astype(np.float32)  # a radius of less than the box
    keys = [(1, 0)] * 12
    source.rest = Subtraction(source, crowd, keys, {(1, 0): truth}, load_backend("auto"), {(1, 0): whole})
    after, _ = energies(source)
    assert alone > 0.05 * before
    if not after <= 2.0 * interpolation_error(truth) * before:
        pytest.fail(f"{after / before:.2e} of the energy is left")


def test_copies_of_a_particle_are_no_neighbours(clean: OptimisationSet, truth: NDArray[np.float32]) -> None:
    """Symmetry mates are at the same place."""
    row = np.zeros(2, np.intp)
    twice = replace(clean, particles=clean.particles.take(row))
    source = source_of(twice)
    before, _ = energies(source)
    source.rest = Subtraction(source, twice, [(1, 0)] * 2, {(1, 0): truth}, load_backend("auto"), {(1, 0): truth})
    assert energies(source)[0] < 1e-3 * before


def test_mates_of_a_neighbour_are_taken_off_once(folder: Path, truth: NDArray[np.float32]) -> None:
    """A set that is expanded by C3 changes no image: also where mates were moved to parts of their own."""
    three = made(folder / "three", particles=3, tilt_series=1, spacing=130.0, margin_px=60, thickness=400.0)
    whole = np.where(np.abs(truth) > 1e-3, truth, 0.0).astype(np.float32)
    rows, mate = np.repeat(np.arange(3), 3), np.tile(np.arange(3), 3)
    names = tuple(three.particles.name[row] for row in rows)
    expanded = replace(three, particles=replace(three.particles.take(rows), source=names))
    coordinate = expanded.particles.coordinate_px + 12.0 * (mate > 0)[:, None]
    moved = replace(expanded, particles=replace(expanded.particles, coordinate_px=coordinate))

    def images(optset: OptimisationSet, row: int) -> NDArray[np.complex64]:
        source = source_of(three)
        subtraction = Subtraction(
            source_of(optset),
            optset,
            [(1, 0)] * len(optset.particles),
            {(1, 0): truth},
            load_backend("auto"),
            {(1, 0): whole},
        )
        loader, tilts = subtraction.source.loader(row), np.arange(11)
        points = loader.project(source.optset.particles.coordinate_px[0], None)[:, :2]  # type: ignore[union-attr]
        return subtraction._neighbours(row, tilts, points)

    expected = images(three, 0)
    assert np.abs(expected).max() > 0
    for optset in (expanded, moved):
        np.testing.assert_array_equal(images(optset, 0), expected)


def test_half_of_the_contrast_leaves_half(clean: OptimisationSet, truth: NDArray[np.float32]) -> None:
    """The law is linear, and `removal` finds the factor."""
    source = source_of(clean)
    before, _ = energies(source)
    half = all_but_nothing(clean, (0.5 * truth).astype(np.float32), source)
    source.rest = half
    after, _ = energies(source)
    assert after / before == pytest.approx(0.25, rel=0.02)
    found = half.removal(range(3), CROP // 2 - 1)
    assert found.scale == pytest.approx(2.0, rel=0.02)
    assert found.wrong


def test_noise_keeps_its_power(folder: Path, truth: NDArray[np.float32]) -> None:
    """Images of a particle and white noise: what is left is the noise, as far as its power can be counted."""
    sigma = 1.0
    noisy = made(folder / "noisy", noise=sigma)
    source = source_of(noisy)
    source.rest = all_but_nothing(noisy, truth, source)
    images = [source.cut(i, np.zeros(3)) for i in range(3)]
    power = np.mean(np.concatenate([one.power for one in images]), axis=0)
    # a shell of radius r of the box of 32 is an annulus of 2 r cells of 4 pixels in the box of 64, half independent
    shells = np.arange(1, CROP // 2)
    sigmas = 1.0 / np.sqrt(33 * 4.0 * np.pi * shells)
    deviation = (power[1:16] / sigma**2 - 1.0) / sigmas
    assert np.abs(deviation).max() < 4.5
    assert abs(deviation.mean()) < 4.5 / np.sqrt(len(shells))
    found = all_but_nothing(noisy, truth, source_of(noisy)).removal(range(3), 15)
    assert abs(found.scale - 1.0) < 4.5 * found.scale_error < 0.5
    assert not found.wrong


def test_consensus_predicts_without_the_fold_of_a_particle(folder: Path) -> None:
    """Images of one particle are noise of its own: nothing of it is in what is taken off them."""
    optset = made(folder / "many", particles=8, tilt_series=2, noise=0.5, spacing=150.0, margin_px=40)
    source = source_of(optset, CROP)
    halves = np.arange(16) % 2 + 1
    folds = np.arange(16) // 2 % 4
    ones = np.ones((CROP,) * 3, np.float32)

    def consensus(of: ParticleSource) -> Consensus:
        return Consensus.of(
            of, halves, folds, ones, ones, symmetry_matrices("C1"), load_backend("auto"), 1, lambda n: None
        )

    plain = consensus(source)

    class Spoilt:
        """Adds a constant to the images of particle 3."""

        def of(self, particle: int) -> object:
            return lambda tilts, points: np.full(
                (len(tilts), CROP, CROP // 2 + 1), -3.0 * (particle == 3), np.complex64
            )

    source.rest = Spoilt()  # type: ignore[assignment]
    spoilt = consensus(source)
    own = plain.keys[3]
    changed = {key: float(np.abs(spoilt.rest[key] - plain.rest[key]).max()) for key in plain.rest}
    others = [value for key, value in changed.items() if key[0] == own[0] and key != own]
    assert min(others) > 0
    # the prior and the last shell come from both half maps whole, the sums do not
    assert changed[own] < 0.2 * min(others)


def test_extracted_stacks_are_refused(clean: OptimisationSet, truth: NDArray[np.float32]) -> None:
    source = source_of(clean)
    source.from_stacks = True
    with pytest.raises(DataError, match="only be subtracted from tilt images"):
        all_but_nothing(clean, truth, source)


def test_frame_centres_the_mask_and_the_particles(clean: OptimisationSet) -> None:
    mask = np.zeros((CROP,) * 3, np.float32)
    mask[20:25, 10:15, 17:20] = 1.0  # z, y, x
    frame = Frame.of(mask, PIXEL, "mask")
    assert frame.offset_px.tolist() == [18 - 16, 12 - 16, 22 - 16]
    assert frame.mask[14:19, 14:19, 15:18].all()
    assert frame.mask.sum() == mask.sum()
    assert frame.diameter_angstrom == pytest.approx(2 * PIXEL * np.sqrt(2**2 + 2**2 + 1))
    moved = frame.particles(clean)
    rotation, position = (values for values in (Poses.of(clean).rotation, Poses.of(clean).stored_px))
    expected = position + rotation @ frame.offset_px
    assert np.allclose(moved.particles.coordinate_px, expected, atol=1e-9)
    assert not moved.particles.origin_angstrom.any()
    still = Frame.of(mask, PIXEL, "box")
    assert not still.offset_px.any()
    assert np.array_equal(still.mask, mask)


def test_origins_are_part_of_the_position(clean: OptimisationSet) -> None:
    origin = np.array([[7.0, -3.0, 11.0]])
    displaced = replace(clean, particles=replace(clean.particles, origin_angstrom=np.repeat(origin, 3, axis=0)))
    mask = np.zeros((CROP,) * 3, np.float32)
    mask[16, 16, 16] = 1.0
    moved = Frame.of(mask, PIXEL, "mask").particles(displaced)
    assert np.allclose(moved.particles.coordinate_px, clean.particles.coordinate_px - origin / PIXEL, atol=1e-9)


def test_a_part_at_the_edge_does_not_fit() -> None:
    mask = np.zeros((CROP,) * 3, np.float32)
    mask[:, :, 14:31] = 1.0  # as long as the box, and off the centre: nothing is lost along z and y
    mask[:, :, 0] = 1.0
    with pytest.raises(DataError, match="does not fit into a box about its centre"):
        Frame.of(mask, PIXEL, "mask")
