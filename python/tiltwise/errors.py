"""Errors a user can act on: what went wrong, where, what was expected and found, how to fix it.

Every exception the package raises on purpose derives from `TiltwiseError`.  The command line prints
`str(error)` without a traceback and exits with `error.exit_code`:

====  =============================================
code  meaning
====  =============================================
1     a bug in tiltwise (any other exception)
2     usage: an option is wrong or missing
3     input data are invalid
4     `check --strict` has warnings
5     out of disk or memory
6     aborted on request
75    checkpointed, please start again
====  =============================================
"""

from __future__ import annotations


class TiltwiseError(Exception):
    """Base of all errors with a message for the user.

    Parameters are the parts of that message: `what` happened, `where` (file, row, tomogram, option),
    what was `expected` and `found`, and how to `fix` it.  Only `what` is compulsory.
    """

    exit_code = 3

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        expected: str | None = None,
        found: str | None = None,
        fix: str | None = None,
    ) -> None:
        self.what, self.where, self.expected, self.found, self.fix = what, where, expected, found, fix
        parts = [what]
        for label, text in (("where", where), ("expected", expected), ("found", found), ("fix", fix)):
            if text is not None:
                parts.append(f"  {label}: {text}")
        super().__init__("\n".join(parts))


class ConfigError(TiltwiseError, ValueError):
    """An option is missing, unknown or out of range."""

    exit_code = 2


class FormatError(TiltwiseError, ValueError):
    """A file cannot be read as what it claims to be (truncated, wrong mode, missing column)."""


class DataError(TiltwiseError, ValueError):
    """Files are readable, but their contents cannot be used (NaN pixels, particles outside every tilt)."""


class ShapeError(TiltwiseError, ValueError):
    """An array argument has the wrong shape or type."""


class OutputError(TiltwiseError, OSError):
    """A result cannot be written (no permission, disk full, folder in the way)."""

    exit_code = 5


class ResourceError(TiltwiseError, MemoryError):
    """The work needs more memory than is allowed or there is."""

    exit_code = 5


class BackendUnavailable(TiltwiseError, RuntimeError):
    """A compute backend was asked for that is not compiled in, or that this machine cannot run."""

    exit_code = 2


class BackendError(TiltwiseError, RuntimeError):
    """A kernel reported a failure."""

    exit_code = 1


class Aborted(TiltwiseError):
    """The job was asked to stop (RELION_JOB_ABORT_NOW, SIGINT, SIGTERM)."""

    exit_code = 6
