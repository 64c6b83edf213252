"""Conditions on columns of the particle table."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import ConfigError, DataError
from tiltwise.io.star import StarBlock
from tiltwise.io.star_expression import matching_rows

Bools = NDArray[np.bool_]

CLASS = "rlnClassNumber"
CLASS_POSTERIOR = "tiltwiseClassPosterior"
PROBABILITY = "rlnMaxValueProbDistribution"
LOG_LIKELIHOOD = "rlnLogLikeliContribution"
SCORES = (LOG_LIKELIHOOD, PROBABILITY)
"""Columns that tell which of two copies is better, the first one that there is."""


def where(block: StarBlock, expression: str) -> Bools:
    """(P,) rows for which an expression is true; errors as `matching_rows`."""
    kept = np.zeros(len(block), bool)
    kept[matching_rows(block, expression)] = True
    return kept


def at_least(block: StarBlock, label: str, least: float, flag: str) -> Bools:
    """(P,) rows whose value is not below `least`.

    Raises
    ------
    DataError
        if there is no such column.
    """
    return numbers(block, label, flag) >= least


def numbers(block: StarBlock, label: str, flag: str) -> NDArray[np.float64]:
    """(P,) values of a column that option `flag` needs; errors as `at_least`."""
    label = label.removeprefix("_")
    if label not in block:
        raise DataError(
            f"a column is missing: _{label}",
            where=f"{flag}, {block.where()}",
            expected=f"_{label}, which a refinement or a classification writes",
            found=" ".join(f"_{name}" for name in block.columns),
            fix=f"give the particles of such a job, or leave {flag} out",
        )
    return block.floats(label)


def of_classes(block: StarBlock, text: str) -> Bools:
    """(P,) rows of the classes that are listed with commas.

    Raises
    ------
    ConfigError
        if the list cannot be read, or no particle is in one of the classes.
    DataError
        if the file has no classes.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() and part.isascii() for part in parts):
        raise ConfigError(
            "classes cannot be read",
            where="--class",
            expected="numbers with commas",
            found=text or "none",
            fix="write them as in --class 1,3",
        )
    wanted = [int(part) for part in parts]
    found = numbers(block, CLASS, "--class").astype(np.int64)
    known, counts = np.unique(found, return_counts=True)
    unknown = sorted(set(wanted) - set(known.tolist()))
    if unknown:
        raise ConfigError(
            "a class has no particles" if len(unknown) == 1 else "classes have no particles",
            where="--class",
            expected=", ".join(f"{number} ({count:,} particles)" for number, count in zip(known, counts, strict=True)),
            found=", ".join(map(str, unknown)),
            fix="choose among the classes there are",
        )
    return np.isin(found, wanted)


def of_tomograms(names: Sequence[str], patterns: str, flag: str) -> Bools:
    """(P,) rows whose tomogram's name fits one of the patterns with * and ?, which are listed with commas.

    Raises
    ------
    ConfigError
        if a pattern fits no tomogram that has particles.
    """
    known = list(dict.fromkeys(names))
    chosen: set[str] = set()
    for pattern in (part.strip() for part in patterns.split(",")):
        fitting = {name for name in known if fnmatchcase(name, pattern)}
        if not fitting:
            raise ConfigError(
                "no tomogram with particles has such a name",
                where=flag,
                expected=", ".join(known[:6]) + (f" and {len(known) - 6} more" if len(known) > 6 else ""),
                found=pattern or "nothing",
                fix="* stands for any letters, ? for one; put quotes around the list",
            )
        chosen |= fitting
    return np.array([name in chosen for name in names], bool)
