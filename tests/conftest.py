"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.browser import ARGUMENTS
from tiltwise.kernels.api import Backend
from tiltwise.kernels.select import available_backends, load_backend


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with `data/` and `golden/`: the variable TILTWISE_SHARED, else `shared` beside the checkout."""
    checkout = Path(__file__).resolve().parents[1]
    root = Path(os.environ.get("TILTWISE_SHARED") or checkout.parent / "shared")
    if not (root / "golden").is_dir():
        pytest.skip(f"golden data are not at {root}; set TILTWISE_SHARED to the folder that has golden/ and data/")
    return root


def _backends(*, compiled_only: bool = False) -> list[object]:
    names = [name for name in available_backends(include_test_only=True) if not compiled_only or name != "reference"]
    return [pytest.param(name, marks=pytest.mark.gpu if name == "cuda" else ()) for name in names]


@pytest.fixture(params=_backends())
def backend(request: pytest.FixtureRequest) -> Backend:
    """Every backend this machine can run, the oracle included: for laws."""
    return load_backend(request.param)


@pytest.fixture(params=_backends(compiled_only=True))
def compiled(request: pytest.FixtureRequest) -> Backend:
    """Every backend but the oracle: for comparisons with it."""
    return load_backend(request.param)


@pytest.fixture(scope="session")
def oracle() -> Backend:
    """The float64 reference backend."""
    return load_backend("reference")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium of the system, driven by playwright."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield chromium
        chromium.close()
