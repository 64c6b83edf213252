"""Deformations of tilt images in tomogram sets: RELION's columns, the same in versions 4 and 5.

The global table holds type and grid of every series, the table of the series the coefficients of every tilt.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import FormatError
from tiltwise.geometry.deformation import Deformation, DeformationKind, DeformationModel
from tiltwise.io.columns import update_integers, update_text
from tiltwise.io.star import StarBlock
from tiltwise.model import TiltSeries

TYPE_LABEL = "rlnTomoDeformationType"
GRID_LABELS = ("rlnTomoDeformationGridSizeX", "rlnTomoDeformationGridSizeY")
COEFFICIENTS_LABEL = "rlnTomoDeformationCoefficients"
KINDS: dict[str, DeformationKind] = {"linear": "affine", "Fourier": "fourier", "spline": "spline"}
NAMES = {kind: name for name, kind in KINDS.items()}
UNUSED_GRID = (3, 3)
"""Written beside affine fields, which have none: RELION's default."""


def read_deformation(
    table: StarBlock, row: int, block: StarBlock, image_size: tuple[int, int], notes: list[str]
) -> Deformation | None:
    """Deformation of the series in a row of the global table; None if all its coefficients are zero.

    Raises
    ------
    FormatError
        if the type is unknown, or type, grid and number of coefficients do not fit together.
    """
    if not all(label in table for label in GRID_LABELS):
        return None
    name = block.name
    kind_text = table.text(TYPE_LABEL)[row] if TYPE_LABEL in table else "spline"
    grid = (int(table.integers(GRID_LABELS[0])[row]), int(table.integers(GRID_LABELS[1])[row]))
    if COEFFICIENTS_LABEL not in block or min(grid) <= 0 or kind_text in ("empty", "none", ""):
        notes.append(f"{name}: no coefficients of a 2D deformation, though others have them")
        return None
    kind = {text.lower(): kind for text, kind in KINDS.items()}.get(kind_text.lower())
    if kind is None:
        raise FormatError(
            "a 2D deformation is of an unknown type",
            where=table.where(row, TYPE_LABEL),
            expected=", ".join(KINDS),
            found=kind_text,
            fix="write one of these types, or take the columns of deformations out",
        )
    vectors = block.vectors(COEFFICIENTS_LABEL)
    if not any(vector.any() for vector in vectors):
        return None
    model = DeformationModel(kind, grid, image_size)
    if (kind == "spline" and min(grid) < 2) or (kind == "fourier" and not len(model.waves)):
        raise FormatError(
            "the grid of a 2D deformation is too small",
            where=table.where(row, GRID_LABELS[0]),
            expected="at least 2 x 2",
            found=f"{grid[0]} x {grid[1]}",
            fix="align the tilt series anew, or take the columns of deformations out",
        )
    count = model.n_coefficients
    for tilt, vector in enumerate(vectors):
        # RELION pads the coefficients of waves
        if len(vector) != count and not (kind == "fourier" and len(vector) > count):
            raise FormatError(
                "the coefficients of a 2D deformation do not fit its type and grid",
                where=block.where(tilt, COEFFICIENTS_LABEL),
                expected=f"{count} numbers ({kind_text}, {grid[0]} x {grid[1]})",
                found=f"{len(vector)} numbers",
                fix="align the tilt series anew, or take the columns of deformations out",
            )
    if not all(image_size):
        notes.append(f"{name}: the 2D deformation is kept in the file but not applied: the tilt images are not at hand")
        return None
    return Deformation(model, np.stack([vector[:count] for vector in vectors]))


def update_deformations(
    table: StarBlock, blocks: Sequence[StarBlock], chosen: Sequence[TiltSeries], old: Sequence[TiltSeries | None]
) -> None:
    """Write deformations that changed; `blocks` are the tables of the series, `old` the series as they were read.

    Series without a deformation get one of zeros beside others that have one: RELION does not read a set of which
    only some have a type.
    """
    changed = [
        before is None or not _same(one.deformation, before.deformation)
        for one, before in zip(chosen, old, strict=True)
    ]
    having = [one.deformation for one in chosen if one.deformation is not None]
    if not having or not any(changed):
        return
    usual = having[0].model
    complete = all(label in table for label in (TYPE_LABEL, *GRID_LABELS)) and all(
        COEFFICIENTS_LABEL in block for block in blocks
    )
    models = [one.deformation.model if one.deformation is not None else usual for one in chosen]
    grids = np.array([UNUSED_GRID if model.kind == "affine" else model.grid for model in models], np.int64)
    kinds = [NAMES[model.kind] for model in models]
    if complete:
        kept = ~np.array(changed)
        kinds = [b if k else n for n, b, k in zip(kinds, table.text(TYPE_LABEL), kept, strict=True)]
        before = np.stack([table.integers(label) for label in GRID_LABELS], axis=1)
        grids = np.where(kept[:, None], before, grids)
    update_text(table, TYPE_LABEL, kinds)
    for axis, label in enumerate(GRID_LABELS):
        update_integers(table, label, grids[:, axis], table.integers(label) if label in table else None)
    for one, model, block, new in zip(chosen, models, blocks, changed, strict=True):
        if new or not complete:
            zero = np.zeros((one.n_tilts, model.n_coefficients))
            block.set_vectors(COEFFICIENTS_LABEL, padded(one.deformation or Deformation(model, zero)))


def padded(deformation: Deformation) -> NDArray[np.float64]:
    """(F, N) coefficients at the length RELION copies, which is more than it uses for waves."""
    values, (nx, ny) = deformation.coefficients, deformation.model.grid
    if deformation.model.kind != "fourier":
        return values
    length = max(4 * (nx // 2 + 1) * ny, values.shape[1])
    return np.pad(values, ((0, 0), (0, length - values.shape[1])))


def _same(one: Deformation | None, other: Deformation | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.model == other.model and np.array_equal(one.coefficients, other.coefficients)
