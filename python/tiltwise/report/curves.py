"""Curves: Fourier shell correlation, and how a refinement went."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from tiltwise.exec.protocols import Scalar
from tiltwise.report.style import BLUE, GREEN, GREY, INK, ORANGE, SKY, VERMILION, new_figure, style
from tiltwise.spectral.fsc import resolution_angstrom

_COLOURS = (BLUE, VERMILION, GREEN, ORANGE, SKY, GREY)


def fsc_curves(
    curves: Mapping[str, NDArray[np.floating]],
    pixel_size: float,
    *,
    thresholds: Mapping[str, float] | None = None,
    unmarked: Collection[str] = (),
) -> Figure:
    """FSC curves with thresholds and Nyquist frequency.

    Parameters
    ----------
    curves
        name to FSC `(N // 2 + 1,)`, shells 0, 1, ... of a box of N voxels.
    pixel_size
        Å per voxel.
    thresholds
        name of a curve to the threshold at which its resolution is marked; 0.143 for those left out.
    unmarked
        names of curves that mean no resolution.
    """
    length = len(next(iter(curves.values())))
    size = 2 * (length - 1)
    frequency = np.arange(length) / (size * pixel_size)
    with style():
        figure = new_figure(5.6, 3.7)
        axes = figure.add_axes((0.105, 0.135, 0.865, 0.72))
        used = {(thresholds or {}).get(name, 0.143) for name in curves}
        for threshold in sorted(used):
            axes.axhline(threshold, color=GREY, lw=0.9, ls=(0, (4, 3)))
            axes.annotate(
                f"{threshold:g}",
                (0.003, threshold),
                xycoords=("axes fraction", "data"),
                va="bottom",
                fontsize=8,
                color=GREY,
            )
        for number, (name, curve) in enumerate(curves.items()):
            colour = _COLOURS[number % len(_COLOURS)]
            threshold = (thresholds or {}).get(name, 0.143)
            resolution = resolution_angstrom(curve, size, pixel_size, threshold)
            reached = bool(np.any(np.asarray(curve[1:]) < threshold))
            text = (
                f"{name}: {resolution:.1f} Å at {threshold:g}" if reached else f"{name}: above {threshold:g} to Nyquist"
            )
            marked = name not in unmarked
            axes.plot(frequency[1:], curve[1:], color=colour, label=text if marked else name)
            if reached and marked:
                axes.plot([1.0 / resolution], [threshold], "o", color=colour, ms=5)
        axes.axhline(0.0, color=INK, lw=0.8)
        nyquist = 0.5 / pixel_size
        axes.axvline(nyquist, color=GREY, lw=0.9, ls=":")
        axes.text(nyquist * 0.993, 0.35, "Nyquist", color=GREY, fontsize=8, rotation=90, ha="right", va="center")
        axes.set_xlim(0.0, nyquist * 1.02)
        lowest = min(float(np.nanmin(curve[1:])) for curve in curves.values())
        # room for the legend above the curves
        axes.set_ylim(min(-0.1, max(lowest - 0.05, -1.0)), 1.06 + 0.085 * len(curves))
        axes.set_yticks([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
        axes.set_xlabel("spatial frequency (1/Å)")
        axes.set_ylabel("Fourier shell correlation")
        axes.legend(loc="upper right", borderaxespad=0.2)
        angstrom_axis(axes, nyquist)
    return figure


def fsc_history_curves(curves: Mapping[int, NDArray[np.floating]], pixel_size: float) -> Figure:
    """FSC curves `(N // 2 + 1,)` by the number of their iteration: the last one bold, earlier ones fading away."""
    length = len(next(iter(curves.values())))
    frequency = np.arange(length) / (2 * (length - 1) * pixel_size)
    nyquist = 0.5 / pixel_size
    with style():
        figure = new_figure(5.6, 3.7)
        axes = figure.add_axes((0.105, 0.135, 0.865, 0.72))
        for threshold in (0.143, 0.5):
            axes.axhline(threshold, color=GREY, lw=0.9, ls=(0, (4, 3)))
            axes.text(0.003 * nyquist, threshold, f"{threshold:g}", va="bottom", fontsize=8, color=GREY)
        axes.axhline(0.0, color=INK, lw=0.8)
        axes.axvline(nyquist, color=GREY, lw=0.9, ls=":")
        for place, (number, curve) in enumerate(curves.items()):
            last, shade = place == len(curves) - 1, (place + 1) / len(curves)
            label = f"iteration {number}" if last or place == 0 else None
            axes.plot(
                frequency[1:], curve[1:], color=BLUE, alpha=0.15 + 0.85 * shade**2, lw=2.0 if last else 1.0, label=label
            )
        axes.set_xlim(0.0, nyquist * 1.02)
        axes.set_ylim(-0.1, 1.12)
        axes.set_yticks([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
        axes.set_xlabel("spatial frequency (1/Å)")
        axes.set_ylabel("Fourier shell correlation")
        axes.legend(loc="upper right", borderaxespad=0.2)
        angstrom_axis(axes, nyquist)
    return figure


def symmetry_curves(
    curves: Mapping[str, NDArray[np.floating]], sigma: NDArray[np.floating], shells: int, pixel_size: float
) -> Figure:
    """FSC curves `(N // 2 + 1,)` of what has a symmetry and what has not, to a shell; `sigma` is that of noise."""
    frequency = np.arange(shells + 1) / (2 * (len(sigma) - 1) * pixel_size)
    with style():
        figure = new_figure(5.6, 3.2)
        axes = figure.add_axes((0.105, 0.155, 0.865, 0.66))
        noise = 2.0 * sigma[1 : shells + 1]
        axes.fill_between(frequency[1:], -noise, noise, color=GREY, alpha=0.18, lw=0, label="noise, two sigma")
        for (name, curve), colour in zip(curves.items(), _COLOURS, strict=False):
            axes.plot(frequency[1:], curve[1 : shells + 1], color=colour, label=name, marker="o", ms=3)
        axes.axhline(0.0, color=INK, lw=0.8)
        axes.set_xlim(0.0, frequency[-1] * 1.02)
        axes.set_ylim(-0.6, 1.3)
        axes.set_yticks([-0.5, 0.0, 0.5, 1.0])
        axes.set_xlabel("spatial frequency (1/Å)")
        axes.set_ylabel("Fourier shell correlation")
        axes.legend(loc="upper right", ncols=3)
        angstrom_axis(axes, float(frequency[-1]))
    return figure


def angstrom_axis(axes: Axes, nyquist: float) -> None:
    """Second axis on top, labelled with the resolution in Å at round values."""
    top = axes.secondary_xaxis("top")
    candidates = (100, 50, 40, 30, 25, 20, 15, 12, 10, 9, 8, 7, 6, 5, 4.5, 4, 3.5, 3, 2.75, 2.5, 2.25, 2)
    ticks: list[float] = []
    for value in candidates:
        position = 1.0 / value
        if position <= nyquist * 0.88 and (not ticks or position - 1.0 / ticks[-1] > 0.065 * nyquist):
            ticks.append(float(value))
    labels = [f"{tick:g}" for tick in ticks] + [f"{1.0 / nyquist:.1f}"]
    top.set_xticks([1.0 / tick for tick in ticks] + [nyquist], labels)
    top.set_xlabel("resolution (Å)")


def guinier_plot(
    frequency_squared: NDArray[np.float64],
    original: NDArray[np.float64],
    weighted: NDArray[np.float64],
    sharpened: NDArray[np.float64],
    line: tuple[NDArray[np.float64], NDArray[np.float64], float] | None,
) -> Figure:
    """Logarithms of amplitudes `(S,)` against 1/d² in 1/Å²; `line` has the ends of the fit and its B-factor in Å²."""
    with style():
        figure = new_figure(5.6, 3.7)
        axes = figure.add_axes((0.105, 0.135, 0.865, 0.72))
        for values, name, colour in (
            (original, "mean of the halves", GREY),
            (weighted, "weighted by the FSC", BLUE),
            (sharpened, "sharpened", GREEN),
        ):
            shown = np.isfinite(values)
            shown[0] = False
            axes.plot(frequency_squared[shown], values[shown], color=colour, label=name)
        if line is not None:
            x, y, bfactor = line
            axes.plot(x, y, color=VERMILION, ls="--", label=f"fit: B-factor {bfactor:.0f} Å²")
        axes.set_xlabel("1/d² (1/Å²)")
        axes.set_ylabel("ln amplitude")
        axes.legend(loc="upper right")
        top = axes.secondary_xaxis("top")
        last = float(frequency_squared[-1])
        places = [d for d in (20, 14, 10, 8, 7, 6, 5, 4.5, 4, 3.5, 3, 2.75, 2.5, 2.25, 2) if 1 / d**2 < last]
        kept: list[float] = []
        for d in places:
            if not kept or 1 / d**2 - 1 / kept[-1] ** 2 > 0.07 * last:
                kept.append(d)
        top.set_xticks([1 / d**2 for d in kept], [f"{d:g}" for d in kept])
        top.set_xlabel("resolution (Å)")
    return figure


_PANELS: tuple[tuple[str, str, tuple[tuple[str, str, str], ...]], ...] = (
    (
        "resolution",
        "Å",
        (
            ("fsc0143_angstrom", "FSC 0.143", BLUE),
            ("resolution_angstrom", "FSC 0.5", GREY),
        ),
    ),
    (
        "orientations",
        "°",
        (
            ("angular_step_deg", "sampling", GREY),
            ("accuracy_deg", "accuracy the data allow", GREEN),
            ("change_deg", "change since last iteration", VERMILION),
        ),
    ),
    (
        "positions",
        "Å",
        (
            ("accuracy_angstrom", "accuracy the data allow", GREEN),
            ("change_angstrom", "change since last iteration", VERMILION),
        ),
    ),
    (
        "certainty",
        "share",
        (
            ("max_probability", "posterior of the main peak, or best grid point; mean", BLUE),
            ("sharp", "particles whose posterior is a few Gaussians", GREEN),
        ),
    ),
)


def iteration_curves(rows: Sequence[Mapping[str, Scalar]], nyquist_angstrom: float | None) -> Figure:
    """Resolution, sampling, accuracy, changes and certainty of every iteration, from the rows of its table.

    Without `nyquist_angstrom` there is no line where the images end.
    """
    with style():
        figure = new_figure(9.6, 4.9)
        figure.subplots_adjust(left=0.065, right=0.985, bottom=0.1, top=0.94, hspace=0.34, wspace=0.16)
        numbers = [float(row["iteration"] or 0) for row in rows]
        for place, (title, unit, series) in enumerate(_PANELS, start=1):
            axes = figure.add_subplot(2, 2, place)
            for key, label, colour in series:
                values = [_number(row.get(key)) for row in rows]
                if np.isfinite(values).any():
                    axes.plot(numbers, values, "o-", color=colour, label=label, ms=3.5)
            if title == "resolution" and nyquist_angstrom is not None:
                axes.axhline(nyquist_angstrom, color=GREY, lw=0.9, ls=":", label="Nyquist")
            if place > 2:
                axes.set_xlabel("iteration")
            # room for the legend above the curves
            axes.set_ylim(0.0, 1.45 if title == "certainty" else axes.get_ylim()[1] * 1.5)
            if title == "certainty":
                axes.set_yticks([0.0, 0.25, 0.5, 0.75, 1.0])
            axes.set_title(title, loc="left")
            axes.set_ylabel(unit)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            if axes.get_legend_handles_labels()[0]:
                axes.legend(loc="upper right", ncols=2 if title == "orientations" else 1)
    return figure


def _number(value: Scalar) -> float:
    return float(value) if isinstance(value, (int, float)) else float("nan")
