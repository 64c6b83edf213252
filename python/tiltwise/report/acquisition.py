"""Dose and defocus of the views of tilt series against their angle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from tiltwise.model import TiltSeries
from tiltwise.report.html import Cell, Section, Table
from tiltwise.report.style import BLUE, GREY, VERMILION, new_figure, style

FAR_UM = 0.5
"""Distance from the median of a series at which the defocus of a view is marked."""


def acquisition_section(series: Sequence[TiltSeries]) -> Section:
    """Order of acquisition and defocus of all views; the eye finds the view that got the values of another."""
    caption = (
        "One line per tilt series. Left: dose before every view; a scheme is regular, so worry about steps that jump. "
        "Right: mean of the two defoci; worry about single views far from their neighbours (marked from "
        f"{FAR_UM:g} µm beside the median), and about a slope that all series share."
    )
    return Section("Acquisition", caption, figure=acquisition_figure(series), data=_table(series), shape="wide")


def acquisition_figure(series: Sequence[TiltSeries]) -> Figure:
    """Dose before a view (left) and its defocus (right) against the angle of the stage."""
    with style():
        figure = new_figure(8.0, 2.7)
        doses, defoci = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
        alpha = max(0.15, min(1.0, 4.0 / max(len(series), 1)))
        for one in series:
            order = np.argsort(one.nominal_tilt_deg, kind="stable")
            tilt, defocus = one.nominal_tilt_deg[order], _defocus_um(one)[order]
            for axes, values in ((doses, one.pre_exposure[order]), (defoci, defocus)):
                axes.plot(tilt, values, color=BLUE, alpha=alpha, linewidth=1.0, marker="o", markersize=2.5)
            far = np.abs(defocus - np.median(defocus)) > FAR_UM
            defoci.plot(tilt[far], defocus[far], "x", color=VERMILION, markersize=6)
        doses.set_ylabel("dose before the view (e/Å²)")
        defoci.set_ylabel("defocus (µm)")
        for axes in (doses, defoci):
            axes.set_xlabel("angle of the stage (°)")
            axes.axvline(0.0, color=GREY, linewidth=0.6)
        figure.tight_layout()
    return figure


def _defocus_um(one: TiltSeries) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.asarray(0.5 * (one.defocus_u_angstrom + one.defocus_v_angstrom) / 1e4)


def _table(series: Sequence[TiltSeries]) -> Table:
    rows: list[list[Cell]] = []
    for one in series:
        for tilt, dose, defocus in zip(one.nominal_tilt_deg, one.pre_exposure, _defocus_um(one), strict=True):
            rows.append([one.name, float(tilt), float(dose), float(defocus)])
    return Table(["tilt series", "angle of the stage °", "dose before e/Å²", "defocus µm"], rows)
