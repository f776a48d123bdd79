"""Texts → how often each token occurs: exactly what encoding every text gives, several times faster.

Reads tokenizer.json; writes nothing. A corpus repeats itself, so texts are cut into chunks where cuts.py
shows that this is exact, equal chunks are counted, each different one is taken apart into the words that the
tokenizer splits it into, and each different word is encoded once. Where no cut is known the texts are encoded
whole: no faster, exact all the same.
"""

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from vocabkit.bpe import byte_level_token
from vocabkit.cuts import NO_SPACE, OTHER_SPACE, Recipe, any_of, careful_pattern, chunk_text, chunks

# Scripts whose letters and digits were settled long ago, so that the Unicode versions of the two regular
# expression libraries agree on them; chunks with anything else are not split into words by ours.
SETTLED = re.compile("[\x00-\u024f\u0300-\u036f\u0400-\u052f\u1e00-\u1eff\u2010-\u2027\u2030-\u205e"
                     "\u20a0-\u20ac\u2190-\u23ff\u2500-\u27bf\u3001-\u303f\u3041-\u3096\u30a0-\u30ff\u4e00-\u9fa5\uac00-\ud7a3"
                     "\uff01-\uffee\U0001f300-\U0001f5ff\U0001f600-\U0001f64f]*")  # fmt: skip
MAX_ENTRIES = 1_000_000  # different chunks, and words, held at a time: some 100 bytes each
JOINED = 64  # chunks split together: more, and what may not be split spoils too many
BATCH = 1024  # words or documents in one call of the tokenizers library


def _batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, BATCH)):
        yield batch


class TokenCounter:
    """Counts of token ids over texts, each encoded by itself with its special tokens (`tokenizer(text)`).

    Memory is bounded by max_entries different chunks and words, however many texts are added.
    """

    def __init__(self, recipe: Recipe, *, max_entries: int = MAX_ENTRIES) -> None:
        from vocabkit.verify import load_encoder

        self._encoder = load_encoder(recipe.folder)
        self._frame = self._encoder.encode("").ids  # what surrounds every text: <s>, </s>
        self._max_entries = max_entries
        self._cuts = recipe.cuts
        self._vector = np.zeros(recipe.ids, np.int64)
        self._chunks: Counter[str] = Counter()
        self._texts: Counter[str] = Counter()  # chunks as they stand in a text
        self._words: Counter[str] = Counter()
        self._whole: Counter[str] = Counter()  # chunks that are not split into words
        self._split: Callable[[str], list[str]] | None = None
        if self._cuts:
            self._other_space = any_of(OTHER_SPACE)
            self._pattern = careful_pattern(self._cuts.lines)
            self._may_be_added = any_of(recipe.added_starts or NO_SPACE).search
            if self._cuts.words:
                import regex

                self._split = regex.compile(self._cuts.words).findall
            self._words_are_plain = not any(char == " " or char.isalpha() for char in recipe.added_starts)

    def add(self, texts: Sequence[str]) -> None:
        """Count these texts too."""
        for token_id in self._frame:
            self._vector[token_id] += len(texts)
        if self._cuts is None:
            self._add_whole(texts)
            return
        joined = "".join(texts)
        if self._cuts.whole.search(joined):
            self._add_whole([text for text in texts if self._cuts.whole.search(text)])
            texts = [text for text in texts if not self._cuts.whole.search(text)]
        if self._other_space.search(joined):
            for text in texts:
                if self._other_space.search(text):
                    self._texts.update(self._pattern.findall(text))
            texts = [text for text in texts if not self._other_space.search(text)]
        self._chunks.update(chunks(texts, lines=self._cuts.lines))
        if self._entries() > self._max_entries:
            self._to_words()
        if self._entries() > self._max_entries:
            self._encode_words()

    def _entries(self) -> int:
        return sum(map(len, (self._chunks, self._texts, self._words, self._whole)))

    def take(self) -> np.ndarray:
        """Return the counts so far, (highest id + 1,) int64; the counter starts from zero again."""
        self._to_words()
        self._encode_words()
        taken = self._vector
        self._vector = np.zeros_like(taken)
        return taken

    def _add_whole(self, texts: Sequence[str]) -> None:
        for batch in _batches(texts):
            encodings = self._encoder.encode_batch_fast(batch, add_special_tokens=False)
            self._add([token_id for encoding in encodings for token_id in encoding.ids], None)

    def _to_words(self) -> None:
        """Take the different chunks apart into words, where the tokenizer does, and count those instead."""
        counted = ((chunk_text(chunk), count) for chunk, count in self._chunks.items())
        if self._split is None:
            for text, count in counted:
                self._texts[text] += count
        else:
            # Chunks that come equally often are split together: many of them are text again, one after
            # another, with a cut wherever two of them meet.
            groups: defaultdict[tuple[int, str], list[str]] = defaultdict(list)
            for text, count in itertools.chain(counted, self._texts.items()):
                if self._words_are_plain and text.isascii() and text[1:].isalpha() and text[0] == " ":
                    self._words[text] += count  # one word by every expression
                elif kind := self._joins_as(text):
                    groups[count, kind].append(text)
                else:
                    self._count_words([text], count)
            for (count, _), group in groups.items():
                for at in range(0, len(group), JOINED):
                    self._count_words(group[at : at + JOINED], count)
            self._texts.clear()
        self._chunks.clear()

    def _joins_as(self, text: str) -> str:
        """Say with which others a chunk may be joined: "word" (a space first, no line end before other
        characters), "line" (a line with its end), or "" (none).
        """
        assert self._cuts
        ends_line = self._cuts.lines and text[-1:] == "\n"
        if text[:1] == " ":
            start = text[: len(text) - len(text.lstrip())]
            if len(start) < len(text) and "\n" not in start and "\r" not in start:
                return "word" if ends_line or not text[-1].isspace() else ""
        elif ends_line and not text[0].isspace():
            return "line"
        return ""

    def _count_words(self, texts: Sequence[str], count: int) -> None:
        """Count the words of chunks that may stand one after another; what we must not split stays whole."""
        assert self._split
        text = "".join(texts)
        may_be_added = self._may_be_added(text)  # as written, or, below, as normalized: tokens of both kinds
        if not text.isascii() and self._encoder.normalizer:
            text = self._encoder.normalizer.normalize_str(text)
            may_be_added = may_be_added or self._may_be_added(text)
        if not may_be_added and SETTLED.fullmatch(text):
            words = self._split(text)
            if count == 1:
                self._words.update(words)
            else:
                for word in words:
                    self._words[word] += count
        elif len(texts) > 1:
            for text in texts:
                self._count_words([text], count)
        else:
            self._whole[texts[0]] += count

    def _encode_words(self) -> None:
        """Encode each different word and chunk once and add its ids as often as it was counted."""
        whole = self._whole + self._texts  # of one of the two only
        for batch in _batches(whole.items()):
            texts, counts = zip(*batch, strict=True)
            encoding = self._encoder.encode(texts, is_pretokenized=True, add_special_tokens=False)
            self._add(encoding.ids, np.asarray(counts)[np.asarray(encoding.word_ids, np.int64)])
        # A word is what the library's own splitting would have left: only the model is still to be asked.
        for batch in _batches(self._words.items()):
            ids, weights = [], []
            for word, count in batch:
                for token in self._encoder.model.tokenize(byte_level_token(word.encode())):
                    ids.append(token.id)
                    weights.append(count)
            self._add(ids, weights)
        self._whole.clear()
        self._texts.clear()
        self._words.clear()

    def _add(self, ids: Sequence[int], counts: Any) -> None:
        """Add counts to the ids' places, None: one each. Whole numbers below 2 ** 53 are exact as float64,
        what bincount adds.
        """
        sums = np.bincount(np.asarray(ids, np.int64), weights=counts, minlength=len(self._vector))
        self._vector += sums.astype(np.int64)


def count_texts(recipe: Recipe, texts: Iterable[str]) -> np.ndarray:
    """Return how often each id occurs in texts, (highest id + 1,) int64: the map step, for one shard."""
    counter = TokenCounter(recipe)
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size > 1 << 20:
            counter.add(batch)
            batch, size = [], 0
    counter.add(batch)
    return counter.take()


def merge(vectors: Iterable[np.ndarray]) -> np.ndarray:
    """Return the sum of the shards' counts: the reduce step."""
    return np.sum(list(vectors), axis=0)
