"""What files of a folder are, by their names and, for STAR files, their first lines."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MOST_FILES = 50_000
MOST_DEPTH = 8
_HEAD = 65_536
"""bytes of a STAR file that are looked at"""

KINDS: tuple[tuple[str, str], ...] = (
    ("movies", r".*\.(eer|tiff?)$"),
    ("raw stacks", r".*\.st$"),
    ("tomograms", r".*(\.rec|_rec\.mrc|_rec_.*\.mrc)$"),
    ("MRC files", r".*\.(mrc|mrcs|map|ali)$"),
    ("mdoc", r".*\.mdoc$"),
    ("IMOD transforms", r".*\.xf$"),
    ("IMOD angles", r".*\.(tlt|rawtlt|xtilt)$"),
    ("IMOD commands", r"(tilt|newst).*\.com$|.*\.edf$"),
    ("AreTomo alignments", r".*\.aln$"),
    ("CTF tables", r".*(_CTF|_ctf|_ctffind\d?|_output)\.txt$|.*\.defocus$|.*_gctf\.star$"),
    ("Warp", r".*\.(tomostar|settings|population|source)$"),
    ("Dynamo tables", r".*\.tbl$"),
    ("EM files", r".*\.em$"),
    ("IMOD models", r".*\.(mod|fid)$"),
    ("coordinates as text", r".*\.(csv|tsv|coords|pts|point)$"),
)
"""Kind and pattern of file names, in the order in which they are tried."""

_STAR_KINDS: tuple[tuple[str, bytes], ...] = (
    ("RELION optimisation sets", b"_rlnTomoTomogramsFile"),
    ("RELION tomogram sets", b"data_global"),
    ("STOPGAP motive lists", b"data_stopgap_motivelist"),
    ("STOPGAP wedge lists", b"data_stopgap_wedgelist"),
    ("RELION particles", b"_rlnTomoParticleName"),
    ("RELION particles", b"_rlnCoordinateZ"),
    ("RELION particles", b"_rlnCenteredCoordinateZAngst"),
    ("RELION tilt tables", b"_rlnTomoNominalStageTiltAngle"),
    ("RELION tilt tables", b"_rlnTomoYTilt"),
    ("CTF tables", b"_rlnDefocusU"),
)


@dataclass(frozen=True, slots=True)
class Inventory:
    """Files of a folder by kind."""

    root: Path
    files: dict[str, list[Path]]
    """kind -> files, sorted"""
    folders: list[Path]
    """all folders that were looked into, the root first"""
    other: int
    """files of no kind that is known"""
    complete: bool
    """false where there were more than `MOST_FILES` files or folders deeper than `MOST_DEPTH`"""

    def of(self, *kinds: str) -> list[Path]:
        """Files of some kinds."""
        return [path for kind in kinds for path in self.files.get(kind, [])]


def take_stock(root: Path) -> Inventory:
    """Sort the files under a folder by kind; hidden folders and links to folders are left out."""
    files: dict[str, list[Path]] = {}
    folders: list[Path] = []
    count = other = 0
    complete = True
    for folder, names, deeper in _walk(root):
        folders.append(folder)
        complete = complete and not deeper
        for name in names:
            count += 1
            if count > MOST_FILES:
                return Inventory(root, files, folders, other, False)
            kind = kind_of(folder / name)
            if kind is None:
                other += 1
            else:
                files.setdefault(kind, []).append(folder / name)
    return Inventory(root, files, folders, other, complete)


def kind_of(path: Path) -> str | None:
    """Kind of a file; None if it is not known."""
    for kind, pattern in KINDS:
        if re.fullmatch(pattern, path.name):
            return kind
    if path.suffix == ".star":
        return _star_kind(path)
    return None


def _star_kind(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return None
    if b"data_optimiser" in head:  # names a tomogram set, but is no set
        return None
    return next((kind for kind, mark in _STAR_KINDS if mark in head), None)


def _walk(root: Path) -> Iterator[tuple[Path, list[str], bool]]:
    """Folders from the top with the names of their files, and whether folders below were left out."""
    for current, below, names in os.walk(root):
        below[:] = sorted(name for name in below if not name.startswith("."))
        deep = len(Path(current).relative_to(root).parts) >= MOST_DEPTH
        cut = deep and bool(below)
        if deep:
            below.clear()
        yield Path(current), sorted(names), cut
