"""Small XML files as a tree that knows its lines.

Entities and document types are refused: no program writes them here, and they can blow up a file of a few bytes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from xml.parsers import expat

from tiltwise.errors import FormatError
from tiltwise.io.foreign.text import TextFile, read_bytes

MAX_BYTES = 500_000_000
"""Size of a file that is still read."""


@dataclass(slots=True)
class Element:
    """One element: `text` is what stands before its first child; `line` and `text_line` count from 0."""

    tag: str
    attributes: dict[str, str]
    line: int
    text: str = ""
    text_line: int = 0
    children: list[Element] = field(default_factory=list)

    def child(self, tag: str) -> Element | None:
        """First child of that name."""
        return next((one for one in self.children if one.tag == tag), None)


def read_xml(path: str | os.PathLike[str]) -> tuple[Element, TextFile]:
    """Root element, and a file without lines that makes error messages.

    Raises
    ------
    FormatError
        if the file cannot be read or is not XML; with line and column.
    """
    raw = read_bytes(path)
    file = TextFile(os.fspath(path), [])
    if not raw.strip(b"\0 \t\r\n"):
        raise FormatError(
            "a file is empty",
            where=file.path,
            expected="an XML document",
            fix="write it anew with the program that made it, or take it out of the folder",
        )
    if len(raw) > MAX_BYTES:
        raise FormatError(
            "a file is too large",
            where=file.path,
            expected=f"at most {MAX_BYTES} bytes",
            fix="check that this is the file of one tilt series: such files have a few MB",
        )
    parser = expat.ParserCreate()
    parser.buffer_text = True
    open_elements: list[Element] = []
    roots: list[Element] = []

    def start(tag: str, attributes: dict[str, str]) -> None:
        element = Element(tag, attributes, parser.CurrentLineNumber - 1)
        (open_elements[-1].children if open_elements else roots).append(element)
        open_elements.append(element)

    def end(_: str) -> None:
        open_elements.pop()

    def characters(text: str) -> None:
        element = open_elements[-1]
        if not element.children:
            if not element.text:
                element.text_line = parser.CurrentLineNumber - 1
            element.text += text

    def refuse(*_: object) -> None:
        raise file.error("an XML file defines entities", parser.CurrentLineNumber - 1, expected="plain elements")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = characters
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(raw, True)
    except expat.ExpatError as error:
        raise file.error(
            "this is not an XML file",
            error.lineno - 1,
            error.offset,
            expected="an XML document",
            found=expat.ErrorString(error.code),
            fix="check that the program that writes it came to its end",
        ) from error
    except (ValueError, LookupError) as error:  # an encoding that is not known
        raise FormatError(
            "this is not an XML file",
            where=file.path,
            found=str(error),
            fix="write it anew with the program that made it: it may have been cut off",
        ) from error
    return roots[0], file
