"""`python -m tiltwise` is the same as `tiltwise`."""

from __future__ import annotations

import sys

from tiltwise.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
