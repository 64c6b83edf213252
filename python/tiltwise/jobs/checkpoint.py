"""Checkpoints: one `.npz` file with arrays and a JSON string, read without pickle, replaced atomically."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import FormatError
from tiltwise.exec import Checkpoint
from tiltwise.files import atomic_path

_STATE = "__state__"


def write_checkpoint(path: Path, arrays: Mapping[str, NDArray[Any]], state: Mapping[str, Any]) -> None:
    """Replace the checkpoint at `path`.

    Raises
    ------
    TypeError
        if `state` is not plain JSON, or an array holds Python objects.
    OutputError
        if the file cannot be written.
    """
    text = json.dumps(dict(state), allow_nan=True)
    for name, array in arrays.items():
        if np.asarray(array).dtype.hasobject:
            raise TypeError(f"array {name} of a checkpoint holds Python objects")
    content: dict[str, Any] = {**arrays, _STATE: np.array(text)}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **content)


def read_checkpoint(path: Path) -> Checkpoint | None:
    """Content of the checkpoint at `path`, None if there is none.

    Raises
    ------
    FormatError
        if the file is damaged.
    """
    if not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files if name != _STATE}
            state = json.loads(str(content[_STATE]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise FormatError(
            "a checkpoint is damaged",
            where=str(path),
            found=str(error),
            fix="start again with --redo",
        ) from error
    return Checkpoint(arrays, state)
