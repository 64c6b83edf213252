"""Tilt series: images on disk, doses, defoci, angles, hand, as the tables state them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tiltwise.check.findings import Findings, some
from tiltwise.check.project import F64, Project, from_error, numbers, refuse_columns
from tiltwise.errors import TiltwiseError
from tiltwise.io.mrc import MrcHeader, read_header, split_image_name
from tiltwise.io.paths import PathResolver
from tiltwise.io.star import StarBlock
from tiltwise.io.tomograms import ANGLE_LABELS, MATRIX_LABELS, tilt_angles

_OF_SERIES = (
    "rlnTomoTiltSeriesPixelSize",
    "rlnTomoHand",
    "rlnVoltage",
    "rlnSphericalAberration",
    "rlnAmplitudeContrast",
)
_OF_TILTS = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnMicrographPreExposure")
_OPTIONAL = ("rlnCtfScalefactor", "rlnPhaseShift", "rlnCtfBfactor", "rlnTomoNominalStageTiltAngle")

_PIXEL_TOLERANCE = 0.01
_FEWEST_DEGREES, _STEEPEST = 60.0, 80.0
_LARGE_SHIFT = 0.25
"""Shift of a tilt over the width of its image."""

Note = Callable[[str], None]


def check_tilt_series(project: Project, findings: Findings) -> None:
    """All that one table of tilts can tell, and the headers of its images."""
    table = project.tomograms
    if table is None:
        return
    refuse_columns(table, _OF_SERIES, _OF_SERIES, findings)
    names = table.text("rlnTomoName")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        findings.add("TW-FILE-03", "a tilt series occurs twice", table.where(), found=some(repeated))
    _optics(table, names, findings)
    _sizes(table, findings)
    pixel, hand = numbers(table, "rlnTomoTiltSeriesPixelSize"), numbers(table, "rlnTomoHand")
    different = np.unique(np.round(pixel[np.isfinite(pixel)], 4))
    if len(different) > 1:
        found = ", ".join(f"{size:g} Å" for size in different)
        findings.add("TW-PIXEL-04", "tilt series differ in pixel size", table.where(), found=found)
    wrong = np.flatnonzero(np.isfinite(hand) & (np.abs(hand) != 1))
    if len(wrong):
        places = [names[i] for i in wrong]
        findings.add("TW-HAND-01", "the hand is neither 1 nor -1", places, found=f"{hand[wrong[0]]:g}")
    elif len(np.unique(hand[np.isfinite(hand)])) > 1:
        places = [name for name, one in zip(names, hand, strict=True) if one == 1]
        findings.add("TW-HAND-02", "tilt series differ in hand", table.where(), found=f"1 for {some(places)}")
    gathered = _Gathered(findings)
    for row, name in enumerate(names):
        block = project.tables.get(name)
        if block is None:
            continue
        angles = ANGLE_LABELS[1:] if not all(label in block for label in MATRIX_LABELS) else ()
        refuse_columns(block, _OF_TILTS + angles, _OF_TILTS + angles + _OPTIONAL, findings, name)
        width = _images(table, row, name, block, float(pixel[row]), gathered)
        _dose(name, block, gathered)
        _ctf(name, block, gathered)
        _geometry(name, block, float(pixel[row]), width, gathered)
    gathered.close()


class _Gathered:
    """Findings of the same kind in many series become one."""

    def __init__(self, findings: Findings) -> None:
        self.findings = findings
        self._places: dict[tuple[str, str, str], list[tuple[str, str]]] = {}

    def add(self, code: str, what: str, where: str, expected: str = "", found: str = "") -> None:
        self._places.setdefault((code, what, expected), []).append((where, found))

    def close(self) -> None:
        for (code, what, expected), places in self._places.items():
            names = [where for where, _ in places]
            self.findings.add(code, what, names, expected=expected, found=places[0][1])


def _optics(table: StarBlock, names: list[str], findings: Findings) -> None:
    ranges = (
        ("rlnVoltage", 80.0, 400.0, "kV"),
        ("rlnSphericalAberration", 0.0, 8.0, "mm"),
        ("rlnAmplitudeContrast", 0.0, 0.3, ""),
    )
    for label, low, high, unit in ranges:
        values = numbers(table, label)
        bad = np.flatnonzero((values < low) | (values > high))
        if len(bad):
            findings.add(
                "TW-OPTICS-03",
                f"_{label} is unusual",
                [names[i] for i in bad],
                expected=f"{low:g} to {high:g} {unit}".strip(),
                found=f"{values[bad[0]]:g}",
            )


def _sizes(table: StarBlock, findings: Findings) -> None:
    sizes = np.stack([numbers(table, f"rlnTomoSize{axis}") for axis in "XYZ"], axis=1)
    odd = np.flatnonzero((sizes % 2 == 1).any(axis=1))
    if len(odd):
        size = " x ".join(f"{n:g}" for n in sizes[odd[0]])
        findings.add("TW-COORD-05", f"{len(odd)} tomograms have an odd size", table.where(int(odd[0])), found=size)


def _images(table: StarBlock, row: int, name: str, block: StarBlock, pixel: float, gathered: _Gathered) -> float:
    """Findings about the files of the images; their width in pixels, NaN if unknown."""
    stack = "rlnTomoTiltSeriesName" in table
    if not stack and "rlnMicrographName" not in block:
        gathered.add("TW-FILE-02", "the set names no tilt images", name, "_rlnMicrographName or _rlnTomoTiltSeriesName")
        return float("nan")
    resolver = PathResolver(table.path if stack else block.path)
    texts = [table.text("rlnTomoTiltSeriesName")[row]] if stack else block.text("rlnMicrographName")
    headers: dict[str, MrcHeader] = {}
    missing: list[str] = []
    sections: list[tuple[str, int | None]] = []
    try:
        for file, section in map(split_image_name, texts):
            sections.append((file, section))
            if file in headers or file in missing:
                continue
            path = resolver.find(file)
            if path is None:
                missing.append(file)
            else:
                headers[file] = read_header(path)
    except TiltwiseError as error:
        from_error(gathered.findings, error)
        return float("nan")
    if missing:
        gathered.add("TW-FILE-02", "tilt images are missing", name, found=some(missing))
    if not headers:
        return float("nan")
    first = next(iter(headers.values()))
    if any(header.shape[1:] != first.shape[1:] for header in headers.values()):
        gathered.add("TW-IMAGE-02", "the images of a tilt series differ in size", name)
    if stack:
        frames = numbers(table, "rlnTomoFrameCount")[row]
        count = len(block) if np.isnan(frames) else int(frames)
        if not len(block) == count == first.shape[0]:
            found = f"{first.shape[0]} sections, {len(block)} rows, rlnTomoFrameCount {count}"
            gathered.add("TW-IMAGE-01", "a tilt stack and its table differ in length", name, found=found)
    else:
        beyond = [
            f"{file}: section {(section or 0) + 1} of {headers[file].shape[0]}"
            for file, section in sections
            if file in headers
            and (headers[file].shape[0] != 1 if section is None else section >= headers[file].shape[0])
        ]
        if beyond:
            gathered.add("TW-IMAGE-01", "a tilt stack and its table differ in length", name, found=beyond[0])
        used = {file: sum(1 for other, _ in sections if other == file) for file in headers}
        spare = [
            f"{file}: {headers[file].shape[0]} sections, {n} rows"
            for file, n in used.items()
            if n > 1 and headers[file].shape[0] > n
        ]
        if spare:
            gathered.add("TW-IMAGE-06", "a stack has sections that the table leaves out", name, found=spare[0])
    own = first.pixel_size[0]
    if np.isfinite(pixel) and own > 0 and abs(own - pixel) > _PIXEL_TOLERANCE * pixel:
        ratio = own / pixel
        hint = ""
        for factor, text in ((ratio, "binned"), (1 / ratio, "finer")):
            if abs(factor - round(factor)) < 0.02 * factor and round(factor) > 1:
                hint = f": images {text} by {round(factor)}?"
        gathered.add(
            "TW-PIXEL-01",
            "the headers of the images have another pixel size" + hint,
            name,
            f"{pixel:g} Å (rlnTomoTiltSeriesPixelSize)",
            f"{own:g} Å",
        )
    return float(first.shape[2])


def _dose(name: str, block: StarBlock, gathered: _Gathered) -> None:
    dose = numbers(block, "rlnMicrographPreExposure")
    known = np.isfinite(dose)
    if known.sum() < 2:
        return
    if (dose < 0).any():
        gathered.add("TW-DOSE-01", "a dose is negative", name, found=f"{np.nanmin(dose):g} e/Å²")
    steps = np.diff(np.sort(dose[known]))
    equal = int((steps <= 1e-6).sum())
    if equal:
        gathered.add("TW-DOSE-02", "tilts have equal doses", name, found=f"{equal + 1} of {int(known.sum())} tilts")
    step = float(np.median(steps[steps > 1e-6])) if (steps > 1e-6).any() else 0.0
    if step > 0:
        lost = int(np.sum(np.rint(steps[steps > 1.5 * step] / step) - 1))
        if lost and not equal:
            gathered.add("TW-DOSE-03", "the dose has gaps", name, found=f"about {lost} tilts' dose of {step:.2g} e/Å²")
        if not 0.2 <= step <= 20:
            gathered.add("TW-DOSE-05", "the dose per tilt is out of the ordinary", name, "1 to 5 e/Å²", f"{step:.3g}")
    if np.nanmax(dose) > 400:
        gathered.add("TW-DOSE-05", "the total dose is out of the ordinary", name, "60 to 180 e/Å²", f"{dose.max():.4g}")
    order = numbers(block, "rlnTomoTiltMovieIndex")
    both = known & np.isfinite(order)
    if both.sum() > 2 and (np.diff(dose[both][np.argsort(order[both], kind="stable")]) < -1e-6).any():
        gathered.add("TW-DOSE-06", "dose and order of acquisition (rlnTomoTiltMovieIndex) contradict each other", name)
    angle = np.abs(_tilts(block))
    if not np.isfinite(angle[known]).all() or len(angle) < 5 or equal:
        return
    largest = float(angle.max())
    near, far = angle[np.nanargmax(dose)], angle[np.nanargmin(dose)]
    if near < 0.35 * largest and far > 0.65 * largest and _rank_correlation(dose[known], angle[known]) < -0.5:
        found = f"first tilt at {far:.0f}°, last at {near:.0f}°"
        gathered.add("TW-DOSE-04", "the order of the dose looks reversed", name, "the least dose near 0°", found)


def _rank_correlation(a: F64, b: F64) -> float:
    ranks = [np.argsort(np.argsort(x, kind="stable")).astype(np.float64) for x in (a, b)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ctf(name: str, block: StarBlock, gathered: _Gathered) -> None:
    u, v = numbers(block, "rlnDefocusU"), numbers(block, "rlnDefocusV")
    mean = 0.5 * (u + v)
    known = mean[np.isfinite(mean)]
    if not len(known):
        return
    middle = float(np.median(known))
    if abs(middle) < 50:
        gathered.add("TW-CTF-01", "defoci are not in Å", name, "5000 to 100000", f"median {middle:.3g}")
    elif 0 < middle < 3000:
        found = f"median {middle:.0f}"
        gathered.add("TW-CTF-02", "defoci are unusually small: are they nm?", name, "5000 to 100000 Å", found)
    elif middle < 0 or middle > 150000:
        gathered.add("TW-CTF-03", "defoci are out of range", name, "5000 to 100000 Å", f"median {middle:.0f} Å")
    else:
        spread = 1.4826 * float(np.median(np.abs(known - middle)))
        far = np.flatnonzero(np.abs(mean - middle) > max(4000.0, 0.15 * middle, 8.0 * spread))
        if len(far):
            found = f"{mean[far[0]]:.0f} Å in row {far[0] + 1} ({len(far)} tilts), median {middle:.0f} Å"
            gathered.add("TW-CTF-04", "single tilts have a defocus far from that of their series", name, "", found)
        ratio = np.abs(u - v) / np.abs(mean)
        if np.nanmedian(ratio) > 0.2:
            found = f"{100 * np.nanmedian(ratio):.0f} % of the defocus"
            gathered.add("TW-CTF-05", "the astigmatism is large", name, "", found)
    shift = numbers(block, "rlnPhaseShift")
    if np.isfinite(shift).any() and 0 < np.nanmax(np.abs(shift)) <= 3.2:
        gathered.add("TW-CTF-06", "a phase shift looks like radians", name, "degrees", f"{np.nanmax(shift):.3g}")
    scale = numbers(block, "rlnCtfScalefactor")
    if (scale <= 0).any():
        found = f"{np.nanmin(scale):g} in row {int(np.nanargmin(scale)) + 1}"
        gathered.add("TW-CTF-07", "a contrast scale is not positive", name, "above 0", found)


def _geometry(name: str, block: StarBlock, pixel: float, width: float, gathered: _Gathered) -> None:
    matrices = _matrices(block)
    if matrices is not None and (np.linalg.det(matrices) < 0).any():
        gathered.add("TW-TILT-04", "projection matrices mirror the tomogram", name, "determinant 1", "determinant -1")
    angle = _tilts(block)
    known = angle[np.isfinite(angle)]
    if len(known) < 2:
        return
    if np.ptp(known) < _FEWEST_DEGREES or np.abs(known).max() > _STEEPEST:
        found = f"{known.min():.0f}° to {known.max():.0f}°"
        gathered.add("TW-TILT-01", "the range of tilts is unusual", name, "about -60° to 60°", found)
    same = int((np.diff(np.sort(known)) < 0.05).sum())
    if same:
        gathered.add("TW-TILT-02", "tilts have equal angles", name, found=f"{same} pairs")
    nominal, aligned = numbers(block, "rlnTomoNominalStageTiltAngle"), numbers(block, "rlnTomoYTilt")
    both = np.isfinite(nominal) & np.isfinite(aligned)
    if both.sum() > 2 and np.ptp(nominal[both]) > 10 and np.ptp(aligned[both]) > 10:
        if np.corrcoef(nominal[both], aligned[both])[0, 1] < -0.9:
            gathered.add("TW-TILT-03", "aligned and nominal tilt angles have opposite signs", name)
        else:
            rest = aligned[both] - nominal[both]
            rest -= np.median(rest)
            if np.abs(rest).max() > 5:
                found = f"{np.abs(rest).max():.1f}° in row {int(np.flatnonzero(both)[np.abs(rest).argmax()]) + 1}"
                gathered.add("TW-TILT-05", "aligned tilt angles are far from the nominal ones", name, "", found)
    shift = np.stack([numbers(block, f"rlnTomo{axis}ShiftAngst") for axis in "XY"], axis=1) / pixel
    if np.isfinite(width) and np.isfinite(shift).any() and np.nanmax(np.abs(shift)) > _LARGE_SHIFT * width:
        found = f"{np.nanmax(np.abs(shift)) * pixel:.0f} Å, the image is {width * pixel:.0f} Å wide"
        gathered.add("TW-TILT-06", "shifts of tilt images are a large part of the image", name, "", found)


def _matrices(block: StarBlock) -> F64 | None:
    """(F, 3, 3) rotations of the matrices, None where the table has none that can be read."""
    if not all(label in block for label in MATRIX_LABELS):
        return None
    try:
        return np.stack([np.stack(block.vectors(label))[:, :3] for label in MATRIX_LABELS[:3]], axis=1)
    except (TiltwiseError, ValueError, IndexError):
        return None


def _tilts(block: StarBlock) -> F64:
    """(F,) tilt angles in degrees, of whichever kind the table has."""
    for label in ("rlnTomoYTilt", "rlnTomoNominalStageTiltAngle"):
        if label in block:
            return numbers(block, label)
    matrices = _matrices(block)
    if matrices is None:
        return np.full(len(block), np.nan)
    return tilt_angles(matrices)
