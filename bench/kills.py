"""Kills refinements at random moments and compares what they end with: `kills.py N [SEED]`.

Run with `PYTHONPATH=python:tests`.  Every run is killed one to three times, at moments drawn from all of its events.
"""

from __future__ import annotations

import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from helpers.kills import events, files_of, run_until, start
from helpers.refinements import refine_options, simulated


def main() -> None:
    """Prints one line for every run, and how many were the same."""
    count, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1
    rng, same, kills = random.Random(seed), 0, 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = simulated(folder, 8)
        options = refine_options(data, folder / "job", iterations=3)
        assert start(options).wait() == 0
        expected, total = files_of(options.output), events(options.output)
        print(f"{total} events, {len(expected)} files")
        done = 0
        while kills < count:
            shutil.rmtree(options.output)
            began = time.perf_counter()
            moments = []
            for _ in range(rng.randint(1, 3)):
                before = events(options.output)
                target = before + rng.randint(1, max(2, int(total * 0.7)))
                end = run_until(options, target, rng.uniform(0.0, 0.4))
                if end != -signal.SIGKILL:
                    break
                kills += 1
                moments.append(events(options.output))
            assert start(options).wait() == 0
            found = files_of(options.output)
            different = sorted(n for n in expected.keys() | found.keys() if found.get(n) != expected.get(n))
            same += not different
            done += 1
            print(
                f"killed at events {moments}: {different or 'same'} ({time.perf_counter() - began:.0f} s)", flush=True
            )
    print(f"{same} of {done} runs with {kills} kills in all are byte-identical ({len(expected)} files each)")


if __name__ == "__main__":
    main()
