"""Seeded damage: bytes flipped, cut, repeated, put in; values of JSON swapped for others, nested, doubled."""

import copy
import json
import random
import struct
from collections.abc import Callable
from typing import Any

PIECES = [
    b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\x1b[2J", b"\r", b"\n\n", b"\xe1\xba", b"[" * 5000,
    b'{"a":' * 3000, b"9" * 5000, b"1e999", b"NaN", b'"\\ud800"', b"\\", b'"', b",", b"\t", b"A" * 70_000,
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, 7.5, 5.0, 2**31, 2**63, 2**64, 10**400, -(10**30), 1e300, float("inf"),
    float("nan"), "", "x", "5", "\ud800", "\x1b[31m", "<|im_end|>", "../../etc/passwd", "y" * 100_000, [],
    [None], ["a"], [[]], [1, 2, 3], {}, {"a": 1}, {"content": "x"}, {"type": "Precompiled"},
    {"type": "Sequence"},
]  # fmt: skip


def damaged(data: bytes, choose: random.Random) -> bytes:
    """Return bytes with one to four changes: as JSON, or as lines of it, where they are some, or as bytes."""
    for _ in range(choose.choice([1, 1, 1, 2, 4])):
        change = choose.choice([_json, _json, _json, _lines, *CHANGES])
        data = change(data, choose)
    return data


def _flip(data: bytes, choose: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(choose.choice([1, 1, 3, 20]) if data else 0):
        changed[choose.randrange(len(changed))] = choose.randrange(256)
    return bytes(changed)


def _cut(data: bytes, choose: random.Random) -> bytes:
    return data[: choose.randrange(len(data) + 1)]


def _remove(data: bytes, choose: random.Random) -> bytes:
    at = choose.randrange(len(data) + 1)
    return data[:at] + data[at + choose.choice([1, 2, 8, 100]) :]


def _repeat(data: bytes, choose: random.Random) -> bytes:
    at = choose.randrange(len(data) + 1)
    return data[:at] + data[at : at + choose.choice([1, 8, 200])] * choose.choice([2, 3, 50]) + data[at:]


def _insert(data: bytes, choose: random.Random) -> bytes:
    at = choose.randrange(len(data) + 1)
    return data[:at] + choose.choice(PIECES) + data[at:]


CHANGES: list[Callable[[bytes, random.Random], bytes]] = [_flip, _cut, _remove, _repeat, _insert]


def _json(data: bytes, choose: random.Random) -> bytes:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return choose.choice(CHANGES)(data, choose)
    return json.dumps(swapped(value, choose), ensure_ascii=choose.random() < 0.8).encode(
        errors="surrogatepass"
    )


def _lines(data: bytes, choose: random.Random) -> bytes:
    lines = data.split(b"\n")
    at = choose.randrange(len(lines))
    lines[at] = choose.choice(
        [lambda line: _json(line, choose), lambda line: b"", lambda line: line + b"\n" + line]
    )(lines[at])
    return b"\n".join(lines)


def swapped(value: Any, choose: random.Random) -> Any:
    """Return a value of JSON with one part, at any depth, replaced, removed, doubled, renamed or nested."""
    value = copy.deepcopy(value)
    places: list[tuple[Any, Any]] = []
    todo = [value] if isinstance(value, dict | list) else []
    while todo:
        inside = todo.pop()
        keys = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
        for key in choose.sample(keys, min(len(keys), 30)):  # a table of ids is not all that there is
            places.append((inside, key))
            if isinstance(inside[key], dict | list):
                todo.append(inside[key])
    if not places:
        return choose.choice(VALUES)
    inside, key = choose.choice(places)
    old = inside[key]
    how = choose.randrange(8)
    if how == 0:
        del inside[key]
    elif how == 1 and isinstance(old, int | float) and not isinstance(old, bool):
        inside[key] = choose.choice([str(old), float(old), old + 1, -old, old * 2, [old], bool(old)])
    elif how == 2 and isinstance(inside, dict):
        inside[choose.choice(["", "x", str(key) + "x", "\x1b[0m"])] = inside.pop(key)
    elif how == 3 and isinstance(inside, list):
        inside.insert(key, old)
    elif how == 4:
        for _ in range(choose.choice([1, 3, 400])):
            old = [old]
        inside[key] = old
    elif how == 5 and isinstance(old, str):
        inside[key] = choose.choice([old[:-1], old + old, old.upper(), old + "\0", old[::-1], old + "\ud83d"])
    else:
        inside[key] = choose.choice(VALUES)
    return value


def damaged_safetensors(data: bytes, choose: random.Random) -> bytes:
    """Return a safetensors file whose header is another, its length mostly right; or other bytes."""
    (size,) = struct.unpack_from("<Q", data)
    if choose.random() < 0.2:
        return damaged(data, choose)
    header = json.loads(data[8 : 8 + size])
    for _ in range(choose.choice([1, 1, 2])):
        header = swapped(header, choose)
    text = json.dumps(header).encode() if choose.random() < 0.8 else damaged(data[8 : 8 + size], choose)
    length = len(text) if choose.random() < 0.9 else choose.choice([0, 7, len(data), 2**40, 2**63])
    return struct.pack("<Q", length) + text + data[8 + size :]


def damaged_gguf(data: bytes, start: int, choose: random.Random) -> bytes:
    """Return a GGUF file damaged in its header, of start bytes: numbers in it changed, or any bytes."""
    how = choose.randrange(3)
    if how == 0:
        changed = bytearray(data)
        for _ in range(choose.choice([1, 1, 3])):
            at = choose.randrange(4, start - 8)
            number = choose.choice([0, 1, 3, 8, 9, 255, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1])
            size = choose.choice([1, 4, 8])
            changed[at : at + size] = struct.pack("<Q", number)[:size]
        return bytes(changed)
    if how == 1:
        return damaged(data[:start], choose) + data[start:]
    return choose.choice(CHANGES)(data, choose)
