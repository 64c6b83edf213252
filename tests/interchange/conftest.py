"""Real projects on disk, unpacked where tests can change them."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import pytest


def unpacked(source: Path, target: Path) -> Path:
    """Copy of a folder in which gzipped files are plain."""
    shutil.copytree(source, target)
    for path in target.rglob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    return target


@pytest.fixture(scope="session")
def tutorial(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Metadata of the RELION-5 tutorial: 9053 particles, 5 tilt series; the images are not there."""
    source = shared_data / "data/relion5_sta_tutorial_metadata/extracted"
    return unpacked(source, tmp_path_factory.mktemp("tutorial") / "project")
