"""`tiltwise doctor`: what this machine has."""

from __future__ import annotations

import importlib.metadata
import shutil
from typing import Any, ClassVar

from tiltwise import __version__
from tiltwise.cli.command import Outcome, Session, command_from_options
from tiltwise.config import Options
from tiltwise.jobs import manifest

_PACKAGES = (
    "numpy",
    "scipy",
    "mrcfile",
    "starfile",
    "threadpoolctl",
    "healpix",
    "pydantic",
    "click",
    "rich",
    "rich-click",
    "matplotlib",
    "pillow",
    "jinja2",
)
_EXTRAS = {"gemmi": "atomic models in `tiltwise simulate`"}
_RELION = ("relion_refine", "relion_tomo_subtomo", "relion_pipeliner")


class DoctorOptions(Options):
    """`tiltwise doctor` has no options of its own."""

    command: ClassVar[str] = "doctor"


def examine() -> dict[str, Any]:
    """Versions, machine, kernels and optional programs, as `--json` prints them."""
    from tiltwise.exec.memory import free_memory_bytes
    from tiltwise.kernels.select import backend_report

    free = free_memory_bytes()
    return {
        "tiltwise": __version__,
        "python": manifest.describe_program()["python"],
        "packages": {name: _version(name) for name in _PACKAGES},
        "extras": {name: _version(name) for name in _EXTRAS},
        "host": manifest.describe_host(),
        "free_memory_gb": None if free is None else round(free / 1e9, 1),
        "free_disk_gb": round(shutil.disk_usage(".").free / 1e9, 1),
        "backends": [
            {
                "name": backend.name,
                "available": backend.available,
                "active": backend.active,
                "test_only": backend.test_only,
                "reason": backend.reason,
            }
            for backend in backend_report()
        ],
        "relion": {name: shutil.which(name) for name in _RELION},
    }


def run(options: DoctorOptions, session: Session) -> Outcome:
    """Examine the machine and say what is missing."""
    found = examine()
    host = found["host"]
    missing = [name for name, version in found["packages"].items() if version is None]
    lines = [
        f"✓ tiltwise {found['tiltwise']}, Python {found['python']}",
        f"✓ {host['cpu']}, {host['cores']} cores, {found['free_memory_gb']} of {host['memory_gb']} GB memory free",
        f"✓ {found['free_disk_gb']} GB of disk free here",
        ("✗ missing packages: " + ", ".join(missing))
        if missing
        else "✓ " + ", ".join(f"{name} {version}" for name, version in found["packages"].items()),
    ]
    lines += [
        f"✓ {name} {version}" if version else f"- {name} not installed (optional: {_EXTRAS[name]})"
        for name, version in found["extras"].items()
    ]
    for backend in found["backends"]:
        if backend["available"]:
            use = "used by default" if backend["active"] else "for tests only" if backend["test_only"] else "available"
            lines.append(f"✓ backend {backend['name']}: {use}")
        else:
            lines.append(f"- backend {backend['name']}: not available ({backend['reason']})")
    programs = [name for name, path in found["relion"].items() if path]
    lines.append(f"✓ RELION: {', '.join(programs)}" if programs else "- RELION not found (optional)")
    return Outcome(found, lines, exit_code=1 if missing else 0)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


command = command_from_options(DoctorOptions, run, "Versions, processor, memory, compute backends and RELION.")
