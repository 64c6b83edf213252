"""STAR documents: nothing is lost, and what is not STAR is refused with the line."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiltwise.errors import DataError, FormatError
from tiltwise.io.frames import read_frames, write_frames
from tiltwise.io.star import StarBlock, StarDocument, format_star, parse_star, read_star, write_star
from tiltwise.io.star_block import BlockKind
from tiltwise.io.star_text import format_number, format_vector, quote, unquote

Reader = Callable[[Path], StarDocument]


def content(document: StarDocument) -> list[tuple[str, str, dict[str, list[str]], list[str]]]:
    return [(block.name, block.kind, block.columns, block.comments) for block in document]


def words(text: str) -> Counter[str]:
    """Every word of a file except the column numbers, which readers ignore and writers count."""
    return Counter(re.sub(r"(?m)^(_\S+)\s+#\d+\s*$", r"\1", text).split())


def star_files(root: Path) -> list[Path]:
    return sorted(p for p in root.rglob("*") if p.name.endswith((".star", ".star.gz")))


def test_every_word_of_every_real_file_survives(shared_data: Path, read_document: Reader) -> None:
    files = star_files(shared_data)
    assert len(files) > 100
    for path in files:
        document = read_document(path)
        text = format_star(document)
        assert content(parse_star(text)) == content(document), path
        assert format_star(parse_star(text)) == text, path
        raw = path.read_bytes()
        if path.suffix == ".gz":
            import gzip

            raw = gzip.decompress(raw)
        assert words(text) == words(raw.decode()), path


def test_agrees_with_the_starfile_package(shared_data: Path, tmp_path: Path, read_document: Reader) -> None:
    files = [
        shared_data / "data/relion5_sta_tutorial_metadata/extracted/Polish/job030/particles.star.gz",
        shared_data / "data/relion_projection_matrices/tilt_series/220728_TS_01.star",
        shared_data / "data/pypi_formats/starfile/postprocess.star",
        shared_data / "golden/refine/particles.star",
    ]
    for file in files:
        document = read_document(file)
        path = tmp_path / "file.star"
        write_star(path, document)
        frames = read_frames(path)
        assert set(frames) == {block.name for block in document}
        for block in document:
            frame = frames[block.name]
            assert list(frame.columns) == list(block.columns)
            for label in block.columns:
                values = frame[label].to_list()
                if frame[label].dtype.kind in "fi":
                    np.testing.assert_allclose(block.floats(label), values, rtol=1e-15)
                else:
                    assert block.text(label) == values


def test_files_written_by_starfile_are_read(tmp_path: Path) -> None:
    import pandas as pd

    frames = {
        "general": pd.DataFrame({"rlnTomoSubTomosAre2DStacks": [1]}),
        "particles": pd.DataFrame({"rlnTomoName": ["001", "a b"], "rlnAngleRot": [1.5, -2.25]}),
    }
    write_frames(tmp_path / "x.star", frames)
    document = read_star(tmp_path / "x.star")
    assert document["particles"].text("rlnTomoName") == ["001", "a b"]
    assert document["particles"].floats("rlnAngleRot").tolist() == [1.5, -2.25]
    again = read_frames(tmp_path / "x.star")
    assert again["particles"]["rlnTomoName"].to_list() == ["001", "a b"]


def test_what_data_frames_lose_is_kept() -> None:
    labels = "_rlnTomoName #1\n_rlnGroupName #2\n_rlnV #3\n_rlnTiny #4\n"
    text = f"data_\n\nloop_\n{labels}001 <NA> [] -1e-7\n1e5 '' [1,2] nan\n"
    block = parse_star(text)[""]
    assert block.columns == {
        "rlnTomoName": ["001", "1e5"],
        "rlnGroupName": ["<NA>", "''"],
        "rlnV": ["[]", "[1,2]"],
        "rlnTiny": ["-1e-7", "nan"],
    }
    assert block.text("rlnGroupName") == ["<NA>", ""]
    assert [v.tolist() for v in block.vectors("rlnV")] == [[], [1.0, 2.0]]
    assert content(parse_star(format_star(StarDocument([block]))))[0][2] == block.columns


def test_layouts_of_other_programs() -> None:
    text = (
        "# made by hand\n\ndata_a\nloop_\n_x\n_y #2\n\n\tdata_1.mrc  2\n'q' \"it's \"#5\n\ndata_b # comment\n"
        "_one   1 # why\n_two 'a b'\n\n# tail\n"
    )
    document = parse_star(text.replace('"#5', '" #5').replace("'q' \"it's \" #5", "'q' \"it's \" # five"))
    assert document["a"].columns == {"x": ["data_1.mrc", "'q'"], "y": ["2", '"it\'s "']}
    assert document["a"].text("y") == ["2", "it's "]
    assert (document["b"].kind, document["b"].columns) == ("list", {"one": ["1"], "two": ["'a b'"]})
    assert document.trailer == ["# tail"]
    kept = "\n".join(comment for block in document for comment in block.comments)
    assert "# made by hand" in kept
    assert "# five" in kept
    assert "# why" in kept


def test_loop_without_blank_line_before_the_next_block() -> None:
    document = parse_star("data_a\nloop_\n_x\n1\n2\ndata_b\nloop_\n_y\n_z\n3 4\ndata_c\n_w 5\n")
    assert [(b.name, len(b)) for b in document] == [("a", 2), ("b", 1), ("c", 1)]


def test_carriage_returns_are_accepted_and_reported() -> None:
    document = parse_star("data_a\r\n\r\nloop_\r\n_x #1\r\n1\r\n")
    assert document.crlf
    assert document["a"].columns == {"x": ["1"]}
    assert "\r" not in format_star(document)


def test_bytes_that_are_not_utf8_survive(tmp_path: Path) -> None:
    raw = b"data_\n\n_rlnTomoName caf\xe9\xa0x\n"
    (tmp_path / "a.star").write_bytes(raw)
    document = read_star(tmp_path / "a.star")
    write_star(tmp_path / "b.star", document)
    assert b"caf\xe9\xa0x\n" in (tmp_path / "b.star").read_bytes()
    assert content(read_star(tmp_path / "b.star")) == content(document)


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("data_\nloop_\n_a #1\n_b #2\n1 2\n3\n", 6, "wrong number"),
        ("data_\nloop_\n_a #1\n_b #2\n1 2 3\n", 5, "wrong number"),
        ("data_\nloop_\n_a\n1\n\n2\n", 6, "after the blank line"),
        ("data_\nloop_\n_a\n_a\n", 4, "twice"),
        ("data_\n_a 1\n_a 2\n", 3, "twice"),
        ("data_\n_a 1 2\n", 2, "several values"),
        ("data_\n_a 1\nloop_\n_b\n2\n", 3, "both single values and a loop"),
        ("data_\nloop_\n1 2\n", 3, "no labels"),
        ("data_\nloop_\n_a\n'open\n", 4, "quote is not closed"),
        ("data_\nnonsense\n", 2, "neither loop_ nor a label"),
        ("hello\n", 1, "not a STAR file"),
    ],
)
def test_bad_files_name_the_line(text: str, line: int, what: str) -> None:
    with pytest.raises(FormatError, match=what) as caught:
        parse_star(text, "bad.star")
    assert f"bad.star, line {line}" in str(caught.value)


def test_files_that_are_no_star_files(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="cannot be read"):
        read_star(tmp_path / "absent.star")
    (tmp_path / "binary.star").write_bytes(b"\x00\x01data_\n")
    with pytest.raises(FormatError, match="binary"):
        read_star(tmp_path / "binary.star")
    (tmp_path / "empty.star").write_text("\n# nothing\n")
    with pytest.raises(FormatError, match="no block"):
        read_star(tmp_path / "empty.star")


def test_typed_columns_name_row_and_column() -> None:
    document = parse_star("data_p\n\nloop_\n_a #1\n_b #2\n_v #3\n1.0 nan [1,2]\n2 inf [1,x]\n2.5 x 7\n", "p.star")
    block = document["p"]
    with pytest.raises(FormatError, match=r"p.star, line 9, block data_p, column _a[\s\S]*whole number"):
        block.integers("a")
    with pytest.raises(FormatError, match=r"line 9, block data_p, column _b[\s\S]*found: x"):
        block.floats("b")
    with pytest.raises(FormatError, match=r"line 8, block data_p, column _v"):
        block.vectors("v")
    with pytest.raises(FormatError, match=r"missing: _c[\s\S]*found: _a _b _v"):
        block.text("c")
    with pytest.raises(FormatError, match="several rows"):
        block.value("a")
    with pytest.raises(FormatError, match=r"block is missing: data_q[\s\S]*found: data_p"):
        document["q"]
    assert parse_star("data_p\nloop_\n_a\n1\n3.000\n")["p"].integers("a").tolist() == [1, 3]
    with pytest.raises(FormatError, match="NaN or infinite"):
        parse_star("data_p\nloop_\n_a\n1\nnan\n")["p"].floats("a")
    with pytest.raises(ValueError, match="3 rows"):
        block.set_integers("c", [1])


def test_numbers_keep_their_precision() -> None:
    assert format_number(-12.3456785) == "-12.345678"
    assert format_number(-0.0) == "0.000000"
    assert format_number(1.25e-7) == "1.250000000e-07"
    assert format_vector([0.0814842382114, -1, 3618.28940437]) == "[0.0814842382114,-1,3618.28940437]"
    assert format_vector(np.array([True, False])) == "[1,0]"
    assert format_vector([]) == "[]"
    for bad in (np.nan, np.inf):
        with pytest.raises(DataError, match="NaN"):
            format_number(bad)
        with pytest.raises(DataError, match="NaN"):
            format_vector([1.0, bad])


@given(st.floats(-1e200, 1e200))
def test_written_numbers_are_within_half_a_millionth(value: float) -> None:
    # Six decimals for ordinary numbers, ten significant digits where that would be less.
    assert abs(float(format_number(value)) - value) <= max(0.5001e-6, 1e-9 * abs(value))
    if abs(value) < 1e-3:
        assert abs(float(format_number(value)) - value) <= 1e-9 * abs(value) + 1e-320


NAMES = st.text(st.characters(codec="ascii", categories=["L", "N"], include_characters="_./-"), min_size=1, max_size=12)
VALUES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Z"]), max_size=10).map(
    lambda s: s.replace('"', "")
)
SPACED = st.lists(VALUES, min_size=1, max_size=3).map(" ".join)


@st.composite
def documents(draw: st.DrawFn) -> StarDocument:
    blocks = []
    for name in draw(st.lists(st.one_of(st.just(""), NAMES), min_size=1, max_size=4)):
        kind: BlockKind = "loop" if draw(st.booleans()) else "list"
        rows = 1 if kind == "list" else draw(st.integers(0, 5))
        block = StarBlock(name, kind, {}, draw(st.lists(st.just("# version 50001"), max_size=2)))
        for label in draw(st.lists(NAMES, min_size=1, max_size=6, unique=True)):
            block.set_text(label, draw(st.lists(SPACED, min_size=rows, max_size=rows)))
        blocks.append(block)
    return StarDocument(blocks)


@settings(max_examples=150, deadline=None)
@given(documents())
def test_any_document_survives_a_round_trip(document: StarDocument) -> None:
    again = parse_star(format_star(document))
    assert content(again) == content(document)
    for before, after in zip(document, again, strict=True):
        for label in before.columns:
            assert [unquote(value) for value in before.columns[label]] == after.text(label)


def test_text_that_no_quotes_can_carry_is_refused() -> None:
    assert quote("it's") == "it's"
    assert quote("#1") == '"#1"'
    with pytest.raises(DataError, match="cannot be written"):
        quote("a 'b' \"c\"")
    with pytest.raises(DataError, match="cannot be written"):
        quote("two\nlines")


def test_editing_does_not_touch_the_original() -> None:
    document = parse_star("data_a\nloop_\n_x\n_y\n1 2\n3 4\n\ndata_b\n_z 1\n")
    block = document["a"].copy()
    block.set_floats("x", [9.0, 8.0])
    block.drop("y", "absent")
    changed = document.replace(block)
    assert document["a"].columns == {"x": ["1", "3"], "y": ["2", "4"]}
    assert changed["a"].columns == {"x": ["9.000000", "8.000000"]}
    assert changed["b"] is document["b"]
    taken = document["a"].take([1])
    assert taken.columns == {"x": ["3"], "y": ["4"]}
    assert "line 6" in taken.where(0)
    copied = document.copy()
    copied["a"].columns["x"][0] = "7"
    assert document["a"].columns["x"][0] == "1"


def test_reading_needs_no_heavy_imports() -> None:
    code = (
        "import sys; import tiltwise.io.optimisation_set, tiltwise.io.mrc; "
        "print([m for m in ('pandas', 'starfile', 'pyarrow', 'matplotlib') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
