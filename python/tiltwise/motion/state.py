"""What an alignment has found so far, and its checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltwise.exec import Job
from tiltwise.geometry.deformation import Deformation, DeformationModel
from tiltwise.motion.geometry import Alignment, Specimen
from tiltwise.motion.series import SeriesData
from tiltwise.motion.shifts import SharedShifts
from tiltwise.motion.whole_images import WholeShifts

F64 = NDArray[np.float64]
NAME = "align"


@dataclass(frozen=True, slots=True)
class Fitted:
    """State of one series between rounds."""

    specimen: Specimen
    alignment: Alignment
    shared: SharedShifts | None = None

    def written_out(self) -> Fitted:
        """The same with displacements in place of modes: those of another computer may be others."""
        specimen, alignment = self.specimen, self.alignment
        plain = replace(
            specimen,
            motion_px=alignment.motion(specimen),
            given=alignment.deformation(specimen),
            basis=np.zeros((len(specimen.position_px), 0)),
            fields=None,
        )
        none = Alignment.none(plain)
        kept = replace(alignment, coefficients=none.coefficients, amplitudes=none.amplitudes)
        return replace(self, specimen=plain, alignment=kept)


@dataclass(frozen=True, slots=True)
class State:
    """Everything a stopped run needs to end with the same bytes."""

    rounds: int
    """that are done"""
    fold: NDArray[np.int64]
    """(P,)"""
    folds: int
    curves: list[F64]
    """FSC of the references of every round"""
    found: Sequence[Fitted]
    """of every series, written out"""
    searched: list[WholeShifts]
    """of every series if whole images were searched, else empty"""

    def save(self, job: Job) -> None:
        """Replaces the checkpoint."""
        arrays: dict[str, NDArray[Any]] = {f"curve_{i}": curve for i, curve in enumerate(self.curves)}
        deformations: list[dict[str, Any] | None] = []
        for i, one in enumerate(self.found):
            alignment, given = one.alignment, one.specimen.given
            shared = one.shared or SharedShifts.none(one.specimen.n_tilts)
            parts = {
                "turn": alignment.turn,
                "shift": alignment.shift_px,
                "displacement": alignment.displacement_px,
                "motion": one.specimen.motion_px,
                "shared_shift": shared.shift_px,
                "shared_gain": shared.gain,
                "shared_clipped": shared.clipped,
                "shared_unseen": shared.unseen,
            }
            if given is not None:
                parts["deformation"] = given.coefficients
            deformations.append(None if given is None else asdict(given.model))
            arrays |= {f"{name}_{i}": array for name, array in parts.items()}
        arrays["fold"] = self.fold
        arrays |= {f"searched_{i}": found.as_array() for i, found in enumerate(self.searched)}
        state = {
            "rounds": self.rounds,
            "folds": self.folds,
            "deformations": deformations,
        }
        job.save_checkpoint(NAME, arrays, state)

    @classmethod
    def load(cls, job: Job, data_after: Callable[[list[WholeShifts]], Sequence[SeriesData]]) -> State | None:
        """The checkpoint of an earlier run of this job; `data_after` gives the series after a search, or without."""
        saved = job.load_checkpoint(NAME)
        if saved is None:
            return None
        arrays, state = saved.arrays, saved.state
        rounds = int(state["rounds"])
        models = state["deformations"]
        whole = [arrays[f"searched_{i}"] for i in range(len(models)) if f"searched_{i}" in arrays]
        searched = [WholeShifts.from_array(one) for one in whole]
        found = []
        for i, (own, model) in enumerate(zip(data_after(searched), models, strict=True)):
            specimen = replace(own.specimen(), motion_px=arrays[f"motion_{i}"], given=None)
            if model is not None:
                sizes = {name: tuple(model[name]) for name in ("grid", "image_size")}
                deformation = Deformation(DeformationModel(model["kind"], **sizes), arrays[f"deformation_{i}"])
                specimen = replace(specimen, given=deformation)
            turn, shift, displacement = (arrays[f"{name}_{i}"] for name in ("turn", "shift", "displacement"))
            alignment = replace(Alignment.none(specimen), turn=turn, shift_px=shift, displacement_px=displacement)
            shared = (arrays[f"shared_{name}_{i}"] for name in ("shift", "gain", "clipped", "unseen"))
            found.append(Fitted(specimen, alignment, SharedShifts(*shared)))
        return cls(
            rounds,
            arrays["fold"],
            int(state["folds"]),
            [arrays[f"curve_{i}"] for i in range(rounds)],
            found,
            searched,
        )
