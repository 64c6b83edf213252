"""The figures of a report as a PDF file, which RELION's "Display" menu opens as the log file of a job."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.transforms import Bbox

from tiltwise.files import atomic_path
from tiltwise.report.html import Section, Summary
from tiltwise.report.style import INK, new_figure, style

_WIDTH = 7.0
"""Narrowest page, inches."""
_LINE = 0.19
"""Height of a line of 9 points, inches."""
_PER_INCH = 13.0
"""Characters of 9 points."""


def write_pdf(path: Path, title: str, summary: Summary, sections: Sequence[Section]) -> None:
    """Write a page of text and a page for every figure: its title, the figure, what it means.

    Raises
    ------
    OutputError
        if the file cannot be written.
    """
    with atomic_path(path) as temporary, style(), PdfPages(temporary, metadata={"CreationDate": None}) as pages:
        _text_page(pages, title, summary)
        for section in sections:
            if section.figure is not None:
                _figure_page(pages, section)


def _text_page(pages: PdfPages, title: str, summary: Summary) -> None:
    columns = round(_WIDTH * _PER_INCH)
    lines = [*textwrap.wrap(summary.sentence, columns), ""]
    lines += [f"{name}: {value}" for name, value in summary.facts.items()]
    for warning in summary.warnings:
        lines += ["", *textwrap.wrap(f"Warning: {warning}", columns)]
    if summary.next_command:
        lines += ["", "Next:", *textwrap.wrap(summary.next_command, columns, break_on_hyphens=False)]
    lines += ["", "report.html in the same folder has the tables, and the data behind every figure."]
    heading = textwrap.wrap(title, columns * 3 // 4)
    height = _LINE * (len(lines) + 2 * len(heading) + 2)
    figure = new_figure(_WIDTH + 0.4, height)
    figure.text(0.2 / figure.get_figwidth(), 1 - 0.5 * _LINE / height, "\n".join(heading), fontsize=13, va="top")
    start = 1 - _LINE * (2 * len(heading) + 0.5) / height
    figure.text(0.2 / figure.get_figwidth(), start, "\n".join(lines), va="top", linespacing=_LINE * 72 / 9 / 1.17)
    pages.savefig(figure)  # type: ignore[no-untyped-call]


def _figure_page(pages: PdfPages, section: Section) -> None:
    """The figure with its title above and its caption below, outside its own area; it is left as it was."""
    figure = section.figure
    assert figure is not None
    width, height = (float(v) for v in figure.get_size_inches())
    page = max(width, _WIDTH)
    lines = textwrap.wrap(section.caption, round(page * _PER_INCH))
    below = _LINE * (len(lines) + 1)
    # In fractions of the figure: inches would not follow the larger page.
    added = [
        figure.text(0.0, 1 + 0.4 * _LINE / height, section.title, va="bottom", fontsize=12, color=INK),
        figure.text(0.0, -0.5 * _LINE / height, "\n".join(lines), va="top", fontsize=9, color=INK),
    ]
    try:
        pages.savefig(figure, bbox_inches=Bbox([[-0.2, -below], [page + 0.2, height + 2 * _LINE]]))  # type: ignore[no-untyped-call]
    finally:
        for artist in added:
            artist.remove()
