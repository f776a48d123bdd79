"""A tokenizer as the tokenizers library runs it: loaded, given new words and merges, asked to spell.

Reads tokenizer.json; writes nothing.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vocabkit.errors import UserError, is_panic
from vocabkit.tokenizer import bpe
from vocabkit.tokenizer.bpe import byte_level_token
from vocabkit.tokenizer.tokenizer_json import BYTE_LEVEL_BPE, TokenizerJson

if TYPE_CHECKING:
    import tokenizers


def speller(tokenizer: TokenizerJson) -> Callable[[bytes], list[int]]:
    """Return the function bytes → ids of the tokenizer's model alone: no normalizer, no cutting, no added
    tokens.

    Of tokenizers that hold text, bytes that are no whole characters give no ids.
    """
    model: Any = load_encoder(tokenizer.path.parent).model

    def spell(token_bytes: bytes) -> list[int]:
        if tokenizer.family == BYTE_LEVEL_BPE:
            token = byte_level_token(token_bytes)
        else:
            try:
                token = token_bytes.decode("utf-8").replace(" ", "▁")
            except UnicodeDecodeError:
                return []
        return [piece.id for piece in model.tokenize(token)]

    return spell


QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def splitting_pattern(splitter: Any) -> str | None:
    """The known expression by which a byte-level pre_tokenizer splits, None for any other."""
    match splitter:
        case {"type": "ByteLevel", "use_regex": True, "add_prefix_space": False}:
            return GPT2
        case {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "use_regex": False, "add_prefix_space": False},
            ],
        } if pattern in (GPT2, QWEN2, LLAMA3):
            return pattern
    return None


def load_encoder(folder: Path) -> "tokenizers.Tokenizer":
    """Return a folder's tokenizer without truncation or padding; UserError if the library refuses it."""
    import tokenizers

    path = folder / "tokenizer.json"
    try:
        encoder = tokenizers.Tokenizer.from_buffer(path.read_bytes())  # takes no names but UTF-8
    except BaseException as error:  # the library raises bare Exception, or panics
        if not (isinstance(error, Exception) or is_panic(error)):
            raise
        raise UserError(f"{path} is refused by tokenizers: {error}; download the file again") from None
    return _bare(encoder)


def extended(
    tokenizer: TokenizerJson, tokens: Sequence[str] = (), merges: Sequence[bpe.Merge] = ()
) -> "tokenizers.Tokenizer":
    """Return the tokenizer with new tokens, as extend_vocab writes it, without truncation or padding.

    Ids follow the last old token: first what the merges make, then tokens, texts that are added tokens. Holes
    between the old ids are closed. New tokens are looked for in normalized text where the normalizer composes
    it (NFC), else in the text as it is.
    """
    import tokenizers

    data = tokenizer.trimmed(list(tokenizer.tokens), new_merges=merges)
    encoder = _bare(tokenizers.Tokenizer.from_str(json.dumps(data)))
    encoder.add_tokens(
        [tokenizers.AddedToken(text, normalized=tokenizer.has_nfc, special=False) for text in tokens]
    )
    return encoder


def _bare(encoder: "tokenizers.Tokenizer") -> "tokenizers.Tokenizer":
    encoder.no_truncation()
    encoder.no_padding()
    return encoder


def encoded(encoder: "tokenizers.Tokenizer", texts: Sequence[str]) -> "list[tokenizers.Encoding]":
    """Encode texts without special tokens."""
    return encoder.encode_batch_fast(list(texts), add_special_tokens=False)
