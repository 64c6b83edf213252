"""Bad input to `reconstruct` and `refine`: one error that says what, where, expected or found, and the fix."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest

from tiltwise.cli.main import main
from tiltwise.io.mrc import read_map, write_map
from tiltwise.io.star import read_star, write_star
from tiltwise.jobs.relion import ALSO_FOR_CCPEM, FAILURE, SUCCESS
from tiltwise.sim.simulate import SimulatedData

pytestmark = pytest.mark.filterwarnings("ignore:Data array contains NaN values")  # they are wanted here

COMMANDS = ("reconstruct", "refine")
USAGE, DATA, DISK = 2, 3, 5


@dataclass
class Case:
    """One command on a copy of the good data that a test may spoil."""

    command: str
    folder: Path
    output: Path
    options: dict[str, str] = field(default_factory=dict)
    extra: list[str] = field(default_factory=list)

    @property
    def stack(self) -> Path:
        return self.folder / "tilt_series" / "TS_01.mrcs"

    @property
    def reference(self) -> Path:
        return self.folder / "ref30.mrc"

    def arguments(self) -> list[str]:
        options = {
            "--i": str(self.folder / "optimisation_set.star"),
            "--o": str(self.output),
            "--b": "32",
            "--crop": "24",
            "--threads": "1",
        }
        if self.command == "refine":
            options |= {"--ref": str(self.reference), "--iter": "1", "--healpix-order": "0", "--ini-high": "50"}
        options |= self.options
        return [self.command, *(word for pair in options.items() for word in pair), *self.extra]


@pytest.fixture(params=COMMANDS)
def case(request: pytest.FixtureRequest, tiny_data: SimulatedData, tmp_path: Path) -> Case:
    return make_case(request.param, tiny_data, tmp_path)


@pytest.fixture
def refine_case(tiny_data: SimulatedData, tmp_path: Path) -> Case:
    return make_case("refine", tiny_data, tmp_path)


def make_case(command: str, data: SimulatedData, root: Path) -> Case:
    folder = root / "data"
    shutil.copytree(data.folder, folder, ignore=shutil.ignore_patterns("truth"))
    for star in folder.rglob("*.star"):
        star.write_text(star.read_text().replace(str(data.folder), str(folder)))
    return Case(command, folder, root / "job")


Refuse = Callable[..., str]


@pytest.fixture
def refuse(capsys: pytest.CaptureFixture[str]) -> Refuse:
    """Run a case that must fail: exit code, one message with its parts, nothing half-written."""

    def run(case: Case, code: int, *patterns: str, made_folder: bool = True) -> str:
        found = main(case.arguments())
        text = capsys.readouterr().err
        assert found == code, text
        assert text.count("✗") == 1, text
        assert "Traceback" not in text
        for pattern in (r"\bfix: \S", *patterns):
            assert re.search(pattern, text), f"no {pattern!r} in:\n{text}"
        if made_folder:
            assert re.search(r"\bwhere: \S", text), text
            assert re.search(r"\b(expected|found): \S", text), text
            content = json.loads((case.output / "job.json").read_text(encoding="utf-8"))
            assert content["status"] == "failure"
            assert content["error"]["message"] in text
            assert (case.output / FAILURE).exists()
            assert not (case.output / SUCCESS).exists()
            names = {path.name for path in case.output.iterdir()}
            markers = {FAILURE, ALSO_FOR_CCPEM[FAILURE]}
            assert names == {"job.json", "events.jsonl", "note.txt", "report.html", ".state"} | markers
            assert {path.name for path in (case.output / ".state").iterdir()} == {"lock"}
        else:
            assert not case.output.exists()
        return text

    return run


def spoil_map(path: Path, change: Callable[[Any], Any], pixel_size: float | None = None) -> None:
    """Rewrite an MRC file; `write_map` itself refuses NaN."""
    density, own = read_map(path)
    with warnings.catch_warnings(), mrcfile.new(path, overwrite=True) as file:
        warnings.simplefilter("ignore", RuntimeWarning)  # mrcfile warns of the NaN that are wanted here
        file.set_data(np.asarray(change(density), np.float32))
        file.voxel_size = own if pixel_size is None else pixel_size


def truncate(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])


def with_nan(array: Any) -> Any:
    array[array.shape[0] // 2, 10:13, 10] = np.nan
    return array


def edit_star(path: Path, block: str, edit: Callable[[Any], None]) -> None:
    document = read_star(path)
    edit(document[block])
    write_star(path, document)


def test_good_data_pass(case: Case) -> None:
    """What all other tests spoil is accepted."""
    assert main([*case.arguments(), "--quiet"]) == 0
    assert (case.output / SUCCESS).exists()
    assert list(case.output.glob("*.mrc"))


# ---- metadata -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "block", "label"),
    [
        ("particles.star", "particles", "rlnAngleTilt"),
        ("particles.star", "particles", "rlnTomoName"),
        ("particles.star", "particles", "rlnCenteredCoordinateYAngst"),
        ("tomograms.star", "global", "rlnTomoTiltSeriesPixelSize"),
        ("tilt_series/TS_01.star", "TS_01", "rlnDefocusU"),
        ("tilt_series/TS_01.star", "TS_01", "rlnMicrographName"),
    ],
)
def test_missing_column(case: Case, refuse: Refuse, file: str, block: str, label: str) -> None:
    edit_star(case.folder / file, block, lambda table: table.drop(label))
    refuse(case, DATA, re.escape(Path(file).name), rf"data_{block}\b", label)


def test_missing_star_file(case: Case, refuse: Refuse) -> None:
    (case.folder / "particles.star").unlink()
    refuse(case, DATA, "particles.star")


def test_missing_set(case: Case, refuse: Refuse) -> None:
    (case.folder / "optimisation_set.star").unlink()
    refuse(case, DATA, "optimisation_set.star", "No such file")


def test_wrong_pixel_size(case: Case, refuse: Refuse) -> None:
    edit_star(
        case.folder / "particles.star", "optics", lambda table: table.set_text("rlnTomoTiltSeriesPixelSize", ["4.0"])
    )
    refuse(case, DATA, r"expected: 8\b", r"found: 4\b", "rlnTomoTiltSeriesPixelSize", "TS_01")


def test_empty_particle_set(case: Case, refuse: Refuse) -> None:
    path = case.folder / "particles.star"
    text = path.read_text()
    path.write_text("\n".join(line for line in text.splitlines() if not line.startswith("TS_01")) + "\n")
    refuse(case, DATA, "empty", "particles.star")


def test_particles_of_other_tomograms(case: Case, refuse: Refuse) -> None:
    names = ["TS_01"] * 4 + ["TS_07"] * 2
    edit_star(case.folder / "particles.star", "particles", lambda table: table.set_text("rlnTomoName", names))
    refuse(case, DATA, "rlnTomoName", "expected: TS_01", r"found: TS_07 \(2 of 6 particles\)", "fix: give --t")


def test_no_half_sets_to_keep(case: Case, refuse: Refuse) -> None:
    edit_star(case.folder / "particles.star", "particles", lambda table: table.drop("rlnRandomSubset"))
    case.options["--split"] = "keep"
    refuse(case, DATA, "rlnRandomSubset", "none for 6 of 6", "--split object")


def test_empty_half_set(case: Case, refuse: Refuse) -> None:
    edit_star(case.folder / "particles.star", "particles", lambda table: table.set_text("rlnRandomSubset", ["2"] * 6))
    refuse(case, DATA, "half set is empty", "found: 0 and 6 of 6", "fix: --split object draws")


def test_particles_outside_every_tilt(case: Case, refuse: Refuse) -> None:
    """All of them are counted, before any image is read."""

    def move(table: Any) -> None:
        x = table.floats("rlnCenteredCoordinateXAngst")
        y = table.floats("rlnCenteredCoordinateYAngst")
        x[[1, 4]] += 1e5
        y[[1, 4]] += 1e5
        table.set_text("rlnCenteredCoordinateXAngst", [f"{v:.3f}" for v in x])
        table.set_text("rlnCenteredCoordinateYAngst", [f"{v:.3f}" for v in y])

    edit_star(case.folder / "particles.star", "particles", move)
    # If pixels were read, these would be the error.
    spoil_map(case.stack, lambda stack: np.full_like(stack, np.nan))
    text = refuse(case, DATA, "2 particles lie outside every tilt", "TS_01/2 of TS_01, TS_01/5 of TS_01")
    assert "TS_01/1 of" not in text


# ---- images ---------------------------------------------------------------------------------------------


def test_missing_image_file(case: Case, refuse: Refuse) -> None:
    case.stack.unlink()
    refuse(case, DATA, "missing", re.escape(str(case.stack)))


@pytest.mark.parametrize("keep", [500, 1024, 100_000])
def test_truncated_image_file(case: Case, refuse: Refuse, keep: int) -> None:
    truncate(case.stack, keep)
    refuse(case, DATA, "truncated", re.escape(str(case.stack)), f"found: {keep} bytes")


def test_nan_pixels(case: Case, refuse: Refuse) -> None:
    """Every tilt with bad pixels is named, not the first alone."""

    def change(stack: Any) -> Any:
        stack[2] = np.nan
        stack[5, 20:110, 20:110] = np.inf
        return stack

    spoil_map(case.stack, change)
    refuse(case, DATA, "NaN or infinite", re.escape(str(case.stack)), "16384 in row 3, 8100 in row 6\n")


def test_images_of_nothing(case: Case, refuse: Refuse) -> None:
    spoil_map(case.stack, np.zeros_like)
    refuse(case, DATA, "TS_01", "zero")


# ---- reference and mask ---------------------------------------------------------------------------------


def test_missing_reference(refine_case: Case, refuse: Refuse) -> None:
    refine_case.reference.unlink()
    refuse(refine_case, DATA, re.escape(str(refine_case.reference)), "No such file")


@pytest.mark.parametrize(
    ("change", "pixel_size", "pattern"),
    [
        (lambda density: density[:-2], None, "24 x 24 x 22"),
        (with_nan, None, "NaN"),
        (np.zeros_like, None, "only zeros"),
        (lambda density: density, 0.0, "no pixel size"),
    ],
    ids=["not-cubic", "nan", "zeros", "no-pixel-size"],
)
def test_bad_reference(refine_case: Case, refuse: Refuse, change: Any, pixel_size: float | None, pattern: str) -> None:
    spoil_map(refine_case.reference, change, pixel_size)
    # The reference is looked at before the images are.
    spoil_map(refine_case.stack, lambda stack: np.full_like(stack, np.nan))
    refuse(refine_case, DATA, re.escape(str(refine_case.reference)), pattern)


def test_truncated_reference(refine_case: Case, refuse: Refuse) -> None:
    truncate(refine_case.reference, 20_000)
    refuse(refine_case, DATA, "truncated", re.escape(str(refine_case.reference)))


@pytest.mark.parametrize(("pad", "size"), [(4, 6.0), (0, 30.0)], ids=["finer-and-larger", "too-coarse"])
def test_reference_of_another_size_is_resampled(
    refine_case: Case, capsys: pytest.CaptureFixture[str], pad: int, size: float
) -> None:
    density, _ = read_map(refine_case.reference)
    write_map(refine_case.reference, np.pad(density, pad), size)
    assert main(refine_case.arguments()) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"{24 + 2 * pad} voxels of {size:g} Å is resampled to 24 voxels of 8 Å" in said
    assert ("no detail finer than 60 Å" in said) == (size == 30.0)
    result, pixel_size = read_map(refine_case.output / "run_class001.mrc")
    assert result.shape == (24, 24, 24)
    assert pixel_size == pytest.approx(8.0)


@pytest.mark.parametrize(
    ("mask", "pattern"),
    [
        (np.ones((32, 32, 32)), "found: 32 x 32 x 32"),
        (np.ones((24, 24, 22)), "found: 22 x 24 x 24"),
        (np.full((24, 24, 24), 7.0), "found: 7 to 7"),
        (np.zeros((24, 24, 24)), "found: 0 to 0"),
        (np.full((24, 24, 24), np.nan), "found: nan"),
    ],
    ids=["size", "not-cubic", "map", "zeros", "nan"],
)
def test_bad_mask(case: Case, refuse: Refuse, mask: Any, pattern: str) -> None:
    path = case.folder / "mask.mrc"
    with mrcfile.new(path) as file:
        file.set_data(mask.astype(np.float32))
        file.voxel_size = 8.0
    case.options["--mask"] = str(path)
    refuse(case, DATA, re.escape(str(path)), pattern)


def test_mask_is_used(case: Case) -> None:
    """A mask of nearly nothing changes the FSC."""
    curves = []
    for radius in (11, 3):
        z, y, x = np.mgrid[-12:12, -12:12, -12:12]
        path = case.folder / f"mask{radius}.mrc"
        write_map(path, (x * x + y * y + z * z < radius * radius).astype(np.float32), 8.0)
        case.options["--mask"] = str(path)
        case.output = case.folder.parent / f"job{radius}"
        assert main([*case.arguments(), "--quiet"]) == 0
        curves.append(json.loads((case.output / "job.json").read_text())["metrics"]["resolution_angstrom"])
    assert curves[0] != curves[1]


@pytest.mark.parametrize("binning", ["1", "2"])
def test_resolution_at_nyquist(refine_case: Case, capsys: pytest.CaptureFixture[str], binning: str) -> None:
    """Inside a mask of a few voxels halves always agree; with binned images the next command has finer ones."""
    size = 24 // int(binning)
    path = refine_case.folder / "mask.mrc"
    mask = np.zeros((size,) * 3, np.float32)
    mask[size // 2, size // 2, size // 2 - 1 : size // 2 + 2] = 1  # a line: spheres do not count
    write_map(path, mask, 8.0 * int(binning))
    refine_case.options |= {"--mask": str(path), "--bin": binning, "--b": str(size), "--crop": str(size)}
    # at the poses of the file both halves are dense in the centre
    assert main([*refine_case.arguments(), "--skip-align", "--quiet"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert f"the resolution is at Nyquist ({16 * int(binning)}.0 Å)" in said
    assert ("refine again with --bin 1" in said) == (binning == "2")
    report = (refine_case.output / "report.html").read_text()
    assert (f"--o {refine_case.output}_refine" in report) == (binning == "2")
    assert ("--b 24 --crop 24 --bin 1" if binning == "2" else "tiltwise postprocess") in report


def test_map_for_a_mask_names_the_command_that_makes_one(case: Case, refuse: Refuse) -> None:
    case.options["--mask"] = str(case.reference)
    spoil_map(case.reference, lambda density: density * 10 / np.abs(density).max())
    command = f"tiltwise mask --i {case.reference} --o Mask"
    text = refuse(case, DATA, "found: .* to 10")
    assert command in " ".join(text.split())


# ---- options --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ({"--b": "33", "--crop": "24"}, "--b"),
        ({"--b": "32", "--crop": "23"}, "--crop"),
        ({"--b": "140", "--crop": "24"}, "larger than the tilt images"),
        ({"--b": "100000", "--crop": "99998"}, "larger than the tilt images"),
        ({"--b": "32", "--crop": "24", "--bin": "8"}, "larger than the tilt images"),
        ({"--b": "32", "--crop": "24", "--bin": "1.51"}, "--bin"),
        ({"--particle-diameter": "193"}, "fix: use --crop 36 or more"),
        ({"--b": "10", "--crop": "24", "--backend": "abacus"}, "crop"),
        ({"--backend": "abacus"}, "abacus"),
    ],
    ids=[
        "odd-box",
        "odd-crop",
        "large-box",
        "huge-box",
        "large-binned",
        "binning",
        "diameter",
        "crop-above-box",
        "backend",
    ],
)
def test_bad_sizes(case: Case, refuse: Refuse, options: dict[str, str], pattern: str) -> None:
    case.options |= options
    early = pattern == "crop"
    refuse(case, USAGE, pattern, made_folder=not early)


@pytest.mark.parametrize(
    ("words", "pattern"),
    [
        (["--bogus", "3"], "--bogus"),
        (["--particle-diametre", "100"], "--particle-diameter"),
        (["--b", "many"], "many"),
        (["--split", "thirds"], "thirds"),
        (["--sym", "X9"], "expected: C1, C2, .*, T, O, I or I1 to I4\n *found: 'X9'"),
        (["--sym", "C0"], "'C0'"),
        (["--particle-diameter", "-5"], "--particle-diameter"),
    ],
)
def test_bad_option(case: Case, refuse: Refuse, words: list[str], pattern: str) -> None:
    case.extra = words
    refuse(case, USAGE, pattern, made_folder=False)


def test_nothing_to_work_on(case: Case, refuse: Refuse) -> None:
    arguments = case.arguments()
    position = arguments.index("--i")
    case.arguments = lambda: arguments[:position] + arguments[position + 2 :]  # type: ignore[method-assign]
    refuse(case, USAGE, "--i optimisation_set.star", made_folder=False)


# ---- output ---------------------------------------------------------------------------------------------


def test_file_in_the_way(case: Case, refuse: Refuse) -> None:
    """Tests may run as root, whom no permission stops."""
    case.output.write_text("precious")
    found = case.output
    case.output = found / "job"
    refuse(case, DISK, re.escape(str(case.output)), made_folder=False)
    case.output, case.options = case.folder / "none", {"--o": str(found)}
    refuse(case, DISK, re.escape(str(found)), made_folder=False)
    assert found.read_text() == "precious"


def test_folder_in_the_way_of_a_result(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    """A result that cannot be written fails the job and leaves no temporary file."""
    name = "merged.mrc" if case.command == "reconstruct" else "run_data.star"
    (case.output / name / "inside").mkdir(parents=True)
    assert main(case.arguments()) == DISK
    text = capsys.readouterr().err
    assert name in text
    assert "fix:" in text
    assert "Traceback" not in text
    assert (case.output / FAILURE).exists()
    assert not (case.output / SUCCESS).exists()
    assert not [path for path in case.output.iterdir() if path.name.startswith(".") and path.name != ".state"]
