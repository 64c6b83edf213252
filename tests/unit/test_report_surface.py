from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tiltwise.report import viewer
from tiltwise.report.html import Section, Summary, render
from tiltwise.report.surface import COPY_PX, Colouring, contour_of, display_copy, shaded_picture, surface_panel
from tiltwise.spectral.masks import distances


def ball(size: int, radius: float) -> NDArray[np.float32]:
    """1 inside, 0 outside, falling over four voxels."""
    return np.asarray(np.clip(0.5 + (radius - distances(size, 3)) / 4.0, 0.0, 1.0), dtype=np.float32)


def page(*sections: Section) -> str:
    return render("Surface", Summary("x", {}), sections)


def data_of(text: str) -> dict[str, Any]:
    match = re.search(r'<script type="application/json">(.*?)</script>', text)
    assert match is not None
    content: dict[str, Any] = json.loads(match[1])
    return content


def test_copy_is_cropped_to_the_mask_and_keeps_lengths() -> None:
    density = np.zeros((64, 64, 64), np.float32)
    density[40:52, 8:20, 30:42] = 1.0
    mask = (density > 0).astype(np.float32)
    copy = display_copy(density, 3.0, None, mask)
    assert copy.values.shape == (16, 16, 16)
    assert copy.pixel_size == 3.0
    assert copy.corner == (38, 6, 28)
    np.testing.assert_array_equal(copy.values[2:14, 2:14, 2:14], 1.0)
    assert copy.values.sum() == density.sum()


def test_large_maps_are_made_smaller_and_keep_their_volume() -> None:
    density = ball(150, 60.0)
    copy = display_copy(density, 2.0)
    assert copy.values.shape == (COPY_PX,) * 3
    assert copy.pixel_size == pytest.approx(2.0 * 150 / COPY_PX)
    volume = (copy.values > 0.5).sum() * copy.pixel_size**3
    assert volume == pytest.approx((density > 0.5).sum() * 8.0, rel=0.02)


def test_copy_is_low_passed_only_where_the_resolution_is_coarser_than_the_voxels() -> None:
    noise = np.random.default_rng(1).normal(size=(32, 32, 32)).astype(np.float32)
    assert display_copy(noise, 4.0, 7.9).low_pass_angstrom is None
    filtered = display_copy(noise, 4.0, 24.0)
    assert filtered.low_pass_angstrom == 24.0
    assert filtered.values.std() < 0.3 * display_copy(noise, 4.0).values.std()


def test_empty_and_broken_maps_have_a_panel(recwarn: pytest.WarningsRecorder) -> None:
    for value in (0.0, np.nan, -1.0):
        section = surface_panel(np.full((16, 16, 16), value, np.float32), 4.0)
        assert section.figure is not None
        assert "nan" not in data_of(page(section)).values()
    assert len(recwarn) == 0


def test_contour_lies_between_particle_and_solvent() -> None:
    rng = np.random.default_rng(2)
    density = ball(48, 14.0) + rng.normal(0, 0.05, (48, 48, 48)).astype(np.float32)
    assert 0.25 < contour_of(display_copy(density, 4.0)) < 0.75


def test_bytes_in_the_page_are_the_map() -> None:
    density = 2.5 * ball(32, 10.0)
    content = data_of(page(surface_panel(density, 4.0, 1.25)))
    raw = zlib.decompress(base64.b64decode(content["values"]))
    found = np.frombuffer(raw, np.uint8).reshape((content["size"],) * 3)
    assert content["width"] == 128.0
    assert content["contour"] == 1.25
    step = (content["high"] - content["low"]) / 255
    np.testing.assert_allclose(content["low"] + step * found, density, atol=0.5 * step + 1e-6)


def test_picture_is_lit_from_above_and_shows_the_near_side() -> None:
    sphere = shaded_picture(ball(40, 12.0), 0.5, "+z")
    size = sphere.shape[0]
    row, column = round(0.70 * size), round(0.35 * size)
    assert sphere[row, column].sum() > 1.3 * sphere[size - row, size - column].sum()
    assert (sphere[0] == 1.0).all()
    halves = ball(40, 12.0)
    halves[:20] *= 0.6  # the near side from -z is below the contour
    near, far = (shaded_picture(halves, 0.7, side).min(axis=2) for side in ("+z", "-z"))
    np.testing.assert_array_equal(near < 1, (far < 1)[:, ::-1])
    assert np.abs(near - far[:, ::-1]).max() > 0.1


def test_colours_are_those_of_the_other_map() -> None:
    density = ball(40, 14.0)
    values = np.broadcast_to(np.linspace(4.0, 12.0, 40, dtype=np.float32), density.shape)  # along x
    section = surface_panel(density, 4.0, 0.5, colour=Colouring(values, "resolution (Å)", 4.0, 12.0))
    content = data_of(page(section))
    colour = np.frombuffer(zlib.decompress(base64.b64decode(content["colour"])), np.uint8)
    colour = colour.reshape((content["size"],) * 3)
    assert colour[:, :, 0].max() == 0
    assert colour[:, :, -1].min() == 255
    assert len(content["map"]) % 4 == 0


def test_policy_allows_the_two_programs_and_nothing_else() -> None:
    text = page(surface_panel(ball(32, 10.0), 4.0))
    match = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert match is not None
    policy = html.unescape(match[1])
    assert "default-src 'none'" in policy
    assert not re.search(r"unsafe-eval|script-src[^;]*unsafe-inline|https?:|\*", policy)
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    packed = re.search(r'id="k3d">([^<]*)<', text)
    assert packed is not None
    scripts.append(zlib.decompress(base64.b64decode(packed[1])).decode("utf-8"))
    hashes = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in scripts]
    assert re.findall(r"sha256-([^']*)'", policy) == hashes
    assert len(hashes) == 2


def test_k3d_is_in_the_page_once() -> None:
    panel = surface_panel(ball(24, 8.0), 4.0)
    one, two = page(panel), page(panel, panel)
    assert len(two) - len(one) < 0.2e6
    assert len(one) < 1.6e6


def test_without_k3d_the_pictures_remain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewer, "_program_file", lambda: None)
    text = page(surface_panel(ball(24, 8.0), 4.0))
    assert "pip install &#39;tiltwise[viz]&#39;" in text
    assert "<script" not in text
    assert "script-src" not in text
    assert text.count("<img") == 1


def test_equal_maps_have_equal_pages() -> None:
    assert page(surface_panel(ball(24, 8.0), 4.0)) == page(surface_panel(ball(24, 8.0), 4.0))


def test_pictures_and_camera_look_at_what_is_above_the_contour() -> None:
    density = np.zeros((64, 64, 64), np.float32)
    density[40:48, 20:28, 30:38] = 1.0  # z, y, x
    copy = display_copy(density, 2.0)
    x, y, z, side = copy.focus_angstrom(0.5)
    # The centre of the box is between voxels 31 and 32.
    assert (x, y, z) == (2.0 * (34 - 32), 2.0 * (24 - 32), 2.0 * (44 - 32))
    assert side == 2.0 * 12
    assert copy.focus_angstrom(2.0) == (0.0, 0.0, 0.0, 128.0)
