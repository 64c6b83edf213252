"""Projects of jobs that compute nothing: folders, manifests and markers as real ones leave them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, ClassVar

from tiltwise.config import OutputOptions, option
from tiltwise.jobs import FolderJob, SilentProgress


class ToyOptions(OutputOptions):
    command: ClassVar[str] = "refine"
    source: Path | None = option(None, flags=("--i",), help="an input file")
    box: int = option(32, flags=("--b",), unit="px", help="a box")


class OtherOptions(ToyOptions):
    command: ClassVar[str] = "reconstruct"


def toy(folder: Path, command: type[ToyOptions] = ToyOptions, **values: Any) -> FolderJob:
    """Job that has not begun."""
    line = ["tiltwise", command.command, "--o", str(folder)]
    return FolderJob(command(output=folder, **values), line, SilentProgress())


def finished(
    folder: Path, command: type[ToyOptions] = ToyOptions, resolution: float | None = None, **values: Any
) -> Path:
    """Job that has left an optimisation set and a report; returns the set."""
    with toy(folder, command, **values) as job:
        path = job.path("run_optimisation_set.star")
        if command is ToyOptions:
            path.write_text("data_\n")
            job.add_output(path, "TomoOptimisationSet.star.relion.refine3d")
        if resolution is not None:
            job.metric("resolution_angstrom", resolution)
        job.path("report.html").write_text("<p>a report")
        job.add_output(job.path("report.html"))
    return path


def unfinished(folder: Path, process: int) -> None:
    """What a job leaves that did not reach its end: it says it runs in a process of this number."""
    finished(folder)
    for marker in folder.glob("*_JOB_EXIT_*"):
        marker.unlink()
    (folder / "report.html").unlink()
    content = json.loads((folder / "job.json").read_text())
    content.update(status="running", pid=process, wall_s=None, outputs=[], metrics={})
    content["runs"][-1].update(status="running", finished=None, wall_s=None)
    (folder / "job.json").write_text(json.dumps(content))
    rows = [{"t": 1.0, "kind": "iteration", "iteration": n, "resolution_angstrom": 20.0 - n} for n in (1, 2, 3)]
    text = "".join(json.dumps(row) + "\n" for row in rows) + '{"t": 1.5, "kind": "iter'  # a line being written
    (folder / "events.jsonl").write_text(text)


def relion_job(folder: Path, inputs: list[str], outputs: list[str], marker: str | None) -> None:
    """Job of RELION; paths start at the project, two folders above."""
    folder.mkdir(parents=True)
    name = f"{folder.parent.name}/{folder.name}/"
    lines = ["data_pipeline_input_edges", "loop_", "_rlnPipeLineEdgeFromNode #1", "_rlnPipeLineEdgeProcess #2"]
    lines += [f"{path} {name}" for path in inputs] + [""]
    lines += ["data_pipeline_output_edges", "loop_", "_rlnPipeLineEdgeProcess #1", "_rlnPipeLineEdgeToNode #2"]
    lines += [f"{name} {path}" for path in outputs]
    (folder / "job_pipeline.star").write_text("\n".join(lines) + "\n")
    (folder / "note.txt").write_text(
        " ++++ Executing new job on Fri May  8 16:05:14 2020\n ++++ with the following command(s): \n"
        f"`which relion_refine` --o {name}\n ++++ \n"
    )
    if marker is not None:
        (folder / marker).touch()


def gone() -> int:
    """Number of a process that has ended."""
    process = os.fork()
    if process == 0:
        os._exit(0)
    os.waitpid(process, 0)
    return process
