"""Tokenizers made by hand and counts of a text, for tests of choosing words and syllables."""

import json
from collections import Counter
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from vocabkit.tokenizer import bpe
from vocabkit.tokenizer.encoder import QWEN2
from vocabkit.tokenizer.tokenizer_json import BYTE_LEVEL_BPE, TokenizerJson
from vocabkit.words.merges import SplitCounter, Splits
from vocabkit.words.stretches import Savings, StretchCounter


def splitter() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def hand_made(*tokens: str) -> tuple[TokenizerJson, Tokenizer]:
    """A byte-level tokenizer of single bytes and these tokens, each merged from the left."""
    stored = [bpe.byte_level_token(token.encode()) for token in tokens]
    merges = list(dict.fromkeys((token[:at], token[at]) for token in stored for at in range(1, len(token))))
    vocab = {token: at for at, token in enumerate([*bpe.CHAR_TO_BYTE, *map("".join, merges)])}
    encoder = Tokenizer(models.BPE(vocab, merges))
    encoder.pre_tokenizer = splitter()
    data = json.loads(encoder.to_str())
    return TokenizerJson(Path("tokenizer.json"), data, BYTE_LEVEL_BPE, vocab, {}, merges), encoder


def splits_of(text: str, *tokens: str) -> Splits:
    tokenizer, encoder = hand_made(*tokens)
    return Splits(words_of(text), tokenizer, encoder, QWEN2)


def words_of(text: str) -> Counter[str]:
    counter = SplitCounter(QWEN2)
    counter.add([text])
    return counter.take()


def saved_by(words: set[int], savings: Savings) -> int:
    """Tokens saved by these words together."""
    return sum(savings.of_stretch(at, words) * count for at, count in enumerate(savings.counts))


def savings_of(contents: list[str], texts: list[str], encoder) -> Savings:
    counter = StretchCounter(contents)
    counter.add(texts)
    return Savings(contents, counter.take(), encoder)
