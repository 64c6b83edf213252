"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with `data/` and `golden/`: TILTWISE_SHARED of the environment, else `shared` beside the checkout."""
    checkout = Path(__file__).resolve().parents[1]
    root = Path(os.environ.get("TILTWISE_SHARED") or checkout.parent / "shared")
    if not (root / "golden").is_dir():
        pytest.skip(f"golden data are not at {root}; set TILTWISE_SHARED to the folder that has golden/ and data/")
    return root
