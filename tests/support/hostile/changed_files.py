"""Hypothesis strategies that change good files."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

# What parsers have stumbled over: ends of ranges, marks of other formats, endless nesting, text that is none.
TOKENS = [
    *(b"\0", b"\xff", b"\x80", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0" * 8),
    *(b"\xff" * 8, b"\xff\xff\xff\xff\xff\xff\xff\x7f", b"-1", b"1e999", b"nan", b"-inf", b"9" * 5000, b"1" * 30),
    *(b"[" * 20_000, b"{" * 5000, b'{"a":' * 5000, b"\xed\xa0\x80", b"\xc3\x28", b"\\ud800", b"\n", b"\r\n"),
    *(b'"', b"'", b",", b";", b"=", b"&a [*a, *a]", b"!!python/object/apply:os.system [x]", b"!!int x", b"!!bool x"),
    *(b"!!timestamp x", b"!!binary x", b"? [a]\n", b"2001-99-99", b"../../x", b"/etc/passwd", b"file:///etc/passwd"),
    *(b"cos\nsystem\n", b"(S'x'\ntR", b"R", b"b", b"c", b"\x80\x04", b"\x93", b"\x82\x01", b"r\xff\xff\xff\x7f"),
    *(b"null", b"true", b"[]", b"{}", b'""', b"PAR1", b"ARROW:schema", b"arrow.py_extension_type", b"pandas"),
]  # fmt: skip


@st.composite
def changed_bytes(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """A good file with a few places overwritten, inserted, removed or doubled, or cut; now and then any bytes."""
    if draw(st.integers(0, 15)) == 0:
        return draw(st.binary(max_size=200))
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        # Ends and beginnings hold what says where the rest is.
        anywhere = draw(st.integers(0, len(data)))
        place = draw(st.sampled_from([anywhere, min(anywhere, 64), max(0, len(data) - 1 - min(anywhere, 600))]))
        new = draw(st.one_of(st.sampled_from(TOKENS), st.binary(max_size=8)))
        match draw(st.sampled_from(["over", "over", "insert", "remove", "cut", "bit", "double"])):
            case "over":
                data[place : place + len(new)] = new
            case "insert":
                data[place:place] = new
            case "remove":
                del data[place : place + draw(st.integers(1, 40))]
            case "cut":
                del data[max(1, place) :]
            case "bit" if place < len(data):
                data[place] ^= 1 << draw(st.integers(0, 7))
            case "double":
                data[place:place] = data[max(0, place - 100) : place]
    return bytes(data)


JUNK = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.sampled_from([-1, 0, 2**31, 2**63 - 1, 2**64, 10**30, -(2**63)]),
        st.floats(),
        st.text(max_size=5),
        st.sampled_from(["", "..", "../x", "/etc/passwd", ".tmp-x", "\ud800", "a\nb", "\0", "0" * 64, "f" * 16]),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def changed_tree(draw: st.DrawFn, tree: Any) -> Any:
    """A tree of JSON with a few of its values replaced, removed, added or doubled."""
    tree = {"root": copy.deepcopy(tree)}
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(tree))
        holder, name = draw(st.sampled_from(places))
        match draw(st.sampled_from(["replace", "replace", "remove", "add", "double"])):
            case "remove" if holder is not tree:
                del holder[name]
            case "add" if isinstance(holder[name], dict):
                holder[name][draw(st.text(max_size=5))] = draw(JUNK)
            case "add" | "double" if isinstance(holder[name], list) and holder[name]:
                holder[name].append(copy.deepcopy(draw(st.sampled_from(holder[name]))))
            case _:
                holder[name] = draw(JUNK)
    return tree["root"]


def _places(tree: Any) -> Any:
    for name in tree if isinstance(tree, dict) else range(len(tree)):
        yield tree, name
        if isinstance(tree[name], dict | list):
            yield from _places(tree[name])
