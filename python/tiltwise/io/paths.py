"""Paths in STAR files: where a name points to, and how to write one.

A name is tried from the current directory, then from the folder of the file that names it, then from the
parents of that folder (RELION names files from the project folder, which is one of them).  Folders above the
current one come into play only when nothing is found at or below it.  Two different hits are an error: which of
two `particles.star` is meant cannot be known.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tiltwise.errors import FormatError
from tiltwise.io.mrc import split_image_name


class PathResolver:
    """Finds the files that one STAR file names; folders are listed once, so thousands of names are cheap."""

    def __init__(self, naming_file: str | os.PathLike[str]) -> None:
        self.naming_file = os.fspath(naming_file)
        folder = Path(os.path.abspath(self.naming_file)).parent
        here = Path.cwd()
        bases = list(dict.fromkeys((here, folder, *folder.parents)))
        above = [base for base in bases if base in here.parents] if folder.is_relative_to(here) else []
        self._bases = [[str(b) for b in bases if b not in above], [str(b) for b in above]]
        self._listings: dict[str, frozenset[str]] = {}

    def find(self, name: str) -> str | None:
        """Absolute path of the file called `name`, or None if there is none.

        Raises
        ------
        FormatError
            if the name points to two different files.
        """
        base_name = os.path.basename(name)
        if not base_name:
            return None
        if os.path.isabs(name):
            return os.path.normpath(name) if os.path.isfile(name) else None
        return self._only_hit(name, self._bases[0]) or self._only_hit(name, self._bases[1])

    def _only_hit(self, name: str, bases: Sequence[str]) -> str | None:
        folder, base_name = os.path.split(name)
        hits = []
        for base in bases:
            directory = os.path.normpath(os.path.join(base, folder))
            # A bare name would list every parent folder, whatever its size; one look each is cheaper.
            found = base_name in self._listing(directory) if folder else os.path.isfile(os.path.join(base, name))
            if found:
                hits.append(os.path.join(directory, base_name))
        for other in hits[1:]:
            if not os.path.samefile(hits[0], other):
                raise FormatError(
                    f"a file name is ambiguous: {name}",
                    where=self.naming_file,
                    expected="one such file from the current directory, the naming file's folder and its parents",
                    found=f"{hits[0]} and {other}",
                    fix="rename or move one of them, or run from another directory",
                )
        return hits[0] if hits else None

    def require(self, name: str, what: str) -> str:
        """Absolute path of the file called `name`.

        Raises
        ------
        FormatError
            if there is none, naming `what` it should be, or if there are two.
        """
        path = self.find(name)
        if path is None:
            raise missing_files(what, [name], self.naming_file)
        return path

    def _listing(self, directory: str) -> frozenset[str]:
        names = self._listings.get(directory)
        if names is None:
            try:
                names = frozenset(os.listdir(directory))
            except OSError:
                names = frozenset()
            self._listings[directory] = names
        return names


def missing_files(what: str, names: Sequence[str], naming_file: str) -> FormatError:
    """Error that lists files which are named but do not exist: the first five, and how many."""
    unique = list(dict.fromkeys(names))
    more = f" and {len(unique) - 5} more" if len(unique) > 5 else ""
    return FormatError(
        f"{len(unique)} {what} missing" if len(unique) > 1 else f"{what} is missing",
        where=naming_file,
        expected="files that exist from the current directory, the folder of that file or its parents",
        found=", ".join(unique[:5]) + more,
        fix="run in the project folder, or correct the paths",
    )


def path_text(target: str | os.PathLike[str], written_file: str | os.PathLike[str]) -> str:
    """Text for the path of `target` inside `written_file`.

    Relative to the current directory if both lie below it, else absolute.
    """
    here = Path.cwd()
    absolute, written = Path(os.path.abspath(target)), Path(os.path.abspath(written_file))
    if absolute.is_relative_to(here) and written.is_relative_to(here):
        return absolute.relative_to(here).as_posix()
    return str(absolute)


class PathWriter:
    """Names of files for one STAR file that is about to be written."""

    def __init__(self, written_file: str | os.PathLike[str]) -> None:
        self._written_file = os.fspath(written_file)
        self._resolver = PathResolver(written_file)

    def image(self, name: str, absolute: str) -> str:
        """Image name: `name` as it stands if it still leads to `absolute` from the new file, else a new path.

        Keeps a section (`3@`) and a format suffix (`:mrc`).
        """
        old, _ = split_image_name(name)
        try:
            same = self._resolver.find(old) == absolute
        except FormatError:
            same = False
        return name if same else name.replace(old, path_text(absolute, self._written_file))
