"""Names of code in the pages become links to its source, which is part of the site.

A literal `tiltwise.em.laplace.Climber` links to the line that defines the class,
`tests/unit/test_ctf.py::test_damage_curve` to the test, `cpp/include/tiltwise/body/slice.hpp` to the file.  A name that
is nowhere is a warning, hence an error of `sphinx-build -W`; `tests/docs` asks the same functions.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / "python"

_DOTTED = re.compile(r"tiltwise(\.[A-Za-z_]\w*)+")
_FILE = re.compile(r"((?:tests|bench|cpp|cuda|python|docs)/[\w./-]+\.(?:py|pyi|hpp|cpp|cu|toml))(?:::(\w+))?")
_SKIP = re.compile(r"tiltwise(\.\w+)*\.(star|mrc|json|html|so|def|sif)")


class NotThereError(LookupError):
    """A name in a page that no file defines."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is defined: a file relative to the root of the source tree, and a line from 1."""

    file: str
    line: int

    @property
    def page(self) -> str:
        """Name of the page of the site that shows the file."""
        return f"source/{self.file}"


def is_code(text: str) -> bool:
    """Whether a literal is a name that must be found."""
    return bool((_DOTTED.fullmatch(text) or _FILE.fullmatch(text)) and not _SKIP.fullmatch(text))


def locate(text: str) -> Place:
    """Where `text`, for which `is_code` holds, is defined.

    Raises
    ------
    NotThereError
        if nothing of that name exists.
    """
    found = _FILE.fullmatch(text)
    if found is None:
        return _locate_dotted(text)
    path = ROOT / found[1]
    if not path.is_file():
        raise NotThereError(f"{text}: there is no file {found[1]}")
    if found[2] is None:
        return Place(found[1], 1)
    node = _definitions(path).get(found[2])
    if node is None:
        raise NotThereError(f"{text}: {found[1]} has no {found[2]}")
    return Place(found[1], node.lineno)


def _locate_dotted(name: str) -> Place:
    words = name.split(".")
    for n in range(len(words), 0, -1):
        base = PYTHON.joinpath(*words[:n])
        for path in (base.with_suffix(".py"), base.with_suffix(".pyi"), base / "__init__.py"):
            if path.is_file():
                return _inside(name, path, words[n:])
    raise NotThereError(f"{name}: there is no such module")


def _inside(name: str, path: Path, words: list[str]) -> Place:
    """Place of the attributes `words` of a module, followed through imports and classes."""
    line, known = 1, _definitions(path)
    for i, word in enumerate(words):
        node = known.get(word)
        if node is None:
            raise NotThereError(f"{name}: {path.relative_to(ROOT)} has no {'.'.join(words[: i + 1])}")
        if isinstance(node, ast.ImportFrom):
            original = next(alias.name for alias in node.names if (alias.asname or alias.name) == word)
            return _locate_dotted(".".join([str(node.module), original, *words[i + 1 :]]))
        line = node.lineno
        known = _members(node.body) if isinstance(node, ast.ClassDef) else {}
    return Place(str(path.relative_to(ROOT)), line)


@cache
def _definitions(path: Path) -> dict[str, Any]:
    return _members(ast.parse(path.read_text(encoding="utf-8")).body)


def _members(body: list[ast.stmt]) -> dict[str, Any]:
    return {name: node for node in body for name in _names(node)}


def _names(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        yield node.name
    elif isinstance(node, ast.Assign):
        yield from (target.id for target in node.targets if isinstance(target, ast.Name))
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id
    elif isinstance(node, ast.ImportFrom):
        yield from (alias.asname or alias.name for alias in node.names)


# ---- Sphinx ---------------------------------------------------------------------------------------------


def setup(app: Any) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("doctree-resolved", _link)
    app.connect("html-collect-pages", _source_pages)
    app.connect("env-purge-doc", lambda app, env, docname: _linked(env).pop(docname, None))
    return {"parallel_read_safe": True, "parallel_write_safe": False}


def _linked(env: Any) -> dict[str, set[str]]:
    """Files that the pages link to, kept with Sphinx's environment."""
    if not hasattr(env, "tiltwise_sources"):
        env.tiltwise_sources = {}
    kept: dict[str, set[str]] = env.tiltwise_sources
    return kept


def _link(app: Any, doctree: Any, docname: str) -> None:
    from docutils import nodes
    from sphinx.util import logging

    if app.builder.format != "html":
        return
    for node in list(doctree.findall(nodes.literal)):
        text = node.astext()
        if not is_code(text) or isinstance(node.parent, nodes.reference):
            continue
        try:
            place = locate(text)
        except NotThereError as error:
            logging.getLogger(__name__).warning(str(error), location=docname)
            continue
        _linked(app.env).setdefault(docname, set()).add(place.file)
        uri = f"{app.builder.get_relative_uri(docname, place.page)}#L-{place.line}"
        link = nodes.reference("", "", refuri=uri, internal=True)
        node.replace_self(link)
        link += node


def _source_pages(app: Any) -> Iterator[tuple[str, dict[str, Any], str]]:
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_for_filename

    formatter = HtmlFormatter(lineanchors="L")
    for file in sorted(set().union(*_linked(app.env).values())):
        text = (ROOT / file).read_text(encoding="utf-8")
        lexer = get_lexer_for_filename("a.cpp" if file.endswith(".cu") else file)
        body = f"<h1>{file}</h1>\n{highlight(text, lexer, formatter)}"
        yield f"source/{file}", {"title": file, "body": body}, "page.html"
