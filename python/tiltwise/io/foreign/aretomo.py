"""AreTomo's `.aln`: global and local alignment of a tilt series.

With R = Rz(ROT), a specimen point p relative to the centre of rotation is seen at `R Ry(TILT) p + (TX, TY)` relative
to the centre of the raw image, pixels of the raw stack; x and y as in the file, TILT in degrees with the refined
AlphaOffset already added.  A row of the local alignment says that what lies at `(x, y)` relative to the centre after R
and before (TX, TY) is seen displaced by a further `(dx, dy)`.

The column SEC counts from 0 or 1, over all sections or only those kept, depending on the version: rows are told apart
by their angle.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import FormatError
from tiltwise.io.foreign.text import TextFile, read_text

_GLOBAL = ("SEC", "ROT", "GMAG", "TX", "TY", "SMEAN", "SFIT", "SCALE", "BASE", "TILT")
_LOCAL = ("tilt", "patch", "x", "y", "dx", "dy", "good")


@dataclass(frozen=True, slots=True)
class LocalAlignment:
    """Displacements of K patches in F tilts, pixels."""

    position_px: NDArray[np.float64]
    """(F, K, 2) relative to the image centre, rotated by ROT, before TX, TY"""
    shift_px: NDArray[np.float64]
    """(F, K, 2)"""
    good: NDArray[np.bool_]
    """(F, K) false where AreTomo rejected the measurement"""


@dataclass(frozen=True, slots=True)
class AreTomoAlignment:
    """Alignment of the F tilts that were kept."""

    path: str
    raw_size: tuple[int, int, int]
    """(width, height, sections) of the raw stack"""
    dark_tilt_deg: NDArray[np.float64]
    """(D,) stage angles of sections that were left out"""
    alpha_offset_deg: float
    beta_offset_deg: float
    thickness_px: int | None
    section: NDArray[np.int64]
    """(F,) column SEC as it stands"""
    rotation_deg: NDArray[np.float64]
    shift_px: NDArray[np.float64]
    """(F, 2) TX, TY"""
    tilt_deg: NDArray[np.float64]
    """(F,) TILT, AlphaOffset included"""
    local: LocalAlignment | None

    @property
    def nominal_tilt_deg(self) -> NDArray[np.float64]:
        """(F,) angles of the stage, AlphaOffset taken off: what `.rawtlt` and the mdoc hold."""
        return np.asarray(self.tilt_deg - self.alpha_offset_deg)


def read_aln(path: str | os.PathLike[str]) -> AreTomoAlignment:
    """Read an AreTomo2 or AreTomo3 `.aln` file.

    Raises
    ------
    FormatError
        if the head is incomplete, a row has not the right numbers, or rows of kept and dark sections together are not
        as many as the raw stack has.
    """
    file = read_text(path)
    if not file.lines or "AreTomo Alignment" not in file.lines[0]:
        raise file.error("this is not an AreTomo alignment", 0, 0, expected="# AreTomo Alignment in the first line")
    head: dict[str, list[tuple[int, str]]] = {}
    for i, line in enumerate(file.lines):
        match = re.fullmatch(r"#\s*(\w+)\s*=\s*(.*)", line.strip())
        if match:
            head.setdefault(match[1], []).append((i, match[2]))
    raw = _head_numbers(file, head, "RawSize", 3)
    patches = int(_head_numbers(file, head, "NumPatches", 1)[0])
    dark = [_numbers(file, line, text, 3)[2] for line, text in head.get("DarkFrame", [])]
    local_at = next((i for i, line in enumerate(file.lines) if "# Local Alignment" in line), len(file.lines))
    rows = [i for i in file.rows() if i < local_at]
    values = file.table(rows, _GLOBAL)
    for bad in np.flatnonzero((values[:, 2] < 0.5) | (values[:, 2] > 2.0)):
        raise file.error("a magnification is out of range", rows[int(bad)], 0, found=str(values[bad, 2]))
    if len(rows) + len(dark) != raw[2]:
        raise FormatError(
            "an AreTomo alignment is not complete",
            where=f"{file.path}, line {rows[-1] + 1}",
            expected=f"{raw[2]:.0f} sections (RawSize), kept or dark",
            found=f"{len(rows)} kept and {len(dark)} dark",
            fix="copy the file again",
        )
    thickness = _head_numbers(file, head, "Thickness", 1)[0] if "Thickness" in head else None
    return AreTomoAlignment(
        path=file.path,
        raw_size=(int(raw[0]), int(raw[1]), int(raw[2])),
        dark_tilt_deg=np.array(dark, np.float64),
        alpha_offset_deg=_head_numbers(file, head, "AlphaOffset", 1)[0] if "AlphaOffset" in head else 0.0,
        beta_offset_deg=_head_numbers(file, head, "BetaOffset", 1)[0] if "BetaOffset" in head else 0.0,
        thickness_px=None if thickness is None else int(thickness),
        section=values[:, 0].astype(np.int64),
        rotation_deg=values[:, 1],
        shift_px=values[:, 3:5],
        tilt_deg=values[:, 9],
        local=_local(file, [i for i in file.rows() if i > local_at], len(rows), patches),
    )


def _local(file: TextFile, rows: list[int], tilts: int, patches: int) -> LocalAlignment | None:
    if patches == 0 and not rows:
        return None
    if len(rows) != tilts * patches:
        raise FormatError(
            "an AreTomo alignment is not complete",
            where=f"{file.path}, line {(rows[-1] if rows else len(file.lines) - 1) + 1}",
            expected=f"{tilts} tilts x {patches} patches = {tilts * patches} rows of local alignment",
            found=str(len(rows)),
            fix="copy the file again",
        )
    values = file.table(rows, _LOCAL).reshape(tilts, patches, len(_LOCAL))
    wrong = (values[:, :, 0] != np.arange(tilts)[:, None]) | (values[:, :, 1] != np.arange(patches))
    if wrong.any():
        i = int(np.flatnonzero(wrong.ravel())[0])
        raise file.error(
            "rows of the local alignment are not in order",
            rows[i],
            0,
            expected=f"tilt {i // patches}, patch {i % patches}",
            found=file.lines[rows[i]].strip(),
        )
    return LocalAlignment(values[:, :, 2:4], values[:, :, 4:6], values[:, :, 6] >= 0.9)


def _head_numbers(file: TextFile, head: dict[str, list[tuple[int, str]]], key: str, count: int) -> list[float]:
    if key not in head:
        raise FormatError(
            f"an entry is missing: {key}",
            where=f"{file.path}, line {len(file.lines)}",
            expected=f"# {key} = ... in the head",
            fix="copy the file again",
        )
    return _numbers(file, *head[key][0], count)


def _numbers(file: TextFile, line: int, text: str, count: int) -> list[float]:
    tokens = text.split()
    start = file.lines[line].find("=") + 1
    if len(tokens) != count:
        raise file.error("an entry has the wrong number of values", line, start, expected=str(count), found=text)
    found = []
    for token in tokens:
        start = file.lines[line].find(token, start)
        found.append(file.number(line, token, "head", column=start))
        start += len(token)
    return found
