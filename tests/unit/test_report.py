from __future__ import annotations

import base64
import csv
import io
import re
import zlib
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tiltwise.errors import OutputError
from tiltwise.geometry.rotations import euler_to_matrix, matrix_to_euler
from tiltwise.geometry.symmetry import symmetry_matrices
from tiltwise.report.alignment import arrows, residual_curves, trails
from tiltwise.report.curves import fsc_curves, iteration_curves
from tiltwise.report.html import Section, Summary, Table, render, write_report
from tiltwise.report.maps import length_text, map_slices, scale_length
from tiltwise.report.particles import (
    angular_distribution,
    evenness,
    mollweide,
    pose_histograms,
    positions_on_tilt,
    viewing_directions,
)
from tiltwise.report.pdf import Picture, write_pdf
from tiltwise.report.style import grey_levels, inline_png, inline_svg, new_figure, png_bytes, style, svg_and_png

RNG = np.random.default_rng(3)


def random_rotations(n: int) -> NDArray[np.float64]:
    angles = np.stack(
        [RNG.uniform(-180, 180, n), np.degrees(np.arccos(RNG.uniform(-1, 1, n))), RNG.uniform(-180, 180, n)], axis=1
    )
    return euler_to_matrix(angles)


def texts(figure: Figure) -> str:
    """All text of a figure, axes titles, legends and labels."""
    from matplotlib.text import Text

    return "\n".join(item.get_text() for item in figure.findobj(Text))  # type: ignore[attr-defined]


ROWS: list[dict[str, Any]] = [
    {"iteration": i, "resolution_angstrom": 20.0 - i, "fsc0143_angstrom": 15.0 - i, "angular_step_deg": 7.5}
    for i in range(1, 5)
]


def figures() -> dict[str, Figure]:
    density = RNG.normal(size=(16, 16, 16)).astype(np.float32)
    return {
        "maps": map_slices({"map": density, "half 1": density}, 4.0, 40.0),
        "fsc": fsc_curves({"half maps": np.linspace(1, -0.05, 17)}, 4.0),
        "iterations": iteration_curves(ROWS, 8.0),
        "angles": angular_distribution(random_rotations(30), symmetry_matrices("C3")),
        "many angles": angular_distribution(random_rotations(3200)),
        "positions": positions_on_tilt(
            RNG.normal(size=(60, 80)).astype(np.float32), np.array([[10.0, 20.0]]), 12.0, 4.0, "TS_01"
        ),
        "poses": pose_histograms(RNG.uniform(size=20), RNG.uniform(size=20), RNG.uniform(size=20)),
    }


@pytest.fixture(scope="module")
def page() -> str:
    sections = [
        Section(name, "What it means.", figure=figure, data=Table(["a", "b"], [[1, 2.5], ["x", None]]), shape="wide")
        for name, figure in figures().items()
    ]
    sections.append(Section("Photo", figure=figures()["maps"], form="png"))
    sections.append(Section("Options", table=Table(["option", "value"], [["a", 3.14159], ["<b>", True]]), folded=True))
    summary = Summary("Found 8.8 Å & more.", {"resolution": "8.8 Å"}, ["<careful>"], "tiltwise reconstruct --i x")
    return render("Refine <job>", summary, sections)


class Page(HTMLParser):
    """Collects what a browser would load, run or name."""

    VOID = frozenset({"meta", "img", "br", "link", "hr", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.unlabelled: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags[tag] += 1
        if tag not in self.VOID:
            self.open.append(tag)
        self.links += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href", "srcset", "action")]
        if values.get("id"):
            self.ids.append(str(values["id"]))
        if (tag == "img" and not values.get("alt")) or (tag == "svg" and not values.get("aria-label")):
            self.unlabelled.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_needs_no_network_and_runs_no_script(page: str) -> None:
    parsed = Page()
    parsed.feed(page)
    assert parsed.open == []
    assert re.search(r"https?:|//[a-z]|@import|url\((?!#)", re.sub(r"base64,[^\"']*", "", page)) is None
    assert all(link.startswith(("data:", "#")) for link in parsed.links)
    assert not {"script", "link", "iframe", "object", "base"} & set(parsed.tags)
    assert parsed.tags["svg"] == 7
    assert parsed.unlabelled == []


def test_names_inside_the_pictures_do_not_clash_with_other_content(page: str) -> None:
    parsed = Page()
    parsed.feed(page)
    targets = {link[1:] for link in parsed.links if link.startswith("#")}
    targets |= set(re.findall(r"url\(#([^)]+)\)", page))
    assert targets <= set(parsed.ids)
    # Equal names are equal shapes: they are hashes of their content.
    content: dict[str, str] = {}
    for name, body in re.findall(r'<(?:clipPath|path) id="([^"]+)"(.*?)(?:</clipPath>|/>)', page, flags=re.DOTALL):
        assert content.setdefault(name, body) == body


def test_text_is_escaped(page: str) -> None:
    assert "<title>Refine &lt;job&gt;</title>" in page
    assert "&lt;careful&gt;" in page
    assert "<td>&lt;b&gt;</td>" in page
    assert "<td>yes</td>" in page
    assert '<td class="number">3.142</td>' in page


def test_dark_and_light_are_both_described(page: str) -> None:
    assert "prefers-color-scheme: dark" in page
    assert '<meta name="color-scheme" content="light dark">' in page


def test_data_behind_a_figure_can_be_saved(page: str) -> None:
    match = re.search(r'<a download="fsc.csv" href="data:text/csv;charset=utf-8;base64,([^"]+)">', page)
    assert match is not None
    rows = list(csv.reader(io.StringIO(base64.b64decode(match.group(1)).decode("utf-8"))))
    assert rows == [["a", "b"], ["1", "2.5"], ["x", ""]]


def test_report_is_written_atomically_and_reports_trouble(tmp_path: Path) -> None:
    summary = Summary("x", {})
    write_report(tmp_path / "report.html", "t", summary, [])
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    with pytest.raises(OutputError):
        write_report(tmp_path / "none" / "report.html", "t", summary, [])


def test_equal_figures_have_equal_bytes() -> None:
    density = np.arange(4096, dtype=np.float32).reshape(16, 16, 16)
    first, second = (map_slices({"map": density}, 4.0) for _ in range(2))
    assert png_bytes(first) == png_bytes(second)
    assert inline_svg(first, "a") == inline_svg(second, "a")
    assert inline_png(png_bytes(first), 'a "b"').startswith('<img alt="a &quot;b&quot;" src="data:image/png;base64,')


def test_a_figure_drawn_once_is_that_drawn_twice() -> None:
    values = np.linspace(0.0, 1.0, 40)
    curves = fsc_curves({"a": values[::-1], "b": values[::-1] ** 2}, 4.0)
    directions = angular_distribution(random_rotations(60))
    field = arrows([("a", 100 * RNG.random((60, 2)), RNG.normal(size=(60, 2)))], (100, 100), 3.0)
    for figure in (curves, directions, field):
        svg, png = svg_and_png(figure, "x")
        assert svg == inline_svg(figure, "x")
        one, two = (matplotlib.image.imread(io.BytesIO(image)) for image in (png, png_bytes(figure)))
        assert one.shape == two.shape
        assert np.abs(one - two).mean() < 6e-3  # letters may lie a pixel elsewhere
        assert abs(one.mean() - two.mean()) < 1e-4
    # images, and bars of colours, which SVG holds as images
    mesh = new_figure(2.0, 2.0)
    mesh.add_subplot().pcolormesh(np.arange(6.0).reshape(2, 3))
    for figure in (figures()["maps"], figures()["many angles"], mesh):
        assert svg_and_png(figure, "x") == (inline_svg(figure, "x"), png_bytes(figure))


def test_names_are_no_formulas() -> None:
    density = np.arange(512, dtype=np.float32).reshape(8, 8, 8)
    figure = map_slices({"a$\\frac$": density}, 4.0)
    assert "a$\\frac$" in inline_svg(figure, "a")
    assert len(png_bytes(figure)) > 1000


def test_a_single_particle_has_room_around_it() -> None:
    point, moved, one = np.array([[230.0, 1100.0]]), np.array([[3.0, -2.0]]), np.ones(2)
    fields = [("before", point, moved, "black"), ("after", point, moved, "black")]
    figures = [residual_curves(30.0 * one, one, one, one, fields, [5.0, 5.0])]
    figures.append(trails(np.array([[230.0, 1100.0, 0.0]]), np.zeros((1, 3, 3)), 1.0))
    for figure in figures:
        assert np.ptp(figure.axes[-1].get_xlim()) > 50.0


def test_letters_that_the_font_lacks_are_no_warning() -> None:
    """Warnings are errors in tests."""
    with style():
        figure = new_figure(2.0, 2.0)
        figure.text(0.1, 0.5, "试 < &")
    assert "试 &lt; &amp;" in svg_and_png(figure, "x")[0]


def test_names_that_look_like_attributes_stay() -> None:
    name = 'a id="b" xmlns="c" and id="'
    with style():
        figure = new_figure(2.0, 2.0)
        for height in (0.3, 0.6):
            figure.text(0.1, height, name)
    assert inline_svg(figure, "x").count(f">{name}</text>") == 2


def test_log_file_has_text_and_the_pixels_of_the_page(tmp_path: Path) -> None:
    figure = map_slices({"map": np.arange(512, dtype=np.float32).reshape(8, 8, 8)}, 4.0)
    png = png_bytes(figure)
    section = Section("Maps (1)", "Resolution ≤ 4 Å: " + "many words " * 40, figure=figure, form="png")
    write_pdf(
        tmp_path / "log.pdf", "x", Summary("Größe 文", {"a": "1"}), [(section, Picture(png, figure.get_figwidth()))]
    )
    content = (tmp_path / "log.pdf").read_bytes()
    start = int(content[content.rindex(b"startxref") :].split()[1])
    places = [int(line[:10]) for line in content[start:].split(b"\n")[3:] if line.endswith(b"00000 n ")]
    assert [content[place:].split(b" ", 1)[0] for place in places] == [b"%d" % (n + 1) for n in range(len(places))]
    found = list(re.finditer(rb"<< ([^\n]*) /Length (\d+) >>\nstream\n", content))
    streams = [one[1] for one in found]
    data = [content[one.end() :][: int(one[2])] for one in found]
    assert len(streams) == 3
    first, second = (zlib.decompress(data[n]) for n in (0, 2))
    assert "(Größe ?) Tj".encode("cp1252") in first
    assert rb"(Maps \(1\)) Tj" in second
    assert "Resolution <= 4 Å".encode("cp1252") in second
    height, width, _ = matplotlib.image.imread(io.BytesIO(png)).shape
    assert f"/Width {width} /Height {height}".encode() in streams[1]
    assert len(zlib.decompress(data[1])) == height * (1 + 3 * width)


def test_fsc_figure_states_resolution_and_says_when_it_ends_at_nyquist() -> None:
    falling = np.interp(np.arange(17), [0, 8, 16], [1.0, 0.5, 0.0])
    figure = fsc_curves(
        {"half maps": falling, "to truth": falling, "good": np.ones(17)}, 4.0, thresholds={"to truth": 0.5}
    )
    text = texts(figure)
    # 32 voxels of 4 Å: 0.5 is reached in shell 8 (16 Å), 0.143 at 8 + 8 * 0.357 / 0.5 = 13.71 (9.3 Å).
    assert "to truth: 16.0 Å at 0.5" in text
    assert "half maps: 9.3 Å at 0.143" in text
    assert "good: above 0.143 to Nyquist" in text
    assert "Nyquist" in text


def test_iteration_figure_leaves_out_what_the_rows_do_not_have() -> None:
    text = texts(iteration_curves(ROWS, 8.0))
    assert "FSC 0.143" in text
    assert "accuracy the data allow" not in text


def test_mollweide_keeps_areas_and_fits_its_ellipse() -> None:
    longitude, z = np.meshgrid(np.linspace(-np.pi, np.pi, 13), np.linspace(-1, 1, 11))
    points = mollweide(longitude, np.arcsin(z))
    # The ellipse has half axes 2 sqrt 2 and sqrt 2; its rim is the meridian of 180 degrees.
    rim = (points[..., 0] / np.sqrt(8.0)) ** 2 + (points[..., 1] / np.sqrt(2.0)) ** 2
    np.testing.assert_allclose(rim[:, [0, -1]], 1.0, atol=1e-6)
    assert rim.max() <= 1.0 + 1e-6
    # Jacobian in (longitude, sin latitude) is 1 everywhere, by central differences of step h (error about h^2).
    h, lon, lat = 1e-4, 0.7, np.linspace(-1.2, 1.2, 9)
    east = (mollweide(np.full(9, lon + h), lat) - mollweide(np.full(9, lon - h), lat)) / (2 * h)
    north = (mollweide(np.full(9, lon), lat + h) - mollweide(np.full(9, lon), lat - h)) / (2 * h) / np.cos(lat)[:, None]
    np.testing.assert_allclose(east[:, 0] * north[:, 1] - east[:, 1] * north[:, 0], 1.0, rtol=1e-5)


def test_viewing_direction_has_the_angles_rot_and_tilt() -> None:
    rotations = random_rotations(20)
    rot, tilt, _ = np.radians(matrix_to_euler(rotations)).T
    expected = np.stack([np.sin(tilt) * np.cos(rot), np.sin(tilt) * np.sin(rot), np.cos(tilt)], axis=1)
    np.testing.assert_allclose(viewing_directions(rotations), expected, atol=1e-12)


def test_symmetry_copies_of_a_direction_are_those_of_equivalent_poses() -> None:
    group = symmetry_matrices("D3")
    rotation = random_rotations(1)
    copies = viewing_directions(rotation, group)
    equivalent = viewing_directions(np.einsum("ij,gjk->gik", rotation[0], group))
    assert copies.shape == (6, 3)
    for direction in equivalent:
        assert np.abs(copies - direction).max(axis=1).min() < 1e-12


def test_evenness_of_known_distributions() -> None:
    assert evenness(np.concatenate([np.eye(3), -np.eye(3)])) == pytest.approx(1.0)
    assert evenness(np.array([[1.0, 0, 0], [0, 1.0, 0]])) == pytest.approx(0.0)


@pytest.mark.parametrize("width, length, text", [(256.0, 50.0, "50 Å"), (1000.0, 200.0, "20 nm"), (40.0, 10.0, "10 Å")])
def test_scale_bars_are_round_and_fit(width: float, length: float, text: str) -> None:
    assert scale_length(width) == length
    assert length_text(length) == text


def test_grey_levels_of_awkward_images() -> None:
    assert grey_levels(np.zeros((4, 4))) == (0.0, 1.0)
    assert grey_levels(np.full((4, 4), np.nan)) == (0.0, 1.0)
    assert grey_levels(np.array([np.nan, 1.0, 3.0]), 0, 100) == (1.0, 3.0)
