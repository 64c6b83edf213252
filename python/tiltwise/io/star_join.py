"""One STAR file out of several: rows of tables of the same name one after the other, optics groups put together."""

from __future__ import annotations

from collections.abc import Sequence

from tiltwise.errors import DataError
from tiltwise.io.star import StarBlock, StarDocument

_GROUP, _NAME, _PARTICLE = "rlnOpticsGroup", "rlnOpticsGroupName", "rlnTomoParticleName"


def join(documents: Sequence[StarDocument], *, common: bool = False) -> StarDocument:
    """Rows of all loops of the same name, in the order of the files; lists must be equal.

    Values keep their text.  Optics groups that are equal become one; others get new numbers, in the particles too.

    Parameters
    ----------
    common
        leave out columns that some file lacks, instead of refusing them.

    Raises
    ------
    DataError
        if columns or lists differ, or a particle name occurs twice.
    """
    documents = _joined_optics(documents)
    names = list(dict.fromkeys(block.name for document in documents for block in document))
    blocks = []
    for name in names:
        parts = [block for document in documents for block in document if block.name == name]
        blocks.append(_joined(parts, common))
    result = StarDocument(blocks, "", [line for document in documents for line in document.trailer])
    for block in result:
        if _PARTICLE in block:
            _refuse_repeated(block, documents)
    return result


def _joined(parts: Sequence[StarBlock], common: bool) -> StarBlock:
    first = parts[0].copy()
    if len(parts) == 1:
        return first
    if first.kind == "list":
        for part in parts[1:]:
            differ = [k for k in {**first.columns, **part.columns} if first.columns.get(k) != part.columns.get(k)]
            if differ:
                raise DataError(
                    f"files differ in data_{first.name}",
                    where=f"{parts[0].path} and {part.path}",
                    expected="equal values",
                    found=f"_{differ[0]}: {first.columns.get(differ[0])} and {part.columns.get(differ[0])}",
                    fix="make the values equal, if the files do belong together",
                )
        return first
    labels = [label for label in first.columns if all(label in part for part in parts)]
    odd = sorted({label for part in parts for label in part.columns} - set(labels))
    if odd and not common:
        lacking = next(part for part in parts if odd[0] not in part)
        raise DataError(
            "files differ in their columns",
            where=lacking.path,
            expected=f"_{odd[0]}" + (f" and {len(odd) - 1} more" if len(odd) > 1 else ""),
            found="a table without",
            fix="--common keeps the columns that all files have",
        )
    columns = {label: [value for part in parts for value in part.columns[label]] for label in labels}
    comments = list(dict.fromkeys(line for part in parts for line in part.comments))
    return StarBlock(first.name, "loop", columns, comments)


def _joined_optics(documents: Sequence[StarDocument]) -> list[StarDocument]:
    """Documents whose optics groups have numbers of one list, which the first of them holds."""
    tables = [document.get("optics") for document in documents]
    if sum(table is not None and _GROUP in table for table in tables) < 2:
        return list(documents)
    taken: dict[str, tuple[tuple[str, str], ...]] = {}
    names: set[str] = set()
    result = []
    for document, table in zip(documents, tables, strict=True):
        if table is None or _GROUP not in table:
            result.append(document)
            continue
        copy = document.copy()
        optics = copy["optics"]
        new_number: dict[str, str] = {}
        fresh = []
        for row, number in enumerate(table.columns[_GROUP]):
            content = tuple(sorted((k, values[row]) for k, values in table.columns.items() if k != _GROUP))
            known = next((old for old, other in taken.items() if other == content), None)
            if known is None:
                known = number if number not in taken else str(max(int(float(old)) for old in taken) + 1)
                taken[known] = content
                fresh.append(row)
                if _NAME in optics:
                    optics.columns[_NAME][row] = _unused(optics.columns[_NAME][row], names)
            new_number[number] = known
        optics.columns[_GROUP] = [new_number[number] for number in table.columns[_GROUP]]
        copy = copy.replace(optics.take(fresh))
        for block in copy:
            if block.name != "optics" and _GROUP in block:
                block.columns[_GROUP] = [new_number.get(number, number) for number in block.columns[_GROUP]]
        result.append(copy)
    return result


def _unused(name: str, names: set[str]) -> str:
    """A name that no group has yet, and takes it."""
    chosen, count = name, 1
    while chosen in names:
        count += 1
        chosen = f"{name}_{count}"
    names.add(chosen)
    return chosen


def _refuse_repeated(block: StarBlock, documents: Sequence[StarDocument]) -> None:
    names = block.columns[_PARTICLE]
    if len(set(names)) == len(names):
        return
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(
                "a particle name occurs twice",
                where=", ".join(document.path for document in documents),
                expected="unique names (rlnTomoParticleName)",
                found=f"{name} ({len(names) - len(set(names))} repeated names)",
                fix="filter one of the files, or drop the column from all of them: "
                "tiltwise star select --drop rlnTomoParticleName",
            )
        seen.add(name)
