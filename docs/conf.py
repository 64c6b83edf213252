"""Configuration of Sphinx: `pip install ".[docs]" && sphinx-build -W docs build/docs`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "tiltwise"
author = "tiltwise developers"
copyright = author

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "docstrings", "option_tables", "source_links"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_timeout = 120
nb_execution_raise_on_error = True

default_role = "literal"  # docstrings put code between single backticks
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
maximum_signature_line_length = 100
napoleon_google_docstring = False
napoleon_use_rtype = False

smartquotes = False  # two hyphens are those of an option
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_title = "tiltwise"
