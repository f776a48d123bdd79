"""vocabkit/tokenizer/charsmap.py: a table that leads outside is refused, and no library panics."""

import base64
import random
import struct

import pytest
from tokenizers import normalizers

from vocabkit.tokenizer.charsmap import check_charsmap


def table(units: dict[int, int], texts: bytes = b"ab\0\xe1\xba\xa1\0", *, size: int = 256) -> bytes:
    filled = [units.get(at, 0) for at in range(size)]
    return struct.pack(f"<I{size}I", 4 * size, *filled) + texts


def unit(label: int = 0, *, offset: int = 0, leaf: bool = False) -> int:
    return offset << 10 | leaf << 8 | label


def good(place: int = 3) -> bytes:
    """x → the text at this place; the root's offset is 1, that of x 2 from there."""
    at_x = 1 ^ ord("x")
    return table({0: unit(offset=1), at_x: unit(ord("x"), offset=2, leaf=True), at_x ^ 2: place})


def normal(data: bytes, text: str) -> str:
    return normalizers.Precompiled(data).normalize_str(text)


def test_a_table_is_read_as_the_library_reads_it():
    check_charsmap(base64.b64encode(good()).decode())
    assert normal(good(), "axb") == "aạb" and normal(good(0), "x") == "ab"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "has 0 bytes"),
        (b"abc", "has 3 bytes"),
        (struct.pack("<I", 0), "a trie of 0"),
        (good()[:500], "a trie of 1,024"),
        (good(4), "replaces a text by byte 4 of 7"),
        (good(99), "replaces a text by byte 99 of 7"),
        (table({0: unit(offset=300)}), "leads to unit 511 of 256"),
        (table({0: unit(offset=1)}, b"\xff\0"), "utf-8"),
    ],
)
def test_a_table_that_leads_outside_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        check_charsmap(base64.b64encode(data).decode())


def test_what_passes_never_makes_the_library_panic():
    choose, passed = random.Random(3), 0
    texts = ["".join(map(chr, range(1, 0x3000))), "xxx ax"]
    for _ in range(400):
        data = bytearray(good())
        for _ in range(choose.choice([1, 3])):
            data[choose.randrange(len(data))] = choose.choice([0, 1, choose.randrange(256)])
        try:
            check_charsmap(base64.b64encode(data).decode())
        except ValueError:
            continue
        passed += 1
        for text in texts:
            normal(bytes(data), text)  # a panic is no Exception: it would end the test
    assert passed > 50
