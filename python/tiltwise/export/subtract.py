"""`tiltwise subtract`: images of a part of the particle as files, without the rest."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tiltwise.em.focus import Focus, focused
from tiltwise.exec import Job, Progress
from tiltwise.export.extract import Extraction, ExtractResult
from tiltwise.export.options import SubtractOptions
from tiltwise.extract.source import Rest
from tiltwise.kernels.select import load_backend
from tiltwise.model import OptimisationSet


@dataclass(frozen=True, slots=True)
class SubtractResult:
    """Where the images are, and what they lack."""

    extracted: ExtractResult
    focus: Focus


class SubtractedExtraction(Extraction):
    """Boxes about the part, and images without the rest of the particle."""

    focus: Focus

    def __init__(self, options: SubtractOptions, job: Job, progress: Progress) -> None:
        self.part = options
        super().__init__(options, job, progress)

    def prepared(self, optset: OptimisationSet) -> OptimisationSet:
        """See `Extraction.prepared`: coordinates are those of the parts, half sets those of the prediction."""
        self.backend = load_backend(self.part.backend)
        saved = self.job.load_checkpoint("extract")
        given = self.part, optset, self.backend, self.threads, self.job, self.progress
        moved, halves, focus = focused(*given, kept_folds=None if saved is None else saved.state.get("rest_folds"))
        assert focus is not None
        self.focus = focus
        return replace(moved, particles=replace(moved.particles, half_set=halves))

    def kept(self) -> dict[str, int]:
        """See `Extraction.kept`: images of one set are predicted with the same folds."""
        assert self.focus.rest_folds is not None
        return {"rest_folds": self.focus.rest_folds}

    def rest(self, rows: NDArray[np.intp]) -> Rest | None:
        """See `Extraction.rest`."""
        return self.focus.taken(rows).rest(self.source, self.backend)


def run(options: SubtractOptions, job: Job, progress: Progress) -> SubtractResult:
    """Images of all particles about a part of them, without the rest.

    Raises
    ------
    ConfigError, DataError
        as `tiltwise.export.extract.run`; and if masks cannot be used, or half maps do not agree.
    OutputError
        if the disk has no room.
    """
    extraction = SubtractedExtraction(options, job, progress)
    result = extraction.run()
    mask = extraction.focus.write(job)
    return SubtractResult(replace(result, outputs={**result.outputs, **mask}), extraction.focus)
