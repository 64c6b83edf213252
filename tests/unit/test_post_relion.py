"""Post-processing against relion_postprocess of Debian's RELION 3.1, where it is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from helpers.compare import relative_l2
from helpers.half_maps import BOX, DIAMETER, PIXEL, half_maps, write_half_maps
from tiltwise.io.mrc import read_map, write_map
from tiltwise.io.star import StarDocument, read_star
from tiltwise.jobs.progress import SilentProgress
from tiltwise.post.options import PostprocessOptions
from tiltwise.post.postprocess import run, sharpen
from tiltwise.spectral.masks import soft_sphere

pytestmark = pytest.mark.skipif(
    shutil.which("relion_postprocess") is None, reason="relion_postprocess is not installed"
)

FSC = {
    "unmasked": "rlnFourierShellCorrelationUnmaskedMaps",
    "masked": "rlnFourierShellCorrelationMaskedMaps",
    "corrected": "rlnFourierShellCorrelationCorrected",
    "particle": "rlnFourierShellCorrelationParticleMaskFraction",
    "randomised": "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half maps, mask, MTF, and what RELION makes of them: `relion.star`, `relion.mrc`."""
    folder = write_half_maps(tmp_path_factory.mktemp("relion"), *half_maps(0.1))
    write_map(folder / "mask.mrc", soft_sphere(BOX, DIAMETER / PIXEL / 2 + 6, 5), PIXEL)
    rows = "\n".join(f"{x:.3f} {1 - x:.3f}" for x in np.linspace(0, 0.5, 101))
    (folder / "mtf.star").write_text(f"data_\n\nloop_\n_rlnResolutionInversePixel #1\n_rlnMtfValue #2\n{rows}\n\n")
    command = "relion_postprocess --i half1.mrc --i2 half2.mrc --mask mask.mrc --o relion --auto_bfac --autob_lowres 40"
    # RELION does not correct the outer half of the last shell for the detector: it is left out.  Its low-pass filter is
    # at a whole shell, here 20.
    command += f" --angpix {PIXEL:g} --mtf mtf.star --mtf_angpix 3 --autob_highres 9 --low_pass 9.6"
    # It ends in an error where ghostscript is missing, after everything was written.
    subprocess.run(command.split(), cwd=folder, capture_output=True, check=False)
    return folder


@pytest.fixture(scope="module")
def relion(folder: Path) -> StarDocument:
    return read_star(folder / "relion.star")


def options_and_job(folder: Path, output: Path, **changes: Any) -> tuple[PostprocessOptions, Any]:
    values: dict[str, Any] = {"mask": folder / "mask.mrc", "mtf": folder / "mtf.star", "mtf_pixel_size": 3.0}
    values |= {"fit_low": 40.0, "fit_high": 9.0, "low_pass": 9.6, **changes}
    options = PostprocessOptions(input=folder, output=output, **values)
    return options, job_in(output)


def job_in(folder: Path) -> Any:
    """A job that keeps nothing but its folder."""
    from contextlib import nullcontext

    def nothing(*values: object) -> None:
        """Keep nothing."""

    return SimpleNamespace(
        path=lambda name: folder / name,
        add_input=nothing,
        add_output=nothing,
        warn=nothing,
        metric=nothing,
        check_abort=nothing,
        timing=lambda name: nullcontext(),
    )


def test_curves_and_resolution(folder: Path, relion: StarDocument, tmp_path: Path) -> None:
    options, job = options_and_job(folder, tmp_path, relion_compatible=True)
    result = run(options, job, SilentProgress())
    theirs = {name: relion["fsc"].floats(label) for name, label in FSC.items()}
    ours = {name: read_star(tmp_path / "postprocess.star")["fsc"].floats(label) for name, label in FSC.items()}
    for name in ("unmasked", "masked", "particle"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=0, atol=2e-5, err_msg=name)
    np.testing.assert_allclose(
        result.guinier.original[1:], relion["guinier"].floats("rlnLogAmplitudesOriginal")[1:], rtol=0, atol=2e-5
    )
    # Random phases differ: the curves inside the mask agree as two draws of one distribution do.
    first = result.curves.first_shell
    assert BOX * PIXEL / first == pytest.approx(relion["general"].floats("rlnRandomiseFrom")[0], rel=1e-5)
    np.testing.assert_allclose(ours["corrected"][: first + 2], theirs["corrected"][: first + 2], rtol=0, atol=2e-5)
    assert np.abs(ours["randomised"] - theirs["randomised"])[first + 2 :].max() < 0.15
    shells = [BOX * PIXEL / r for r in (result.resolution_angstrom, relion["general"].floats("rlnFinalResolution")[0])]
    assert abs(shells[0] - shells[1]) <= 1.0


def test_sums_over_the_full_volume_differ_little(folder: Path, relion: StarDocument, tmp_path: Path) -> None:
    options, job = options_and_job(folder, tmp_path)
    run(options, job, SilentProgress())
    ours = read_star(tmp_path / "postprocess.star")["fsc"].floats(FSC["masked"])
    difference = np.abs(ours - relion["fsc"].floats(FSC["masked"]))
    assert 1e-5 < difference.max() < 0.03


def test_sharpened_map_for_the_same_curve(folder: Path, relion: StarDocument, tmp_path: Path) -> None:
    options, job = options_and_job(folder, tmp_path, relion_compatible=True)
    curve = relion["fsc"].floats(FSC["corrected"])
    mean = (read_map(folder / "half1.mrc")[0] + read_map(folder / "half2.mrc")[0]) / 2
    density, guinier, bfactor = sharpen(options, mean, curve, PIXEL, 20.0, job)
    assert bfactor == pytest.approx(relion["general"].floats("rlnBfactorUsedForSharpening")[0], rel=1e-3)
    assert guinier.intercept == pytest.approx(relion["general"].floats("rlnFittedInterceptGuinierPlot")[0], abs=5e-3)
    assert relative_l2(density, read_map(folder / "relion.mrc")[0]) < 1e-3


def test_other_programs_read_the_table(folder: Path, tmp_path: Path) -> None:
    import starfile

    options, job = options_and_job(folder, tmp_path)
    run(options, job, SilentProgress())
    blocks = starfile.read(tmp_path / "postprocess.star")
    assert set(blocks) == {"general", "fsc", "guinier"}
    assert list(blocks["fsc"]["rlnSpectralIndex"]) == list(range(BOX // 2 + 1))
    handled = subprocess.run(
        ["relion_star_handler", "--i", tmp_path / "postprocess.star", "--o", tmp_path / "copy.star"],
        capture_output=True,
        check=False,
    )
    assert handled.returncode == 0
