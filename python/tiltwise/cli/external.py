"""One program per job: RELION's External jobs call an executable without a sub-command.

`pyproject.toml` names them, `tiltwise-refine` for `tiltwise refine`.  RELION adds `--in_parts`, `--in_3dref` and
`--in_mask`, up to ten labels with values, and `--j`; the options of the commands accept them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from tiltwise.cli.main import main


def _program(command: str) -> Callable[[], int]:
    def run() -> int:
        return main([command, *sys.argv[1:]])

    run.__doc__ = f"Run `tiltwise {command}` as a program of its own."
    return run


align = _program("align")
check = _program("check")
cycle = _program("cycle")
export = _program("export")
extract = _program("extract")
import_project = _program("import")
local_resolution = _program("local-resolution")
mask = _program("mask")
polish = _program("polish")
postprocess = _program("postprocess")
reconstruct = _program("reconstruct")
refine = _program("refine")
refine_ctf = _program("refine-ctf")
