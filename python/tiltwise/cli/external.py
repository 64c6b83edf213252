"""One program per job: RELION's External jobs call an executable without a sub-command.

`pyproject.toml` names them, `tiltwise-refine` for `tiltwise refine`.  RELION adds `--in_parts`, `--in_3dref` and
`--in_mask`, up to ten labels with values, and `--j`; a command that has no use for one of them says so and goes on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tiltwise.cli.main import main
from tiltwise.jobs.relion import ABORTED, FAILURE, SUCCESS, write_marker


def _program(command: str) -> Callable[[], int]:
    def run() -> int:
        code = main([command, *sys.argv[1:]])
        if code != 0:
            _mark_failure(sys.argv[1:])
        return code

    run.__doc__ = f"Run `tiltwise {command}` as a program of its own."
    return run


def _mark_failure(arguments: Sequence[str]) -> None:
    """Writes the marker of a job that failed before it had begun: RELION would wait for it for ever."""
    if "--o" not in arguments[:-1]:
        return
    folder = Path(arguments[arguments.index("--o") + 1])
    markers = (SUCCESS, FAILURE, ABORTED)
    if folder.is_dir() and not any((folder / name).exists() for name in markers):
        write_marker(folder, FAILURE)


ablate = _program("ablate")
align = _program("align")
bfactor_plot = _program("bfactor-plot")
check = _program("check")
classify = _program("classify")
composite = _program("composite")
cycle = _program("cycle")
expand = _program("expand")
export = _program("export")
extract = _program("extract")
subtract = _program("subtract")
import_project = _program("import")
initial_model = _program("initial-model")
local_resolution = _program("local-resolution")
mask = _program("mask")
polish = _program("polish")
postprocess = _program("postprocess")
reconstruct = _program("reconstruct")
refine = _program("refine")
refine_ctf = _program("refine-ctf")
select = _program("select")
