"""Job folders, checkpoints, progress and the contract with RELION's pipeline."""

from __future__ import annotations

from tiltwise.jobs.job import FolderJob
from tiltwise.jobs.progress import LineProgress, SilentProgress, TerminalProgress, choose_progress

__all__ = ["FolderJob", "LineProgress", "SilentProgress", "TerminalProgress", "choose_progress"]
