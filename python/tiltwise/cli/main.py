"""Entry point of the program: runs a command and turns errors into messages and exit codes.

Exit codes are those of `tiltwise.errors`.  A traceback is shown only for an error nobody foresaw; it is
also in `crash.txt` of the job folder.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import traceback
from collections.abc import Sequence

from tiltwise import __version__
from tiltwise.errors import TiltwiseError

_BUG, _USAGE, _RESOURCES, _INTERRUPTED = 1, 2, 5, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `tiltwise` with `arguments` (those of the process by default) and return its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _run(arguments)
    except TiltwiseError as error:
        return _report(arguments, error, str(error), error.exit_code)
    except KeyboardInterrupt as error:
        return _report(arguments, error, "interrupted", _INTERRUPTED)
    except MemoryError as error:
        fix = "\n  fix: use --memory with a smaller number, a smaller --b, or larger --bin"
        return _report(arguments, error, f"out of memory\n  found: {error}{fix}", _RESOURCES)
    except BrokenPipeError:
        # The reader of our output has gone; nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BUG
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = (
                f"no space left on the disk\n  where: {error.filename}\n  fix: free some and run the command again"
            )
            return _report(arguments, error, message, _RESOURCES)
        traceback.print_exc()
        message = (
            f"this is a bug in tiltwise {__version__}: {type(error).__name__}: {error}\n"
            "  fix: please report it with the text above, which is also in crash.txt of the job folder"
        )
        return _report(arguments, error, message, _BUG)


def _run(arguments: list[str]) -> int:
    import click

    from tiltwise.cli.app import app

    try:
        code = app.main(arguments, prog_name="tiltwise", standalone_mode=False)
        return int(code) if isinstance(code, int) else 0
    except click.exceptions.Abort as error:
        raise KeyboardInterrupt from error
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "tiltwise"
        return _report(arguments, error, f"{error.format_message()}\n  fix: see {path} -h", _USAGE)


def _report(arguments: Sequence[str], error: BaseException, message: str, code: int) -> int:
    """Message to standard error; with `--json` also an object to standard output."""
    print(f"✗ {message}", file=sys.stderr)
    if "--json" in arguments:
        content = {"status": "failure", "exit_code": code, "error": {"type": type(error).__name__, "message": message}}
        print(json.dumps(content, ensure_ascii=False))
    return code
