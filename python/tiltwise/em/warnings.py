"""What a refinement watches in every iteration, and says in words when it is not as it should be."""

from __future__ import annotations

import numpy as np

from tiltwise.em.folds import drift
from tiltwise.em.state import State
from tiltwise.exec import Job

AUDIT_LIMIT = 1e-3
"""Mean share of the posterior that a global search may miss without a warning."""


def report_audit(job: Job, missed: list[float]) -> None:
    """What a global search has not looked at, of the particles that were searched in full as well."""
    if not missed:
        return
    mean, largest = float(np.mean(missed)), float(np.max(missed))
    job.event("audit", particles=len(missed), mean_missed=mean, largest_missed=largest)
    job.metric("search_mass_missed", mean)
    if mean > AUDIT_LIMIT:
        job.warn(
            f"the global search misses {mean:.2%} of the posterior on average ({len(missed)} particles searched "
            "in full): poses may be wrong; start with a better --ref or a lower --ini-high"
        )


def report_drift(job: Job, state: State, pixel_size: float, accuracy_deg: float, accuracy_angstrom: float) -> None:
    """Motion of the particles of a fold as one body: nothing but their references holds folds together."""
    if not state.folds:
        return
    angle, shift = drift(state.folds, state.maps, pixel_size)
    job.event("drift_of_folds", iteration=state.iteration, angle_deg=angle, shift_angstrom=shift)
    if angle > accuracy_deg or shift > accuracy_angstrom:
        job.warn(
            f"iteration {state.iteration}: the particles of a fold have moved by {angle:.2f}° and {shift:.2f} Å "
            f"against the others, more than the {accuracy_deg:.2f}° and {accuracy_angstrom:.2f} Å that one "
            "particle can notice: use fewer --folds, or none"
        )


def report_new_halves(job: Job, *, known: bool) -> None:
    """Warns where half sets are drawn for poses that were found with others, `known`, or together."""
    if known:
        job.warn(
            "half sets are not those of the file: its poses were found with the others, and halves that are drawn now "
            "would agree better than they should. Use --split keep, or give a low-passed map with --ref"
        )
        return
    job.warn(
        "the file has no half sets, and its poses may come from one map: halves that are drawn now would agree better "
        "than they should. Give a low-passed map with --ref"
    )
