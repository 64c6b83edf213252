"""The surface viewer of a page: k3d's program (MIT), our own few lines, and the policy that allows these alone.

A page that is opened from a disk must not load anything, and a page behind a strict policy may not build programs
from text (`eval`).  So k3d's program lies in the page compressed, as data; a click unpacks it and hands it to the
browser as one inline script, which the policy allows by its SHA-256.  k3d itself is not imported: of the package only
the file for browsers is used.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Surface:
    """What the viewer shows: a cube of 8 bit, bytes 0 to 255 for grey values `low` to `high`."""

    values: NDArray[np.uint8]
    """`(n, n, n)`, axes z, y, x"""
    low: float
    high: float
    contour: float
    """grey value at the start"""
    width_angstrom: float
    focus_angstrom: tuple[float, float, float, float]
    """centre x, y, z and width of what one looks at at the start, from the centre of the cube"""
    colour: NDArray[np.uint8] | None = None
    """on the same grid: bytes 0 to 255 for the ends of `colour_range`"""
    colour_range: tuple[float, float] | None = None
    colour_map: list[float] | None = None
    """position from 0 to 1, red, green, blue, in a row"""

    def packed(self) -> str:
        """JSON for the page."""
        content = {
            "size": self.values.shape[0],
            "low": self.low,
            "high": self.high,
            "contour": self.contour,
            "width": self.width_angstrom,
            "focus": self.focus_angstrom,
            "values": packed(self.values.tobytes()),
            "colour": None if self.colour is None else packed(self.colour.tobytes()),
            "map": self.colour_map,
        }
        return json.dumps(content)


def is_available() -> bool:
    """Whether k3d is installed."""
    return _program_file() is not None


def viewer_program() -> str:
    """k3d's program, compressed, as text for the page.

    Raises
    ------
    FileNotFoundError
        if k3d is not installed.
    """
    return _program()[0]


def page_program(*, surfaces: bool, films: bool) -> str:
    """Our own lines; empty if there is nothing for them to do."""
    names = [name for name, wanted in (("film.js", films), ("viewer.js", surfaces)) if wanted]
    return "".join(
        (files("tiltwise.report") / name).read_text(encoding="utf-8") for name in ["unpack.js", *names] if names
    )


def content_policy(program: str, *, surfaces: bool) -> str:
    """Content security policy of a page: nothing is loaded, and of scripts only ours and k3d's run, by their hashes."""
    rules = ["default-src 'none'", "img-src data: blob:", "style-src 'unsafe-inline'", "base-uri 'none'"]
    rules.append("form-action 'none'")
    allowed = ([_sha256(program)] if program else []) + ([_program()[1]] if surfaces else [])
    if allowed:
        rules.append("script-src " + " ".join(f"'{one}'" for one in allowed))
    if surfaces:
        rules.append("font-src data:")
    return "; ".join(rules)


def _program_file() -> Path | None:
    found = find_spec("k3d")
    if found is None or not found.submodule_search_locations:
        return None
    path = Path(next(iter(found.submodule_search_locations))) / "static" / "standalone.js"
    return path if path.is_file() else None


@cache
def _program() -> tuple[str, str]:
    """The compressed program and its hash for the policy."""
    path = _program_file()
    if path is None:
        raise FileNotFoundError("k3d/static/standalone.js")
    text = path.read_text(encoding="utf-8")
    # The style sheet names font files beside the page as a last resort; the fonts themselves are in it.
    text = re.sub(r",url\(fonts/[\w-]+\.\w+\) format\(\"\w+\"\)", "", text)
    licences = path.with_name(path.name + ".LICENSE.txt")
    if licences.is_file():  # a file of comments
        text = licences.read_text(encoding="utf-8") + "\n" + text
    return packed(text.encode("utf-8")), _sha256(text)


def packed(content: bytes) -> str:
    """Compressed, as text for the page."""
    return base64.b64encode(zlib.compress(content, 4)).decode("ascii")


def _sha256(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
