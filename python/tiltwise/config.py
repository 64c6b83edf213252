"""Options of the commands: one pydantic model per command is the only list of its parameters.

The command line, the Python interface and `job.json` are all made from the model.  A field is declared
with `option`, which adds to pydantic's constraints what those three need: unit, flags, group, help.

    class ExampleOptions(Options):
        command: ClassVar[str] = "example"
        box: int = option(..., flags=("--b",), unit="px", help="box size before binning", ge=4)

The first of `flags` is the canonical one; `--<name of the field>` is always accepted too, and `_` is the
same as `-` in all of them.  Values are checked when the model is made; errors are `ConfigError`s that
name the option and list all problems at once.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined

from tiltwise.errors import ConfigError

Group = Literal["essential", "advanced"]


def option(
    default: Any = ...,
    *,
    help: str,
    flags: tuple[str, ...] = (),
    unit: str | None = None,
    group: Group = "essential",
    may_change: bool = False,
    **constraints: Any,
) -> Any:
    """Declare a field of an `Options` model.

    Parameters
    ----------
    default
        its value when the user says nothing; `...` makes the option compulsory.
    help
        one sentence without full stop; default and unit are added to it.
    flags
        names on the command line, the canonical one first, then RELION's; empty: `--<name of the field>`.
    unit
        `Å`, `°`, `px`, `e/Å²`, `GB`.
    group
        `essential` options are shown by `-h`, `advanced` ones by `--help-all`.
    may_change
        true when a run may be continued with another value because the result does not depend on it.
    **constraints
        passed to `pydantic.Field` (`ge`, `gt`, `le`, `lt`, `min_length`, `pattern`).
    """
    meta: dict[str, Any] = {"flags": list(flags), "unit": unit, "group": group, "may_change": may_change}
    return Field(default, description=help, json_schema_extra={"tiltwise": meta}, **constraints)


@dataclass(frozen=True, slots=True)
class OptionSpec:
    """Everything the command line and the manifest need to know of one option."""

    name: str
    flags: tuple[str, ...]
    kind: type
    """`bool`, `int`, `float`, `str` or `Path`"""
    choices: tuple[str, ...]
    default: Any
    required: bool
    unit: str | None
    group: Group
    may_change: bool
    help: str

    @property
    def flag(self) -> str:
        """Canonical flag."""
        return self.flags[0]


class Options(BaseModel):
    """Base of all option models: immutable, unknown names refused, errors for people."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    command: ClassVar[str] = ""
    """name of the command the model belongs to"""
    ignored_flags: ClassVar[Mapping[str, int]] = {}
    """RELION flags that are accepted with a note and have no effect, and their number of values (0 or 1)"""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _config_error(type(self), error) from None

    @classmethod
    def specs(cls) -> tuple[OptionSpec, ...]:
        """Descriptions of all options in the order of declaration."""
        return tuple(_spec(name, field) for name, field in cls.model_fields.items())

    @classmethod
    def spec(cls, name: str) -> OptionSpec:
        """Description of one option."""
        return _spec(name, cls.model_fields[name])

    def parameters(self) -> dict[str, dict[str, Any]]:
        """Value, unit and origin (`user` or `default`) of every option, as `job.json` records them."""
        values = self.model_dump(mode="json")
        return {
            spec.name: {
                "value": values[spec.name],
                "unit": spec.unit,
                "origin": "user" if spec.name in self.model_fields_set else "default",
            }
            for spec in self.specs()
        }

    def refuse_without_effect(self, names: Sequence[str], because: str, fix: str) -> None:
        """Raises ConfigError for options that were given, differ from their default, and do nothing `because`."""
        given = [self.spec(name) for name in names if name in self.model_fields_set]
        idle = [spec.flag for spec in given if str(getattr(self, spec.name)) != str(spec.default)]
        if idle:
            raise ConfigError(
                "an option has no effect" if len(idle) == 1 else "options have no effect",
                where=", ".join(idle),
                found=because,
                fix=fix,
            )

    def differences(self, recorded: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Options that differ from `parameters()` of an earlier run and must not, one line for each."""
        lines = []
        current = self.parameters()
        for spec in self.specs():
            if spec.may_change:
                continue
            if spec.name not in recorded:
                lines.append(f"{spec.flag}: was unknown, now {_show(current[spec.name]['value'])}")
                continue
            before, now = recorded[spec.name].get("value"), current[spec.name]["value"]
            if before != now:
                lines.append(f"{spec.flag}: was {_show(before)}, now {_show(now)}")
        gone = sorted(set(recorded) - set(current))
        lines.extend(f"{name}: was {_show(recorded[name].get('value'))}, now unknown" for name in gone)
        return lines

    def to_arguments(self) -> list[str]:
        """Command-line arguments (after the name of the command) that give these options again."""
        arguments: list[str] = []
        values = self.model_dump(mode="json")
        for spec in self.specs():
            value = values[spec.name]
            if value == spec.default and not spec.required:
                continue
            if spec.kind is bool:
                arguments.append(spec.flag if value else f"--no-{spec.flag[2:]}")
            elif value is not None:
                arguments += [spec.flag, str(value)]
        return arguments


class InputOptions(Options):
    """Where the data are: an optimisation set, or its parts."""

    input: Path | None = option(
        None, flags=("--i", "--ios", "--optset"), help="optimisation_set.star, or particles.star together with --t"
    )
    particles: Path | None = option(
        None, flags=("--p", "--in-parts"), help="particles.star, instead of the one of the set"
    )
    tomograms: Path | None = option(None, flags=("--t",), help="tomograms.star, instead of the one of the set")
    trajectories: Path | None = option(
        None, flags=("--mot",), group="advanced", help="motion.star, instead of the one of the set"
    )

    def require_particles(self) -> None:
        """Raises ConfigError if there is neither a set nor its parts."""
        if self.input is None and (self.particles is None or self.tomograms is None):
            raise ConfigError(
                "no particles to work on",
                where="--i",
                expected="--i optimisation_set.star, or --p particles.star with --t tomograms.star",
                found="neither",
                fix="name the optimisation set of the last job",
            )


class OutputOptions(Options):
    """Where the results go."""

    output: Path = option(..., flags=("--o",), help="job folder; created if missing, continued if started before")
    redo: bool = option(
        False, group="advanced", may_change=True, help="start again in a folder that holds other results"
    )


class ComputeOptions(Options):
    """How to compute.

    The result depends on the backend to rounding, and where memory is short on how much there is: fewer folds or
    blocks are then held, and a warning says so.
    """

    threads: int = option(0, flags=("--threads", "--j"), may_change=True, ge=0, help="threads; 0 means all cores")
    memory: float | None = option(
        None, unit="GB", group="advanced", may_change=True, gt=0, help="memory to use at most; half of what is free"
    )
    backend: str = option("auto", group="advanced", help="kernels to use, see `tiltwise doctor`")


def _spec(name: str, field: FieldInfo) -> OptionSpec:
    extra = field.json_schema_extra
    if not isinstance(extra, dict) or not isinstance(extra.get("tiltwise"), dict):
        raise TypeError(f"field {name} is not declared with option()")
    meta: Any = extra["tiltwise"]
    kind, choices = _kind(field.annotation)
    flags = tuple(dict.fromkeys([*meta["flags"], "--" + name.replace("_", "-")]))
    default = None if field.default is PydanticUndefined else field.default
    return OptionSpec(
        name=name,
        flags=flags,
        kind=kind,
        choices=choices,
        default=str(default) if isinstance(default, Path) else default,
        required=field.is_required(),
        unit=meta["unit"],
        group=meta["group"],
        may_change=meta["may_change"],
        help=field.description or "",
    )


def _kind(annotation: Any) -> tuple[type, tuple[str, ...]]:
    if get_origin(annotation) in (Union, types.UnionType):
        members = [a for a in get_args(annotation) if a is not type(None)]
        if len(members) == 1:
            return _kind(members[0])
    if get_origin(annotation) is Literal:
        return str, tuple(str(a) for a in get_args(annotation))
    if annotation in (bool, int, float, str, Path):
        return annotation, ()
    raise TypeError(f"options of type {annotation} are not supported on the command line")


def _show(value: Any) -> str:
    return "unset" if value is None else str(value)


def _config_error(model: type[Options], error: ValidationError) -> ConfigError:
    """ValidationError of pydantic in the words of the command line."""
    details = error.errors(include_url=False)
    causes = [d.get("ctx", {}).get("error") for d in details]
    if len(details) == 1 and isinstance(causes[0], ConfigError):
        return causes[0]
    problems = [
        (("", str(cause), "") if isinstance(cause, ConfigError) else _problem(model, detail))
        for detail, cause in zip(details, causes, strict=True)
    ]
    command = f"tiltwise {model.command}" if model.command else model.__name__
    if len(problems) == 1:
        where, expected, found = problems[0]
        what = f"{command}: option {where} is not valid" if where else f"{command}: options do not fit together"
        return ConfigError(
            what,
            where=where or None,
            expected=expected,
            found=found or None,
            fix=_suggestion(model, details[0]) or f"see '{command} -h'",
        )
    lines = [f"{flag}: expected {expected}, found {found}" if flag else expected for flag, expected, found in problems]
    what = f"{command}: {len(problems)} options are not valid\n  " + "\n  ".join(lines)
    return ConfigError(what, fix=f"see '{command} -h'")


def _problem(model: type[Options], detail: ErrorDetails) -> tuple[str, str, str]:
    """(option, what was expected, what was found) of one problem."""
    name = str(detail["loc"][0]) if detail["loc"] else ""
    if not name:
        return "", detail["msg"].removeprefix("Value error, "), ""
    if name not in model.model_fields:
        return name, "an option of this command", "an unknown name"
    spec = model.spec(name)
    if detail["type"] == "missing":
        return spec.flag, f"a value ({spec.help})", "nothing"
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    return spec.flag, message + (f" [{spec.unit}]" if spec.unit else ""), repr(detail["input"])


def _suggestion(model: type[Options], detail: ErrorDetails) -> str | None:
    name = str(detail["loc"][0]) if detail["loc"] else ""
    if not name or name in model.model_fields:
        return None
    close = difflib.get_close_matches(name, model.model_fields, n=1)
    return f"did you mean {close[0]}?" if close else None
