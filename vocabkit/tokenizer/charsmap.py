"""The precompiled_charsmap of SentencePiece's normalizers: is every look-up in it one that ends inside?

The tokenizers library does not ask, and panics where a text leads outside. Format: base64 of the size of a
trie in bytes (uint32), the trie as units of darts-clone (uint32, little-endian), and the replacements, each
UTF-8 with a zero behind it. Source: spm_precompiled of huggingface.
"""

import base64
import struct
from collections import defaultdict


def check_charsmap(charsmap: str) -> None:
    """Raise ValueError for a table in which some text leads outside.

    A unit with a label is reached from one place only, its own with the bits of the label turned over. So the
    units that can follow a place are known, and one walk from the root sees all that any text can reach.
    """
    data = base64.b64decode(charsmap, validate=True)
    size = struct.unpack_from("<I", data)[0] if len(data) >= 4 else 0
    if size % 4 or not 4 <= size <= len(data) - 4:
        raise ValueError(f"precompiled_charsmap has {len(data):,} bytes, a trie of {size:,}")
    units = struct.unpack_from(f"<{size // 4}I", data, 4)
    texts = data[4 + size :]
    texts.decode("utf-8")
    followers: dict[int, list[int]] = defaultdict(list)
    for at, unit in enumerate(units):
        if 0 < (label := unit & 0x800000FF) < 256:
            followers[at ^ label].append(at)
    seen = {0}
    todo = [_offset(units[0])]
    while todo:
        place = todo.pop()
        if place | 0xFF >= len(units):
            raise ValueError(f"precompiled_charsmap leads to unit {place | 0xFF:,} of {len(units):,}")
        for at in followers[place]:
            if at in seen:
                continue
            seen.add(at)
            after = at ^ _offset(units[at])
            if units[at] >> 8 & 1:  # a text ends here: its replacement
                start = units[after] & 0x7FFFFFFF if after < len(units) else len(texts) + 1
                if start > len(texts) or texts[start : start + 1] >= b"\x80" and texts[start] < 0xC0:
                    raise ValueError(
                        f"precompiled_charsmap replaces a text by byte {start:,} of {len(texts):,}"
                    )
            todo.append(after)


def _offset(unit: int) -> int:
    return unit >> 10 << ((unit & 1 << 9) >> 6)
