"""Optics groups divided by tilt series or acquisition area, so that aberrations may differ between them."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from tiltwise.errors import ConfigError
from tiltwise.model import OpticsGroup, OptimisationSet
from tiltwise.model.poses import series_index

WHOLE, SERIES = "no", "series"


def areas(names: list[str], how: str) -> list[str]:
    """Acquisition area of every tilt series: its name, or the part of it that a regular expression finds.

    Raises
    ------
    ConfigError
        if the expression is none, or finds nothing in a name.
    """
    if how == SERIES:
        return names
    try:
        pattern = re.compile(how)
    except re.error as error:
        raise ConfigError(
            "not a regular expression",
            where="--split-optics",
            expected=f"{WHOLE}, {SERIES} or an expression",
            found=how,
            fix=f"correct it: {error}; names of areas are matched by, for example, '^Position_[0-9]+'",
        ) from error
    found = {name: pattern.search(name) for name in names}
    missing = [name for name, match in found.items() if match is None or not match.group()]
    if missing:
        raise ConfigError(
            "names of tilt series do not tell their acquisition area",
            where=", ".join(missing[:5]),
            expected=f"a name in which {how} finds something",
            fix="give --split-optics an expression that fits all names, or series",
        )
    return [match.group(1) if match.re.groups else match.group() for match in found.values() if match is not None]


def split(optset: OptimisationSet, how: str) -> OptimisationSet:
    """The set with one optics group for every one that there was and every area; `how` is that of `areas`.

    Particles and tilt series name the same groups.  A tilt series with particles of several groups names the first.
    """
    area = areas([one.name for one in optset.series], how)
    of_particle = [area[number] for number in series_index(optset)]
    keys = list(dict.fromkeys(zip(optset.particles.optics_index.tolist(), of_particle, strict=True)))
    order = sorted(keys, key=lambda key: (key[0], area.index(key[1])))
    groups: list[OpticsGroup] = []
    for number, (old, label) in enumerate(order, 1):
        one = optset.optics[old]
        groups.append(replace(one, number=number, name=f"{one.name}_{label}", split_from=one.number))
    index = {key: i for i, key in enumerate(order)}
    rows = [index[key] for key in zip(optset.particles.optics_index.tolist(), of_particle, strict=True)]
    first: dict[int, int] = {}
    for number, row in zip(series_index(optset).tolist(), rows, strict=True):
        first.setdefault(number, row)
    series = tuple(
        replace(one, optics_group_name=groups[first[number]].name) if number in first else one
        for number, one in enumerate(optset.series)
    )
    particles = replace(optset.particles, optics_index=np.array(rows, np.int64))
    return replace(optset, series=series, particles=particles, optics=tuple(groups))


def joined(new: OptimisationSet, before: OptimisationSet) -> OptimisationSet:
    """A set that was split, with the groups it had before."""
    series = tuple(
        replace(one, optics_group_name=old.optics_group_name)
        for one, old in zip(new.series, before.series, strict=True)
    )
    particles = replace(new.particles, optics_index=before.particles.optics_index)
    return replace(new, series=series, particles=particles, optics=before.optics)
