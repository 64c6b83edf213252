"""One process per job folder."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from pathlib import Path

from tiltwise.errors import OutputError


class FolderLock:
    """Advisory lock on a file; the system releases it when the process dies."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises
        ------
        OutputError
            if another process has it.
        """
        handle = os.open(self._path, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(handle, 200).decode("utf-8", "replace").strip()
            os.close(handle)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise OutputError(
                    "another run works in this job folder",
                    where=str(self._path.parent.parent),
                    found=holder or None,
                    fix="wait for it, stop it, or choose another --o",
                ) from error
            return  # a file system without locks
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        self._handle = handle

    def release(self) -> None:
        """Give the lock back."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
