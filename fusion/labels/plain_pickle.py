"""Names and numbers from a pickle, without unpickling it.

A pickle is a program. Even with nearly every import forbidden, Python's interpreter for it lets a file exhaust memory
or time (numbers for its memo, keys whose hash takes forever) and pass forged dtype internals to NumPy. Therefore this
module itself performs the few operations that tables of numbers need, on texts, numbers and dicts, and refuses all
others.
"""

from __future__ import annotations

import pickletools
import struct
from dataclasses import dataclass
from typing import Any

_LITERALS = frozenset(
    (
        *("BINFLOAT", "FLOAT", "BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1"),
        *("SHORT_BINSTRING", "BINSTRING", "STRING", "SHORT_BINUNICODE", "BINUNICODE", "UNICODE"),
        *("SHORT_BINBYTES", "BINBYTES"),
    )
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


@dataclass(frozen=True, slots=True)
class _Name:
    """Represents an importable object; nothing is imported."""

    text: str


@dataclass(slots=True)
class _Float64:
    """Represents NumPy's dtype of a double; `order` is "<" or ">", as in `struct`."""

    order: str = "<"


_DTYPE, _SCALAR = _Name("numpy dtype"), _Name("numpy.core.multiarray scalar")


def read_plain_pickle(content: bytes) -> Any:
    """Read a pickle of any protocol that contains only dicts with text keys, texts, numbers and NumPy's float64.

    Python 2 texts are decoded as Latin-1.

    Raises:
        ValueError: it contains something else, or is damaged.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for operation, argument, _ in pickletools.genops(content):
            _do(operation.name, argument, stack, memo)
        (result,) = stack
    except (IndexError, KeyError, struct.error) as error:
        raise ValueError("it is damaged") from error
    return result


def _do(name: str, argument: Any, stack: list[Any], memo: dict[int, Any]) -> None:
    if name in _LITERALS:
        stack.append(argument)
    elif name.endswith("PUT"):
        memo[argument] = stack[-1]
    elif name.endswith("GET"):
        stack.append(memo[argument])
    elif name in ("SETITEM", "SETITEMS"):
        items = [stack.pop(), stack.pop()][::-1] if name == "SETITEM" else _since_mark(stack)
        _set(stack[-1], items)
    elif name == "MARK":
        stack.append(_MARK)
    elif name == "MEMOIZE":
        memo[len(memo)] = stack[-1]
    elif name in _CONSTANTS:
        stack.append(_CONSTANTS[name])
    elif name in ("EMPTY_DICT", "DICT"):
        items = _since_mark(stack) if name == "DICT" else []
        stack.append({})
        _set(stack[-1], items)
    elif name in _TUPLES or name == "TUPLE":
        count = _TUPLES.get(name)
        items = _since_mark(stack) if count is None else [stack.pop() for _ in range(count)][::-1]
        stack.append(tuple(items))
    elif name in ("GLOBAL", "STACK_GLOBAL"):
        words = [stack.pop(), stack.pop()][::-1] if name == "STACK_GLOBAL" else [argument]
        stack.append(_known(words))
    elif name == "REDUCE":
        arguments, function = stack.pop(), stack.pop()
        stack.append(_call(function, arguments))
    elif name == "BUILD":
        state = stack.pop()
        _set_order(stack[-1], state)
    elif name not in ("PROTO", "FRAME", "STOP"):
        raise ValueError(f"it holds more than names and numbers: {name}")


def _since_mark(stack: list[Any]) -> list[Any]:
    items = []
    while (item := stack.pop()) is not _MARK:
        items.append(item)
    return items[::-1]


def _set(table: Any, items: list[Any]) -> None:
    names, values = items[::2], items[1::2]
    # Text keys only: the hash of nested tuples can take forever.
    if type(table) is not dict or len(names) != len(values) or not all(type(name) is str for name in names):
        raise ValueError("it holds more than names and numbers: a table with keys other than text")
    table.update(zip(names, values, strict=True))


def _known(words: list[Any]) -> _Name:
    name = " ".join(word for word in words if type(word) is str)
    if name not in (_DTYPE.text, _SCALAR.text):
        raise ValueError(f"it asks for {'.'.join(name[:200].split())}")
    return _Name(name)


def _call(function: Any, arguments: Any) -> _Float64 | float:
    if function == _DTYPE and type(arguments) is tuple and arguments[:1] == ("f8",):
        return _Float64()
    if function == _SCALAR and type(arguments) is tuple and len(arguments) == 2 and type(arguments[0]) is _Float64:
        dtype, data = arguments
        data = data.encode("latin-1") if type(data) is str else data
        if type(data) is bytes:
            (number,) = struct.unpack(f"{dtype.order}d", data)
            return float(number)
    raise ValueError("it holds more than names and numbers: a call")


def _set_order(dtype: Any, state: Any) -> None:
    # (version, byte order, and fields that only other dtypes have)
    if type(dtype) is not _Float64 or type(state) is not tuple or state[1] not in ("<", ">"):
        raise ValueError("it holds more than names and numbers: internals of an object")
    dtype.order = state[1]
