"""Units of a refinement in other processes: each loads the optimisation set itself and computes what it is given."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from tiltwise.em.data import data_model, load_set, orientation_of
from tiltwise.em.focus import SHARED, Focus, shared
from tiltwise.em.options import RefineOptions
from tiltwise.em.step import Step, UnitRunner
from tiltwise.em.units import Unit, UnitSums
from tiltwise.exec.dask_cluster import DaskExecutor, connect
from tiltwise.exec.executors import Executor, InProcess
from tiltwise.exec.protocols import Job, Progress
from tiltwise.kernels.select import default_threads, load_backend


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """What a worker needs to get at the data of a run."""

    run: str
    """unique name of the run"""
    options: RefineOptions
    folder: Path
    """working directory, from which paths are relative"""
    backend: str
    """name of the backend, the same everywhere"""
    threads: int
    """of every worker; 0 for all it has"""
    cache_bytes: int
    """images a worker may keep"""
    focus: Path | None = None
    """with --focus: file with what is taken off the images"""


_current: tuple[WorkerSetup, UnitRunner] | None = None
"""Of this process: a worker has one unit at a time."""


def run_unit(setup: WorkerSetup, step: Step, unit: Unit) -> UnitSums:
    """Sums of a unit, in the process of a worker."""
    global _current
    if _current is None or _current[0] != setup:
        _current = None
        os.chdir(setup.folder)
        optset = load_set(setup.options)
        backend, threads = load_backend(setup.backend), setup.threads or default_threads()
        focus = None if setup.focus is None else shared(setup.options, optset, setup.focus)
        optset = optset if focus is None else focus.optset
        images = data_model(setup.options, optset, backend, threads, lambda box, wanted: setup.cache_bytes, focus=focus)
        runner = UnitRunner(images, backend, threads, orientation_of(setup.options, optset))
        _current = setup, runner
    return _current[1].run(step, unit, lambda n: None)


def executor_of(
    options: RefineOptions, runner: UnitRunner, images_bytes: int, focus: Focus | None, job: Job, progress: Progress
) -> Executor[Step, Unit, UnitSums]:
    """What computes the units: `runner` in this process, or workers as --workers and --dask ask."""
    if not options.workers and options.dask is None:
        return InProcess(runner.run)
    threads = options.threads
    if options.dask is None:
        threads = max(1, runner.threads // options.workers)
    client = connect(options.workers, threads, options.dask)
    count = max(1, options.workers or len(client.scheduler_info(n_workers=-1)["workers"]))
    progress.note(
        f"units are computed by {count} workers of {options.dask}"
        if options.dask is not None
        else f"units are computed by {count} workers, {threads} threads each"
    )
    path = None
    if focus is not None:
        path = job.path(SHARED).absolute()
        focus.share(path)
    setup = WorkerSetup(
        uuid.uuid4().hex, options, Path.cwd(), runner.backend.name, threads, images_bytes // count, path
    )
    return DaskExecutor(client, run_unit, setup, lambda unit: len(unit.particles), job.check_abort)
