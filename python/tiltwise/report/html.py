"""Self-contained HTML: one file, no network, no scripts but those that turn surfaces and lead through tilts."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tiltwise import __version__
from tiltwise.exec.protocols import Scalar
from tiltwise.files import write_text
from tiltwise.report import viewer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tiltwise.report.film import Film


@dataclass(frozen=True, slots=True)
class Link:
    """Cell that leads to another page; `href` is relative to the page that holds it."""

    text: str
    href: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Code:
    """Cell to copy: one click selects all of it."""

    text: str

    def __str__(self) -> str:
        return self.text


Cell = Scalar | Link | Code


@dataclass(frozen=True, slots=True)
class Table:
    """Column headings and rows; cells are shown as they are, numbers to the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    whole_words: bool = False
    """words are not broken: for many narrow columns; a narrow screen scrolls"""

    def csv(self) -> str:
        """Comma-separated text with the headings in the first line."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class Section:
    """One card of a report.

    `caption` says what is shown and when to worry.  The content is a figure, a table, or both; `data` are the
    numbers behind the figure, offered as a CSV file inside the page.
    """

    title: str
    caption: str = ""
    figure: Figure | None = None
    form: Literal["svg", "png"] = "svg"
    """`png` for figures that hold images"""
    table: Table | None = None
    data: Table | None = None
    folded: bool = False
    """table behind a line that opens it"""
    shape: Literal["", "wide", "tall"] = ""
    """`wide` is as wide as the page, `tall` stands beside two others"""
    picture: str = ""
    """the figure as the page has it, if it was drawn before: see `drawn`"""
    surface: viewer.Surface | None = None
    """turned and contoured in the page where k3d is installed; see `tiltwise.report.surface`"""
    film: Film | None = None
    """beside the picture, with a slider that leads through it"""


@dataclass(frozen=True, slots=True)
class PageState:
    """How a job stands whose page is not its last."""

    kind: Literal["running", "failed", "stopped", "killed"]
    words: str
    reload_s: int = 0
    """the page loads itself again after so many seconds; 0: never"""


@dataclass(frozen=True, slots=True)
class Summary:
    """Head of a report: a sentence, the numbers that matter, warnings, and what to do next."""

    sentence: str
    facts: Mapping[str, str]
    warnings: Sequence[str] = ()
    next_command: str = ""
    state: PageState | None = None
    """None: the job has finished"""


def write_report(path: Path | str, title: str, summary: Summary, sections: Sequence[Section]) -> None:
    """Write a report atomically.

    Raises
    ------
    OutputError
        if the file cannot be written.
    """
    write_text(path, render(title, summary, sections))


def write_job_report(path: Path, title: str, summary: Summary, sections: Sequence[Section]) -> None:
    """Write the report of a job that has finished, and beside it its figures as `logfile.pdf`, which RELION displays.

    Raises
    ------
    OutputError
        if a file cannot be written.
    """
    from tiltwise.report.pdf import Picture, write_pdf
    from tiltwise.report.style import inline_png, png_bytes, svg_and_png

    shown, figures = [], []
    for section in sections:
        figure, words = section.figure, _words(section)
        if figure is None:
            shown.append(section)
            continue
        if section.form == "svg":
            picture, png = svg_and_png(figure, words)
        else:
            png = png_bytes(figure)
            picture = inline_png(png, words)
        shown.append(replace(section, figure=None, picture=picture))
        figures.append((section, Picture(png, float(figure.get_figwidth()))))
    write_report(path, title, summary, shown)
    write_pdf(path.with_name("logfile.pdf"), title, summary, figures)


def render(title: str, summary: Summary, sections: Sequence[Section]) -> str:
    """Text of the page."""
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files("tiltwise.report") / "page.html").read_text(encoding="utf-8"))
    cards = []
    surfaces = viewer.is_available() and any(section.surface is not None for section in sections)
    program = viewer.page_program(surfaces=surfaces, films=any(section.film is not None for section in sections))
    for section in map(drawn, sections):
        name = "".join(c if c.isalnum() else "-" for c in section.title.lower())
        card = {"section": section, "csv": _data_uri(section.data), "file": f"{name}.csv"}
        card["surface"] = section.surface.packed() if surfaces and section.surface is not None else ""
        card["film"] = "" if section.film is None else section.film.packed()
        cards.append(card)
    return template.render(
        title=title,
        summary=summary,
        cards=cards,
        version=__version__,
        cell=_cell,
        policy=viewer.content_policy(program, surfaces=surfaces),
        k3d=viewer.viewer_program() if surfaces else "",
        program=program,
    )


def drawn(section: Section) -> Section:
    """The same section with its figure as text: a page that is written again and again need not draw it again."""
    if section.figure is None:
        return section
    from tiltwise.report.style import inline_png, inline_svg, png_bytes

    if section.form == "svg":
        picture = inline_svg(section.figure, _words(section))
    else:
        picture = inline_png(png_bytes(section.figure), _words(section))
    return replace(section, figure=None, picture=picture)


def _words(section: Section) -> str:
    """For those who do not see the figure."""
    return f"{section.title}. {section.caption}"


def _data_uri(table: Table | None) -> str:
    if table is None:
        return ""
    return "data:text/csv;charset=utf-8;base64," + base64.b64encode(table.csv().encode("utf-8")).decode("ascii")


def _cell(value: Cell) -> str:
    from markupsafe import Markup

    if isinstance(value, Link):
        return Markup('<a href="{}">{}</a>').format(value.href, value.text)
    if isinstance(value, Code):
        return Markup('<code style="user-select: all">{}</code>').format(value.text)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)
