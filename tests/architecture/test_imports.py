"""Who may import whom, read from the sources.  A rule that no test enforces is a wish."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "python" / "tiltwise"

# Lowest first.  A part imports itself and what stands on lower levels, nothing beside it.
LEVELS = [
    {"errors"},
    {"config", "files"},
    {"geometry", "optics", "spectral"},
    {"model"},
    {"exec", "io", "kernels"},
    {"extract", "interchange", "sim"},
    {"maps"},
    {"check", "ctf", "em", "motion", "post", "selection"},
    {"classes", "cycle", "export", "initial"},
    {"jobs", "report"},
    {"watch"},
    {"cli"},
    {"api", "__main__"},
]
LEVEL_OF = {part: level for level, parts in enumerate(LEVELS) for part in parts}

# Module to the only places that may import it, as paths in the package.
SINGLE_IMPORTERS = {
    "_native": ["kernels/native.py"],
    "click": ["cli/"],
    "dask": ["exec/"],
    "distributed": ["exec/"],
    "gemmi": ["sim/"],
    "healpix": ["geometry/"],
    "jinja2": ["report/"],
    "k3d": ["report/"],
    "matplotlib": ["report/"],
    "mrcfile": ["io/"],
    "pandas": ["io/"],
    "rich_click": ["cli/"],
    "scipy.fft": ["spectral/fft.py"],
    "starfile": ["io/"],
    "threadpoolctl": ["exec/"],
}

SOURCES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Dotted names a file imports, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide what is imported"
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_layers(path: Path) -> None:
    own = part_of(path)
    wrong = []
    for name in imports(path):
        root, _, rest = name.partition(".")
        part = rest.partition(".")[0]
        if root != "tiltwise" or part in ("", own, "__version__", "_native"):
            continue
        if own == "__init__" or LEVEL_OF[part] >= LEVEL_OF[own]:
            wrong.append(name)
    assert not wrong, f"{own} may not import {wrong}"


@pytest.mark.parametrize("module", sorted(SINGLE_IMPORTERS))
def test_single_importers(module: str) -> None:
    allowed = SINGLE_IMPORTERS[module]
    names = (module, f"tiltwise.{module}")
    wrong = [
        str(path.relative_to(PACKAGE))
        for path in SOURCES
        if any(f"{name}.".startswith(f"{m}.") for name in imports(path) for m in names)
        and not any(str(path.relative_to(PACKAGE)).startswith(place) for place in allowed)
    ]
    assert not wrong, f"only {allowed} may import {module}"


def test_every_part_has_a_level() -> None:
    assert {part_of(path) for path in SOURCES} - {"__init__"} <= set(LEVEL_OF)


def test_the_package_itself_is_light() -> None:
    code = "import sys, tiltwise; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "scipy", "pandas", "starfile", "matplotlib", "tiltwise._native"} & set(loaded)


# C++: folder to the folders it may include from.  `kernel` holds what crosses the boundary between backends.
CXX_LAYERS = {
    "base": set(),
    "math": {"base"},
    "body": {"math", "base"},
    "kernel": {"math"},
    "host": {"body", "kernel", "base", "math"},
    "simd": {"body", "kernel", "base", "math"},
    "cuda": {"body", "kernel", "base", "math"},
    "registry": {"host", "simd", "kernel"},
    # the gather of `reconstruct` is one function, in no table
    "bind": {"registry", "host", "kernel", "math"},
    "tests": {"registry", "kernel", "body", "base", "math"},
}
CXX_SUFFIXES = {".hpp", ".cpp", ".cu"}
CXX_SOURCES = sorted(
    path
    for top in ("cpp", "cuda")
    if (ROOT / top).is_dir()
    for path in (ROOT / top).rglob("*")
    if path.suffix in CXX_SUFFIXES
)
# Header to the places that may include it.
CXX_SINGLE = {
    "pybind11/": "cpp/bind/",
    "Python.h": "cpp/bind/",
    "cuda_runtime": "cuda/",
    "omp.h": "cpp/include/tiltwise/base/parallel.hpp",
    "immintrin.h": "cpp/include/tiltwise/base/simd.hpp",
    "arm_neon.h": "cpp/include/tiltwise/base/simd.hpp",
}


def includes(path: Path) -> list[str]:
    return re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', path.read_text(), re.MULTILINE)


def cxx_folder(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    if parts[0] == "cuda":
        return "cuda"
    return {"include": parts[3] if len(parts) > 4 else "", "src": parts[2]}.get(parts[1], parts[1])


@pytest.mark.parametrize("path", CXX_SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_cxx_layers(path: Path) -> None:
    own = cxx_folder(path)
    wrong = []
    for header in includes(path):
        parts = header.split("/")
        folder = parts[1] if parts[0] == "tiltwise" else parts[0]
        if len(parts) > 1 and folder in CXX_LAYERS and folder != own and folder not in CXX_LAYERS[own]:
            wrong.append(header)
    assert not wrong, f"{own} may not include {wrong}"


@pytest.mark.parametrize("header", sorted(CXX_SINGLE))
def test_cxx_single_includers(header: str) -> None:
    wrong = [
        str(path.relative_to(ROOT))
        for path in CXX_SOURCES
        if any(name.startswith(header) for name in includes(path))
        and not str(path.relative_to(ROOT)).startswith(CXX_SINGLE[header])
    ]
    assert not wrong
