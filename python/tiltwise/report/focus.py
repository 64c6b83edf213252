"""What a report shows of a refinement of a part: its mask, and what is taken off the images."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tiltwise.em.focus import Focus
from tiltwise.exec.protocols import Scalar
from tiltwise.maps.subtraction import Removal
from tiltwise.report.curves import angstrom_axis
from tiltwise.report.html import Section, Table
from tiltwise.report.maps import map_slices
from tiltwise.report.masked import masked_slices
from tiltwise.report.style import BLUE, GREY, VERMILION, new_figure, style


def focus_sections(focus: Focus) -> list[Section]:
    """Sections of a refinement with --focus that subtracts."""
    frame = focus.frame
    if focus.consensus is None or focus.removal is None or focus.averages is None:
        return []
    density = focus.consensus.density
    assert density is not None
    before, after = focus.averages
    rest = np.asarray(np.mean(list(focus.consensus.rest.values()), axis=0), np.float32)
    maps = {"before": before, "after": after, "taken off": focus.around(rest)}
    removal = focus.removal
    frequency = np.arange(len(removal.before)) / (len(frame.mask) * frame.pixel_size)
    values = np.stack([frequency, removal.before, removal.after, removal.predicted], axis=1)
    rows: list[list[Scalar]] = [[float(one) for one in row] for row in values]
    return [
        Section(
            "The part and its mask",
            "The particle as its poses in the file give it, in the box about the part, and the mask. Worry if the mask "
            "cuts through density that moves with the part, or holds much that does not.",
            figure=masked_slices(focus.around(density), frame.mask, frame.pixel_size),
            form="png",
        ),
        Section(
            "Subtraction",
            "Averages of the same few particles, images as they are and without what is taken off. Worry if "
            "after subtraction the rest is still there, or is a hole.",
            figure=map_slices(maps, frame.pixel_size, frame.diameter_angstrom),
            form="png",
            shape="wide",
        ),
        Section(
            "Power that was subtracted",
            f"By how much the subtraction lowers the power of {removal.images} images, and the power of the "
            f"prediction, which it is if that is right. Images hold {removal.scale:.3f} ± {removal.scale_error:.3f} "
            "times the prediction. Worry if that is not 1.",
            figure=removal_curves(removal, frequency),
            data=Table(["1/Å", "before", "after", "predicted"], rows),
        ),
    ]


def removal_curves(removal: Removal, frequency: NDArray[np.float64]) -> Figure:
    """Power before less power after, and power of the prediction, over the power before; shells at 1/Å."""
    with style():
        figure = new_figure(5.6, 3.2)
        axes = figure.add_axes((0.115, 0.155, 0.855, 0.66))
        whole = np.where(removal.before > 0, removal.before, 1.0)
        axes.axhline(0.0, color=GREY, lw=0.8)
        axes.plot(frequency, removal.predicted / whole, color=BLUE, label="predicted")
        axes.plot(frequency, (removal.before - removal.after) / whole, color=VERMILION, label="taken off", ls="--")
        axes.set_xlabel("spatial frequency (1/Å)")
        axes.set_ylabel("share of the power of images")
        axes.set_xlim(0.0, float(frequency[-1]))
        axes.legend(loc="upper right")
        angstrom_axis(axes, float(frequency[-1]))
    return figure
