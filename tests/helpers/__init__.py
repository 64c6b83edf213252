"""What several tests share: comparisons and problems."""

from __future__ import annotations
