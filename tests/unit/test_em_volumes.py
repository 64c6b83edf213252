"""Maps from accumulators: inversion, Friedel mates, symmetry, amplitudes of half maps."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from tests.helpers.compare import assert_close, relative_l2

from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.kernels.api import Backend
from tiltwise.kernels.select import available_backends, load_backend
from tiltwise.maps.spectra import half_maps, join_low_resolution, prior_from_fsc
from tiltwise.maps.volumes import Accumulator, padded_shells, reference_volume, shell_means, solve_map
from tiltwise.spectral.disc import FourierDisc
from tiltwise.spectral.fft import centred_fft2, rfft3
from tiltwise.spectral.fsc import fsc
from tiltwise.spectral.shells import shell_totals

BOX = 32
DISC = FourierDisc.create(BOX)


@pytest.fixture(scope="module")
def fast() -> Backend:
    """The fastest backend that computes like the others: these tests are about what is done with kernels."""
    return load_backend("host" if "host" in available_backends() else "reference")


def blob_centres(rng: np.random.Generator, n: int = 30) -> NDArray[np.float64]:
    return rng.normal(size=(n, 3)) * 3.0


def blobs(centres: NDArray[np.float64]) -> NDArray[np.float32]:
    z, y, x = np.mgrid[:BOX, :BOX, :BOX] - BOX // 2
    density = np.zeros((BOX,) * 3)
    for px, py, pz in centres:
        density += np.exp(-((x - px) ** 2 + (y - py) ** 2 + (z - pz) ** 2) / (2 * 0.9**2))
    return density.astype(np.float32)


def exact_slices(centres: NDArray[np.float64], rotations: NDArray[np.float64]) -> NDArray[np.complex64]:
    """(n, K) transforms of the line sums of the turned blobs; `rotations` take the map into the image's frame."""
    y, x = np.mgrid[:BOX, :BOX] - BOX // 2
    turned = np.einsum("nij,pj->npi", rotations, centres)
    images = np.zeros((len(rotations), BOX, BOX))
    for image, points in zip(images, turned, strict=True):
        for px, py, _ in points:
            image += np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * 0.9**2))
    spectra = centred_fft2(images * np.sqrt(2 * np.pi) * 0.9)
    return np.ascontiguousarray(DISC.take(spectra), dtype=np.complex64)


def inserted(
    backend: Backend,
    slices: NDArray[np.complex64],
    rotations: NDArray[np.float64],
    weights: NDArray[np.float32] | None = None,
) -> Accumulator:
    accumulator = Accumulator.empty(BOX)
    matrices = np.ascontiguousarray(2.0 * np.swapaxes(rotations, -1, -2), dtype=np.float32)
    weights = np.ones(slices.shape, np.float32) if weights is None else weights
    backend.insert(
        slices, weights, matrices, DISC.frequencies3d(), BOX, accumulator.data, accumulator.weight, threads=1
    )
    return accumulator


def noisy(rng: np.random.Generator, slices: NDArray[np.complex64], sigma2: float) -> NDArray[np.complex64]:
    noise = rng.normal(size=slices.shape) + 1j * rng.normal(size=slices.shape)
    return (slices + noise * np.sqrt(sigma2 / 2)).astype(np.complex64)


def test_reference_slices_are_those_of_projections(fast: Backend) -> None:
    """Slice theorem with its scale; trilinear interpolation with padding 2 is good to a few per cent."""
    rng = np.random.default_rng(0)
    centres, rotations = blob_centres(rng), Rotation.random(5, rng=rng).as_matrix()
    matrices = np.ascontiguousarray(2.0 * np.swapaxes(rotations, -1, -2), dtype=np.float32)
    found = fast.project(reference_volume(blobs(centres)), matrices, DISC.frequencies3d(), BOX)
    low = slice(DISC.count(0.9 * BOX / 2))
    assert_close(found[:, low], exact_slices(centres, rotations)[:, low], 0.03)


def test_noise_free_slices_give_the_map_back(fast: Backend) -> None:
    rng = np.random.default_rng(1)
    centres, rotations = blob_centres(rng), Rotation.random(1500, rng=rng).as_matrix()
    truth = blobs(centres)
    found = solve_map(inserted(fast, exact_slices(centres, rotations), rotations).complete())
    curve = fsc(found, truth)[: int(0.9 * BOX / 2) + 1]
    if not curve.min() > 0.99:
        pytest.fail(f"FSC with the truth falls to {curve.min():.4f}")
    scale = float((found * truth).sum() / (truth**2).sum())
    # Grey values are those of the map; interpolation costs about a per cent.
    assert abs(scale - 1.0) < 0.02, f"grey scale {scale}"


def test_completed_is_inserting_friedel_mates(fast: Backend) -> None:
    """On the plane x = 0 a sample and its mate both count; elsewhere a sample counts once."""
    rng = np.random.default_rng(2)
    rotations = Rotation.random(20, rng=rng).as_matrix()
    slices = noisy(rng, np.zeros((20, len(DISC)), np.complex64), 1.0)
    slices[:, 0] = slices[:, 0].real
    weights = rng.uniform(0.5, 2.0, slices.shape).astype(np.float32)
    once = inserted(fast, slices, rotations, weights)
    # The mates have frequencies -k and conjugate values: a map from -k is one from k turned the other way round.
    mates = Accumulator.empty(BOX)
    matrices = np.ascontiguousarray(-2.0 * np.swapaxes(rotations, -1, -2), dtype=np.float32)
    fast.insert(
        np.ascontiguousarray(slices.conj()), weights, matrices, DISC.frequencies3d(), BOX, mates.data, mates.weight
    )
    bare = once.data.copy(), once.weight.copy()
    completed = once.complete()
    # Either way of folding puts a sample at the same voxels with x > 0, and at mirrored ones with x = 0.
    assert_close(mates.data[:, :, 1:], bare[0][:, :, 1:], 1e-6)
    opposite = -np.arange(2 * BOX) % (2 * BOX)
    plane = bare[0][:, :, 0]
    assert_close(completed.data[:, :, 0], plane + plane[np.ix_(opposite, opposite)].conj(), 1e-12)
    for array, before in zip((completed.data, completed.weight), bare, strict=True):
        # what a transform of a real map obeys
        mirrored = array[:, :, 0][np.ix_(opposite, opposite)].conj()
        assert_close(array[:, :, 0], mirrored, 1e-12)
        np.testing.assert_array_equal(array[:, :, 1:], before[:, :, 1:])


@pytest.mark.parametrize("name", ["C2", "C4", "D2", "O"])
def test_symmetrised_is_inserting_all_copies(fast: Backend, name: str) -> None:
    """Groups that map the grid onto itself: no interpolation, so the sums are the same."""
    rng = np.random.default_rng(3)
    operators, rotations = symmetry_matrices(name), Rotation.random(30, rng=rng).as_matrix()
    slices = noisy(rng, exact_slices(blob_centres(rng), rotations), 1.0)
    found = inserted(fast, slices, rotations).complete().symmetrised(operators, fast)
    copies = Accumulator.empty(BOX)
    for operator in operators:
        copies = copies + inserted(fast, slices, rotations @ operator)
    expected = copies.complete()
    # the outermost shell is left out of symmetrised sums
    inside = padded_shells(BOX, 2 * BOX) < BOX // 2 - 1
    assert_close(found.data[inside], expected.data[inside], 1e-5)
    assert_close(found.weight[inside], expected.weight[inside], 1e-5)


@pytest.mark.parametrize("name", ["C3", "T"])
def test_symmetrised_map_is_that_of_all_copies(fast: Backend, name: str) -> None:
    """Other groups are interpolated: the maps agree to what that costs, which grows away from the centre."""
    rng = np.random.default_rng(4)
    operators = symmetry_matrices(name)
    centres = np.einsum("gij,pj->gpi", operators, blob_centres(rng, 5)).reshape(-1, 3)
    rotations = Rotation.random(1200 // len(operators), rng=rng).as_matrix()
    slices = exact_slices(centres, rotations)
    truth = blobs(centres)
    found = solve_map(inserted(fast, slices, rotations).complete().symmetrised(operators, fast))
    assert fsc(found, truth)[: BOX // 4 + 1].min() > 0.99
    error = relative_l2(found, truth)
    assert error < 0.06, f"differs from the symmetric map by {error:.3f}"


@pytest.mark.parametrize("name", ["C3", "T"])
def test_symmetrised_maps_do_not_fade_away_from_the_centre(fast: Backend, name: str) -> None:
    """The second interpolation takes a tenth at this radius, which is given back."""
    rng = np.random.default_rng(5)
    operators = symmetry_matrices(name)
    centres = blob_centres(rng, 12)
    centres *= 11.0 / np.linalg.norm(centres, axis=1)[:, None]
    truth = blobs(np.einsum("gij,pj->gpi", operators, centres).reshape(-1, 3))
    rotations = Rotation.random(1200 // len(operators), rng=rng).as_matrix()
    slices = exact_slices(np.einsum("gij,pj->gpi", operators, centres).reshape(-1, 3), rotations)
    found = solve_map(inserted(fast, slices, rotations).complete().symmetrised(operators, fast))
    inside = truth > 0.1 * truth.max()
    scale = float((found[inside] * truth[inside]).sum() / (truth[inside] ** 2).sum())
    assert abs(scale - 1.0) <= 0.03, f"grey scale {scale}"


def test_half_maps_keep_amplitudes(fast: Backend) -> None:
    """The relative prior holds voxels back, but does not low-pass: shells keep the power that plain division gives."""
    rng = np.random.default_rng(5)
    centres = blob_centres(rng)
    truth = blobs(centres)
    halves = []
    for _ in range(2):
        rotations = Rotation.random(300, rng=rng).as_matrix()
        slices = noisy(rng, exact_slices(centres, rotations), 1.0)
        halves.append(inserted(fast, slices, rotations).complete())
    first, second, relative = half_maps(halves[0], halves[1])
    assert relative.max() > 0.05, "a prior that does nothing tests nothing"
    spectra = [rfft3(m.astype(np.float64)) for m in (first, second, truth)]
    for spectrum in spectra[:2]:
        cross = shell_totals((spectrum * spectra[2].conj()).real, BOX, 3)
        scale = (cross / shell_totals(np.abs(spectra[2]) ** 2, BOX, 3))[1 : BOX // 2 - 1]
        if not np.abs(scale - 1).max() < 0.1:
            pytest.fail(f"amplitudes of shells relative to the truth: {np.round(scale, 3)}")


def test_joining_shares_low_shells_only(fast: Backend) -> None:
    rng = np.random.default_rng(6)
    halves = []
    for _ in range(2):
        rotations = Rotation.random(10, rng=rng).as_matrix()
        halves.append(inserted(fast, noisy(rng, np.zeros((10, len(DISC)), np.complex64), 1.0), rotations).complete())
    before = [(h.data.copy(), h.weight.copy()) for h in halves]
    join_low_resolution(halves[0], halves[1], 4)
    low = padded_shells(BOX, 2 * BOX) <= 4
    np.testing.assert_array_equal(halves[0].data[low], halves[1].data[low])
    for half, (data, weight) in zip(halves, before, strict=True):
        np.testing.assert_array_equal(half.data[~low], data[~low])
        np.testing.assert_array_equal(half.weight[~low], weight[~low])


def test_prior_makes_the_wiener_filter(fast: Backend) -> None:
    """1/tau^2 = weight (1 - FSC) / FSC: a shell of even weight keeps the share FSC of its amplitude."""
    accumulator = Accumulator.empty(BOX)
    accumulator.weight[:] = 3.0
    accumulator.data[:] = 3.0
    curve = np.full(BOX // 2 + 1, 0.4)
    prior = prior_from_fsc(accumulator, curve)
    np.testing.assert_allclose(
        shell_means(accumulator) / (shell_means(accumulator) + prior)[:], np.r_[[1.0] * 5, [0.4] * 12]
    )
    np.testing.assert_allclose(prior_from_fsc(accumulator, curve, 4.0), prior / 4.0)


def test_an_empty_accumulator_gives_an_empty_map() -> None:
    found = solve_map(Accumulator.empty(BOX), np.ones(BOX // 2 + 1))
    np.testing.assert_array_equal(found, 0.0)
