"""The surface in the browser is the surface of the map, the right way round."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from helpers.browser import Opened, drawn
from tiltwise.report.html import Summary, write_report
from tiltwise.report.surface import VIEWS, Colouring, shaded_picture, surface_panel

pytest.importorskip("k3d")


def hook() -> NDArray[np.float32]:
    """A body that no rotation turns into its mirror image."""
    density = np.zeros((48, 48, 48), np.float32)
    for x, y, z in (((10, 38), (10, 16), (10, 28)), ((10, 16), (10, 38), (10, 16)), ((30, 36), (10, 30), (22, 36))):
        density[slice(*z), slice(*y), slice(*x)] = 1.0
    return np.asarray(ndimage.gaussian_filter(density, 1.0), dtype=np.float32)


def silhouette(picture: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What is drawn, filling a square of 64."""
    rows, columns = (np.flatnonzero(picture.any(axis=axis)) for axis in (1, 0))
    part = picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(float)
    places = np.meshgrid(*(np.linspace(0, n - 1, 64) for n in part.shape), indexing="ij")
    return np.asarray(ndimage.map_coordinates(part, places, order=1) > 0.5)


def hues(panel: Any) -> int:
    """How many colours there are but for their brightness, in coarse steps."""
    image = matplotlib.image.imread(io.BytesIO(panel.query_selector(".canvas").screenshot()))[:-160, :, :3]
    colours = image[image.std(axis=2) > 0.05]
    steps = np.round(8 * colours / colours.sum(axis=1, keepdims=True))
    return len(np.unique(steps, axis=0))


def test_the_surface_is_that_of_the_pictures_and_follows_the_slider(browser: Any, tmp_path: Path) -> None:
    density = hook()
    paint = Colouring(np.broadcast_to(np.arange(48, dtype=np.float32), density.shape), "x (voxels)", 0.0, 47.0)
    sections = [surface_panel(density, 4.0, 0.5), surface_panel(density, 4.0, 0.5, title="Painted", colour=paint)]
    write_report(tmp_path / "report.html", "Hook", Summary("x", {}), sections)
    opened = Opened(browser, tmp_path / "report.html", width=640)
    panel, painted = opened.start_viewers()
    assert [one.get_attribute("data-state") for one in (panel, painted)] == ["drawn", "drawn"]
    assert hues(painted) > 3 * hues(panel) > 0
    expected = {side: silhouette(shaded_picture(density, 0.5, side).min(axis=2)[::-1] < 1) for side in VIEWS}
    for side, direction in (("+z", (0, 0, 1)), ("-y", (0, -1, 0)), ("+x", (1, 0, 0))):
        place = [4000.0 * value for value in direction]  # far away: no perspective
        up = [0, 1, 0] if direction[2] else [0, 0, 1]
        opened.page.evaluate(
            "([panel, place, up]) => { panel.viewer.setCameraFOV(4); "
            "panel.viewer.setCamera([...place, 0, 0, 0, ...up]); panel.viewer.render(); }",
            [panel, place, up],
        )
        opened.page.wait_for_timeout(200)
        seen = silhouette(drawn(panel))
        shares = {name: float((seen & other).sum() / (seen | other).sum()) for name, other in expected.items()}
        assert shares[side] > 0.8, (side, shares)
        assert max(shares, key=lambda name: shares[name]) == side, shares
    sizes = []
    for contour in ("0.1", "0.5", "0.95"):
        opened.page.evaluate(
            "([panel, value]) => { const slider = panel.querySelector('input'); slider.value = value; "
            "slider.dispatchEvent(new Event('input')); }",
            [panel, contour],
        )
        opened.page.wait_for_timeout(700)
        sizes.append(int(drawn(panel).sum()))
    assert sizes[0] > 1.05 * sizes[1] > 1.1 * sizes[2] > 0, sizes
    assert panel.query_selector("output").inner_text().startswith("0.9")
    assert opened.errors == []
    assert opened.requests == [(tmp_path / "report.html").resolve().as_uri()]
    opened.close()
