"""Objects of one instruction-set level define nothing that another object could pick up."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "cpp" / "src" / "simd").glob("*.isa.cpp"))
COMPILER, NM = shutil.which("c++"), shutil.which("nm")

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the levels tested here are those of x86-64"),
    pytest.mark.skipif(COMPILER is None or NM is None, reason="needs a C++ compiler and nm"),
]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
@pytest.mark.parametrize("optimise", ["-O0", "-O2"])
def test_symbols_stay_in_the_namespace_of_the_level(source: Path, optimise: str, tmp_path: Path) -> None:
    target = tmp_path / "level.o"
    command = [COMPILER, "-std=c++17", optimise, "-march=x86-64-v3", "-ffp-contract=off", "-fopenmp", "-Wno-psabi"]
    command += ["-DTW_ISA=v3", "-DTW_LEVEL_V3", f"-I{ROOT / 'cpp' / 'include'}", f"-I{ROOT / 'cpp' / 'src'}"]
    subprocess.run([*command, "-c", source, "-o", target], check=True)
    listing = subprocess.run([NM, "-C", "--defined-only", target], check=True, capture_output=True, text=True).stdout
    symbols = [line.split(maxsplit=2) for line in listing.splitlines()]
    # Weak and global symbols are merged by the linker; local ones are not.  DW.ref is data of unwinding.
    shared = [name for _, kind, name in symbols if kind in "WVuTDBR" and "tiltwise::v3::" not in name]
    assert [name for name in shared if not name.startswith("DW.ref.")] == []
    assert any(name.startswith("tiltwise::v3::") for _, kind, name in symbols if kind == "T")
