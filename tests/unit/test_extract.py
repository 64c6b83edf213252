"""Parts of the extraction: boxes, CTF plans, loaders, bad input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.helpers.particles import particles_at

from tiltwise.errors import ConfigError, DataError
from tiltwise.extract.boxes import centred_transforms, cut_boxes, cut_size, round_half_away
from tiltwise.extract.ctf_plan import CtfPlan, column_limits
from tiltwise.extract.images import ImageExtractor, Window
from tiltwise.extract.pseudo import pseudo_subtomogram
from tiltwise.extract.source import ParticleSource
from tiltwise.extract.stacks import StackLoader
from tiltwise.geometry.projection import projection_matrices_from_angles
from tiltwise.model import OpticsGroup, OptimisationSet, Particles, TiltSeries
from tiltwise.optics.ctf import ctf, odd_phase
from tiltwise.optics.dose import dose_weight
from tiltwise.spectral.disc import FourierDisc
from tiltwise.spectral.fft import irfft2, rfft2

N_TILTS, IMAGE, TOMOGRAM, PIXEL = 4, (120, 100), (110, 90, 60), 3.0
CENTRE = np.array([55.0, 45.0, 30.0])


class Memory:
    """Section reader of an array."""

    def __init__(self, images: NDArray[np.float32]) -> None:
        self.images = images

    def window(self, tilt: int, rows: slice, columns: slice) -> NDArray[np.float32]:
        return self.images[tilt, rows, columns].copy()


def tilt_series(**changes: object) -> TiltSeries:
    tilt = np.array([-40.0, -10.0, 15.0, 50.0])
    zero = np.zeros(N_TILTS)
    series = TiltSeries(
        name="TS",
        optics_group_name="og",
        pixel_size_angstrom=PIXEL,
        image_size=IMAGE,
        tomogram_size=TOMOGRAM,
        projection=projection_matrices_from_angles(
            zero, tilt, zero + 5.0, [4.0, -3.0, 0.0, 1.0], [0.0, 2.0, -1.0, 5.0], PIXEL, TOMOGRAM, IMAGE
        ),
        defocus_u_angstrom=np.array([21000.0, 20500.0, 20000.0, 19000.0]),
        defocus_v_angstrom=np.array([20500.0, 20000.0, 19800.0, 18000.0]),
        defocus_angle_deg=np.array([10.0, 20.0, -30.0, 45.0]),
        phase_shift_deg=np.array([0.0, 10.0, 0.0, 90.0]),
        ctf_scale=np.array([0.8, 1.0, 0.95, 0.7]),
        ctf_bfactor_angstrom2=np.array([0.0, 50.0, 20.0, 0.0]),
        pre_exposure=np.array([30.0, 0.0, 3.0, 60.0]),
        nominal_tilt_deg=tilt,
        voltage_kv=300.0,
        spherical_aberration_mm=2.7,
        amplitude_contrast=0.07,
        hand=-1.0,
        defocus_slope=1.0,
        bfactor_per_dose=0.0,
        image_files=(),
        image_index=np.arange(N_TILTS),
    )
    return replace(series, **changes)  # type: ignore[arg-type]


OPTICS = OpticsGroup(1, "og", 300.0, 2.7, 0.07, PIXEL)


def noise(seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(5.0, 2.0, (N_TILTS, IMAGE[1], IMAGE[0])).astype(np.float32)


def extractor(
    images: NDArray[np.float32], optics: OpticsGroup = OPTICS, box: int = 32, crop: int = 24, binning: float = 1.0
) -> ImageExtractor:
    return ImageExtractor(
        tilt_series(),
        optics,
        Memory(images),
        box_px=box,
        crop_px=crop,
        binning=binning,
        disc=FourierDisc.create(crop),
        diameter_angstrom=30.0,
    )


@pytest.mark.parametrize(("x", "y"), [(-30, 40), (3, 5), (60, 50), (118, 99), (150, 130)])
def test_pixels_beyond_the_edge_repeat_it(x: int, y: int) -> None:
    images = noise()
    points = np.array([[x + 0.25, y - 0.4]])
    boxes, offsets = cut_boxes(Memory(images), IMAGE, [2], points, 16)
    padded = np.pad(images[2], 100, mode="edge")
    np.testing.assert_array_equal(boxes[0], padded[y + 92 : y + 108, x + 92 : x + 108])
    np.testing.assert_allclose(offsets, [[0.25, -0.4]], rtol=0, atol=1e-9)


def test_halves_are_rounded_away_from_zero() -> None:
    values = np.array([-2.5, -1.5, -0.5, -0.49, 0.5, 1.5, 2.5, 2.51])
    np.testing.assert_array_equal(round_half_away(values), [-3, -2, -1, 0, 1, 2, 3, 3])


@pytest.mark.parametrize("binning", [1.0, 2.0, 1.5])
def test_transforms_are_centred_on_the_particle(binning: float) -> None:
    """A wave sampled off-centre has, once centred, the phase it has at the particle."""
    box, size = 16, cut_size(16, binning)
    k, offset = np.array([3, -2]), np.array([0.3, -0.45])
    y, x = np.mgrid[:size, :size] - size / 2
    phase = 0.7 + 2 * np.pi / size * (k[0] * (x - offset[0]) + k[1] * (y - offset[1]))
    spectra = centred_transforms(np.cos(phase).astype(np.float32)[None], offset[None], box, binning)
    expected = np.zeros((box, box // 2 + 1), complex)
    # Unitary, and binning keeps grey values: amplitude 1/2 in every one of box^2 pixels, divided by box.
    expected[k[1], k[0]] = box / 2 * np.exp(0.7j)
    np.testing.assert_allclose(spectra[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("box", "binning"), [(33, 1.0), (32, 1.03), (2, 1.0), (18, 1.5)])
def test_boxes_that_would_displace_particles_are_refused(box: int, binning: float) -> None:
    with pytest.raises(ConfigError, match="box and binning"):
        cut_size(box, binning)


@pytest.mark.parametrize("crop", [23, 34, 2])
def test_crops_that_do_not_fit_are_refused(crop: int) -> None:
    with pytest.raises(ConfigError, match="crop"):
        Window(32, crop, None)


@pytest.mark.parametrize("bfactor_per_dose", [0.0, 4.0])
def test_plan_is_the_ctf(bfactor_per_dose: float) -> None:
    series = tilt_series(bfactor_per_dose=bfactor_per_dose)
    optics = replace(OPTICS, even_zernike=np.array([0.0, 1.5, 2.0, -3.0, 10.0]), odd_zernike=np.array([4.0, -2.0]))
    step = 1.0 / (64 * PIXEL)
    kx, ky = np.meshgrid(np.arange(33) * step, np.fft.fftfreq(64, PIXEL))
    plan = CtfPlan.create(series, optics, kx, ky)
    depth = np.random.default_rng(3).uniform(-3000, 3000, N_TILTS)
    tilts = np.array([3, 0, 2])
    column = (slice(None), None, None)
    expected = ctf(
        kx,
        ky,
        (series.defocus_u_angstrom + depth)[tilts][column],
        (series.defocus_v_angstrom + depth)[tilts][column],
        series.defocus_angle_deg[tilts][column],
        voltage_kv=300.0,
        spherical_aberration_mm=2.7,
        amplitude_contrast=0.07,
        scale=series.ctf_scale[tilts][column],
        bfactor_angstrom2=series.ctf_bfactor_angstrom2[tilts][column],
        phase_shift_deg=series.phase_shift_deg[tilts][column],
        even_zernike=optics.even_zernike,
    ) * dose_weight(np.hypot(kx, ky), series.pre_exposure[tilts][column], bfactor_per_dose)
    found = plan.evaluate(depth[tilts], tilts)
    assert found.dtype == np.float32
    # Single precision of a sine whose argument is at most pi: a few times 1e-7.
    np.testing.assert_allclose(found, expected, rtol=0, atol=6e-7)
    assert plan.odd is not None
    np.testing.assert_allclose(plan.odd, np.exp(-1j * odd_phase(kx, ky, optics.odd_zernike)), rtol=0, atol=2e-7)


def test_columns_stop_at_the_circle_and_at_the_cut_off() -> None:
    box = 24
    kx, ky = np.meshgrid(np.fft.rfftfreq(box, PIXEL), np.fft.fftfreq(box, PIXEL))
    plan = CtfPlan.create(tilt_series(pre_exposure=np.array([0.0, 0.0, 400.0, 1e6])), OPTICS, kx, ky)
    limits = column_limits(plan, box, 0.01)
    for tilt in range(N_TILTS):
        for row in range(box):
            y = row - box if row > box // 2 else row
            kept = [x for x in range(box // 2 + 1) if x * x <= box**2 / 4 - y * y and plan.damage[tilt, row, x] > 0.01]
            assert limits[tilt, row] == (max(kept) + 1 if kept else 0)
    assert limits[0, 0] == box // 2 + 1
    assert limits[3, 0] == 1
    assert 1 < limits[2, 0] < limits[0, 0]


def test_batches_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = extractor(noise()).load(CENTRE)
    monkeypatch.setattr("tiltwise.extract.images.BATCH_PIXELS", 3 * 32**2)
    split = extractor(noise()).load(CENTRE)
    for name in ("tilts", "data", "masked", "ctf2", "power"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(split, name))


def test_power_is_that_of_the_box_before_the_ctf() -> None:
    loader = extractor(noise(), crop=16)
    tilts, spectra, _ = loader.transforms(CENTRE, None)
    found = loader.load(CENTRE).power
    assert found is not None
    assert found.shape == (len(tilts), 9)
    ky, kx = np.meshgrid(np.fft.fftfreq(32, 1 / 32), np.arange(17), indexing="ij")
    # Shells of the box of 16 are two pixels of the box of 32 apart.
    shell = np.rint(np.hypot(kx, ky) / 2)
    for s in range(9):
        pixels = (shell == s) & ((kx > 0) | (ky >= 0))
        np.testing.assert_allclose(found[:, s], (np.abs(spectra[:, pixels]) ** 2).mean(axis=1), rtol=1e-5)


def test_odd_aberrations_are_taken_out() -> None:
    """The first odd terms are linear in k: a shift of the image, undone."""
    coefficient = 2 * np.pi * 4.0
    shifted = extractor(noise(), replace(OPTICS, odd_zernike=np.array([0.0, coefficient])))
    _, plain, _ = extractor(noise()).transforms(CENTRE, None)
    _, found, _ = shifted.transforms(CENTRE, None)
    # rho = 2 pi 4 kx: exp(-i rho) moves the image by 4 Å towards +x
    expected = plain * np.exp(-1j * coefficient * np.fft.rfftfreq(32, PIXEL))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(plain).max())


def test_motion_moves_images_and_not_the_defocus() -> None:
    loader = extractor(noise())
    motion = np.tile([0.0, 1.0, 7.0], (N_TILTS, 1))
    moved = loader.project(CENTRE, motion)
    np.testing.assert_allclose(moved, loader.project(CENTRE + motion[0], None), rtol=0, atol=1e-9)
    tilts, images, moved_ctf = loader.transforms(CENTRE, motion)
    _, still, ctf_there = loader.transforms(CENTRE, None)
    np.testing.assert_array_equal(moved_ctf, ctf_there)
    assert len(tilts) == N_TILTS
    assert not np.allclose(images, still)
    _, there, _ = loader.transforms(CENTRE + motion[0], None)
    np.testing.assert_array_equal(images, there)


def smooth_particle() -> NDArray[np.float32]:
    """Tilt images of a few soft blobs around the centre: what the circle cuts off is small."""
    series, images = tilt_series(), np.zeros((N_TILTS, IMAGE[1], IMAGE[0]))
    y, x = np.mgrid[: IMAGE[1], : IMAGE[0]]
    for offset in ([0, 0, 0], [3, 1, 0], [-2, 3, 1], [0, -3, 2]):
        points = series.projection @ np.append(CENTRE + offset, 1.0)
        for image, (qx, qy, *_) in zip(images, points, strict=True):
            image -= np.exp(-((x - qx) ** 2 + (y - qy) ** 2) / (2 * 1.5**2))
    return images.astype(np.float32)


def stack_loader(stack: tuple[NDArray[np.intp], NDArray[np.float32]]) -> StackLoader:
    return StackLoader(
        tilt_series(),
        OPTICS,
        lambda particle: stack,
        disc=FourierDisc.create(48),
        pixel_size=PIXEL,
        premultiplied=True,
        diameter_angstrom=48.0,
    )


def relative(found: NDArray[np.generic], expected: NDArray[np.generic]) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_stack_and_tilt_series_load_the_same() -> None:
    """A stack is followed by a phase ramp when the particle has moved."""
    loader = ImageExtractor(
        tilt_series(),
        OPTICS,
        Memory(smooth_particle()),
        box_px=64,
        crop_px=48,
        binning=1.0,
        disc=FourierDisc.create(48),
        diameter_angstrom=48.0,
    )
    stacks = stack_loader(loader.stack(CENTRE))
    # At the stored position both hold the same pixels: single precision.
    ours, theirs = loader.load(CENTRE), stacks.load(0, CENTRE, CENTRE)
    np.testing.assert_array_equal(ours.tilts, theirs.tilts)
    assert theirs.premultiplied
    assert not ours.premultiplied
    assert relative(theirs.data, ours.data) <= 2e-6
    assert relative(theirs.masked, ours.masked) <= 2e-6
    np.testing.assert_allclose(theirs.ctf2, ours.ctf2, rtol=0, atol=2e-6)
    # Moved by 1.4 px, circle and mask cut what the CTF has spread elsewhere, and a stack keeps the depth it was
    # extracted at: 3e-4 and, where the mask is narrow, 0.04 measured; 0.4 without the ramp.
    position = CENTRE + np.array([0.9, -0.8, 0.7])
    ours, theirs = loader.load(position), stacks.load(0, CENTRE, position)
    still = stacks.load(0, CENTRE, CENTRE)
    assert relative(theirs.data, ours.data) <= 1e-3
    assert relative(theirs.masked, ours.masked) <= 0.06
    assert relative(still.data, ours.data) >= 0.3
    assert relative(still.masked, ours.masked) >= 0.3


def test_premultiplied_images_are_masked_after_the_ctf() -> None:
    loader = extractor(noise())
    tilts, spectra, factor = loader.transforms(CENTRE, None)
    images = irfft2(spectra * factor, 32)
    loaded, window = loader.load(CENTRE), loader.window
    expected = window.circle_crop(images)
    np.testing.assert_allclose(loaded.data, loader.disc.take(rfft2(expected)), rtol=0, atol=1e-5)
    np.testing.assert_allclose(loaded.masked, loader.disc.take(rfft2(expected * window.mask)), rtol=0, atol=1e-5)
    assert window.mask[0, 0] == 1.0
    assert window.mask[0, 5] == 1.0
    assert window.mask[0, 10] == 0.0
    assert len(tilts) == N_TILTS


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_pixels_are_refused(bad: float) -> None:
    images = noise()
    images[1, 50, 60] = bad
    with pytest.raises(DataError, match="NaN or infinite"):
        extractor(images).load(CENTRE)
    with pytest.raises(DataError, match="NaN or infinite"):
        pseudo_subtomogram(extractor(images), CENTRE, None, np.eye(3))
    tilts, stack = extractor(noise(), box=64, crop=48).stack(CENTRE)
    stack[0, 3, 3] = bad
    with pytest.raises(DataError, match="NaN or infinite"):
        stack_loader((tilts, stack)).load(0, CENTRE, CENTRE)


def test_stacks_of_another_size_are_refused() -> None:
    with pytest.raises(DataError, match="wrong size"):
        stack_loader(extractor(noise()).stack(CENTRE)).load(0, CENTRE, CENTRE)


@pytest.mark.parametrize("relion_compatible", [False, True])
def test_pseudo_subtomogram_outside_every_tilt(relion_compatible: bool) -> None:
    with pytest.raises(DataError, match="outside every tilt"):
        pseudo_subtomogram(
            extractor(noise()), np.array([-500.0, 0.0, 0.0]), None, np.eye(3), relion_compatible=relion_compatible
        )


@pytest.mark.parametrize("turn", [0.0, 0.5])
def test_pseudo_subtomogram_turns_with_its_frame(turn: float) -> None:
    """Half a turn about the beam axis of the box maps voxels onto voxels."""
    frame = np.diag([-1.0, -1.0, 1.0]) if turn else np.eye(3)
    loader = extractor(noise())
    plain = pseudo_subtomogram(loader, CENTRE, None, np.eye(3), relion_compatible=False)
    turned = pseudo_subtomogram(loader, CENTRE, None, frame, relion_compatible=False)
    inner = plain.data[1:, 1:, 1:]
    expected = inner[:, ::-1, ::-1] if turn else inner
    # Nyquist planes belong to one side only and do not turn.
    assert relative(turned.data[1:, 1:, 1:], expected) <= 0.02
    assert plain.multiplicity is not None
    assert plain.ctf2.min() >= 0
    assert (plain.ctf2 <= plain.multiplicity + 1e-6).all()


def test_source_names_the_particle_outside_every_tilt(tmp_path: Path) -> None:
    path = tmp_path / "TS.mrcs"
    with mrcfile.new(path) as file:
        file.set_data(noise())
    series = tilt_series(image_files=(str(path),) * N_TILTS)
    particles = particles_at(np.array([CENTRE, [5000.0, 45.0, 30.0]]))
    optset = OptimisationSet((series,), particles, (OPTICS,), {}, True, None, {})
    source = ParticleSource(optset, box_px=32, crop_px=24, binning=1.0, diameter_angstrom=None)
    expected = extractor(noise()).load(CENTRE).data
    np.testing.assert_array_equal(source.load(0, np.zeros(3)).data, expected)
    with pytest.raises(DataError, match=r"outside every tilt(.|\n)*TS/2 of TS(.|\n)*5000\.0"):
        source.load(1, np.zeros(3))
    with pytest.raises(ConfigError, match="--crop"):
        ParticleSource(optset, box_px=32, crop_px=25, binning=1.0, diameter_angstrom=None)


def test_few_unseen_particles_are_left_out_and_many_refused(tmp_path: Path) -> None:
    path = tmp_path / "TS.mrcs"
    with mrcfile.new(path) as file:
        file.set_data(noise())
    series = tilt_series(image_files=(str(path),) * N_TILTS)
    n = 20
    coordinates = np.tile(np.asarray(CENTRE, float), (n, 1))
    coordinates[3] += 5000.0
    zero = np.zeros((n, 3))
    particles = particles_at(coordinates)

    def source_of(chosen: Particles) -> ParticleSource:
        optset = OptimisationSet((series,), chosen, (OPTICS,), {}, True, None, {})
        return ParticleSource(optset, box_px=32, crop_px=24, binning=1.0, diameter_angstrom=None)

    seen, note = source_of(particles).leave_out_unseen(zero)
    assert np.flatnonzero(~seen).tolist() == [3]
    assert note is not None
    assert "1 particles" in note
    assert "TS/4" in note
    with pytest.raises(DataError, match="outside every tilt"):
        source_of(particles.take(np.arange(5))).leave_out_unseen(zero[:5])
    seen, note = source_of(particles.take(np.array([0, 1]))).leave_out_unseen(zero[:2])
    assert seen.all()
    assert note is None


def test_taken_particles_keep_every_column() -> None:
    all_of_them = replace(particles_at(np.arange(12.0).reshape(4, 3)), prior_angles_deg=np.arange(12.0).reshape(4, 3))
    taken = all_of_them.take(np.array([3, 1]))
    assert taken.name == ("TS/4", "TS/2")
    assert taken.prior_angles_deg is not None
    np.testing.assert_array_equal(taken.prior_angles_deg, all_of_them.prior_angles_deg[[3, 1]])
    np.testing.assert_array_equal(taken.coordinate_px, all_of_them.coordinate_px[[3, 1]])
