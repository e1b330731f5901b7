"""What is done to the bytes of a good file: edits of plain data, so that a failing one can be kept and tried again."""

from __future__ import annotations

import gzip
import json
import re
import struct
import zlib
from collections.abc import Sequence
from typing import Any, TypeAlias

from hypothesis import strategies as st

Edit: TypeAlias = tuple[Any, ...]
"""Kind, place and what is put there; places beyond the end wrap around."""
INTERESTING = (0, 1, -1, 2, 7, 127, 128, 255, 256, 32767, -32768, 65535, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1)
WORDS = ("", "0", "-1", "1", "3", "1e308", "nan", "inf", "-0.5", "99999999999", "999999999999999999999", "é", "../../x")
MORE_WORDS = ("%d", "true", "null", "short", "double", "gzip", "raw", "LOCAL", "LIST", "a b", "\0", "1\n2", "[", "0x10")
TOKEN = re.compile(rb"[^\s=,:\"\[\]{}()]+")
HEAD = 400
"""Bytes in which most formats have their header."""
VALUES = (
    None,
    True,
    0,
    1,
    -1,
    1.5,
    10**30,
    float("nan"),
    "",
    "a",
    "../../x",
    "\0",
    [],
    [0],
    [[]],
    {},
    {"0": "a"},
    [1, "a"],
)


def _numbers() -> st.SearchStrategy[bytes]:
    """A field of one to eight bytes, in either order."""
    fields = []
    for kind, bits in (("b", 8), ("h", 16), ("i", 32), ("q", 64)):
        mask = 2**bits - 1
        fields += [struct.pack(f"{o}{kind.upper()}", n & mask) for n in INTERESTING for o in "<>"]
    odd = (0.0, -1.0, 1e30, float("nan"), float("inf"))
    floats = [struct.pack(f"{order}{kind}", value) for value in odd for order in "<>" for kind in "fd"]
    return st.sampled_from(sorted({*fields, *floats}))


PLACE = st.one_of(st.integers(0, HEAD), st.integers(0, 1 << 20))
BYTES = st.one_of(_numbers(), st.binary(min_size=1, max_size=8))
OF_BYTES = st.one_of(
    st.tuples(st.just("put"), PLACE, BYTES),
    st.tuples(st.just("cut"), PLACE),
    st.tuples(st.just("insert"), PLACE, BYTES),
    st.tuples(st.just("delete"), PLACE, st.integers(1, 64)),
)
OF_TEXT = st.tuples(st.just("token"), st.integers(0, 200), st.sampled_from(WORDS + MORE_WORDS))
OF_JSON = st.tuples(st.just("node"), st.integers(0, 400), st.sampled_from([json.dumps(v) for v in VALUES] + ["delete"]))


def edits_of(kind: str) -> st.SearchStrategy[list[Edit]]:
    """One to four edits: of ``binary``, ``text`` or ``json`` files, the latter two of bytes now and then, too."""
    one = {"binary": OF_BYTES, "text": OF_TEXT | OF_TEXT | OF_BYTES, "json": OF_JSON | OF_JSON | OF_TEXT | OF_BYTES}
    return st.lists(one[kind], min_size=1, max_size=4)


def edited(content: bytes, edits: Sequence[Edit], packing: str = "") -> bytes:
    """The bytes after all edits.

    Args:
        content: Of a good file.
        edits: In their order.
        packing: With ``gzip`` the edits change what it has packed, and it is packed again; with ``png`` the checksums
            of the chunks are set right afterwards, or nothing behind them would be reached.
    """
    if packing == "gzip":
        return gzip.compress(edited(gzip.decompress(content), edits), 1)
    if packing == "png":
        return _with_checksums(edited(content, edits))
    for edit in edits:
        content = _EDITS[edit[0]](content, *edit[1:])
    return content


def _with_checksums(content: bytes) -> bytes:
    """A PNG of which every whole chunk has the checksum that it should have."""
    position, parts = 8, [content[:8]]
    while position + 12 <= len(content):
        length = int.from_bytes(content[position : position + 4], "big")
        chunk = content[position : position + 8 + length]
        if position + 12 + length > len(content):
            break
        parts += [chunk, zlib.crc32(chunk[4:]).to_bytes(4, "big")]
        position += 12 + length
    return b"".join(parts) + content[position:]


def _put(content: bytes, place: int, new: bytes) -> bytes:
    start = place % (len(content) or 1)
    return content[:start] + new + content[start + len(new) :]


def _insert(content: bytes, place: int, new: bytes) -> bytes:
    start = place % (len(content) + 1)
    return content[:start] + new + content[start:]


def _delete(content: bytes, place: int, count: int) -> bytes:
    start = place % (len(content) or 1)
    return content[:start] + content[start + count :]


def _token(content: bytes, number: int, word: str) -> bytes:
    found = list(TOKEN.finditer(content[:4096]))
    if not found:
        return content
    match = found[number % len(found)]
    return content[: match.start()] + word.encode() + content[match.end() :]


def _node(content: bytes, number: int, value: str) -> bytes:
    """Another value at one place of a JSON document, or the place taken out."""
    try:
        document = [json.loads(content)]
    except ValueError:
        return content
    places: list[tuple[Any, Any]] = []

    def visit(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], (dict, list)):
                visit(node[key])

    visit(document)
    node, key = places[number % len(places)]
    if value != "delete":
        node[key] = json.loads(value)
    elif node is not document:
        del node[key]
    return json.dumps(document[0]).encode()


_EDITS = {
    "put": _put,
    "cut": lambda content, place: content[: place % (len(content) or 1)],
    "insert": _insert,
    "delete": _delete,
    "token": _token,
    "node": _node,
}
