"""Every job as a function: options, files, report and resuming are those of the command of the same name::

    from tiltwise import api

    result = api.refine(input="optimisation_set.star", reference="ref.mrc", box=128, crop=64, output="Refine3D/run1")
    print(result.resolution_angstrom, result.map.shape)

Options are named as the fields of the command's model, long names with `_`: `box` is `--b`, `input` is `--i`.  Values
that are not given have the defaults of the command line, from the same model.  A function returns what the stage
computed, arrays included, when the job folder is complete; called again with the same options it continues what was
interrupted.

`progress` hears of everything that is shown while a job runs; by default lines are printed.  To listen, derive from
`SilentProgress` and override `iteration`, `warn` or another method of `tiltwise.exec.Progress`.  An exception that is
raised there ends the job.

Errors are those of `tiltwise.errors`: their text says what is wrong, where, and how to fix it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from tiltwise.cli.app import COMMANDS
from tiltwise.cli.command import OptionsCommand, Session
from tiltwise.config import Options, OptionSpec
from tiltwise.exec import Progress
from tiltwise.jobs.progress import SilentProgress, choose_progress

if TYPE_CHECKING:
    from tiltwise.check.run import CheckResult
    from tiltwise.classes.classify import ClassifyResult
    from tiltwise.ctf.refine_ctf import RefineCtfResult
    from tiltwise.cycle.ablation import AblationResult
    from tiltwise.cycle.table import CycleResult
    from tiltwise.em.bfactor import BFactorResult
    from tiltwise.em.reconstruct import ReconstructResult
    from tiltwise.em.refine import RefineResult
    from tiltwise.export.extract import ExtractResult
    from tiltwise.export.run import ExportResult
    from tiltwise.export.subtract import SubtractResult
    from tiltwise.initial.results import InitialModelResult
    from tiltwise.interchange.run import ImportResult
    from tiltwise.motion.align import AlignResult
    from tiltwise.post.composite import CompositeResult
    from tiltwise.post.local_resolution import LocalResolutionResult
    from tiltwise.post.mask import MaskResult
    from tiltwise.post.postprocess import PostprocessResult
    from tiltwise.selection.expand import ExpandResult
    from tiltwise.selection.run import SelectResult
    from tiltwise.sim.simulate import SimulatedData

Function = TypeVar("Function", bound=Callable[..., Any])

FUNCTIONS: dict[str, Callable[..., Any]] = {}
"""Name of every command that has a function, and the function."""


def _job(command: str) -> Callable[[Function], Function]:
    """Enters a function in the list and adds the options of its command to signature and docstring."""

    def describe(function: Function) -> Function:
        specs = options_of(command).specs()
        kind = inspect.Parameter.KEYWORD_ONLY
        parameters = [inspect.Parameter(spec.name, kind, default=_default(spec)) for spec in specs]
        progress = inspect.Parameter("progress", kind, default=None)
        function.__signature__ = inspect.Signature([*parameters, progress])  # type: ignore[attr-defined]
        lines = [line for spec in specs for line in (spec.name, f"    {_meaning(spec)}")]
        text = inspect.cleandoc(function.__doc__ or "")
        function.__doc__ = "\n".join([text, "", "Parameters", "----------", *lines])
        FUNCTIONS[command] = function
        return function

    return describe


def _default(spec: OptionSpec) -> Any:
    return inspect.Parameter.empty if spec.required else spec.default


def _meaning(spec: OptionSpec) -> str:
    words = [spec.help + (f" [{spec.unit}]" if spec.unit else "")]
    if spec.choices:
        words.append(f"one of {', '.join(spec.choices)}")
    if not spec.required and spec.default is not None:
        words.append(f"default: {spec.default}")
    return f"{'; '.join(words)} ({spec.flag})"


def _command(name: str) -> tuple[Any, type[Options]]:
    """Module and options model of a command."""
    module = import_module(f"tiltwise.cli.{COMMANDS[name].module}")
    assert isinstance(module.command, OptionsCommand)
    return module, module.command.model


def options_of(command: str) -> type[Options]:
    """Model of the options of a command: the command line, these functions and `job.json` are made from it."""
    return _command(command)[1]


def _run(command: str, options: dict[str, Any], progress: Progress | None) -> Any:
    module, model = _command(command)
    chosen = model(**options)
    words = ("tiltwise", command, *chosen.to_arguments())
    return module.run(chosen, Session(words, progress or choose_progress(quiet=False, json=False))).result


@_job("simulate")
def simulate(*, progress: Progress | None = None, **options: Any) -> SimulatedData:
    """Tilt series with known truth, of the phantom, a map or atoms."""
    result: SimulatedData = _run("simulate", options, progress)
    return result


@_job("import")
def import_project(*, progress: Progress | None = None, **options: Any) -> ImportResult:
    """Optimisation set from a project of another program."""
    result: ImportResult = _run("import", options, progress)
    return result


@_job("check")
def check(*, progress: Progress | None = None, **options: Any) -> CheckResult:
    """Everything that is wrong with a set; `output` may be left out."""
    result: CheckResult = _run("check", options, progress)
    return result


@_job("extract")
def extract(*, progress: Progress | None = None, **options: Any) -> ExtractResult:
    """Images of the particles as files (Eqs. 8-10)."""
    result: ExtractResult = _run("extract", options, progress)
    return result


@_job("subtract")
def subtract(*, progress: Progress | None = None, **options: Any) -> SubtractResult:
    """Images of a part of the particle as files, without the rest."""
    result: SubtractResult = _run("subtract", options, progress)
    return result


@_job("export")
def export(*, progress: Progress | None = None, **options: Any) -> ExportResult:
    """Sets, particles and maps in the forms of other programs."""
    result: ExportResult = _run("export", options, progress)
    return result


@_job("reconstruct")
def reconstruct(*, progress: Progress | None = None, **options: Any) -> ReconstructResult:
    """Map and half maps from the poses in the file (Eq. 11)."""
    result: ReconstructResult = _run("reconstruct", options, progress)
    return result


@_job("initial-model")
def initial_model(*, progress: Progress | None = None, **options: Any) -> InitialModelResult:
    """A map from particles whose orientations are not known."""
    result: InitialModelResult = _run("initial-model", options, progress)
    return result


@_job("refine")
def refine(*, progress: Progress | None = None, **options: Any) -> RefineResult:
    """Poses and map from tilt series, in independent half sets (Eqs. 1-13)."""
    result: RefineResult = _run("refine", options, progress)
    return result


@_job("classify")
def classify(*, progress: Progress | None = None, **options: Any) -> ClassifyResult:
    """Classes of particles, each with a map of its own, and the probability of every class."""
    result: ClassifyResult = _run("classify", options, progress)
    return result


@_job("select")
def select(*, progress: Progress | None = None, **options: Any) -> SelectResult:
    """Particles by class, score, tilts, place and neighbours, as a set of their own."""
    result: SelectResult = _run("select", options, progress)
    return result


@_job("expand")
def expand(*, progress: Progress | None = None, **options: Any) -> ExpandResult:
    """Every particle once for each of its symmetry mates, for work on one asymmetric unit."""
    result: ExpandResult = _run("expand", options, progress)
    return result


@_job("refine-ctf")
def refine_ctf(*, progress: Progress | None = None, **options: Any) -> RefineCtfResult:
    """Defocus, astigmatism and contrast of every tilt (Eqs. 17-30)."""
    result: RefineCtfResult = _run("refine-ctf", options, progress)
    return result


@_job("align")
def align(*, progress: Progress | None = None, **options: Any) -> AlignResult:
    """Geometry of the tilts, positions and motion of the particles (Eqs. 31-42)."""
    result: AlignResult = _run("align", options, progress)
    return result


@_job("cycle")
def cycle(*, progress: Progress | None = None, **options: Any) -> CycleResult:
    """Refinement, CTF refinement and alignment in turn, as long as each helps."""
    result: CycleResult = _run("cycle", options, progress)
    return result


@_job("polish")
def polish(*, progress: Progress | None = None, **options: Any) -> CycleResult:
    """The cycle on the newest refinement of a RELION project, which is not changed."""
    result: CycleResult = _run("polish", options, progress)
    return result


@_job("ablate")
def ablate(*, progress: Progress | None = None, **options: Any) -> AblationResult:
    """What every correction bought, each put back to what it was before."""
    result: AblationResult = _run("ablate", options, progress)
    return result


@_job("composite")
def composite(*, progress: Progress | None = None, **options: Any) -> CompositeResult:
    """One map of refined parts and of the consensus for the rest."""
    result: CompositeResult = _run("composite", options, progress)
    return result


@_job("mask")
def mask(*, progress: Progress | None = None, **options: Any) -> MaskResult:
    """Soft mask of the particle, from half maps or a map."""
    result: MaskResult = _run("mask", options, progress)
    return result


@_job("postprocess")
def postprocess(*, progress: Progress | None = None, **options: Any) -> PostprocessResult:
    """Resolution and a sharpened map from half maps."""
    result: PostprocessResult = _run("postprocess", options, progress)
    return result


@_job("local-resolution")
def local_resolution(*, progress: Progress | None = None, **options: Any) -> LocalResolutionResult:
    """Resolution at every voxel, and a map filtered by it."""
    result: LocalResolutionResult = _run("local-resolution", options, progress)
    return result


@_job("bfactor-plot")
def bfactor_plot(*, progress: Progress | None = None, **options: Any) -> BFactorResult:
    """Resolution against the number of particles: B-factor, and what more particles would give."""
    result: BFactorResult = _run("bfactor-plot", options, progress)
    return result


__all__ = [
    "expand",
    "FUNCTIONS",
    "SilentProgress",
    "options_of",
    "ablate",
    "align",
    "bfactor_plot",
    "check",
    "classify",
    "composite",
    "cycle",
    "export",
    "extract",
    "import_project",
    "initial_model",
    "local_resolution",
    "mask",
    "polish",
    "postprocess",
    "reconstruct",
    "refine",
    "refine_ctf",
    "select",
    "simulate",
    "subtract",
]
