"""The text of ids while they come: shown as early as possible, and never half a character.

Reads and writes nothing.
"""

import codecs
import json
from collections.abc import Iterable, Iterator
from typing import Any

from vocabkit.tokenizer.bpe import byte_fallback_value, byte_level_bytes


def stream_bytes(pieces: Iterable[bytes]) -> Iterator[str]:
    """Yield the text of pieces of UTF-8; a broken byte is "\\ufffd" once the next piece proves it broken.

    >>> list(stream_bytes([b"\\xe1\\xbb", b"\\x87", b"\\xe1", b"a"])) == ["\\u1ec7", "\\ufffda"]
    True
    """
    utf8 = codecs.getincrementaldecoder("utf-8")("replace")
    for piece in pieces:
        if text := utf8.decode(piece):
            yield text
    if rest := utf8.decode(b"", final=True):
        yield rest


def stream_text(ids: Iterable[int], tokenizer: Any, *, skip_special_tokens: bool = False) -> Iterator[str]:
    """Yield the text of ids piece by piece: joined, it equals tokenizer.decode(ids) without space clean-up.

    tokenizer: of transformers, a fast one. In tokenizers with byte fallback (<0xE1>) a run of byte tokens is
    held back until it ends, because their decoder judges the run as a whole: one bad byte spoils all its
    characters. The work per token does not grow with the text.
    """
    fast = tokenizer.backend_tokenizer
    kinds = _decoder_kinds(json.loads(fast.decoder.__getstate__())) if fast.decoder is not None else set()
    added = fast.get_added_tokens_decoder()
    skipped = {token.content for token in added.values() if token.special} if skip_special_tokens else set()
    # An id without a token (a padding row) has no text, as in decode().
    tokens = ((i, t) for i in ids if (t := fast.id_to_token(i)) is not None and t not in skipped)
    if kinds - {"Fuse"} == {"ByteLevel"}:
        return stream_bytes(_bytes_of(token) for _, token in tokens)
    return _stream_window(tokens, tokenizer, kinds)


def _bytes_of(token: str) -> bytes:
    try:
        return byte_level_bytes(token)
    except KeyError:  # the decoder of tokenizers takes such a token (" thời gian") as plain text
        return token.encode("utf-8")


def _stream_window(tokens: Iterable[tuple[int, str]], tokenizer: Any, kinds: set[str]) -> Iterator[str]:
    """Any other decoder: decode new ids behind the one before them, which keeps the space between."""

    def decode(window: list[int]) -> str:
        return tokenizer.decode(window, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    before: list[int] = []
    pending: list[int] = []
    for token_id, token in tokens:
        pending.append(token_id)
        if "ByteFallback" in kinds and byte_fallback_value(token) is not None:
            continue
        piece = decode(before + pending)[len(decode(before)) :]
        if "ByteLevel" in kinds and piece.endswith("\ufffd"):
            continue
        # "▁" alone decodes to nothing at the start of a text: one more id in front makes it a space again.
        window = before + pending
        before = next((w for w in (window[-1:], window[-2:]) if decode(w)), window)
        pending = []
        if piece:
            yield piece
    if pending and (piece := decode(before + pending)[len(decode(before)) :]):
        yield piece


def _decoder_kinds(state: dict[str, Any]) -> set[str]:
    if state["type"] == "Sequence":
        return set().union(*(_decoder_kinds(child) for child in state["decoders"]))
    return {state["type"]}
