"""Pages of the disk in a browser without a network."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
from numpy.typing import NDArray

ARGUMENTS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
"""WebGL without a graphics card."""
LARGEST = 6e6

# Pictures without any ink: a white PNG, an SVG without paths.  Text that is wider than its box, and a page wider than
# the screen.
EMPTY = """() => Promise.all([...document.querySelectorAll('.picture')].map(async box => {
    const title = box.closest('section').querySelector('h2').innerText, svg = box.querySelector('svg');
    if (svg) return svg.querySelectorAll('path, use').length > 5 && svg.clientWidth > 100 ? '' : title;
    const image = box.querySelector('img');
    await image.decode();
    const canvas = document.createElement('canvas');
    canvas.width = 200; canvas.height = 200;
    const context = canvas.getContext('2d');
    context.drawImage(image, 0, 0, 200, 200);
    const values = new Set(context.getImageData(0, 0, 200, 200).data);
    return values.size > 20 && image.naturalWidth > 100 ? '' : title;
}))"""
WIDE = """() => [...document.querySelectorAll('main, section, .facts div, pre, .picture')]
    .filter(one => one.getBoundingClientRect().right > innerWidth + 1).map(one => one.className || one.tagName)"""


class Opened:
    """A page of the disk, and what it did."""

    def __init__(self, browser: Any, path: Path, width: int = 1280, scheme: str = "light") -> None:
        self.context = browser.new_context(
            offline=True, viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce"
        )
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda line: self.errors.append(line.text) if line.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(path.resolve().as_uri())

    def start_viewers(self) -> list[Any]:
        """Click every button, wait until the surfaces are drawn; the panels."""
        panels = list(self.page.query_selector_all(".surface"))
        for panel in panels:
            panel.query_selector("button").click()
        for panel in panels:
            self.page.wait_for_function("panel => panel.dataset.state", arg=panel, timeout=60_000)
        return panels

    def close(self) -> None:
        """Forget the page."""
        self.context.close()


def drawn(panel: Any) -> NDArray[np.bool_]:
    """Pixels of the canvas that are not background, without its frame and the small axes in its corner."""
    image = matplotlib.image.imread(io.BytesIO(panel.query_selector(".canvas").screenshot()))[..., :3]
    found = np.abs(image - image[20, 20]).max(axis=2) > 0.02
    found[:3] = found[-3:] = found[:, :3] = found[:, -3:] = False
    found[-160:, -200:] = False
    return np.asarray(found)


def check_report(browser: Any, path: Path, *, surface: bool = False, started: bool = False) -> None:
    """Nothing is asked of a network, no picture is empty or without words, nothing is wider than the screen.

    `surface`: there is a viewer; `started`: start it, which takes seconds.
    """
    assert path.stat().st_size < LARGEST
    opened = Opened(browser, path, width=560)
    page = opened.page
    assert [title for title in page.evaluate(EMPTY) if title] == []
    assert page.query_selector_all(".picture")
    panels = page.query_selector_all(".surface")
    assert len(panels) == surface
    if started:
        for panel in opened.start_viewers():
            assert panel.get_attribute("data-state") == "drawn"
            page.wait_for_timeout(200)
            assert 0.02 < drawn(panel).mean() < 0.9
    assert opened.errors == []
    assert opened.requests == [path.resolve().as_uri()]
    for width, scheme in ((1280, "light"), (390, "dark")):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate(WIDE) == [], (width, scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    # Lines have their numbers in the page or in a file that the caption names; pictures of maps and images show files.
    plain = "section:has(.picture svg):not(:has(a[download], table)) .caption"
    untold = [caption.inner_text() for caption in page.query_selector_all(plain)]
    assert [text for text in untold if not re.search(r"\w\.(csv|json|star)\b", text)] == []
    silent = "section:has(.picture):not(:has(.caption)) h2"
    assert [title.inner_text() for title in page.query_selector_all(silent)] == []
    opened.close()
