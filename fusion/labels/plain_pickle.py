"""Names and numbers from a pickle, without unpickling it.

A pickle is a program. Even if nearly all imports are forbidden, Python's interpreter lets a file exhaust memory or time
(memo indices, keys whose hash takes forever) and pass forged dtype internals to NumPy. Therefore this module itself
performs the few operations that tables of numbers need, on texts, numbers and dicts, and refuses all others.
"""

from __future__ import annotations

import pickletools
import struct
from dataclasses import dataclass
from typing import Any

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
    """Perform one operation of the pickle machine, as documented in `pickletools`."""
    match name:
        case "BININT" | "BININT1" | "BININT2" | "INT" | "LONG" | "LONG1" | "BINFLOAT" | "FLOAT":
            stack.append(argument)
        case "BINUNICODE" | "SHORT_BINUNICODE" | "UNICODE" | "BINSTRING" | "SHORT_BINSTRING" | "STRING":
            stack.append(argument)
        case "BINBYTES" | "SHORT_BINBYTES":
            stack.append(argument)
        case "NONE" | "NEWTRUE" | "NEWFALSE":
            stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
        case "PUT" | "BINPUT" | "LONG_BINPUT":
            memo[argument] = stack[-1]
        case "MEMOIZE":
            memo[len(memo)] = stack[-1]
        case "GET" | "BINGET" | "LONG_BINGET":
            stack.append(memo[argument])
        case "MARK":
            stack.append(_MARK)
        case "EMPTY_DICT":
            stack.append({})
        case "DICT":
            items = _since_mark(stack)
            stack.append(_filled({}, items))
        case "SETITEM":
            items = _popped(stack, 2)
            _filled(stack[-1], items)
        case "SETITEMS":
            items = _since_mark(stack)
            _filled(stack[-1], items)
        case "EMPTY_TUPLE":
            stack.append(())
        case "TUPLE1" | "TUPLE2" | "TUPLE3":
            stack.append(tuple(_popped(stack, int(name[-1]))))
        case "TUPLE":
            stack.append(tuple(_since_mark(stack)))
        case "GLOBAL":
            stack.append(_known([argument]))
        case "STACK_GLOBAL":
            stack.append(_known(_popped(stack, 2)))
        case "REDUCE":
            stack.append(_call(*_popped(stack, 2)))
        case "BUILD":
            state = stack.pop()
            _set_order(stack[-1], state)
        case "PROTO" | "FRAME" | "STOP":
            pass
        case _:
            raise ValueError(f"it holds more than names and numbers: {name}")


def _popped(stack: list[Any], count: int) -> list[Any]:
    return [stack.pop() for _ in range(count)][::-1]


def _since_mark(stack: list[Any]) -> list[Any]:
    items = []
    while (item := stack.pop()) is not _MARK:
        items.append(item)
    return items[::-1]


def _filled(table: Any, items: list[Any]) -> dict[str, Any]:
    """Add names and values, which alternate, to a table; return the table."""
    names, values = items[::2], items[1::2]
    # Text keys only: the hash of nested tuples can take forever.
    if type(table) is not dict or len(names) != len(values) or not all(type(name) is str for name in names):
        raise ValueError("it holds more than names and numbers: a table with keys other than text")
    table.update(zip(names, values, strict=True))
    return table


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
