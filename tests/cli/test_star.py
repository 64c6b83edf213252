"""`tiltwise star`: conditions, joins, statistics, and nothing lost."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tiltwise.cli.main import main
from tiltwise.errors import ConfigError, DataError, FormatError
from tiltwise.io.star import parse_star, read_star
from tiltwise.io.star_expression import matching_rows
from tiltwise.io.star_join import join
from tiltwise.io.star_stats import column_stats

TEXT = """
# version 50001

data_general

_rlnTomoSubTomosAre2DStacks 0

# by hand
data_optics

loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
_rlnVoltage #3
1 first 300.000000
2 second 200.000000

data_particles

loop_
_rlnTomoName #1
_rlnTomoParticleName #2
_rlnAngleRot #3
_rlnClassNumber #4
_rlnOpticsGroup #5
_rlnMystery #6
_row #7
001 001/1 1e5 1 1 <NA> 9
001 001/2 -1e-7 2 2 'a b' 8
TS_2 TS_2/1 12.50 1 1 "" 7
TS_2 TS_2/2 0.0000000001 3 2 [1,2] 6
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "particles.star"
    path.write_text(TEXT)
    return path


@pytest.mark.parametrize(
    "expression, rows",
    [
        ("rlnClassNumber == 1", [0, 2]),
        ("_rlnClassNumber == 1", [0, 2]),
        ("rlnTomoName == '001'", [0, 1]),
        ("rlnTomoName == 1 or rlnClassNumber > 5", None),
        ("rlnTomoName != 'TS_2' and not rlnClassNumber == 2", [0]),
        ("rlnClassNumber in (1, 3)", [0, 2, 3]),
        ("rlnTomoName in ['001']", [0, 1]),
        ("rlnTomoName not in ('001', 'x')", [2, 3]),
        ("0 < rlnAngleRot <= 12.5", [2, 3]),
        ("abs(rlnAngleRot) < 1e-6", [1, 3]),
        ("-rlnAngleRot > 0", [1]),
        ("sqrt(rlnClassNumber * 4 + 0) / 2 == 1", [0, 2]),
        ("round(rlnAngleRot / 5) == 2", [2]),
        ("2 ** rlnClassNumber == 8", [3]),
        ("startswith(rlnTomoParticleName, '001/')", [0, 1]),
        ("endswith(rlnTomoParticleName, '/2') and contains(rlnMystery, ' ')", [1]),
        ("rlnOpticsGroup == rlnClassNumber", [0, 1, 2]),
        ("rlnTomoName == rlnMystery", []),
        ("rlnMystery == ''", [2]),
        ("row > 7", [0, 1]),
        ("rlnClassNumber in ()", []),
        ("1 == 1", [0, 1, 2, 3]),
    ],
)
def test_conditions(expression: str, rows: list[int] | None) -> None:
    block = parse_star(TEXT)["particles"]
    if rows is None:
        with pytest.raises(FormatError, match="TS_2"):
            matching_rows(block, expression)
    else:
        assert matching_rows(block, expression).tolist() == rows


def test_rows_are_counted_where_no_column_is_called_so() -> None:
    assert matching_rows(parse_star(TEXT)["optics"], "row == 2").tolist() == [1]


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "rlnClassNumber",
        "rlnClassNumber = 1",
        "rlnClassNumber == 1; 2",
        "rlnClassNumber + 1",
        "rlnNothing == 1",
        "rlnTomoName == TS_2",
        "__import__('os').system('true') == 0",
        "rlnTomoName.upper() == 'A'",
        "(lambda: 1)() == 1",
        "[x for x in (1, 2)] == 1",
        "rlnClassNumber is 1",
        "rlnClassNumber == (1, 2)",
        "1 in rlnClassNumber",
        "abs(rlnClassNumber, 2) == 1",
        "abs('x') == 1",
        "startswith('a', 'b')",
        "startswith(rlnTomoName)",
        "'a' == 1",
        "f'{rlnTomoName}' == 'x'",
        "(" * 500 + "1" + ")" * 500 + " == 1",
        "not " * 5000 + "1 == 1",
        "rlnClassNumber == 1\0",
    ],
)
def test_what_is_no_condition_is_refused(expression: str) -> None:
    with pytest.raises(ConfigError):
        matching_rows(parse_star(TEXT)["particles"], expression)


def test_a_typing_error_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="did you mean rlnClassNumber"):
        matching_rows(parse_star(TEXT)["particles"], "rlnClasNumber == 1")


def test_filter_keeps_everything_else(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.star"
    assert main(["star", "filter", str(file), "rlnClassNumber != 2", "--o", str(out)]) == 0
    assert "3 of 4 rows" in capsys.readouterr().out
    before, after = read_star(file), read_star(out)
    assert [block.name for block in after] == [block.name for block in before]
    assert after["optics"].columns == before["optics"].columns
    assert after["optics"].comments == before["optics"].comments
    for label, values in before["particles"].columns.items():
        assert after["particles"].columns[label] == [values[0], values[2], values[3]]
    assert main(["star", "filter", str(file), "row == 0", "--o", str(tmp_path / "none.star")]) == 2
    assert not (tmp_path / "none.star").exists()
    assert main(["star", "filter", str(file), "row > 0", "--o", str(out), "--block", "general"]) == 2


def test_select(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.star"
    arguments = ["star", "select", str(file), "--o", str(out)]
    assert main([*arguments, "--columns", "rlnMystery,_rlnTomoName"]) == 0
    assert list(read_star(out)["particles"].columns) == ["rlnMystery", "rlnTomoName"]
    assert main([*arguments, "--drop", "rlnMystery"]) == 0
    assert "rlnMystery" not in read_star(out)["particles"]
    assert main([*arguments, "--drop", "rlnNothing"]) == 3
    assert main(arguments) == 2
    assert main([*arguments, "--columns", ""]) == 2


def test_join_of_halves_is_the_whole() -> None:
    whole = parse_star(TEXT)
    halves = [whole.replace(whole["particles"].take(rows)) for rows in ([0, 1], [2, 3])]
    again = join(halves)
    for block in whole:
        assert again[block.name].columns == block.columns


def test_join_puts_optics_groups_together() -> None:
    first = parse_star(TEXT)
    other = parse_star(TEXT.replace("001/", "003/").replace("TS_2/", "TS_4/").replace("2 second 200", "2 second 100"))
    joined = join([first, other])
    optics, particles = joined["optics"], joined["particles"]
    assert optics.columns["rlnOpticsGroup"] == ["1", "2", "3"]
    assert optics.columns["rlnOpticsGroupName"] == ["first", "second", "second_2"]
    assert optics.columns["rlnVoltage"] == ["300.000000", "200.000000", "100.000000"]
    assert particles.columns["rlnOpticsGroup"] == ["1", "2", "1", "2", "1", "3", "1", "3"]
    assert other["optics"].columns["rlnOpticsGroup"] == ["1", "2"]


def test_join_refuses_what_does_not_fit(file: Path, tmp_path: Path) -> None:
    first = parse_star(TEXT, "a.star")
    with pytest.raises(DataError, match="a particle name occurs twice"):
        join([first, first])
    other = parse_star(TEXT.replace("001/", "003/").replace("TS_2/", "TS_4/"), "b.star")
    other["particles"].drop("rlnMystery")
    with pytest.raises(DataError, match="rlnMystery"):
        join([first, other])
    assert "rlnMystery" not in join([first, other], common=True)["particles"]
    stacks = parse_star(TEXT.replace("2DStacks 0", "2DStacks 1"), "c.star")
    with pytest.raises(DataError, match="rlnTomoSubTomosAre2DStacks"):
        join([first, stacks])
    assert main(["star", "join", str(file), str(file), "--o", str(tmp_path / "out.star")]) == 3


def test_statistics(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = {one.label: one for one in column_stats(parse_star(TEXT)["particles"])}
    assert found["rlnTomoName"].kind == "text"
    assert found["rlnTomoName"].common == (("001", 2), ("TS_2", 2))
    rot = found["rlnAngleRot"]
    assert rot.kind == "number"
    values = np.array([1e5, -1e-7, 12.5, 1e-10])
    np.testing.assert_allclose(
        [rot.low, rot.mean, rot.median, rot.high], [-1e-7, values.mean(), np.median(values), 1e5]
    )
    assert found["rlnClassNumber"].common[0] == ("1", 2)
    assert main(["star", "stats", str(file), "--columns", "rlnClassNumber", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["columns"][0]["high"] == 3
    assert main(["star", "stats", str(file)]) == 0
    assert "-1e-07 to 100000" in capsys.readouterr().out


def test_head(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["star", "head", str(file), "-n", "1"]) == 0
    shown = capsys.readouterr().out
    assert "data_particles: loop, 4 rows, 7 columns" in shown
    assert "1e5  ..." in shown
    assert main(["star", "head", str(file), "--block", "data_optics", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content[0]["columns"]["rlnVoltage"] == ["300.000000", "200.000000"]
    assert main(["star", "head", str(file), "--block", "none"]) == 3
