"""`tiltwise refine-ctf` on simulated tilt series: planted errors go, good CTFs stay, bad input is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tiltwise.ctf import refine_ctf
from tiltwise.ctf.aberrations import zernike_coefficients
from tiltwise.ctf.memory import EvidenceMemory
from tiltwise.ctf.options import RefineCtfOptions
from tiltwise.ctf.refine_ctf import RefineCtfResult, refuse_mixed_optics
from tiltwise.errors import ConfigError, DataError, ShapeError, TiltwiseError
from tiltwise.io.mrc import read_map, write_map
from tiltwise.io.optimisation_set import load_optimisation_set, write_optimisation_set, write_particles, write_tomograms
from tiltwise.io.star import read_star, write_star
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.progress import SilentProgress
from tiltwise.optics.zernike import odd_phase
from tiltwise.report.ctf import write_ctf_report
from tiltwise.sim.options import SimulateOptions
from tiltwise.sim.simulate import SimulatedData, simulate

BOX, CROP = 64, 32


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SimulatedData:
    """One series with wrong defoci and unknown contrast."""
    return simulate(
        SimulateOptions(
            output=tmp_path_factory.mktemp("simulated"),
            tilt_series=1,
            particles=50,
            width_px=320,
            height_px=320,
            thickness=900.0,
            pixel_size=5.0,
            box=CROP,
            particle_diameter=100.0,
            beads=200,
            tilt_step=10.0,
            defocus=20000.0,
            defocus_jitter=100.0,
            error_defocus=700.0,
            scale_at_60=0.6,
            scale_known=False,
            snr=0.5,
            spacing=90.0,
            margin_px=CROP // 2,
            seed=4,
            threads=2,
        )
    )


def refined(inputs: Path, output: Path, **changes: Any) -> RefineCtfResult:
    """The command on a set."""
    values: dict[str, Any] = {
        "input": inputs,
        "output": output,
        "box": BOX,
        "crop": CROP,
        "particle_diameter": 110.0,
        "split": "random",
        "threads": 2,
    }
    options = RefineCtfOptions(**{**values, **changes})
    with FolderJob(options, ["tiltwise", "refine-ctf"], SilentProgress()) as job:
        result = refine_ctf.run(options, job, SilentProgress())
        write_ctf_report(job.path("report.html"), options, result, job.content)
    return result


@pytest.fixture(scope="module")
def first(data: SimulatedData, tmp_path_factory: pytest.TempPathFactory) -> RefineCtfResult:
    return refined(data.optimisation_set, tmp_path_factory.mktemp("first") / "job")


def truth(data: SimulatedData) -> dict[str, NDArray[np.float64]]:
    (one,) = json.loads(data.truth.read_text())["tomograms"].values()
    return {key: np.array(one[key]) for key in ("defocus", "scale")}


def rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(values**2)))


def test_fewer_blocks_fit_the_same_ctfs(
    data: SimulatedData, first: RefineCtfResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where memory is short, folds are judged together: what is fitted, to all particles, stays."""
    monkeypatch.setattr(EvidenceMemory, "judged", lambda self, pixels: 1)
    found = refined(data.optimisation_set, tmp_path / "out")
    np.testing.assert_allclose(found.series[0].after, first.series[0].after, rtol=0, atol=0.01)
    assert found.series[0].verdicts()["defocus"].improved
    assert "1 instead of 5 blocks" in (tmp_path / "out" / "job.json").read_text()


def test_planted_errors_go(data: SimulatedData, first: RefineCtfResult) -> None:
    true, (one,) = truth(data), first.series
    before, after = one.before[:, 0] - true["defocus"], one.after[:, 0] - true["defocus"]
    assert one.known.all()
    assert rms(before) > 400
    assert rms(after) < 0.35 * rms(before)
    # what all tilts share is hard to tell from the reference, which was made with the wrong CTFs
    assert rms(after - after.mean()) < 0.15 * rms(before)
    assert np.corrcoef(one.scale, true["scale"])[0, 1] > 0.97
    assert {name: verdict.verdict for name, verdict in one.verdicts().items()} == {
        "defocus": "improved",
        "scale": "improved",
    }


def test_files_say_what_was_found(data: SimulatedData, first: RefineCtfResult) -> None:
    written = load_optimisation_set(first.outputs["optimisation_set"])
    (one,), (series,) = first.series, written.series
    mean = 0.5 * (series.defocus_u_angstrom + series.defocus_v_angstrom)
    np.testing.assert_allclose(mean, one.after[:, 0], atol=0.01)
    np.testing.assert_allclose(series.ctf_scale, one.scale, rtol=1e-4)
    assert written.particles.name == first.optset.particles.name
    content = json.loads(first.outputs["ctf"].read_text())["series"][one.name]
    np.testing.assert_allclose(content["defocus_angstrom"]["value"], one.after[:, 0], atol=1e-3)
    np.testing.assert_allclose(content["defocus_angstrom"]["before"], one.before[:, 0], atol=1e-3)
    assert all(value > 0 for value in content["defocus_angstrom"]["sigma"])
    assert content["defocus_angstrom"]["applied"] == [True] * len(one.before)
    assert content["verdict"]["scale"]["verdict"] == "improved"
    assert content["lambert"]["thickness"] > 0.2
    report = first.outputs["ctf"].parent / "report.html"
    assert "The defocus is improved" in report.read_text()


def test_good_ctfs_stay_to_the_last_digit(data: SimulatedData, tmp_path: Path) -> None:
    """From the true CTFs, with little signal in reach: nothing is improved, nothing is written anew."""
    true_set = data.truth.parent / "optimisation_set.star"
    result = refined(true_set, tmp_path / "job", resolution=20.0)
    (one,), (series,) = result.series, load_optimisation_set(result.outputs["optimisation_set"]).series
    assert not any(verdict.improved for verdict in one.verdicts().values())
    (before,) = load_optimisation_set(true_set).series
    for name in ("defocus_u_angstrom", "defocus_v_angstrom", "defocus_angle_deg", "ctf_scale"):
        np.testing.assert_array_equal(getattr(series, name), getattr(before, name))
    forced = refined(true_set, tmp_path / "forced", resolution=20.0, force=True)
    assert (forced.optset.series[0].defocus_u_angstrom != before.defocus_u_angstrom).all()


def test_threads_do_not_matter(data: SimulatedData, first: RefineCtfResult, tmp_path: Path) -> None:
    alone = refined(data.optimisation_set, tmp_path / "alone", threads=1)
    assert alone.outputs["ctf"].read_bytes() == first.outputs["ctf"].read_bytes()


def test_order_of_particles_and_tilts_does_not_matter(data: SimulatedData, tmp_path: Path) -> None:
    """Both files with their rows turned around: sums are added in another order, and that is all."""
    straight = refined(data.optimisation_set, tmp_path / "straight", split="keep")
    good = load_optimisation_set(data.optimisation_set)
    rows = np.arange(len(good.particles))[::-1]
    write_particles(tmp_path / "particles.star", good, particles=good.particles.take(rows))
    write_tomograms(tmp_path / "tomograms.star", good)
    (file,) = (tmp_path / "tilt_series").glob("*.star")
    document = read_star(file)
    (block,) = document.blocks
    write_star(file, document.replace(block.take(np.arange(len(block))[::-1])))
    write_optimisation_set(
        tmp_path / "set.star", tomograms=tmp_path / "tomograms.star", particles=tmp_path / "particles.star"
    )
    turned = refined(tmp_path / "set.star", tmp_path / "turned", split="keep")
    (one,), (other,) = straight.series, turned.series
    np.testing.assert_allclose(other.after[::-1], one.after, atol=0.05)
    np.testing.assert_allclose(other.scale[::-1], one.scale, rtol=1e-4)


def test_given_half_maps(data: SimulatedData, first: RefineCtfResult, tmp_path: Path) -> None:
    """The half that contains the particle pulls to the present CTFs, the other one does not."""
    density, pixel_size = read_map(data.true_map)
    paths = {"ref1": tmp_path / "half1.mrc", "ref2": tmp_path / "half2.mrc"}
    for path in paths.values():
        write_map(path, density, pixel_size)
    true = refined(data.optimisation_set, tmp_path / "true", **paths)
    error = true.series[0].after[:, 0] - truth(data)["defocus"]
    assert rms(error / true.series[0].sigma[:, 0]) < 1.5
    assert "biased" not in (tmp_path / "true" / "report.html").read_text()


@pytest.mark.parametrize(
    ("changes", "kind", "pattern"),
    [
        ({"ref1": "half1.mrc"}, ConfigError, "one half map is not enough"),
        ({"opposite_half": True}, ConfigError, "--opposite-half is about given half maps"),
        ({"d0": 100.0}, ConfigError, "search range must contain no change"),
        ({"defocus": False, "scale": False}, ConfigError, "nothing to refine"),
        ({"defocus": False, "phase_shift": True}, ConfigError, "phase shifts are fitted with the defocus"),
        ({"scale": False, "scale_model": "lambert"}, ConfigError, "no effect"),
        ({"defocus": False, "d1": 2000.0, "sigma_defocus": 50.0}, ConfigError, "no effect"),
        ({"sigma_phase_shift": 5.0}, ConfigError, "no effect"),
        ({"ref1": "half1.mrc", "ref2": "half2.mrc", "folds": 4}, ConfigError, "no effect"),
        ({"ref1": "half1.mrc", "ref2": "half2.mrc", "symmetry": "C6"}, ConfigError, "no effect"),
        ({"kmin": 10.5}, ConfigError, "nothing to fit phases with"),
        ({"split": "keep"}, DataError, "particles without half set"),
        ({"memory": 0.01}, TiltwiseError, "not enough memory"),
    ],
)
def test_bad_options(
    data: SimulatedData, tmp_path: Path, changes: dict[str, Any], kind: type[TiltwiseError], pattern: str
) -> None:
    inputs = data.optimisation_set
    if changes.get("split") == "keep":
        inputs = without_half_sets(data, tmp_path)
    with pytest.raises(kind, match=pattern):
        refined(inputs, tmp_path / "job", **changes)


def without_half_sets(data: SimulatedData, folder: Path) -> Path:
    """The set with half sets that are not known."""
    particles = Path(data.optimisation_set).parent / "particles.star"
    text = particles.read_text()
    assert "rlnRandomSubset" in text
    (folder / "particles.star").write_text(text.replace("rlnRandomSubset", "otherColumn"))
    (folder / "set.star").write_text(
        "data_\n\n"
        f"_rlnTomoTomogramsFile {Path(data.optimisation_set).parent / 'tomograms.star'}\n"
        f"_rlnTomoParticlesFile {folder / 'particles.star'}\n"
    )
    return folder / "set.star"


@pytest.mark.parametrize(
    ("size", "factor", "sign", "kind", "pattern"),
    [
        (CROP + 4, 1.0, 1.0, ShapeError, "differ in size"),
        (CROP, 1.5, 1.0, DataError, "differ in pixel size"),
        (CROP, 1.0, -1.0, DataError, "opposite contrast"),
    ],
)
def test_half_maps_that_do_not_fit(
    data: SimulatedData, tmp_path: Path, size: int, factor: float, sign: float, kind: type[TiltwiseError], pattern: str
) -> None:
    density, pixel_size = read_map(data.true_map)
    other = np.zeros((size,) * 3, np.float32)
    other[:CROP, :CROP, :CROP] = sign * density
    write_map(tmp_path / "half.mrc", other, factor * pixel_size)
    half = tmp_path / "half.mrc"
    with pytest.raises(kind, match=pattern):
        refined(data.optimisation_set, tmp_path / "job", ref1=half, ref2=half)


def test_phase_shifts_that_images_do_not_have_are_taken_back(data: SimulatedData, tmp_path: Path) -> None:
    """The metadata state a phase plate that charges: its phase shifts go, and so does what they did to the defoci."""
    good = load_optimisation_set(data.truth.parent / "optimisation_set.star")
    (series,) = good.series
    stated = 40.0 * np.random.default_rng(1).normal(size=series.n_tilts)
    write_tomograms(tmp_path / "tomograms.star", good, series=[replace(series, phase_shift_deg=stated)])
    write_optimisation_set(
        tmp_path / "set.star", tomograms=tmp_path / "tomograms.star", particles=good.paths["particles"]
    )
    result = refined(tmp_path / "set.star", tmp_path / "job", phase_shift=True)
    (one,) = result.series
    assert one.verdicts()["phase_shift"].improved
    (written,) = load_optimisation_set(result.outputs["optimisation_set"]).series
    # what all tilts share is hard to tell from the reference, which was made with it
    left = written.phase_shift_deg
    assert rms(left - left.mean()) < 0.2 * rms(stated)
    content = json.loads(result.outputs["ctf"].read_text())["series"][one.name]
    np.testing.assert_allclose(content["phase_shift_deg"]["value"], left, atol=1e-3)
    np.testing.assert_allclose(content["phase_shift_deg"]["before"], stated, atol=1e-3)
    assert all(value > 0 for value in content["phase_shift_deg"]["sigma"])
    assert content["phase_shift_deg"]["applied"] == [True] * series.n_tilts
    assert content["scatter"]["phase_shift_deg"] is not None
    assert "phase shift is improved" in (tmp_path / "job" / "report.html").read_text()


def test_cs_is_written_to_tilt_series_and_optics_alike(data: SimulatedData, tmp_path: Path) -> None:
    """Forced: at this resolution Cs is not known to a millimetre.  RELION refuses sets whose two values differ."""
    good = load_optimisation_set(data.truth.parent / "optimisation_set.star")
    result = refined(good.paths["optimisation_set"], tmp_path / "job", spherical_aberration=True, force=True)
    (group,) = result.aberrations
    change = group.fits["even"].spherical
    assert change is not None
    assert abs(change.millimetres) < 4 * change.sigma_millimetres
    written = load_optimisation_set(result.outputs["optimisation_set"])
    assert written.optics[0].spherical_aberration_mm == pytest.approx(2.7 + change.millimetres, abs=1e-4)
    assert written.series[0].spherical_aberration_mm == pytest.approx(2.7 + change.millimetres, abs=1e-4)
    assert not len(written.optics[0].even_zernike)
    mean = 0.5 * (written.series[0].defocus_u_angstrom + written.series[0].defocus_v_angstrom)
    np.testing.assert_allclose(mean, result.series[0].after[:, 0], atol=0.01)
    content = json.loads(result.outputs["ctf"].read_text())["optics"][group.name]["spherical_aberration_mm"]
    assert content["applied"] is True
    assert content["sigma"] == pytest.approx(change.sigma_millimetres, abs=1e-5)
    two = replace(good.particles, optics_index=np.arange(len(good.particles)) % 2)
    with pytest.raises(ConfigError, match="one spherical aberration"):
        refuse_mixed_optics(replace(good, particles=two))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_mirrored_half_maps_are_told(data: SimulatedData, tmp_path: Path, axis: int) -> None:
    """Along z, y or x; which of the three is said, because poses belong to one hand."""
    density, pixel_size = read_map(data.true_map)
    half = tmp_path / "half.mrc"
    write_map(half, np.ascontiguousarray(np.roll(np.flip(density, axis), 1, axis)), pixel_size)
    with pytest.raises(DataError, match=f"wrong hand(.|\n)*mirrored along {'zyx'[axis]}"):
        refined(data.optimisation_set, tmp_path / "job", ref1=half, ref2=half)


def test_aberrations_go_to_the_particle_file(data: SimulatedData, tmp_path: Path) -> None:
    """The metadata state a coma that the images do not have: it is taken back."""
    good = load_optimisation_set(data.truth.parent / "optimisation_set.star")
    coma = zernike_coefficients([(1, 3)], np.array([1.2]), 0.09, even=False)
    stated = tmp_path / "particles.star"
    write_particles(stated, replace(good, optics=tuple(replace(one, odd_zernike=coma) for one in good.optics)))
    write_optimisation_set(tmp_path / "set.star", tomograms=good.paths["tomograms"], particles=stated)
    result = refined(tmp_path / "set.star", tmp_path / "job", odd_order=3, even_order=4)
    (group,) = result.aberrations
    assert group.fits["odd"].verdict.improved
    written = load_optimisation_set(result.outputs["optimisation_set"]).optics[0]
    grid = np.linspace(-0.09, 0.09, 19)
    kx, ky = (axis[np.hypot(*np.meshgrid(grid, grid)) <= 0.09] for axis in np.meshgrid(grid, grid))
    left, planted = odd_phase(kx, ky, written.odd_zernike), odd_phase(kx, ky, coma)
    assert rms(left) < 0.35 * rms(planted)
    content = json.loads(result.outputs["ctf"].read_text())["optics"][group.name]
    assert content["odd"]["applied"] is True
    np.testing.assert_allclose(content["odd"]["before"], coma, rtol=1e-5)
