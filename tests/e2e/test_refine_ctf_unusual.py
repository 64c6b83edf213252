"""`tiltwise refine-ctf` on several series, tilts without particles, and series of one tilt."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tiltwise.ctf import refine_ctf
from tiltwise.ctf.aberrations import zernike_coefficients
from tiltwise.ctf.optics_groups import split
from tiltwise.ctf.options import RefineCtfOptions
from tiltwise.ctf.refine_ctf import RefineCtfResult
from tiltwise.errors import ConfigError
from tiltwise.io.optimisation_set import load_optimisation_set, write_optimisation_set, write_particles, write_tomograms
from tiltwise.io.star import read_star
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.progress import SilentProgress
from tiltwise.optics.zernike import odd_phase
from tiltwise.report.ctf import write_ctf_report
from tiltwise.sim.options import SimulateOptions
from tiltwise.sim.simulate import SimulatedData, simulate


def simulated(folder: Path, **changes: Any) -> SimulatedData:
    """Small series with wrong defoci."""
    values: dict[str, Any] = {
        "tilt_series": 2,
        "particles": 40,
        "width_px": 256,
        "height_px": 256,
        "thickness": 900.0,
        "pixel_size": 5.0,
        "box": 32,
        "particle_diameter": 100.0,
        "beads": 200,
        "tilt_step": 20.0,
        "defocus": 20000.0,
        "error_defocus": 600.0,
        "snr": 3.0,
        "spacing": 90.0,
        "margin_px": 16,
        "threads": 2,
    }
    return simulate(SimulateOptions(output=folder, **{**values, **changes}))


def refined(inputs: Path, output: Path, **changes: Any) -> RefineCtfResult:
    values: dict[str, Any] = {"box": 64, "crop": 32, "particle_diameter": 110.0, "split": "random", "threads": 2}
    options = RefineCtfOptions(input=inputs, output=output, **{**values, **changes})
    with FolderJob(options, ["tiltwise", "refine-ctf"], SilentProgress()) as job:
        result = refine_ctf.run(options, job, SilentProgress())
        write_ctf_report(job.path("report.html"), options, result, job.content)
    return result


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SimulatedData:
    return simulated(tmp_path_factory.mktemp("two"))


def test_two_series_share_the_reference(data: SimulatedData, tmp_path: Path) -> None:
    result = refined(data.optimisation_set, tmp_path / "job")
    tomograms = json.loads(data.truth.read_text())["tomograms"]
    for one in result.series:
        true = np.array(tomograms[one.name]["defocus"])
        before, after = (np.sqrt(np.mean((values[:, 0] - true) ** 2)) for values in (one.before, one.after))
        assert after < 0.4 * before
        assert one.verdicts()["defocus"].improved
    scales = np.concatenate([one.scale for one in result.series])
    # one unit for both, and its mean is that of the metadata
    assert scales.mean() == pytest.approx(np.mean([one.scale_before.mean() for one in result.series]), rel=1e-3)
    np.testing.assert_allclose(scales, 1.0, atol=0.15)


@pytest.mark.parametrize("model", ["lambert", "lambert-global"])
def test_slabs_go_to_the_columns_that_relion_has_for_them(tmp_path: Path, model: str) -> None:
    data = simulated(tmp_path / "data", error_defocus=0.0, scale_at_60=0.6, scale_known=False, snr=2.0)
    result = refined(data.optimisation_set, tmp_path / "job", scale_model=model)
    written = load_optimisation_set(result.outputs["optimisation_set"])
    table = read_star(result.outputs["tomograms"])["global"]
    for row, (one, series) in enumerate(zip(result.series, written.series, strict=True)):
        assert one.slab is not None
        assert one.verdicts()["scale"].improved
        # what is written is the slab, not the scales of single tilts
        ratio = series.ctf_scale / one.slab.scale
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)
        assert one.slab.thickness == pytest.approx(-np.log(0.6), abs=0.1)
        assert table.floats("rlnTomoRelativeIceThickness")[row] == pytest.approx(one.slab.thickness, abs=1e-5)
        normal = [table.floats(f"rlnTomoIceNormal{axis}")[row] for axis in "XYZ"]
        np.testing.assert_allclose(normal, one.slab.normal, atol=1e-5)
    luminance = table.floats("rlnTomoRelativeLuminance")
    assert (luminance[0] == luminance[1]) == (model == "lambert-global")


def test_a_tilt_without_particles_is_marked_and_stays(data: SimulatedData, tmp_path: Path) -> None:
    good = load_optimisation_set(data.optimisation_set)
    first = good.series[0]
    projection = first.projection.copy()
    projection[2, :2, 3] += 5000.0
    write_tomograms(tmp_path / "tomograms.star", good, series=[replace(first, projection=projection), good.series[1]])
    write_optimisation_set(
        tmp_path / "set.star", tomograms=tmp_path / "tomograms.star", particles=good.paths["particles"]
    )
    result = refined(tmp_path / "set.star", tmp_path / "job")
    one = result.series[0]
    assert one.known.tolist() == [True, True, False, True, True, True, True]
    content = json.loads(result.outputs["ctf"].read_text())["series"][one.name]
    assert content["defocus_angstrom"]["value"][2] is None
    assert content["scale"]["value"][2] is None
    assert content["defocus_angstrom"]["applied"][2] is False
    (written, _) = load_optimisation_set(result.outputs["optimisation_set"]).series
    assert written.defocus_u_angstrom[2] == first.defocus_u_angstrom[2]
    assert written.ctf_scale[2] == first.ctf_scale[2]
    assert np.isfinite(written.ctf_scale).all()


def test_series_of_one_tilt(tmp_path: Path) -> None:
    """No scatter to learn from, no slab; the defocus is found all the same."""
    one_tilt = simulated(
        tmp_path / "data", tilt_series=1, particles=60, tilt_min=0.0, tilt_max=1.0, tilt_step=5.0, snr=20.0, seed=3
    )
    result = refined(one_tilt.optimisation_set, tmp_path / "job")
    (one,) = result.series
    assert len(one.before) == 1
    assert one.slab is None
    assert one.fit is not None
    assert one.fit.widths == (float("inf"), float("inf"))
    assert np.isfinite(one.after).all()
    assert one.scale[0] == pytest.approx(one.scale_before[0])


@pytest.fixture(scope="module")
def lattice(tmp_path_factory: pytest.TempPathFactory) -> SimulatedData:
    """All particles within about 10 degrees of one orientation, C6: every tilt fills one plane of the reference."""
    return simulated(
        tmp_path_factory.mktemp("lattice"),
        particles=40,
        tilt_step=12.0,
        snr=1.0,
        symmetry="C6",
        orientations="aligned",
        rocking=6.0,
    )


@pytest.mark.parametrize("leave_out", ["particle", "tilt", "series"])
def test_an_oriented_lattice_does_not_hold_its_defoci(lattice: SimulatedData, tmp_path: Path, leave_out: str) -> None:
    """What is left does not point back to where it came from, with references that leave out either."""
    result = refined(lattice.optimisation_set, tmp_path / "job", symmetry="C6", leave_out=leave_out)
    tomograms = json.loads(lattice.truth.read_text())["tomograms"]
    true = np.concatenate([tomograms[one.name]["defocus"] for one in result.series])
    before = np.concatenate([one.before[:, 0] for one in result.series]) - true
    after = np.concatenate([one.after[:, 0] for one in result.series]) - true
    assert abs(after @ before) < 0.1 * (before @ before)
    assert np.sqrt(np.mean(after**2)) < 0.35 * np.sqrt(np.mean(before**2))


def test_coma_of_one_series_goes_to_its_own_optics_group(data: SimulatedData, tmp_path: Path) -> None:
    """The metadata state a coma that images of one of two series do not have; no cross-talk to the other."""
    good = split(load_optimisation_set(data.truth.parent / "optimisation_set.star"), "series")
    coma = zernike_coefficients([(1, 3)], np.array([1.2]), 0.09, even=False)
    stated = tmp_path / "particles.star"
    write_particles(stated, replace(good, optics=(replace(good.optics[0], odd_zernike=coma), good.optics[1])))
    write_tomograms(tmp_path / "tomograms.star", good)
    write_optimisation_set(tmp_path / "set.star", tomograms=tmp_path / "tomograms.star", particles=stated)
    result = refined(tmp_path / "set.star", tmp_path / "job", odd_order=3)
    first, second = result.aberrations
    assert first.fits["odd"].verdict.improved
    assert not second.fits["odd"].verdict.improved
    written = load_optimisation_set(result.outputs["optimisation_set"])
    kx, ky = np.meshgrid(*[np.linspace(-0.06, 0.06, 13)] * 2)
    left, planted = (np.sqrt(np.mean(odd_phase(kx, ky, z) ** 2)) for z in (written.optics[0].odd_zernike, coma))
    assert left < 0.4 * planted
    assert not written.optics[1].odd_zernike.any()
    # without any aberration that is applied, groups stay those of the file
    unsplit = refined(
        data.truth.parent / "optimisation_set.star", tmp_path / "split", odd_order=3, split_optics="series"
    )
    assert len(unsplit.aberrations) == 2
    assert len(unsplit.optset.optics) == 1
    assert "particles" not in unsplit.outputs


def test_leaving_out_series_needs_two(tmp_path: Path) -> None:
    data = simulated(tmp_path / "data", tilt_series=1, particles=8)
    with pytest.raises(ConfigError, match="too few tilt series to leave one out"):
        refined(data.optimisation_set, tmp_path / "job", leave_out="series")
