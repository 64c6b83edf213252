"""What the stages know of the program that runs them: protocols of jobs and progress."""

from __future__ import annotations

from tiltwise.exec.protocols import Checkpoint, Job, Progress, Task

__all__ = ["Checkpoint", "Job", "Progress", "Task"]
