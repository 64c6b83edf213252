"""Registers and spills of the CUDA kernels, as the assembler reports them."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "cuda" / "check_resources.py"

REPORT = """
ptxas info    : Compiling entry function '_ZN8tiltwise4cuda41_GLOBAL__N__50148de4_9_insert_cu_6dc45d2213insert_kernelEPf' for 'sm_80'
ptxas info    : Function properties for _ZN8tiltwise4cuda41_GLOBAL__N__50148de4_9_insert_cu_6dc45eda13insert_kernelEPf
    {stack} bytes stack frame, {stores} bytes spill stores, {loads} bytes spill loads
ptxas info    : Used {registers} registers, used 0 barriers, 388 bytes cmem[0]
ptxas info    : Compiling entry function '_ZN8tiltwise4cuda12empty_kernelILi256EEvv' for 'sm_90'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 10 registers
"""  # noqa: E501


@pytest.fixture(scope="module")
def script():
    specification = importlib.util.spec_from_file_location("check_resources", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def found(script, budgets, stores=0, loads=0, registers=56):
    text = REPORT.format(stack=stores, stores=stores, loads=loads, registers=registers)
    return script.complaints(script.parse_usage(text), budgets)


def test_kernels_within_budget_pass(script):
    assert found(script, {"insert_kernel": 56, "empty_kernel": 10}) == []


@pytest.mark.parametrize(
    "budgets, report, complaint",
    [
        ({"insert_kernel": 55, "empty_kernel": 10}, {}, "insert_kernel on sm_80 uses 56 registers, its budget is 55"),
        ({"insert_kernel": 56, "empty_kernel": 9}, {}, "empty_kernel on sm_90 uses 10 registers, its budget is 9"),
        (
            {"insert_kernel": 56, "empty_kernel": 10},
            {"stores": 8, "loads": 4},
            "insert_kernel on sm_80 spills 12 bytes",
        ),
        ({"insert_kernel": 56, "empty_kernel": 10}, {"loads": 4}, "insert_kernel on sm_80 spills 4 bytes"),
        ({"insert_kernel": 56}, {}, "empty_kernel on sm_90 has no budget in budgets.toml"),
        (
            {"insert_kernel": 56, "empty_kernel": 10, "old_kernel": 10},
            {},
            "old_kernel has a budget, but no source has this kernel",
        ),
    ],
)
def test_what_is_wrong_is_named(script, budgets, report, complaint):
    assert found(script, budgets, **report) == [complaint]


def test_a_missing_compiler_is_an_error():
    done = subprocess.run([sys.executable, SCRIPT, "--nvcc", "no-such-compiler"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "no-such-compiler" in done.stderr


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not on PATH")
def test_every_kernel_keeps_its_budget_and_spills_nothing():
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "insert_kernel" in done.stdout
