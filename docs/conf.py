"""Configuration of Sphinx: `pip install ".[docs]" && sphinx-build -W docs build/docs`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "tiltwise"
author = "tiltwise developers"
copyright = author

extensions = ["myst_parser", "option_tables", "source_links"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
source_suffix = {".md": "markdown"}

html_theme = "furo"
html_title = "tiltwise"
