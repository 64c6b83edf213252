"""Workers in processes of their own give the bytes of threads, also when one of them dies."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from helpers.kills import events, files_of, start
from helpers.refinements import refine_options, simulated

pytest.importorskip("distributed", reason="Dask is not installed: pip install 'tiltwise[dask]'")
import psutil  # comes with Dask


def workers_of(pid: int) -> list[psutil.Process]:
    """Spawned processes below a process."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        try:
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:  # it has just ended
            continue
    return found


def test_a_worker_that_is_killed_changes_nothing(tmp_path: Path) -> None:
    data = simulated(tmp_path, 4)
    local = {
        "healpix_order": 2,
        "auto_local_healpix_order": 2,
        "relax_symmetry": "C2",
    }  # about mates, of which workers know
    changes = {**local, "offset_step_px": 2.0, "iterations": 1, "folds": 2}
    whole = refine_options(data, tmp_path / "a" / "job", **changes)
    assert start(whole).wait() == 0
    expected = {name: text.replace(b"/a/job", b"/b/job") for name, text in files_of(whole.output).items()}
    shared = refine_options(data, tmp_path / "b" / "job", workers=2, **changes)
    process = start(shared)
    while process.poll() is None and events(shared.output) < 4:  # the first unit has been added
        time.sleep(0.01)
    workers = workers_of(process.pid)
    assert len(workers) == 2
    workers[0].kill()
    assert process.wait() == 0
    found = files_of(shared.output)
    assert set(found) == set(expected)
    for name, content in found.items():
        assert content == expected[name], name
