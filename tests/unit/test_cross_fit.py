"""References without the particle they predict."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.helpers.compare import relative_l2
from tests.helpers.particles import SimulatedParticles, blobs, particles_at, tilt_series

from tiltwise.errors import DataError, ResourceError
from tiltwise.exec.threads import ordered_map
from tiltwise.extract.images import ParticleImages
from tiltwise.kernels.select import load_backend
from tiltwise.maps.cross_fit import BYTES_OF_ALL, BYTES_OF_FOLD, CrossFit, affordable_folds, assign_folds
from tiltwise.maps.volumes import ball_of, padded_shells
from tiltwise.model import OptimisationSet
from tiltwise.spectral.disc import FourierDisc

BOX, TILTS, FOLDS = 24, 7, 3
HALF = np.repeat([1, 2], 12)
FOLD = np.tile(np.arange(FOLDS), 8)


def optimisation_set(coordinates: NDArray[np.float64]) -> OptimisationSet:
    particles = particles_at(coordinates)
    return OptimisationSet((tilt_series(TILTS, 4.0),), particles, (), {}, False, None, {})


@pytest.fixture(scope="module")
def data() -> SimulatedParticles:
    return SimulatedParticles.create(
        24, box=BOX, tilts=TILTS, pixel_size=4.0, nats=4000.0, radius=BOX / 2, reach_angstrom=0.0
    )


def fitted(data: SimulatedParticles, raw: list[ParticleImages]) -> CrossFit:
    fit = CrossFit(BOX, np.ones((BOX,) * 3, np.float32), load_backend("host"), 1, np.eye(3)[None], FOLDS)
    for half in (1, 2):
        for fold in range(FOLDS):
            rows = np.flatnonzero((half == HALF) & (fold == FOLD))
            images, rotations = [raw[i] for i in rows], data.rotations[rows]
            fit.add(half, fold, data.series, images, rotations, data.noise_power, data.disc)
    fit.finish()
    return fit


def other_images(data: SimulatedParticles, rows: NDArray[np.bool_]) -> list[ParticleImages]:
    return [replace(image, data=1.5 * image.data) if row else image for image, row in zip(data.raw, rows, strict=True)]


def test_a_reference_does_not_know_its_own_fold(data: SimulatedParticles) -> None:
    before = fitted(data, data.raw)
    after = fitted(data, other_images(data, (HALF == 1) & (FOLD == 1)))
    after.curve = before.curve  # the one thing halves share
    same = relative_l2(after.reference(1, 1), before.reference(1, 1))
    assert same <= 1e-5  # what is left of differences of sums in double precision, solved in single
    assert relative_l2(after.reference(1, 0), before.reference(1, 0)) > 0.05
    assert relative_l2(after.reference(1, None), before.reference(1, None)) > 0.05
    assert np.array_equal(after.reference(2, 0), before.reference(2, 0))


def test_references_have_the_scale_of_the_images(data: SimulatedParticles) -> None:
    fit = fitted(data, data.raw)
    truth = blobs(BOX, 40, 0.25 * BOX, 1.2)
    found = fit.halves[0]
    assert float((found * truth).sum() / (truth**2).sum()) == pytest.approx(1.0, abs=0.1)  # few views
    assert fit.shell >= BOX // 4


def test_one_fold_is_the_whole_half(data: SimulatedParticles) -> None:
    fit = CrossFit(BOX, np.ones((BOX,) * 3, np.float32), load_backend("host"), 1, np.eye(3)[None], 1)
    for half in (1, 2):
        rows = np.flatnonzero(half == HALF)
        raw = [data.raw[i] for i in rows]
        fit.add(half, 0, data.series, raw, data.rotations[rows], data.noise_power, data.disc)
    fit.finish()
    assert np.array_equal(fit.reference(1, 0), fit.reference(1, None))


def test_halves_that_do_not_agree_are_refused(data: SimulatedParticles) -> None:
    opposite = [
        replace(image, data=-image.data) if half == 1 else image for image, half in zip(data.raw, HALF, strict=True)
    ]
    with pytest.raises(DataError, match="do not agree"):
        fitted(data, opposite)


def test_folds_keep_what_overlaps_together_and_are_balanced() -> None:
    rng = np.random.default_rng(5)
    centres = rng.uniform(0, 4000, (100, 3))
    points = np.repeat(centres, 2, axis=0) + rng.normal(size=(200, 3))  # pairs, far from each other
    halves = np.repeat(np.arange(100) % 2 + 1, 2)
    folds = assign_folds(optimisation_set(points), halves, 5, 40.0, seed=1)
    assert np.array_equal(folds[::2], folds[1::2])
    for half in (1, 2):
        counts = np.bincount(folds[halves == half], minlength=5)
        assert counts.min() >= 18
        assert counts.max() <= 22
    assert np.array_equal(folds, assign_folds(optimisation_set(points), halves, 5, 40.0, seed=1))


def test_a_lattice_is_cut_into_blocks() -> None:
    y, x = np.mgrid[:20, :20] * 20.0
    points = np.stack([x.ravel(), y.ravel(), np.zeros(400)], axis=1)  # 80 Å apart: one group of all
    folds = assign_folds(optimisation_set(points), np.ones(400, np.int64), 5, 100.0, seed=1)
    assert np.bincount(folds, minlength=5).min() >= 60
    same = folds.reshape(20, 20)
    # neighbours share a fold far more often than one in five
    assert (same[:, 1:] == same[:, :-1]).mean() > 0.7


def test_folds_that_fit_the_memory() -> None:
    voxels = 48 * 48 * 25
    assert affordable_folds(24, 5, 1000 * voxels) == 5
    assert affordable_folds(24, 5, 200 * voxels) == 3
    with pytest.raises(ResourceError, match="not enough memory"):
        affordable_folds(24, 5, 150 * voxels)


def test_folds_keep_to_the_memory_they_were_given(data: SimulatedParticles) -> None:
    box = 48
    small = data.raw[0]
    disc = FourierDisc.create(box)
    shape = len(small.tilts), len(disc)
    ones = np.ones(shape, np.complex64)
    image = replace(small, data=ones, masked=ones, ctf2=np.ones(shape, np.float32))
    padded_shells(box, 2 * box), ball_of(box, 2 * box)  # tables of the program
    tracemalloc.start()
    fit = CrossFit(box, np.ones((box,) * 3, np.float32), load_backend("host"), 2, np.eye(3)[None], FOLDS)
    for half, fold in fit.keys:
        noise = np.ones((TILTS, disc.n_shells))
        fit.add(half, fold, data.series, [image], data.rotations[:1], noise, disc)
    fit.finish()
    references = ordered_map(lambda key: fit.reference(*key), fit.keys, 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(references) == 2 * FOLDS
    least = 4 * box * box * (box + 1) * (BYTES_OF_ALL + 2 * FOLDS * BYTES_OF_FOLD)
    assert affordable_folds(box, FOLDS, least) == FOLDS
    assert peak <= least


def test_the_order_of_particles_does_not_matter(data: SimulatedParticles) -> None:
    """A fold may be taken up again, as it is for every series of a set."""
    fits = []
    for order in ((0, 1, 2, 3), (0, 2, 1, 3)):
        fit = CrossFit(BOX, np.ones((BOX,) * 3, np.float32), load_backend("host"), 1, np.eye(3)[None], 1)
        for quarter in order:
            rows = np.arange(24)[(quarter // 2 + 1 == HALF) & (np.arange(24) % 2 == quarter % 2)]
            images = [data.raw[i] for i in rows]
            fit.add(quarter // 2 + 1, 0, data.series, images, data.rotations[rows], data.noise_power, data.disc)
        fit.finish()
        fits.append(fit)
    assert relative_l2(fits[1].reference(1, 0), fits[0].reference(1, 0)) <= 1e-6
