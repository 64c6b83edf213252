"""STAR files as pandas DataFrames, through the `starfile` package, for notebooks and scripts.

The package itself reads and writes through `tiltwise.io.star`, which keeps the text of every value.  Here
numbers become numbers and are written with six decimals; names stay strings even if all look like numbers.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tiltwise.files import atomic_path
from tiltwise.io.star import read_star

if TYPE_CHECKING:
    import pandas as pd

_TEXT_ENDINGS = ("Name", "File", "Image", "NameEven", "NameOdd")


def read_frames(path: str | os.PathLike[str]) -> dict[str, pd.DataFrame]:
    """Blocks of a STAR file as DataFrames by block name; a block of single values is a frame with one row.

    Raises
    ------
    FormatError
        if the file cannot be read.
    """
    import pandas as pd
    import starfile

    labels = {label for block in read_star(path) for label in block.columns if label.endswith(_TEXT_ENDINGS)}
    blocks = starfile.read(path, always_dict=True, parse_as_string=sorted(labels))
    return {name: block if isinstance(block, pd.DataFrame) else pd.DataFrame([block]) for name, block in blocks.items()}


def write_frames(path: str | os.PathLike[str], frames: dict[str, pd.DataFrame]) -> None:
    """Write DataFrames as the loops of a STAR file, atomically.

    Raises
    ------
    OutputError
        if the file cannot be written.
    """
    import starfile

    with atomic_path(Path(path)) as temporary:
        starfile.write(frames, temporary)
