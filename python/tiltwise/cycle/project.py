"""Which set of a RELION project to start from."""

from __future__ import annotations

import re
from pathlib import Path

from tiltwise.errors import FormatError


def newest_set(project: Path) -> Path:
    """The optimisation set of the newest refinement of a RELION project; of the newest job, if none was refined.

    Jobs are numbered: `Refine3D/job012/run_optimisation_set.star` is newer than `Polish/job009/optimisation_set.star`,
    which `Refine3D/job008` did not know.

    Raises
    ------
    FormatError
        if no job of the project has an optimisation set.
    """
    found: list[tuple[bool, int, Path]] = []
    for path in project.glob("*/job*/*optimisation_set.star"):
        number = re.fullmatch(r"job(\d+)", path.parent.name)
        iteration = re.match(r"run_it\d+_", path.name)
        if number is not None and iteration is None:
            found.append((path.name == "run_optimisation_set.star", int(number[1]), path))
    if not found:
        raise FormatError(
            "no optimisation set was found in the project",
            where=str(project),
            expected="Refine3D/jobNNN/run_optimisation_set.star",
            fix="name the set itself: --i optimisation_set.star",
        )
    return max(found)[2]
