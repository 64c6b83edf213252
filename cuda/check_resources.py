"""Compile every CUDA source and fail on register spills, or on registers above `budgets.toml`.

python cuda/check_resources.py [--nvcc PATH]

Prints one line per kernel and architecture.  Exit status: 0 all within budget, 1 something is not,
2 nvcc is missing or the sources do not compile.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

CUDA = Path(__file__).resolve().parent
FLAGS = ["-std=c++17", "-O3", "--fmad=false", "-cubin", "-o", "/dev/null", "-Xptxas=-v"]


class Usage(NamedTuple):
    """What the assembler says of one kernel."""

    kernel: str
    architecture: str
    registers: int
    spilled_bytes: int


def kernel_name(symbol: str) -> str:
    """Plain name of a kernel, which ends in `_kernel` by agreement, from its mangled symbol.

    There names follow their length in decimal digits.
    """
    rest = re.sub("^_ZN?", "", symbol)
    while (length := re.match("[0-9]+", rest)) is not None:
        end = length.end() + int(length[0])
        name, rest = rest[length.end() : end], rest[end:]
        if name.endswith("_kernel"):
            return name
    raise RuntimeError(f"{symbol} is not the name of a kernel: it must end in _kernel")


def parse_usage(text: str) -> list[Usage]:
    """Read the report of `ptxas -v`."""
    pattern = re.compile(
        r"Compiling entry function '(?P<symbol>\w+)' for '(?P<architecture>\w+)'.*?"
        r"(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
        r"Used (?P<registers>\d+) registers",
        re.DOTALL,
    )
    found = []
    for match in pattern.finditer(text):
        kernel = kernel_name(match["symbol"])
        spilled = int(match["stores"]) + int(match["loads"])
        found.append(Usage(kernel, match["architecture"], int(match["registers"]), spilled))
    return found


def complaints(usage: list[Usage], budgets: dict[str, int]) -> list[str]:
    """What is wrong: spills, budgets exceeded, kernels without a budget, budgets without a kernel."""
    found = []
    for use in usage:
        name = f"{use.kernel} on {use.architecture}"
        if use.spilled_bytes > 0:
            found.append(f"{name} spills {use.spilled_bytes} bytes")
        if use.kernel not in budgets:
            found.append(f"{name} has no budget in budgets.toml")
        elif use.registers > budgets[use.kernel]:
            found.append(f"{name} uses {use.registers} registers, its budget is {budgets[use.kernel]}")
    missing = sorted(set(budgets) - {use.kernel for use in usage})
    return found + [f"{kernel} has a budget, but no source has this kernel" for kernel in missing]


def compile_all(nvcc: str, architectures: list[str]) -> str:
    """Compile every source for every architecture; the reports of the assembler, one behind the other."""
    include = [f"-I{CUDA / 'include'}", f"-I{CUDA.parent / 'cpp' / 'include'}"]

    def compile_one(job: tuple[str, Path]) -> str:
        architecture, source = job
        done = subprocess.run(
            [nvcc, *FLAGS, f"-arch={architecture}", *include, str(source)], capture_output=True, text=True
        )
        if done.returncode != 0:
            raise RuntimeError(f"{source.name} does not compile for {architecture}:\n{done.stderr}")
        return done.stdout + done.stderr

    jobs = [(architecture, source) for architecture in architectures for source in sorted((CUDA / "src").glob("*.cu"))]
    with ThreadPoolExecutor(2) as pool:
        return "\n".join(pool.map(compile_one, jobs))


def main() -> int:
    """Check all kernels; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nvcc", default=shutil.which("nvcc"), help="compiler to ask (default: the one on PATH)")
    nvcc = parser.parse_args().nvcc
    if nvcc is None:
        print("nvcc was not found; name it with --nvcc", file=sys.stderr)
        return 2
    settings = tomllib.loads((CUDA / "budgets.toml").read_text())
    try:
        usage = parse_usage(compile_all(nvcc, settings["architectures"]))
    except (OSError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 2
    for use in sorted(usage):
        print(f"{use.kernel:20} {use.architecture} {use.registers:4} registers {use.spilled_bytes:4} bytes spilled")
    wrong = complaints(usage, settings["registers"])
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
