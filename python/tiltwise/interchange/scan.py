"""What is in a folder, what is missing for an import, and the command that imports it.

A project is tried as `import` would read it, with what lies near it; whatever is asked for becomes an entry of the list
of missing things and a placeholder in the command.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiltwise.errors import ConfigError, TiltwiseError
from tiltwise.interchange import aretomo, imod
from tiltwise.interchange.inventory import Inventory, kind_of, take_stock
from tiltwise.interchange.options import ImportOptions
from tiltwise.interchange.programs import PROGRAMS, Program
from tiltwise.interchange.views import find_ctf, find_mdoc
from tiltwise.io.foreign.csv_coordinates import read_coordinates
from tiltwise.io.foreign.em import read_motives as read_em_motives

MOST_SETS = 3
"""Sets of RELION that are looked at, the newest: every job writes one."""


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that has to be given."""

    what: str
    fix: str


@dataclass(frozen=True, slots=True)
class Project:
    """Something that can be imported."""

    source: str
    title: str
    path: Path
    series: tuple[str, ...]
    """names of tilt series, where the project could be read"""
    tilts: int
    particles: int
    missing: tuple[Missing, ...]
    notes: tuple[str, ...]
    command: tuple[str, ...]
    """to paste; words in capitals are to be filled in"""

    @property
    def command_text(self) -> str:
        """The command, quoted for the shell."""
        return shlex.join(self.command)


@dataclass(frozen=True, slots=True)
class Scan:
    """Result of `scan`."""

    inventory: Inventory
    projects: tuple[Project, ...]


# What an import may ask for: text of the error, its placeholder in the command, and a value to go on with.
_ASKED: tuple[tuple[str, tuple[str, ...], dict[str, Any]], ...] = (
    ("the pixel size is not known", ("--angpix", "ANGPIX"), {"pixel_size": 1.0}),
    ("the size of the tilt images", ("--image-size", "WIDTH,HEIGHT"), {"image_size": "4096,4096"}),
    ("the size of the tomogram", ("--tomogram-size", "X,Y,Z"), {"tomogram_size": "4096,4096,2048"}),
    ("rotates the specimen about x", ("--x-tilt", "APPLY_OR_IGNORE"), {"x_tilt": "ignore"}),
    ("the binning of coordinates", ("--coord-binning", "BINNING"), {"coordinate_binning": 1.0}),
    (
        "unit and origin of coordinates",
        ("--coord-units", "UNIT", "--coord-origin", "ORIGIN", "--coord-first", "FIRST"),
        {"coordinate_unit": "px", "coordinate_origin": "corner", "coordinate_first": 0.0},
    ),
    ("has no doses", ("--dose", "DOSE"), {"dose_per_view": 1.0}),
)
# These leave nothing to go on with.
_LAST: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("numbers of tomograms", ("--tomogram-names", "NUMBERS_AND_NAMES")),
    ("neither mdoc nor order list", ("--mdoc", "MDOC")),
    ("cannot be told apart", ("--ctf-angles", "ANGLES_OF_ROWS")),
)


def scan(root: Path) -> Scan:
    """Look through a folder.

    Raises
    ------
    ConfigError
        if it is not a folder.
    """
    if not root.is_dir():
        raise ConfigError("there is no such folder", where=str(root), fix="name a folder")
    inventory = take_stock(root)
    found = _alignments(inventory)
    projects = [_tried(program, path, inventory) for program, path in found]
    projects += _particle_lists(inventory, projects)
    return Scan(inventory, tuple(projects))


def _alignments(inventory: Inventory) -> list[tuple[Program, Path]]:
    """Programs and what they recognise: the highest folder of each, and the newest sets of RELION."""
    sets = inventory.of("RELION optimisation sets") or inventory.of("RELION tomogram sets")
    newest = sorted(sets, key=lambda path: path.stat().st_mtime, reverse=True)[:MOST_SETS]
    chosen: list[tuple[Program, Path]] = []
    for program in PROGRAMS:
        if program.source == "particles":
            continue
        candidates = newest if program.source.startswith("relion") else inventory.folders
        for path in candidates:
            inside = any(program is other and above in path.parents for other, above in chosen)
            if not inside and _recognised(program, path):
                chosen.append((program, path))
    return chosen


def _recognised(program: Program, path: Path) -> bool:
    try:
        return program.recognises(_options(path))
    except TiltwiseError:
        return False


def _tried(program: Program, path: Path, inventory: Inventory) -> Project:
    """Read a project with what lies near it, as often as something is asked for that has a stand-in."""
    values: dict[str, Any] = {}
    words = ["tiltwise", "import", "--i", str(path), "--from", program.source]
    names = _names(program, path)
    folder = path if path.is_dir() else path.parent
    for option, places, finds in (
        ("mdoc", inventory.of("mdoc"), find_mdoc),
        ("ctf", inventory.of("CTF tables"), find_ctf),
    ):
        place = _place(option, names, places, finds, folder)
        if place is not None:
            values[option] = place
            words += [f"--{option}", str(place)]
    return _attempts(program, path, values, words)


def _attempts(program: Program, path: Path, values: dict[str, Any], words: list[str]) -> Project:
    missing: list[Missing] = []
    series: tuple[str, ...] = ()
    tilts = particles = 0
    notes: tuple[str, ...] = ()
    for _ in range(len(_ASKED) + 1):
        try:
            imported = program.read(_options(path, **values))
        except TiltwiseError as error:
            place = "" if error.where is None else f" ({error.where})"
            missing.append(Missing(f"{error.what}{place}", error.fix or error.expected or ""))
            text = str(error)
            asked = next((one for one in _ASKED if one[0] in text and not set(one[2]) <= set(values)), None)
            if asked is None:
                words += next((list(placeholder) for mark, placeholder in _LAST if mark in text), [])
                break
            words += asked[1]
            values = {**values, **asked[2]}
        else:
            optset = imported.optset
            series = tuple(one.name for one in optset.series)
            tilts, particles = sum(one.n_tilts for one in optset.series), len(optset.particles)
            notes = imported.notes
            break
    name = (path.stem if path.is_file() else path.resolve().name) or "project"
    words += ["--o", f"Import/{name}"]
    return Project(program.source, program.title, path, series, tilts, particles, tuple(missing), notes, tuple(words))


def _particle_lists(inventory: Inventory, projects: Sequence[Project]) -> list[Project]:
    """Commands for lists of other programs, into the tilt series of the first project."""
    program = next(one for one in PROGRAMS if one.source == "particles")
    kinds = ("Dynamo tables", "STOPGAP motive lists", "IMOD models", "coordinates as text")
    lists = [path for path in inventory.of(*kinds, "EM files") if _is_list(path)]
    sets = inventory.of("RELION tomogram sets")
    found = []
    for path in lists:
        words = ["tiltwise", "import", "--i", str(path), "--from", "particles"]
        if sets:
            found.append(_attempts(program, path, {"tomograms": sets[0]}, [*words, "--t", str(sets[0])]))
            continue
        tomograms = f"{projects[0].command[-1]}/tomograms.star" if projects else "TOMOGRAMS"
        words += ["--t", tomograms, "--coord-binning", "BINNING", "--o", f"Import/{path.stem}"]
        need = (
            Missing("its tilt series are not imported yet", "run the command above first")
            if projects
            else Missing("there are no tilt series for it", "import their alignment, then give --t tomograms.star")
        )
        found.append(Project("particles", program.title, path, (), 0, 0, (need,), (), tuple(words)))
    return found


def _is_list(path: Path) -> bool:
    """Whether a file whose name allows it holds particles: tables of all kinds end in .csv, volumes in .em."""
    try:
        if path.suffix == ".em":
            read_em_motives(path)
        elif kind_of(path) == "coordinates as text":
            read_coordinates(path)
        elif kind_of(path) == "IMOD models":
            # eTomo keeps models of beads beside its alignment
            return not any(path.parent.glob("*.xf"))
    except TiltwiseError:
        return False
    return True


def _names(program: Program, path: Path) -> list[str]:
    if program.source == "aretomo":
        return [aretomo.name_of(one) for one in aretomo.files(path)]
    if program.source == "imod":
        return [one.stem for folder in imod.folders(path) for one in sorted(folder.glob("*.xf"))[:1]]
    return []


def _place(option: str, names: list[str], files: list[Path], finds: Callable[..., object], folder: Path) -> Path | None:
    """Folder of files for all the tilt series that is not beside them; None if they are found without it."""
    for name in names:
        try:
            if finds(name, _options(folder), folder) is not None or finds(name, _options(folder), folder / name):
                return None
        except TiltwiseError:
            return None
    for place in dict.fromkeys(path.parent for path in files):
        try:
            if names and all(finds(name, _options(folder, **{option: place}), folder) is not None for name in names):
                return place
        except TiltwiseError:
            continue
    return None


def _options(path: Path, **values: Any) -> ImportOptions:
    return ImportOptions(input=path, output=Path("Import"), **values)
