"""A project like the one that the pages speak of: a simulated set, a refinement of it, a mask and maps."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.helpers.doc_blocks import run_shell

from tiltwise.report import pdf

SIMULATE = """
tiltwise simulate --o . --tilt-series 2 --particles 8 --width-px 160 --height-px 160 --thickness 300 --angpix 6 \
    --b 32 --particle-diameter 110 --beads 120 --tilt-step 12 --snr 0.5 --spacing 0 --margin-px 24 --seed 2 \
    --error-orientation 8 --error-position 6 --reference-resolution 40 --j 1 --quiet
cp ref40.mrc reference.mrc
cp truth/reference.mrc map.mrc
"""
REFINE = """
tiltwise refine --i optimisation_set.star --ref reference.mrc --b 32 --ini-high 40 --j 1 --o Refine3D/job001 --quiet
tiltwise mask --i Refine3D/job001 --j 1 --o MaskCreate/job002 --quiet
cp MaskCreate/job002/mask.mrc mask.mrc
"""


def leave_out_pdf(patch: pytest.MonkeyPatch) -> None:
    """Figures are drawn once, for the page: fifty jobs run here. tests/reports look at `logfile.pdf`."""
    patch.setattr(pdf, "write_pdf", lambda *arguments: None)


@pytest.fixture(autouse=True)
def _without_pdf(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_pdf(monkeypatch)


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project; tests work on copies."""
    folder = tmp_path_factory.mktemp("docs") / "project"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        leave_out_pdf(patch)
        run_shell(SIMULATE)
        for name in ("job.json", "report.html", "note.txt", "events.jsonl"):
            (folder / name).unlink()
        shutil.rmtree(folder / ".state")
        run_shell(REFINE)
    return folder
