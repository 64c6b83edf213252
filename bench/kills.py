"""Kills jobs at random moments and compares what they end with: `kills.py N [SEED] [--command COMMAND ...]`.

Run with `PYTHONPATH=python:tests`.  Every run is killed one to three times, shortly after events or at any time.
Commands are `refine`, `classify` (poses stay), `classify-local` and `initial-model`.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import tempfile
import time
from pathlib import Path

from helpers.classes import classify_options, mixed
from helpers.kills import events, files_of, run_until, start
from helpers.refinements import DIAMETER, refine_options, simulated
from tiltwise.config import OutputOptions
from tiltwise.initial.options import InitialModelOptions

COMMANDS = ("refine", "classify", "classify-local", "initial-model")


def options_of(command: str, folder: Path) -> OutputOptions:
    """A job of a few seconds on data that are simulated in `folder`."""
    output = folder / "job"
    if command == "refine":
        return refine_options(simulated(folder, 8), output, iterations=3)
    if command == "initial-model":
        return InitialModelOptions(
            input=simulated(folder, 22).optimisation_set,
            output=output,
            particle_diameter=DIAMETER + 10.0,
            resolution=30.0,
            starts=2,
            subset=40,
            threads=1,
        )
    if command == "classify":
        return classify_options(mixed(folder, 40, 0.25), output, starts=2, junk=True)
    planted = {"error_orientation": 5.0, "error_position": 4.0, "snr": 0.6}
    return classify_options(
        mixed(folder, 7, 0.3, planted),
        output,
        iterations=3,
        align="local",
        healpix_order=3,
        sigma_ang=4.0,
        offset_range_px=1.5,
    )


def kill(command: str, count: int, rng: random.Random) -> None:
    """Prints one line for every run, and how many were the same."""
    same = kills = done = 0
    with tempfile.TemporaryDirectory() as name:
        options = options_of(command, Path(name))
        began = time.perf_counter()
        assert start(options).wait() == 0
        took = time.perf_counter() - began
        expected, total = files_of(options.output), events(options.output)
        print(f"{command}: {total} events, {len(expected)} files, {took:.0f} s")
        while kills < count:
            shutil.rmtree(options.output)
            began = time.perf_counter()
            moments = []
            for _ in range(rng.randint(1, 3)):
                before = events(options.output)
                # some shortly after an event, some at any time: long steps have no events
                if rng.random() < 0.5:
                    target, delay = before + rng.randint(1, max(2, int(total * 0.7))), rng.uniform(0.0, 0.4)
                else:
                    target, delay = before + 1, rng.uniform(0.0, 0.8 * took)
                end = run_until(options, target, delay)
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
    print(f"{command}: {same} of {done} runs with {kills} kills are byte-identical ({len(expected)} files each)")


def main() -> None:
    """Kills."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, help="kills of every command, at least")
    parser.add_argument("seed", type=int, nargs="?", default=1)
    parser.add_argument("--command", nargs="+", choices=COMMANDS, default=["refine"])
    chosen = parser.parse_args()
    for command in chosen.command:
        kill(command, chosen.count, random.Random(chosen.seed))


if __name__ == "__main__":
    main()
