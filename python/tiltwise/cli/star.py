"""`tiltwise star`: look into STAR files, and change them without losing anything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import rich_click

from tiltwise.errors import ConfigError

if TYPE_CHECKING:
    from tiltwise.io.star import StarBlock, StarDocument

_FILE = click.Path(path_type=Path)
_HELP = {"help_option_names": ["-h", "--help", "--help-all"]}


def _out() -> click.Option:
    return click.Option(["output", "--o"], type=_FILE, required=True, help="STAR file to write (required)")


def _block_option() -> click.Option:
    return click.Option(["block", "--block"], help="table, by its name without data_; default: the largest one")


def _json_option() -> click.Option:
    return click.Option(["as_json", "--json"], is_flag=True, help="print as JSON")


def _files(n: int = 1) -> click.Argument:
    return click.Argument(["files" if n != 1 else "file"], type=_FILE, nargs=n, required=True)


def _table(document: StarDocument, name: str | None) -> StarBlock:
    """The block that was named, or the one with the most rows."""
    if name is not None:
        return document[name.removeprefix("data_")]
    return max(document.blocks, key=len)


def _labels(text: str) -> list[str]:
    return [label.strip().removeprefix("_") for label in text.split(",") if label.strip()]


def head(file: Path, block: str | None, rows: int, as_json: bool) -> None:
    """Blocks, their columns, and the first rows."""
    from tiltwise.io.star import read_star

    document = read_star(file)
    shown = [_table(document, block)] if block is not None else document.blocks
    if as_json:
        from tiltwise.jobs.manifest import to_json

        content = [
            {
                "name": one.name,
                "kind": one.kind,
                "rows": len(one),
                "columns": {label: one.text(label)[:rows] for label in one.columns},
            }
            for one in shown
        ]
        click.echo(to_json(content))
        return
    for one in shown:
        click.echo(f"data_{one.name}: {one.kind}, {len(one):,} rows, {len(one.columns)} columns")
        width = max((len(label) for label in one.columns), default=0)
        for label, values in one.columns.items():
            more = "  ..." if len(values) > rows else ""
            click.echo(f"  _{label:<{width}}  {'  '.join(values[:rows])}{more}")


def stats(file: Path, block: str | None, columns: str | None, as_json: bool) -> None:
    """Range, mean and distinct values of columns."""
    from tiltwise.io.star import read_star
    from tiltwise.io.star_stats import column_stats

    table = _table(read_star(file), block)
    found = column_stats(table, None if columns is None else _labels(columns))
    if as_json:
        from tiltwise.jobs.manifest import to_json

        click.echo(to_json({"block": table.name, "rows": len(table), "columns": [one.plain() for one in found]}))
        return
    click.echo(f"data_{table.name}: {len(table):,} rows")
    width = max((len(one.label) for one in found), default=0)
    for one in found:
        if one.low is not None:
            text = f"{one.low:.6g} to {one.high:.6g}, mean {one.mean:.6g}, median {one.median:.6g}, sd {one.sigma:.4g}"
            text += f", {one.missing} not finite" if one.missing else ""
        else:
            text = f"{one.kind}, {one.distinct:,} distinct"
        if one.common and one.distinct > 1:
            text += "; " + ", ".join(f"{value} ({count:,})" for value, count in one.common)
        click.echo(f"  {one.label:<{width}}  {text}")


def filter_rows(file: Path, expression: str, output: Path, block: str | None) -> None:
    """Keep the rows for which a condition is true."""
    from tiltwise.io.star import read_star, write_star
    from tiltwise.io.star_expression import matching_rows

    document = read_star(file)
    table = _table(document, block)
    if table.kind != "loop":
        raise ConfigError(f"data_{table.name} has no rows to choose from", where=str(file), fix="name a --block")
    kept = matching_rows(table, expression)
    if not len(kept):
        raise ConfigError(
            "no row fulfils the condition",
            where=expression,
            expected=f"some of the {len(table)} rows of data_{table.name}",
            found="none; nothing was written",
            fix="tiltwise star stats shows what the columns hold",
        )
    write_star(output, document.replace(table.take(kept)))
    click.echo(f"✓ {len(kept):,} of {len(table):,} rows of data_{table.name}: {output}")


def join_files(files: tuple[Path, ...], output: Path, common: bool) -> None:
    """Rows of several files in one."""
    from tiltwise.io.star import read_star, write_star
    from tiltwise.io.star_join import join

    result = join([read_star(file) for file in files], common=common)
    write_star(output, result)
    counts = ", ".join(f"{len(block):,} rows of data_{block.name}" for block in result if block.kind == "loop")
    click.echo(f"✓ {len(files)} files, {counts or 'no tables'}: {output}")


def select(file: Path, output: Path, columns: str | None, drop: str | None, block: str | None) -> None:
    """Keep or drop columns."""
    from tiltwise.io.star import read_star, write_star

    if (columns is None) == (drop is None):
        raise ConfigError(
            "which columns?",
            where="--columns, --drop",
            expected="one of the two",
            found="both or neither",
            fix="name those to keep with --columns, or those to leave out with --drop",
        )
    document = read_star(file)
    table = _table(document, block).copy()
    named = _labels(columns if columns is not None else drop or "")
    for label in named:
        table.text(label)  # raises where there is none
    if columns is not None:
        table.columns = {label: table.columns[label] for label in named}
    else:
        table.drop(*named)
    if not table.columns:
        raise ConfigError(
            "no column would be left", where="--columns, --drop", found=", ".join(named), fix="name fewer with --drop"
        )
    write_star(output, document.replace(table))
    click.echo(f"✓ {len(table.columns)} columns of data_{table.name}: {output}")


command = rich_click.RichGroup(
    name="star",
    help="Look into STAR files, and filter, join and cut them: every value keeps its text, unknown columns and blocks "
    "are kept. head and stats print JSON with --json.",
    context_settings=_HELP,
    commands=[
        rich_click.RichCommand(
            name="head",
            help="Blocks, columns and first rows.",
            callback=head,
            context_settings=_HELP,
            params=[
                _files(),
                _block_option(),
                click.Option(["rows", "-n"], type=click.IntRange(min=0), default=3, help="rows (default: 3)"),
                _json_option(),
            ],
        ),
        rich_click.RichCommand(
            name="stats",
            help="Range, mean and distinct values of columns.",
            callback=stats,
            context_settings=_HELP,
            params=[
                _files(),
                _block_option(),
                click.Option(["columns", "--columns"], help="labels with commas; default: all"),
                _json_option(),
            ],
        ),
        rich_click.RichCommand(
            name="filter",
            help="Keep the rows for which a condition is true, such as 'rlnMaxValueProbDistribution > 0.1 and "
            'rlnTomoName in ("TS_01", "TS_03")\'. Labels, numbers, quoted text, row, and or not, + - * / **, abs, '
            "sqrt, round, startswith, endswith, contains.",
            callback=filter_rows,
            context_settings=_HELP,
            params=[_files(), click.Argument(["expression"]), _out(), _block_option()],
        ),
        rich_click.RichCommand(
            name="join",
            help="Rows of several files in one; optics groups are put together.",
            callback=join_files,
            context_settings=_HELP,
            params=[
                _files(-1),
                _out(),
                click.Option(["common", "--common"], is_flag=True, help="leave out columns that some file lacks"),
            ],
        ),
        rich_click.RichCommand(
            name="select",
            help="Keep or drop columns.",
            callback=select,
            context_settings=_HELP,
            params=[
                _files(),
                _out(),
                click.Option(["columns", "--columns"], help="labels to keep, with commas, in this order"),
                click.Option(["drop", "--drop"], help="labels to drop, with commas"),
                _block_option(),
            ],
        ),
    ],
)
