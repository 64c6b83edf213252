"""A small RELION-5 project on disk that tests can bend."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tiltwise.io.mrc import write_map
from tiltwise.io.star import StarDocument, parse_star, read_star, write_star

TILTS = 5

GLOBAL = """
# version 50001

data_global

loop_
_rlnTomoName #1
_rlnVoltage #2
_rlnSphericalAberration #3
_rlnAmplitudeContrast #4
_rlnTomoHand #5
_rlnOpticsGroupName #6
_rlnTomoTiltSeriesPixelSize #7
_rlnTomoTiltSeriesStarFile #8
_rlnTomoSizeX #9
_rlnTomoSizeY #10
_rlnTomoSizeZ #11
_rlnNote #12
TS_1 300.000000 2.700000 0.100000 -1.00000 optics1 2.000000 tilt_series/TS_1.star 100 90 40 "keep me"
TS_2 300.000000 2.700000 0.100000 -1.00000 optics1 2.000000 tilt_series/TS_2.star 100 90 40 001

"""

TABLE_LABELS = (
    "rlnMicrographName",
    "rlnTomoYTilt",
    "rlnTomoZRot",
    "rlnTomoXShiftAngst",
    "rlnTomoYShiftAngst",
    "rlnDefocusU",
    "rlnDefocusV",
    "rlnDefocusAngle",
    "rlnMicrographPreExposure",
    "rlnCtfScalefactor",
    "rlnSomethingElse",
)

PARTICLES = """
# version 50001

data_general

_rlnTomoSubTomosAre2DStacks 0

# version 50001

data_optics

loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
_rlnVoltage #3
_rlnSphericalAberration #4
_rlnTomoTiltSeriesPixelSize #5
1 optics1 300.000000 2.700000 2.000000

data_particles

loop_
_rlnTomoName #1
_rlnTomoParticleName #2
_rlnCenteredCoordinateXAngst #3
_rlnCenteredCoordinateYAngst #4
_rlnCenteredCoordinateZAngst #5
_rlnAngleRot #6
_rlnAngleTilt #7
_rlnAnglePsi #8
_rlnOpticsGroup #9
_rlnRandomSubset #10
_rlnMystery #11
TS_1 TS_1/1 10.000000 -4.00000 6.000000 10.000000 20.000000 -30.00000 1 1 <NA>
TS_1 TS_1/2 -20.00000 8.000000 -2.00000 40.000000 50.000000 60.000000 1 2 'a b'
TS_2 TS_2/1 0.000000 1e-3 2.500000 70.000000 80.000000 90.000000 1 1 1e5
"""


def table_text(name: str) -> str:
    """Table of one tilt series of five tilts."""
    lines = ["", f"data_{name}", "", "loop_", *(f"_{label} #{i}" for i, label in enumerate(TABLE_LABELS, 1))]
    for tilt in range(TILTS):
        lines.append(
            f"{tilt + 1:06d}@tilt_series/{name}.mrcs {-40 + 20 * tilt}.000000 85.3 {tilt - 2}.5 {2 - tilt}.25 "
            f"{20000 + 100 * tilt}.000000 {19500 + 100 * tilt}.000000 30.000000 {3 * tilt}.000000 1.000000 00{tilt}"
        )
    return "\n".join(lines) + "\n"


@dataclass
class Project:
    """Folder with optimisation_set.star, tomograms.star, particles.star and tilt_series/."""

    root: Path

    @property
    def set(self) -> Path:
        return self.root / "optimisation_set.star"

    def edit(self, file: str, change: Callable[[StarDocument], None]) -> None:
        """Rewrite a STAR file of the project after `change` has modified its document."""
        document = read_star(self.root / file)
        change(document)
        write_star(self.root / file, document)

    def column(self, file: str, block: str, label: str, values: list[str] | None) -> None:
        """Replace a column by text, or remove it."""

        def change(document: StarDocument) -> None:
            if values is None:
                document[block].drop(label)
            else:
                document[block].columns[label] = values

        self.edit(file, change)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    root = tmp_path / "project"
    (root / "tilt_series").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    (root / "tomograms.star").write_text(GLOBAL)
    (root / "particles.star").write_text(PARTICLES)
    (root / "optimisation_set.star").write_text(
        "\ndata_optimisation_set\n\n_rlnTomoTomogramsFile tomograms.star\n_rlnTomoParticlesFile particles.star\n"
    )
    random = np.random.default_rng(7)
    for name in ("TS_1", "TS_2"):
        (root / f"tilt_series/{name}.star").write_text(table_text(name))
        write_map(root / f"tilt_series/{name}.mrcs", random.normal(size=(TILTS, 48, 64)), 2.0, "float16")
    return Project(root)


def read_any(path: Path) -> StarDocument:
    """STAR document of a plain or gzipped file."""
    raw = path.read_bytes()
    return parse_star((gzip.decompress(raw) if path.suffix == ".gz" else raw).decode(), str(path))


@pytest.fixture
def read_document() -> Callable[[Path], StarDocument]:
    return read_any
