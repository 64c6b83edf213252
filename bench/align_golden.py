"""Alignment of a simulated series with planted errors: passes one after another, and other references.

    python bench/align_golden.py FOLDER OUT [--passes 3] [--half-maps HALF1 HALF2]

FOLDER holds `align/` (optimisation set, mask, truth) and `score.py`.  Prints, before and after every pass, the rms
error of predicted positions (px), seconds of wall time, where the FSC of the half maps and of the map to the truth
falls below 0.5 and 0.143, and their means; with `--half-maps` one pass against these instead, from the own half set and
from the opposite one.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tiltwise.em import reconstruct
from tiltwise.em.options import ReconstructOptions
from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.progress import SilentProgress
from tiltwise.motion import align
from tiltwise.motion.options import AlignOptions

BOXES: dict[str, Any] = {"box": 192, "crop": 96}
ANGPIX = 2.5


def score(golden: Path, *arguments: object) -> str:
    """What `score.py` prints."""
    command = [sys.executable, str(golden / "score.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def errors(golden: Path, folder: Path) -> str:
    """Error (rms) of predicted positions after an alignment, as printed."""
    found = re.search(r"->\s*([\d.]+)", score(golden, "align", golden / "align", folder))
    assert found is not None
    return found.group(1)


def maps(golden: Path, optset: Path, folder: Path) -> str:
    """Resolution of the half maps, and of the map against the truth, each at 0.5 and 0.143."""
    mask = golden / "align" / "mask.mrc"
    options = ReconstructOptions(input=optset, output=folder, mask=mask, **BOXES)
    with FolderJob(options, ["tiltwise", "reconstruct"], SilentProgress()) as job:
        reconstruct.run(options, job, SilentProgress())
    texts = []
    truth = golden / "align" / "truth" / "reference.mrc"
    for name, first, second in (("halves", "half1.mrc", folder / "half2.mrc"), ("truth", "merged.mrc", truth)):
        *limits, curve = score(golden, "fsc", folder / first, second, ANGPIX).strip().splitlines()
        mean = sum(values := [float(value) for value in re.findall(r":(-?[\d.]+)", curve)]) / len(values)
        texts.append(f"{name}: {', '.join(limits)}, mean {mean:.3f}")
    return "; ".join(texts)


def aligned(golden: Path, optset: Path, folder: Path, **changes: Any) -> float:
    """Seconds of wall time of one pass."""
    mask = golden / "align" / "mask.mrc"
    options = AlignOptions(input=optset, output=folder, mask=mask, motion=True, **(BOXES | changes))
    began = time.perf_counter()
    with FolderJob(options, ["tiltwise", "align"], SilentProgress()) as job:
        align.run(options, job, SilentProgress())
    return time.perf_counter() - began


def main() -> None:
    """Prints a line for every pass."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("golden", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--half-maps", type=Path, nargs=2)
    chosen = parser.parse_args()
    golden, optset = chosen.golden, chosen.golden / "align" / "optimisation_set.star"
    if chosen.half_maps:
        for name, opposite in (("own half", False), ("opposite half", True)):
            folder = chosen.out / name.replace(" ", "_")
            first, second = chosen.half_maps
            seconds = aligned(golden, optset, folder, reference1=first, reference2=second, opposite_half=opposite)
            print(f"{name}: {errors(golden, folder)} px, {seconds:.1f} s", flush=True)
        return
    print(f"before: {maps(golden, optset, chosen.out / 'map0')}", flush=True)
    for number in range(1, chosen.passes + 1):
        folder = chosen.out / f"pass{number}"
        seconds = aligned(golden, optset, folder)
        optset = folder / "optimisation_set.star"
        resolution = maps(golden, optset, chosen.out / f"map{number}")
        print(f"pass {number}: {errors(golden, folder)} px, {seconds:.1f} s, {resolution}", flush=True)


if __name__ == "__main__":
    main()
