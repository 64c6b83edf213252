"""`simulate`: what is written, that it reads back, that truth and metadata agree, that it repeats itself."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from tiltwise.errors import ConfigError, FormatError, OutputError
from tiltwise.geometry.rotations import angular_distance_deg, euler_to_matrix
from tiltwise.io.mrc import open_stack, read_map, write_map
from tiltwise.io.optimisation_set import load_optimisation_set
from tiltwise.model.poses import poses_of
from tiltwise.sim.options import SimulateOptions
from tiltwise.sim.simulate import SimulatedData, simulate

TRUTH_KEYS = {
    "xtilt", "ytilt", "zrot", "xshift", "yshift", "defocus", "astig", "azimuth", "scale", "dose",
    "position_px", "rot", "tilt", "psi", "displacement_px",
}  # fmt: skip


def small(output: Path, **values: object) -> SimulateOptions:
    given: dict[str, object] = {
        "output": output,
        "particle_diameter": 100.0,
        "beads": 120,
        "pixel_size": 6.0,
        "box": 24,
        "width_px": 96,
        "height_px": 80,
        "thickness": 250.0,
        "particles": 5,
        "tilt_step": 20.0,
        "tilt_max": 40.0,
        "threads": 1,
    }
    return SimulateOptions(**{**given, **values})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[SimulateOptions, SimulatedData]:
    """Two series with every kind of error."""
    options = small(
        tmp_path_factory.mktemp("sim") / "set",
        error_position=5.0,
        error_orientation=6.0,
        error_shift=4.0,
        error_angle=0.2,
        error_defocus=500.0,
        astigmatism=200.0,
        scale_at_60=0.7,
        scale_known=False,
        motion=1.0,
        noise=0.5,
    )
    return options, simulate(options)


def test_files(data: tuple[SimulateOptions, SimulatedData]) -> None:
    options, result = data
    folder = options.output
    for name in (
        "optimisation_set.star", "tomograms.star", "particles.star", "ref40.mrc", "tilt_series/TS_01.mrcs",
        "tilt_series/TS_02.mrcs", "tilt_series/TS_01.star", "truth/truth.json", "truth/reference.mrc",
        "truth/optimisation_set.star", "truth/motion.star",
    ):  # fmt: skip
        assert (folder / name).is_file(), name
    assert all(path.is_file() for path in result.outputs)
    assert not list(folder.rglob(".*"))  # no temporary files left
    with open_stack(folder / "tilt_series/TS_01.mrcs") as stack:
        assert stack.shape == (6, 80, 96)
        assert stack.pixel_size == pytest.approx(6.0)
    true, pixel = read_map(result.true_map)
    assert true.shape == (24, 24, 24)
    assert pixel == pytest.approx(6.0)
    assert true.max() == pytest.approx(1.0)


def test_reference_is_the_truth_at_low_resolution(data: tuple[SimulateOptions, SimulatedData]) -> None:
    _, result = data
    true, low = (np.fft.fftn(read_map(path)[0]) for path in (result.true_map, result.reference))
    k = np.fft.fftfreq(24, 6.0)
    radius = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)
    step = 1 / (24 * 6.0)
    below, above = radius < 1 / 40 - step, radius > 1 / 40 + step
    assert np.allclose(low[below], true[below], atol=1e-4 * np.abs(true).max())
    assert np.abs(low[above]).max() <= 1e-5 * np.abs(true).max()


def test_truth_has_the_layout_of_the_golden_sets(data: tuple[SimulateOptions, SimulatedData]) -> None:
    options, result = data
    truth = json.loads(result.truth.read_text())
    assert {"model", "apix", "box", "tomos", "n", "size", "sigma", "hand", "seed"} <= set(truth["args"])
    assert truth["args"]["size"] == list(options.tomogram_size)
    assert truth["args"]["apix"] == 6.0
    assert set(truth["tomograms"]) == {"TS_01", "TS_02"}
    for one in truth["tomograms"].values():
        assert set(one) == TRUTH_KEYS
        assert np.shape(one["ytilt"]) == (6,)
        assert np.shape(one["position_px"]) == (5, 3)
        assert np.shape(one["displacement_px"]) == (6, 5, 3)


def test_true_metadata_read_back_as_the_truth(data: tuple[SimulateOptions, SimulatedData]) -> None:
    options, result = data
    truth = json.loads(result.truth.read_text())["tomograms"]
    read = load_optimisation_set(options.output / "truth/optimisation_set.star")
    particles = read.particles
    assert particles.name[:2] == ("TS_01/1", "TS_01/2")
    assert sorted(particles.half_set.tolist()) == [1] * 5 + [2] * 5
    for s, series in enumerate(read.series):
        one = truth[series.name]
        rows = slice(5 * s, 5 * s + 5)
        assert np.allclose(particles.coordinate_px[rows], one["position_px"], atol=1e-5)
        expected = euler_to_matrix(np.stack([one["rot"], one["tilt"], one["psi"]], axis=-1))
        # 5 to 6 decimals of a degree in the file
        assert angular_distance_deg(euler_to_matrix(particles.angles_deg[rows]), expected).max() <= 1e-4
        assert np.allclose(series.defocus_u_angstrom, np.array(one["defocus"]) + 100.0, atol=1e-3)
        assert np.allclose(series.defocus_v_angstrom, np.array(one["defocus"]) - 100.0, atol=1e-3)
        assert np.allclose(series.defocus_angle_deg, one["azimuth"], atol=1e-4)
        assert np.allclose(series.ctf_scale, one["scale"], atol=1e-5)
        assert np.allclose(series.pre_exposure, one["dose"], atol=1e-5)
        assert np.allclose(series.nominal_tilt_deg, one["ytilt"], atol=1e-5)
        assert series.hand == -1
        assert (series.voltage_kv, series.spherical_aberration_mm, series.amplitude_contrast) == (300.0, 2.7, 0.1)
        assert series.tomogram_size == options.tomogram_size
        for i in range(5):
            motion = read.trajectories[f"{series.name}/{i + 1}"] / 6.0
            assert np.allclose(motion, np.array(one["displacement_px"])[:, i], atol=1e-5)


def test_stated_metadata_carry_the_errors(data: tuple[SimulateOptions, SimulatedData]) -> None:
    options, _ = data
    stated, true = (load_optimisation_set(options.output / f"{sub}optimisation_set.star") for sub in ("", "truth/"))
    assert not stated.trajectories
    turn = angular_distance_deg(
        euler_to_matrix(stated.particles.angles_deg), euler_to_matrix(true.particles.angles_deg)
    )
    shift = (stated.particles.coordinate_px - true.particles.coordinate_px) * 6.0
    # 30 normal numbers each: rms known to 13 %
    assert np.sqrt(np.mean(turn**2)) == pytest.approx(6.0, rel=0.5)
    assert np.sqrt(np.mean(shift**2)) == pytest.approx(5.0, rel=0.5)
    for a, b in zip(stated.series, true.series, strict=True):
        assert np.abs(a.defocus_u_angstrom - b.defocus_u_angstrom).min() > 0
        assert np.allclose(a.ctf_scale, 1.0)
        assert np.abs(a.projection - b.projection).max() > 0.05
        # the same images
        assert a.image_files == b.image_files
        assert np.array_equal(a.pre_exposure, b.pre_exposure)


def test_without_errors_stated_and_true_metadata_are_the_same(tmp_path: Path) -> None:
    simulate(small(tmp_path, tilt_series=1, noise=0.1))
    stated, true = (load_optimisation_set(tmp_path / f"{sub}optimisation_set.star") for sub in ("", "truth/"))
    assert np.array_equal(stated.particles.coordinate_px, true.particles.coordinate_px)
    assert np.array_equal(stated.particles.angles_deg, true.particles.angles_deg)
    assert np.array_equal(stated.series[0].projection, true.series[0].projection)


@pytest.mark.parametrize("change", [{}, {"threads": 3}])
def test_equal_options_give_equal_bytes(
    data: tuple[SimulateOptions, SimulatedData], tmp_path: Path, change: dict[str, object]
) -> None:
    options, _ = data
    simulate(options.model_copy(update={"output": tmp_path, **change}))
    for name in (
        "tilt_series/TS_01.mrcs",
        "tilt_series/TS_02.mrcs",
        "truth/reference.mrc",
        "ref40.mrc",
        "truth/truth.json",
    ):
        assert (tmp_path / name).read_bytes() == (options.output / name).read_bytes(), name


def test_another_seed_gives_another_specimen_of_the_same_particle(tmp_path: Path) -> None:
    for seed in (1, 2):
        simulate(small(tmp_path / str(seed), tilt_series=1, seed=seed))
    first, second = (read_map(tmp_path / s / "truth/reference.mrc")[0] for s in ("1", "2"))
    assert np.array_equal(first, second)
    one, two = (json.loads((tmp_path / s / "truth/truth.json").read_text()) for s in ("1", "2"))
    assert not np.allclose(one["tomograms"]["TS_01"]["position_px"], two["tomograms"]["TS_01"]["position_px"])


def test_noise_follows_the_snr(tmp_path: Path) -> None:
    """White noise of the standard deviation reported, which follows from the energy of the particles."""
    noisy = simulate(small(tmp_path / "a", tilt_series=1, snr=0.05, precision="float32"))
    clean = simulate(small(tmp_path / "b", tilt_series=1, noise=0.0, precision="float32"))
    assert noisy.snr == pytest.approx(0.05)
    assert clean.snr == float("inf")
    with (
        open_stack(tmp_path / "a/tilt_series/TS_01.mrcs") as first,
        open_stack(tmp_path / "b/tilt_series/TS_01.mrcs") as second,
    ):
        difference = np.stack([first.section(f) - second.section(f) for f in range(6)])
        energy = sum(float(np.square(second.section(f), dtype=np.float64).sum()) for f in range(6)) / 6 / 5
    # 46080 normal numbers: known to 0.3 %
    assert difference.std() == pytest.approx(noisy.noise_sigma, rel=0.015)
    disc = np.pi * (100.0 / 2 / 6.0) ** 2
    # particles overlap in projection and fringes leave the image: 10 % of the energy at most
    assert energy / disc / noisy.noise_sigma**2 == pytest.approx(0.05, rel=0.15)


def test_images_of_noise_alone(tmp_path: Path) -> None:
    result = simulate(small(tmp_path, tilt_series=1, signal=False, noise=1.0))
    with open_stack(tmp_path / "tilt_series/TS_01.mrcs") as stack:
        values = np.stack([stack.section(f) for f in range(6)])
    assert values.std() == pytest.approx(1.0, rel=0.015)
    assert result.snr == 0.0


def test_a_map_is_simulated_as_the_phantom_it_was_made_of(tmp_path: Path) -> None:
    """The same particle through the spline projector and through exact sums, noise off."""
    first = simulate(small(tmp_path / "a", tilt_series=1, noise=0.0, precision="float32"))
    values, _ = read_map(first.true_map)
    write_map(tmp_path / "model.mrc", values, 6.0)
    simulate(small(tmp_path / "b", tilt_series=1, noise=0.0, precision="float32", model=str(tmp_path / "model.mrc")))
    with (
        open_stack(tmp_path / "a/tilt_series/TS_01.mrcs") as one,
        open_stack(tmp_path / "b/tilt_series/TS_01.mrcs") as two,
    ):
        for f in range(6):
            a, b = one.section(f), two.section(f)
            # a map lacks the ringing of its limit at Nyquist outside its box
            assert np.linalg.norm(a - b) <= 0.03 * np.linalg.norm(a)


PDB = """\
ATOM      1  N   GLY A   1      11.000  20.000  30.000  1.00 20.00           N
ATOM      2  CA  GLY A   1      14.500  21.000  31.000  1.00 20.00           C
ATOM      3  C   GLY A   1      16.000  25.500  29.000  0.50 20.00           C
ATOM      4  O   GLY A   1      12.000  24.000  36.500  1.00 20.00           O
END
"""


@pytest.mark.skipif(importlib.util.find_spec("gemmi") is None, reason="needs gemmi (extra `models`)")
def test_atoms_scatter_as_the_tables_say(tmp_path: Path) -> None:
    from tiltwise.sim.models import read_atoms

    (tmp_path / "model.pdb").write_text(PDB)
    density = read_atoms(tmp_path / "model.pdb", 30.0)
    # International Tables C, 4.3.2.2: electron scattering factors of N, C, O at zero angle, in Å
    weight = np.array([2.211, 2.509, 0.5 * 2.509, 1.983])
    at_zero = density.transform(np.zeros(3)).real
    assert at_zero == pytest.approx(weight.sum(), rel=2e-3)
    place = np.array([[11, 20, 30], [14.5, 21, 31], [16, 25.5, 29], [12, 24, 36.5]])
    expected = place - weight @ place / weight.sum()
    assert np.allclose(density.position_angstrom, expected, atol=5e-3)
    k = np.array([0.1, 0.0, 0.0])
    # both the tables' widths and the B-factor weaken higher frequencies
    sharper = read_atoms(tmp_path / "model.pdb", 0.0).transform(k)
    assert density.transform(k) == pytest.approx(sharper * np.exp(-30.0 * 0.01 / 4), rel=1e-9)
    result = simulate(small(tmp_path / "out", tilt_series=1, model=str(tmp_path / "model.pdb")))
    assert read_map(result.true_map)[0].max() == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["absent.mrc", "absent.pdb"])
def test_a_missing_model_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(FormatError, match="missing") as caught:
        simulate(small(tmp_path / "out", model=str(tmp_path / name)))
    assert name in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("shape", "pixel", "message"), [((8, 8, 10), 2.0, "cubic"), ((8, 8, 8), 0.0, "pixel size")])
def test_a_map_that_cannot_be_a_model(tmp_path: Path, shape: tuple[int, int, int], pixel: float, message: str) -> None:
    write_map(tmp_path / "model.mrc", np.ones(shape, np.float32), pixel)
    with pytest.raises(FormatError, match=message):
        simulate(small(tmp_path / "out", model=str(tmp_path / "model.mrc")))


@pytest.mark.skipif(importlib.util.find_spec("gemmi") is None, reason="needs gemmi (extra `models`)")
def test_a_broken_atomic_model(tmp_path: Path) -> None:
    (tmp_path / "model.pdb").write_text("nothing of use\n")
    with pytest.raises(FormatError, match="atom"):
        simulate(small(tmp_path / "out", model=str(tmp_path / "model.pdb")))


def test_a_box_too_small_for_the_particle(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not fit the box"):
        simulate(small(tmp_path / "out", box=12))


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        simulate(small(tmp_path / "file" / "out"))


def test_progress_is_told_of_every_image_and_may_stop_the_run(tmp_path: Path) -> None:
    seen: list[int] = []
    simulate(small(tmp_path / "a"), advance=seen.append)
    assert sum(seen) == 12

    class Stop(Exception):
        pass

    def stop(n: int) -> None:
        raise Stop

    with pytest.raises(Stop):
        simulate(small(tmp_path / "b"), advance=stop)
    # nothing names images that do not exist
    assert not (tmp_path / "b/optimisation_set.star").exists()


def test_particles_on_a_membrane_state_its_normal(tmp_path: Path) -> None:
    """z axes rock about the normal with their width; the metadata hold the normal in RELION-5's way and no more."""
    options = small(
        tmp_path, particles=40, spacing=30.0, membrane_radius=110.0, rocking=6.0, particle_diameter=60.0, noise=1.0
    )
    simulate(options)
    stated, true = (load_optimisation_set(tmp_path / f"{sub}optimisation_set.star") for sub in ("", "truth/"))
    particles = stated.particles
    assert np.allclose(particles.angles_deg[:, 1:], [90.0, 0.0], atol=1e-4)
    assert particles.prior_angles_deg is not None
    assert np.array_equal(particles.prior_angles_deg[:, 1:], np.broadcast_to([90.0, 0.0], (80, 2)))
    assert np.isnan(particles.prior_angles_deg[:, 0]).all()
    centre = np.array(stated.series[0].tomogram_size) / 2.0
    normal = (particles.coordinate_px - centre) * options.pixel_size / 110.0
    axis, true_axis = (poses_of(one)[0][:, :, 2] for one in (stated, true))
    assert np.abs(axis - normal).max() <= 1e-4
    off = np.degrees(np.arccos((axis * true_axis).sum(axis=1)))
    # Rayleigh: mean 1.25 widths
    assert abs(off.mean() - 1.2533 * 6.0) <= 4 * 0.655 * 6.0 / np.sqrt(80)
    with pytest.raises(ConfigError, match="no normal"):
        small(tmp_path, rocking=6.0)


@pytest.mark.parametrize("per", ["series", "tilt"])
@pytest.mark.parametrize("kind", ["affine", "fourier", "spline"])
def test_deformations_are_planted_and_not_stated(tmp_path: Path, kind: str, per: str) -> None:
    given = {"deformation": kind, "deformation_per": per, "deformation_rms": 12.0, "deformation_grid": 4}
    data = simulate(small(tmp_path, tilt_series=1, noise=0.0, **given))
    stated, true = (load_optimisation_set(tmp_path / f"{sub}optimisation_set.star") for sub in ("", "truth/"))
    assert stated.series[0].deformation is None
    found = true.series[0].deformation
    assert found is not None
    assert (len(np.unique(found.coefficients, axis=0)) == 1) == (per == "series")
    axis = (np.arange(40) + 0.5) / 40
    points = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 1, 2) * (96, 80)
    moved = found.displacement(np.broadcast_to(points, (1600, true.series[0].n_tilts, 2)))
    assert np.sqrt((moved**2).sum(axis=2).mean(axis=0)) == pytest.approx(12.0 / 6.0, rel=0.02)
    truth = json.loads(data.truth.read_text())["tomograms"]["TS_01"]
    assert np.allclose(truth["deformation"], found.coefficients)


def test_grids_that_lack_waves_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="grid of waves is too small"):
        small(tmp_path, deformation="fourier")
