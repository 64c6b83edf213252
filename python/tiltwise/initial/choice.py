"""Which start goes on, in which hand, and where its axes lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltwise.extract.source import Poses
from tiltwise.initial.engine import Engine, in_turn
from tiltwise.initial.plan import START, START_ORDER
from tiltwise.initial.state import HALVES, State
from tiltwise.maps.point_groups import find_axes
from tiltwise.maps.superpose import superpose
from tiltwise.maps.turning import mirrored

AGREE = 0.8
"""Mean correlation above which two starts have found the same map."""
SYMMETRIC = 0.6
"""Score of the axes of a point group below which the map hardly has it."""
HAND_PARTICLES = 200
SURE = 4.0
"""Standard errors by which the images must prefer a hand."""


def choose(engine: Engine, state: State) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Map (N, N, N) to go on from, and what was found on the way, as `initial.json` records it."""
    shells = engine.shells.of_start
    evidence = np.array([start.evidence[-1] for start in state.starts])
    winner = int(np.argmax(evidence))
    density = state.starts[winner].map
    agreement = [
        1.0 if start is state.starts[winner] else superpose(start.map, density, shells, engine.backend).score
        for start in state.starts
    ]
    gain, error = _preference(engine, state, density)
    if gain < 0:
        density = mirrored(density)
    choice: dict[str, Any] = {
        "start": winner + 1,
        "log_evidence": evidence.tolist(),
        "agreement": agreement,
        "agree_from": AGREE,
        "mirrored": gain < 0,
        "hand_nats": abs(gain),
        "hand_nats_error": error,
        "hand_determined": bool(abs(gain) > SURE * error),
        "symmetry_score": None,
    }
    if len(engine.group) > 1:
        axes = find_axes(density, engine.options.symmetry, shells, engine.backend)
        density = axes.applied(density, engine.backend) * engine.mask
        choice["symmetry_score"] = axes.score
    return density, choice


def doubts(choice: Mapping[str, Any], symmetry: str) -> Iterator[str]:
    """What the user must know of the map that goes on with `choice`."""
    others = np.delete(np.asarray(choice["agreement"], np.float64), choice["start"] - 1)
    gain, error, score = choice["hand_nats"], choice["hand_nats_error"], choice["symmetry_score"]
    if len(others) and not others.max() >= AGREE:
        yield (
            f"no other start has found the map that went on (they correlate with it by {others.max():.2f} at most, not "
            f"{AGREE:g}): it may be wrong. Look at the film in the report; more --starts or more particles tell"
        )
    if not choice["hand_determined"]:
        yield (
            f"the images do not tell the map from its mirror image ({gain:.2f} ± {error:.2f} nats per particle): "
            "its hand is not determined at this resolution"
        )
    if score is not None and not score >= SYMMETRIC:
        yield (
            f"the map found in C1 hardly has the symmetry {symmetry}: its correlation with its copies is {score:.2f}, "
            f"below {SYMMETRIC:g}. Look at the film in the report, try without --sym and with --find-symmetry"
        )


def _preference(engine: Engine, state: State, density: NDArray[np.float32]) -> tuple[float, float]:
    """Mean log evidence of a particle for a map over that for its mirror image, and the standard error."""
    stage, found = START[-1], []
    for number, one in enumerate((density, mirrored(density))):
        rng = np.random.default_rng([engine.options.seed, 2, len(START)])
        members = engine.drawn(rng, HAND_PARTICLES)
        schedule = engine.shells.schedule(
            engine.shells.of_start, START_ORDER, stage.oversampling, engine.options.reach_angstrom
        )
        maps, label = dict.fromkeys(HALVES, one), ("hand", "other hand")[number]
        sums = engine.expect(label, schedule, rng, members, in_turn(members), maps, Poses.of(engine.optset), state)
        found.append(sums.evidence)
    gain = found[0] - found[1]
    gain = gain[np.isfinite(gain)]
    if len(gain) < 2:
        return 0.0, np.inf
    return float(gain.mean()), float(gain.std(ddof=1) / np.sqrt(len(gain)))
