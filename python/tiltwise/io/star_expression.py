"""Conditions on the rows of a STAR table: `rlnTomoName == "TS_01" and rlnMaxValueProbDistribution > 0.1`.

Python's syntax, and of it only what is listed here: comparisons (`== != < <= > >= in`, chains of them), `and or not`,
arithmetic (`+ - * / **`), numbers, quoted text, parentheses, labels with or without their underscore, `row` (from
1), and the functions below.  The text is parsed, never executed.

A column is a number where it meets a number, and text where it meets text.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiltwise.errors import ConfigError
from tiltwise.io.star_block import StarBlock

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_NUMERIC = {"abs": np.abs, "sqrt": np.sqrt, "round": np.rint}
_TEXT = {"startswith": str.startswith, "endswith": str.endswith, "contains": str.__contains__}
FUNCTIONS = (*_NUMERIC, *_TEXT)


class _Column:
    """A label whose type is not decided yet."""

    def __init__(self, label: str) -> None:
        self.label = label


class _Table:
    """Columns of a block in either type, each converted once."""

    def __init__(self, block: StarBlock) -> None:
        self.block = block
        self._numbers: dict[str, NDArray[np.float64]] = {}
        self._texts: dict[str, list[str]] = {}

    def numbers(self, value: Any) -> Any:
        """As numbers; errors of `StarBlock.floats` name the row that holds none."""
        if not isinstance(value, _Column):
            return value
        if value.label == "row" and "row" not in self.block:
            return np.arange(1, len(self.block) + 1, dtype=np.float64)
        if value.label not in self._numbers:
            self._numbers[value.label] = self.block.floats(value.label)
        return self._numbers[value.label]

    def texts(self, value: Any) -> Any:
        """As text, an array of objects or one string."""
        if not isinstance(value, _Column):
            return value
        if value.label not in self._texts:
            self._texts[value.label] = self.block.text(value.label)
        return np.array(self._texts[value.label], dtype=object)


def matching_rows(block: StarBlock, expression: str) -> NDArray[np.intp]:
    """Rows, from 0, for which an expression is true.

    Raises
    ------
    ConfigError
        if the expression cannot be read, uses anything that is not allowed, or names a column that does not exist.
    FormatError
        if a column that is compared with a number holds something else; with the row.
    """
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _error(expression, "a condition", str(error)) from None
    try:
        with np.errstate(all="ignore"):
            result = _Evaluator(_Table(block), expression).truth(tree.body)
    except RecursionError:
        raise _error(expression, "a condition", "too many parentheses") from None
    return np.flatnonzero(np.broadcast_to(result, len(block)))


def _error(expression: str, expected: str, found: str, fix: str | None = None) -> ConfigError:
    return ConfigError(
        "a condition cannot be used",
        where=expression,
        expected=expected,
        found=found,
        fix=fix or "for example: 'rlnTomoName == \"TS_01\" and rlnMaxValueProbDistribution > 0.1'",
    )


class _Evaluator:
    """Walks the parsed text; whatever it does not know is refused."""

    def __init__(self, table: _Table, expression: str) -> None:
        self.table, self.expression = table, expression

    def truth(self, node: ast.expr) -> Any:
        """True or false for every row."""
        if isinstance(node, ast.BoolOp):
            parts = [self.truth(value) for value in node.values]
            combine = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
            return combine.reduce(np.broadcast_arrays(*parts))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return np.logical_not(self.truth(node.operand))
        if isinstance(node, ast.Compare):
            values = [self.value(one) for one in (node.left, *node.comparators)]
            parts = [self._compare(a, op, b) for a, op, b in zip(values, node.ops, values[1:], strict=False)]
            return np.logical_and.reduce(np.broadcast_arrays(*parts))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _TEXT:
            return self._call_text(node.func.id, node)
        raise _error(self.expression, "a comparison, such as rlnClassNumber == 1", self._source(node))

    def value(self, node: ast.expr) -> Any:
        """A number, a text, a column, an array of numbers, or a tuple of the first two."""
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float, str)):
            return float(node.value) if not isinstance(node.value, str) else node.value
        if isinstance(node, ast.Name):
            return self._column(node.id)
        if isinstance(node, (ast.Tuple, ast.List)):
            return tuple(self.value(one) for one in node.elts)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
            operand = self._number(node.operand)
            return -operand if isinstance(node.op, ast.USub) else operand
        if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
            left, right = (np.asarray(self._number(one), np.float64) for one in (node.left, node.right))
            return _ARITHMETIC[type(node.op)](left, right)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) == 1 and not node.keywords:
            function = _NUMERIC.get(node.func.id)
            if function is not None:
                return function(self._number(node.args[0]))
        raise _error(
            self.expression, f"labels, numbers, quoted text, + - * / **, {', '.join(FUNCTIONS)}", self._source(node)
        )

    def _number(self, node: ast.expr) -> Any:
        value = self.table.numbers(self.value(node))
        if isinstance(value, (str, tuple)):
            raise _error(self.expression, "a number or a column of numbers", self._source(node))
        return value

    def _column(self, name: str) -> _Column:
        block = self.table.block
        for label in (name, name.removeprefix("_")):
            if label in block:
                return _Column(label)
        if name == "row":
            return _Column(name)
        import difflib

        close = difflib.get_close_matches(name, block.columns, n=2)
        hint = f"did you mean {' or '.join(close)}?" if close else "quote text: rlnTomoName == 'TS_01'"
        raise _error(self.expression, f"a column of data_{block.name}", name, hint)

    def _compare(self, left: Any, op: ast.cmpop, right: Any) -> Any:
        if isinstance(op, (ast.In, ast.NotIn)):
            if not isinstance(right, tuple) or isinstance(left, tuple):
                raise _error(self.expression, "a list after `in`: rlnClassNumber in (1, 3)", "something else")
            hits = [self._compare(left, ast.Eq(), one) for one in right]
            result = np.logical_or.reduce(np.broadcast_arrays(*hits)) if hits else np.bool_(False)
            return result if isinstance(op, ast.In) else np.logical_not(result)
        if isinstance(left, tuple) or isinstance(right, tuple) or type(op) not in _COMPARISONS:
            raise _error(self.expression, "one of == != < <= > >= in", type(op).__name__)
        if self._is_text(left, right):
            if not all(isinstance(one, (str, _Column)) for one in (left, right)):
                raise _error(self.expression, "text compared with text, numbers with numbers", "one of each")
            a, b = self.table.texts(left), self.table.texts(right)
        else:
            a, b = self.table.numbers(left), self.table.numbers(right)
        return np.asarray(_COMPARISONS[type(op)](a, b), dtype=np.bool_)

    def _is_text(self, left: Any, right: Any) -> bool:
        if isinstance(left, str) or isinstance(right, str):
            return True
        if not (isinstance(left, _Column) and isinstance(right, _Column)):
            return False
        return not all(_numeric(self.table.block, one.label) for one in (left, right))

    def _call_text(self, name: str, node: ast.Call) -> Any:
        if len(node.args) != 2 or node.keywords:
            raise _error(self.expression, f"{name}(LABEL, 'text')", self._source(node))
        column, text = (self.value(one) for one in node.args)
        if not isinstance(column, _Column) or not isinstance(text, str) or column.label == "row":
            raise _error(self.expression, f"{name}(LABEL, 'text')", self._source(node))
        test = _TEXT[name]
        return np.array([test(value, text) for value in self.table.texts(column)], dtype=np.bool_)

    def _source(self, node: ast.expr) -> str:
        return ast.get_source_segment(self.expression.strip(), node) or type(node).__name__


def _numeric(block: StarBlock, label: str) -> bool:
    if label not in block:  # `row`
        return True
    values: Sequence[str] = block.columns[label][:100]
    try:
        [float(value) for value in values]
    except ValueError:
        return False
    return True
