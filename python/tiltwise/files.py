"""Atomic writes: a file with its final name is always complete."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tiltwise.errors import OutputError

_TEMPORARY = re.compile(r"\..+-[a-z0-9_]{8}(\.\w+)?")
"""Names that `atomic_path` gives."""


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to; it replaces `path` when the block ends well.

    The temporary file is in the same folder (so that the replacement is one rename) and has the same
    suffix.  When the block raises, it is removed and whatever `path` held before is untouched.

    Raises
    ------
    OutputError
        if the folder is missing, not writable or full.
    """
    path = Path(path)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem[:40]}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise write_error(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        if isinstance(error, OutputError) or error.filename not in (None, name, str(path)):
            raise
        raise write_error(path, error) from error
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def remove_leftovers(folder: Path) -> None:
    """Removes temporary files that a writer of `atomic_path` has left in a folder because it was killed."""
    for path in folder.glob(".*-????????*"):
        if _TEMPORARY.fullmatch(path.name) and path.is_file():
            with suppress(OSError):
                path.unlink()


def write_text(path: Path | str, text: str) -> None:
    """Replace the text file `path` atomically, UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_error(path: Path, error: OSError) -> OutputError:
    """Error for the user that says why `path` could not be written."""
    fixes = {
        errno.EACCES: "choose another folder, or ask its owner for write permission",
        errno.EPERM: "choose another folder, or ask its owner for write permission",
        errno.EROFS: "choose a folder on a disk that is mounted for writing",
        errno.ENOSPC: "free some disk space, then run the same command again: it continues",
        errno.EDQUOT: "free some of your disk quota, then run the same command again: it continues",
        errno.ENOENT: "create the folder first",
        errno.ENOTDIR: "a part of the path is a file: choose another name",
        errno.EISDIR: "there is a folder of that name: choose another name",
    }
    return OutputError(
        f"cannot write {path.name}",
        where=str(path),
        found=error.strerror or str(error),
        fix=fixes.get(error.errno or 0),
    )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
