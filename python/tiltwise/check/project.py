"""The files of a set as they are, read without refusing anything: what cannot be read becomes a finding."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tiltwise.check.findings import Findings
from tiltwise.config import InputOptions
from tiltwise.errors import TiltwiseError
from tiltwise.io.optimisation_set import LABELS
from tiltwise.io.paths import PathResolver
from tiltwise.io.star import StarBlock, StarDocument, read_star
from tiltwise.io.tomograms import TABLE_FILE_LABEL

F64 = NDArray[np.float64]

_UNSET = ("", "None", "empty")


@dataclass(slots=True)
class Project:
    """Documents of a set; None where one is missing or unreadable."""

    paths: dict[str, str] = field(default_factory=dict)
    """absolute, by the keys of `LABELS`"""
    tomograms: StarBlock | None = None
    """data_global"""
    tables: dict[str, StarBlock] = field(default_factory=dict)
    """table of every tilt series that can be read"""
    document: StarDocument | None = None
    """of the particles"""
    particles: StarBlock | None = None
    documents: dict[str, StarDocument] = field(default_factory=dict)
    """by path, so that no file is parsed twice"""

    def read(self, path: str) -> StarDocument:
        """A file, parsed once.  Errors as `read_star`."""
        if path not in self.documents:
            self.documents[path] = read_star(path)
        return self.documents[path]


def read_project(options: InputOptions, findings: Findings) -> Project:
    """What the options name; everything missing is a finding."""
    project = Project()
    if options.input is not None:
        _named_files(os.fspath(options.input), project, findings)
    for key in ("tomograms", "particles", "trajectories"):
        given = getattr(options, key)
        if given is not None:
            project.paths[key] = os.path.abspath(given)
    for key, flag in (("tomograms", "--t"), ("particles", "--p")):
        if key not in project.paths and not ("TW-FILE-01" in findings or "TW-FILE-03" in findings):
            findings.add(
                "TW-FILE-01",
                f"the set names no {key}",
                os.fspath(options.input or ""),
                expected=f"_{LABELS[key]}",
                fix=f"give {flag} {key}.star",
            )
    _read_tomograms(project, findings)
    _read_particles(project, findings)
    return project


def numbers(block: StarBlock, label: str) -> F64:
    """Values of a column, NaN where there is no finite number; all NaN without the column."""
    if label not in block:
        return np.full(len(block), np.nan)
    column = block.columns[label]
    try:
        values = np.array(list(map(float, column)), np.float64)
    except ValueError:
        values = np.array([_number(text) for text in column], np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def refuse_columns(
    block: StarBlock, needed: tuple[str, ...], numeric: tuple[str, ...], findings: Findings, name: str = ""
) -> None:
    """Findings for columns that are missing, and for those that hold something else than numbers."""
    missing = [f"_{label}" for label in needed if label not in block]
    if missing:
        findings.add(
            "TW-COLUMN-01",
            f"{len(missing)} columns are missing" if len(missing) > 1 else f"a column is missing: {missing[0]}",
            block.where(),
            expected=", ".join(missing),
            found=" ".join(f"_{label}" for label in list(block.columns)[:12]) or "no columns",
        )
    for label in numeric:
        if label not in block:
            continue
        bad = np.flatnonzero(np.isnan(numbers(block, label)))
        if len(bad):
            row = int(bad[0])
            findings.add(
                "TW-COLUMN-02",
                f"_{label} holds no number in {len(bad)} of {len(block)} rows" + (f" of {name}" if name else ""),
                block.where(row, label),
                expected="a finite number",
                found=block.columns[label][row],
            )


def from_error(findings: Findings, error: TiltwiseError, code: str = "TW-FILE-03") -> None:
    """A finding that says what an error says."""
    findings.add(
        code, error.what, error.where or "", expected=error.expected or "", found=error.found or "", fix=error.fix or ""
    )


def _number(text: str) -> float:
    try:
        return float(text.strip("'\""))
    except ValueError:
        return float("nan")


def _named_files(path: str, project: Project, findings: Findings) -> None:
    try:
        document = read_star(path)
    except TiltwiseError as error:
        from_error(findings, error, "TW-FILE-03" if os.path.exists(path) else "TW-FILE-01")
        return
    block = next((one for one in document if any(label in one for label in LABELS.values())), None)
    if block is None:
        if any("rlnTomoName" in one for one in document):
            project.paths["tomograms" if "global" in document else "particles"] = os.path.abspath(path)
            return
        findings.add(
            "TW-FILE-03",
            "this is neither an optimisation set nor a particle file",
            path,
            expected=f"_{LABELS['particles']}, or particles with _rlnTomoName",
            found=", ".join(f"data_{one.name}" for one in document.blocks[:8]),
        )
        return
    resolver = PathResolver(path)
    for key, label in LABELS.items():
        names = block.text(label) if label in block else []
        name = names[0] if names else ""
        if name in _UNSET:
            continue
        try:
            found = resolver.find(name)
        except TiltwiseError as error:
            from_error(findings, error)
            continue
        if found is None:
            findings.add("TW-FILE-01", f"the file of _{label} is missing", path, found=name)
        else:
            project.paths[key] = found


def _read(project: Project, path: str, findings: Findings) -> StarDocument | None:
    try:
        return project.read(path)
    except TiltwiseError as error:
        from_error(findings, error, "TW-FILE-03" if os.path.exists(path) else "TW-FILE-01")
        return None


def _read_tomograms(project: Project, findings: Findings) -> None:
    path = project.paths.get("tomograms")
    document = None if path is None else _read(project, path, findings)
    if document is None or path is None:
        return
    table = document.get("global")
    if table is None or "rlnTomoName" not in table:
        findings.add(
            "TW-FILE-03",
            "this is not a tomogram set",
            path,
            expected="data_global with _rlnTomoName",
            found=", ".join(f"data_{one.name}" for one in document.blocks[:8]),
        )
        return
    project.tomograms = table
    resolver = PathResolver(path)
    names = table.text("rlnTomoName")
    files = table.text(TABLE_FILE_LABEL) if TABLE_FILE_LABEL in table else None
    missing = []
    for row, name in enumerate(names):
        source: StarDocument | None = document
        if files is not None:
            found = resolver.find(files[row])
            if found is None:
                missing.append(files[row])
                continue
            source = _read(project, found, findings)
        block = None if source is None else source.get(name) or (None if files else source.get(f"tomo_{row}"))
        if block is not None and len(block):
            project.tables[name] = block
        elif source is not None:
            findings.add(
                "TW-FILE-03",
                "the table of a tilt series is missing" if block is None else "a tilt series is empty",
                source.path,
                expected=f"a block data_{name}, named as its rlnTomoName, with a row for every tilt",
                found=", ".join(f"data_{one.name}" for one in source.blocks[:8]),
            )
    if missing:
        findings.add("TW-FILE-01", f"{len(missing)} tables of tilt series are missing", path, found=missing[0])


def _read_particles(project: Project, findings: Findings) -> None:
    path = project.paths.get("particles")
    document = None if path is None else _read(project, path, findings)
    if document is None or path is None:
        return
    block = document.get("particles") or next((one for one in document if "rlnTomoName" in one), None)
    if block is None or not len(block):
        findings.add(
            "TW-FILE-03",
            "there are no particles",
            path,
            expected="data_particles with at least one row",
            found=", ".join(f"data_{one.name}" for one in document.blocks[:8]) if block is None else "no rows",
        )
        return
    project.document, project.particles = document, block
