"""`tiltwise check`: each planted mistake is named, a correct set is not blamed."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tiltwise.check.codes import CODES, code_named
from tiltwise.check.findings import Findings
from tiltwise.check.options import CheckOptions
from tiltwise.check.run import CheckResult, check
from tiltwise.cli.main import main
from tiltwise.io.mrc import read_map, write_map
from tiltwise.io.star import StarBlock, read_star, write_star
from tiltwise.jobs.progress import choose_progress
from tiltwise.sim.simulate import SimulatedData

Change = Callable[[StarBlock], None]
DOCS = Path(__file__).resolve().parents[2] / "docs" / "checking.md"

PARTICLES, SERIES, TILTS = ("particles.star", "particles"), ("tomograms.star", "global"), ("TS_01.star", "TS_01")
OPTICS = ("particles.star", "optics")


@pytest.fixture
def data(tmp_path: Path, tiny_data: SimulatedData) -> Path:
    """A copy that a test may spoil; the tables name the images of the original by absolute paths."""
    folder = tmp_path / "data"
    shutil.copytree(tiny_data.folder, folder)
    for path in folder.rglob("*.star"):
        path.write_text(path.read_text().replace(str(tiny_data.folder), str(folder)))
    return folder


def edit(folder: Path, place: tuple[str, str], change: Change) -> None:
    path = next(path for path in sorted(folder.rglob(place[0])) if "truth" not in path.parts)
    document = read_star(path)
    change(document[place[1]])
    write_star(path, document)


def examine(folder: Path, **options: object) -> CheckResult:
    chosen = CheckOptions(input=folder / "optimisation_set.star", **options)
    return check(chosen, choose_progress(quiet=True, json=False))


def codes(result: CheckResult) -> set[str]:
    return {finding.code for finding in result.findings}


def text(label: str, value: str, row: int = 0) -> Change:
    def change(block: StarBlock) -> None:
        block.columns[label][row] = value

    return change


def scaled(factor: float, *labels: str) -> Change:
    def change(block: StarBlock) -> None:
        for label in labels:
            block.set_floats(label, factor * block.floats(label))

    return change


def dropped(label: str) -> Change:
    return lambda block: block.drop(label)


def reversed_dose(block: StarBlock) -> None:
    dose = block.floats("rlnMicrographPreExposure")
    block.set_floats("rlnMicrographPreExposure", dose.max() - dose)


def offsets(block: StarBlock) -> None:
    for axis, value in zip("XYZ", (400.0, 0.0, 0.0), strict=True):
        block.set_floats(f"rlnOrigin{axis}Angst", [value] * len(block))


def mirrored(block: StarBlock) -> None:
    size = len(block)
    rows = {"X": [1.0, 0, 0, 0], "Y": [0, 1.0, 0, 0], "Z": [0, 0, -1.0, 0], "W": [0, 0, 0, 1]}
    for axis, row in rows.items():
        block.set_vectors(f"rlnTomoProj{axis}", [row] * size)


CENTRED = tuple(f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ")
CASES: list[tuple[str, tuple[str, str], Change]] = [
    ("TW-FILE-01", ("optimisation_set.star", ""), text("rlnTomoParticlesFile", "none.star")),
    ("TW-FILE-02", TILTS, text("rlnMicrographName", "1@none.mrcs")),
    ("TW-IMAGE-01", TILTS, text("rlnMicrographName", "99@tilt_series/TS_01.mrcs")),
    ("TW-COLUMN-01", TILTS, dropped("rlnDefocusV")),
    ("TW-COLUMN-02", TILTS, text("rlnDefocusU", "nan", 3)),
    ("TW-COLUMN-02", PARTICLES, text("rlnAngleTilt", "six")),
    ("TW-PIXEL-01", SERIES, text("rlnTomoTiltSeriesPixelSize", "4.0")),
    ("TW-PIXEL-02", OPTICS, text("rlnTomoTiltSeriesPixelSize", "4.0")),
    ("TW-OPTICS-01", OPTICS, text("rlnVoltage", "200")),
    ("TW-OPTICS-02", PARTICLES, text("rlnOpticsGroup", "7")),
    ("TW-OPTICS-03", SERIES, text("rlnVoltage", "30")),
    ("TW-COORD-01", PARTICLES, scaled(8.0, *CENTRED)),
    ("TW-COORD-02", PARTICLES, scaled(8.0, *CENTRED)),
    ("TW-COORD-03", PARTICLES, text(CENTRED[2], "1300.0")),
    ("TW-COORD-07", PARTICLES, offsets),
    ("TW-DOUBLE-03", PARTICLES, text("rlnTomoParticleName", "TS_01/2")),
    ("TW-HALF-01", PARTICLES, text("rlnRandomSubset", "3")),
    ("TW-HALF-02", PARTICLES, lambda block: block.set_integers("rlnRandomSubset", [1] * len(block))),
    ("TW-HALF-05", PARTICLES, dropped("rlnRandomSubset")),
    ("TW-DOSE-01", TILTS, text("rlnMicrographPreExposure", "-3")),
    ("TW-DOSE-02", TILTS, lambda block: block.set_floats("rlnMicrographPreExposure", [3.0] * len(block))),
    ("TW-DOSE-03", TILTS, text("rlnMicrographPreExposure", "40", 0)),
    ("TW-DOSE-04", TILTS, reversed_dose),
    ("TW-DOSE-05", TILTS, scaled(100.0, "rlnMicrographPreExposure")),
    ("TW-DOSE-06", TILTS, lambda block: block.set_integers("rlnTomoTiltMovieIndex", range(1, len(block) + 1))),
    ("TW-CTF-01", TILTS, scaled(1e-4, "rlnDefocusU", "rlnDefocusV")),
    ("TW-CTF-02", TILTS, scaled(0.05, "rlnDefocusU", "rlnDefocusV")),
    ("TW-CTF-03", TILTS, scaled(-1.0, "rlnDefocusU", "rlnDefocusV")),
    ("TW-CTF-04", TILTS, lambda block: (text("rlnDefocusU", "9000")(block), text("rlnDefocusV", "9000")(block))[0]),
    ("TW-CTF-05", TILTS, scaled(0.5, "rlnDefocusV")),
    ("TW-CTF-06", TILTS, lambda block: block.set_floats("rlnPhaseShift", [1.57] * len(block))),
    ("TW-CTF-07", TILTS, lambda block: block.set_floats("rlnCtfScalefactor", [-0.1] + [1.0] * (len(block) - 1))),
    ("TW-TILT-01", TILTS, scaled(0.3, "rlnTomoYTilt")),
    ("TW-TILT-02", TILTS, text("rlnTomoYTilt", "60.0", 0)),
    ("TW-TILT-03", TILTS, scaled(-1.0, "rlnTomoYTilt")),
    ("TW-TILT-04", TILTS, mirrored),
    ("TW-TILT-05", TILTS, text("rlnTomoYTilt", "-40.0", 0)),
    ("TW-TILT-06", TILTS, text("rlnTomoXShiftAngst", "600.0", 0)),
    ("TW-HAND-01", SERIES, text("rlnTomoHand", "0")),
    ("TW-SET-01", PARTICLES, text("rlnTomoName", "TS_9")),
    ("TW-COORD-05", SERIES, text("rlnTomoSizeZ", "37")),
]


def test_a_correct_set_is_not_blamed(data: Path) -> None:
    result = examine(data, images=True, particle_diameter=90.0)
    assert codes(result) == set()
    assert result.exit_code(strict=True) == 0
    assert result.facts["particles"] == 6


@pytest.mark.parametrize("code, place, change", CASES, ids=[f"{case[0]}-{case[1][0]}" for case in CASES])
def test_a_planted_mistake_is_named(data: Path, code: str, place: tuple[str, str], change: Change) -> None:
    edit(data, place, change)
    result = examine(data)
    assert code in codes(result)
    found = next(finding for finding in result.findings if finding.code == code)
    assert found.where
    assert found.advice
    severity = CODES[code].severity
    assert result.exit_code(strict=False) == 3 or severity != "error"
    assert result.exit_code(strict=True) in (3, 4) or severity == "note"


def test_all_findings_come_at_once(data: Path) -> None:
    edit(data, SERIES, text("rlnTomoHand", "0"))
    edit(data, TILTS, text("rlnDefocusU", "nan", 3))
    edit(data, PARTICLES, text("rlnRandomSubset", "3"))
    edit(data, OPTICS, text("rlnVoltage", "200"))
    found = codes(examine(data))
    assert {"TW-HAND-01", "TW-COLUMN-02", "TW-HALF-01", "TW-OPTICS-01", "TW-FILE-04"} <= found
    assert "TW-FILE-03" not in found


def copy_of_first(block: StarBlock, distance: float, half: str) -> None:
    for label, values in block.columns.items():
        values.append(values[0])
        if label == "rlnTomoParticleName":
            values[-1] = "TS_01/7"
        elif label == CENTRED[0]:
            values[-1] = f"{float(values[0]) + distance:.6f}"
        elif label == "rlnRandomSubset":
            values[-1] = half


@pytest.mark.parametrize(
    "distance, half, expected",
    [
        (1.0, "1", {"TW-DOUBLE-01"}),
        (15.0, "1", {"TW-DOUBLE-02"}),
        (15.0, "2", {"TW-DOUBLE-02", "TW-HALF-04"}),
        (40.0, "2", {"TW-HALF-04"}),
        (40.0, "1", set()),
    ],
)
def test_neighbours(data: Path, distance: float, half: str, expected: set[str]) -> None:
    edit(data, PARTICLES, lambda block: copy_of_first(block, distance, half))
    found = codes(examine(data, particle_diameter=90.0))
    assert found & {"TW-DOUBLE-01", "TW-DOUBLE-02", "TW-HALF-04"} == expected


@pytest.mark.parametrize(
    "code, change",
    [
        ("TW-IMAGE-03", lambda stack: stack[2].fill(np.nan)),
        ("TW-IMAGE-04", lambda stack: stack[2].fill(1.5)),
        ("TW-IMAGE-05", lambda stack: np.multiply(stack[2], 0.01, out=stack[2])),
    ],
)
def test_bad_pixels(data: Path, code: str, change: Callable[[np.ndarray], None]) -> None:
    path = data / "tilt_series" / "TS_01.mrcs"
    stack, pixel_size = np.array(read_map(path)[0]), 8.0
    change(stack)
    path.unlink()
    write_map(path, np.nan_to_num(stack, nan=0.0), pixel_size)
    if np.isnan(stack).any():
        raw = np.memmap(path, np.float32, "r+", 1024, stack.shape)
        raw[2] = np.nan
        raw.flush()
    result = examine(data, images=True)
    assert codes(result) == {code}
    assert "row 3" in next(iter(result.findings)).where


def test_images_of_another_length_and_size(data: Path) -> None:
    edit(data, SERIES, lambda block: block.set_text("rlnTomoTiltSeriesName", [str(data / "tilt_series/TS_01.mrcs")]))
    edit(data, SERIES, lambda block: block.set_integers("rlnTomoFrameCount", [8]))
    assert "TW-IMAGE-01" in codes(examine(data))


def test_the_command(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(data, TILTS, reversed_dose)
    arguments = ["check", "--i", str(data / "optimisation_set.star")]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "[TW-DOSE-04]" in shown
    assert "1 warning" in shown
    assert main([*arguments, "--strict", "--json"]) == 4
    content = json.loads(capsys.readouterr().out)
    assert content["counts"] == {"error": 0, "warning": 1, "note": 0}
    assert content["findings"][0]["code"] == "TW-DOSE-04"
    folder = data / "job"
    assert main([*arguments, "--images", "--o", str(folder), "--quiet"]) == 0
    assert json.loads((folder / "findings.json").read_text())["findings"] == content["findings"]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Particles of TS_01" in page
    assert "TW-DOSE-04" in page
    assert (folder / "RELION_JOB_EXIT_SUCCESS").exists()


def test_an_unreadable_set_is_a_finding(tmp_path: Path) -> None:
    path = tmp_path / "none.star"
    result = check(CheckOptions(input=path), choose_progress(quiet=True, json=False))
    assert codes(result) == {"TW-FILE-01"}
    path.write_bytes(b"\0\1\2")
    result = check(CheckOptions(input=path), choose_progress(quiet=True, json=False))
    assert codes(result) == {"TW-FILE-03"}


def test_explain(capsys: pytest.CaptureFixture[str]) -> None:
    for name, code in CODES.items():
        assert main(["explain", name]) == 0
        shown = capsys.readouterr().out
        assert code.title in shown
        assert code.why in shown
    assert main(["explain"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(CODES)
    assert code_named("coord-1") is CODES["TW-COORD-01"]
    assert main(["explain", "TW-COORD-99"]) == 2
    assert "did you mean TW-COORD-0" in capsys.readouterr().err


def test_codes_are_documented() -> None:
    rows = re.findall(r"^\| `(TW-\S+)` \| (\w+) \| (.*) \| (.*) \|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [(code.name, code.severity, code.title, code.fix) for code in CODES.values()]


def test_only_codes_of_the_registry_can_be_found() -> None:
    with pytest.raises(KeyError):
        Findings().add("TW-NONE-01", "", "")


def test_folder_of_another_job_is_left_alone(tiny_data: SimulatedData, tmp_path: Path) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    (folder / "job.json").write_text(json.dumps({"command": "refine", "status": "aborted", "parameters": {}}))
    (folder / ".state").mkdir()
    (folder / ".state" / "refine.npz").write_bytes(b"checkpoint")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert main(["check", "--i", str(tiny_data.optimisation_set), "--o", str(folder)]) == 2
    assert {path: path.read_bytes() for path in before} == before
    assert not (folder / "RELION_JOB_EXIT_SUCCESS").exists()
