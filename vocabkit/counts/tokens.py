"""Texts → how often each token occurs: exactly what encoding every text gives, many times faster.

Reads tokenizer.json; writes nothing. A corpus repeats itself, so texts are cut into chunks where
counts/cuts.py shows that this is exact, equal chunks are counted, each different one is taken apart into
the words that the tokenizer splits it into, and each different word is encoded once. Where no cut is known
the texts are encoded whole: no faster, exact all the same.

Two steps, so that many processes can do the first, which needs no tokenizer: a ChunkCounter turns texts into
TextParts, and a TokenCounter turns these into counts of tokens. Chunks and words stay in pyarrow's arrays: as
Python objects they would take several times the memory, and most of the time.
"""

import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vocabkit.corpus.counting import Progress, count, processes
from vocabkit.corpus.files import find_sources
from vocabkit.corpus.workers import CorpusCounter
from vocabkit.counts.cuts import Cutter, Recipe, read_recipe
from vocabkit.tokenizer.bpe import BYTE_TO_CHAR
from vocabkit.tokenizer.tokenizer_json import TokenizerJson

# Characters that no normalizer changes (NFC), of scripts whose letters and digits were settled long ago, so
# that the Unicode versions of all the libraries agree on them; chunks with anything else are not split by
# ours.
SETTLED = ("\x00-\x03\x05-\u024f\u0400-\u0482\u048a-\u052f\u1e00-\u1eff\u2010-\u2027\u2030-\u205e"
           "\u20a0-\u20ac\u2190-\u2328\u232b-\u23ff\u2500-\u27bf\u3001-\u3029\u3030-\u303f\u3041-\u3096\u30a0-\u30ff\u4e00-\u9fa5"
           "\uac00-\ud7a3\uff01-\uffee\U0001f300-\U0001f5ff\U0001f600-\U0001f64f")  # fmt: skip

ONE_WORD = r"^ ?\p{L}+$"  # for every expression of counts/cuts.py

END = "\x04"  # stands between chunks that are split together; not in SETTLED
MAX_ENTRIES = 2_000_000  # chunks, and words, held at a time
ENTRY_BYTES = 40  # that each of them takes; fewer are held if they are longer
PENDING = 1_000_000  # characters of texts that are cut together; also of such that are not cut
SPLIT = 32_768  # chunks that are split together

LONG_WORD = 1 << 17  # characters: a longer one is encoded in windows
WINDOW = 1 << 16
BATCH, BATCHES = 1024, 64  # words, chunks or documents that are encoded together; batches in one call
BYTE_LEVEL = {byte: BYTE_TO_CHAR[byte] for byte in range(255)} | {255: " "}  # no UTF-8 has the byte 255


def bordered(words: str) -> str:
    """Return an expression that splits into words, one of counts/cuts.py's, for texts that END separates."""
    return words.replace(r"\p{N}]", rf"\p{{N}}{END}]").replace(r"(?!\S)", rf"(?![^\s{END}])") + "|" + END


class Tally:
    """Strings and how often each was met; take() them when it is full(): too many, or too long."""

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        self._tables: list[Any] = []
        self._merged: Any = None  # the first table, if its strings all differ

    def __len__(self) -> int:
        """Rows: the number of different strings, or more."""
        return sum(map(len, self._tables))

    def add(self, strings: Any, counts: Any) -> None:
        """Add counts, int64, to those of strings; both are pyarrow arrays of the same length."""
        import pyarrow

        self._tables.append(pyarrow.Table.from_arrays([strings, counts], ["string", "count"]))
        if self._fill(self._tables) > 1:
            self._merge()

    def full(self) -> bool:
        """Say whether so many strings differ that adding up equal ones again and again would not pay."""
        return self._merged is not None and self._fill([self._merged]) > 0.5

    def _fill(self, tables: Sequence[Any]) -> float:
        """Return what share of the memory these tables take."""
        size = sum(table.nbytes for table in tables)
        return max(sum(map(len, tables)), size / ENTRY_BYTES) / self._max_rows

    def _merge(self) -> None:
        import pyarrow

        together = pyarrow.concat_tables(self._tables)
        grouped = together.group_by("string", use_threads=False).aggregate([("count", "sum")])
        self._merged = grouped.rename_columns(["string", "count"]).combine_chunks()
        self._tables = [self._merged]

    def take(self) -> Any:
        """Return a pyarrow.Table of "string", all different, and "count"; the tally is empty again."""
        import pyarrow

        if self._tables:
            self._merge()
            taken = self._tables[0]
        else:
            taken = pyarrow.table(
                {"string": pyarrow.array([], "string"), "count": pyarrow.array([], "int64")}
            )
        self._tables, self._merged = [], None
        pyarrow.default_memory_pool().release_unused()  # it would keep what long lines took
        return taken


@dataclass(frozen=True)
class TextParts:
    """What texts were taken apart into. Tables as Tally.take() returns them."""

    documents: int
    words: Any  # what the tokenizer's model is to encode
    chunks: Any  # what the tokenizer is to encode
    texts: list[str]  # documents that may not be cut


class ChunkCounter(CorpusCounter):
    """Cuts texts and counts the different parts. It knows of the tokenizer only what a Recipe says.

    Memory is bounded by max_entries chunks and as many words, if take() is called when full() says so.
    """

    def __init__(self, recipe: Recipe, *, max_entries: int = MAX_ENTRIES) -> None:
        self._cuts = recipe.cuts
        self._max_entries = max_entries
        self._pending: list[str] = []
        self._pending_size = 0
        self.documents = 0
        self._chunks, self._words, self._others = (Tally(max_entries) for _ in range(3))
        self._texts: list[str] = []
        self._texts_size = 0
        # Characters by which a chunk may hold what is not for us to split: an added token, or a character on
        # which libraries may disagree.
        added = re.escape("".join(sorted({content[0] for content in recipe.added})))
        self._not_ours = f"[{added}]" if added else r"[^\s\S]"
        if self._cuts:
            self._cutter = Cutter(self._cuts, recipe.added)
        if self._cuts and self._cuts.words:
            import regex

            self._not_ours = f"[{added}]|[^{SETTLED}]" if added else f"[^{SETTLED}]"
            self._split = regex.compile(bordered(self._cuts.words)).findall

    def add(self, texts: Sequence[str]) -> None:
        """Count these texts too."""
        self.documents += len(texts)
        self._pending += texts
        self._pending_size += sum(map(len, texts))
        if self._pending_size > min(PENDING, 100 * self._max_entries):
            self._cut()

    def full(self) -> bool:
        """Say whether memory is used up."""
        return self._texts_size > PENDING or self._words.full() or self._others.full()

    def take(self) -> TextParts:
        """Return what was counted so far; the counter starts from zero again."""
        self._cut()
        self._to_words()
        taken = TextParts(self.documents, self._words.take(), self._others.take(), self._texts)
        self.documents, self._texts, self._texts_size = 0, [], 0
        return taken

    def _cut(self) -> None:
        texts, self._pending, self._pending_size = self._pending, [], 0
        whole = self._cuts.whole.search if self._cuts and self._cuts.whole else None
        if self._cuts is None:
            texts, uncut = [], texts
        elif whole and whole("".join(texts)):
            texts, uncut = (
                [text for text in texts if not whole(text)],
                [text for text in texts if whole(text)],
            )
        else:
            uncut = []
        self._texts += uncut
        self._texts_size += sum(map(len, uncut))
        if self._cuts and texts:
            self._chunks.add(*self._cutter.chunks(texts).value_counts().flatten())
            if self._chunks.full():
                self._to_words()

    def _to_words(self) -> None:
        """Take the different chunks apart into words, where that is for us to do, and count those instead."""
        import pyarrow
        import pyarrow.compute as compute

        counted = self._chunks.take()
        strings, counts = (column.combine_chunks() for column in counted.columns)
        if self._cuts is None or not (self._cuts.words or self._cuts.space):
            self._others.add(strings, counts)
            return
        ours = compute.invert(compute.match_substring_regex(strings, self._not_ours))
        others = compute.invert(ours)
        self._others.add(strings.filter(others), counts.filter(others))
        strings, counts = strings.filter(ours), counts.filter(ours)
        if self._cuts.space:
            self._words.add(compute.replace_substring(strings, " ", self._cuts.space), counts)
            return
        single = compute.match_substring_regex(strings, ONE_WORD)
        self._words.add(strings.filter(single), counts.filter(single))
        several = compute.invert(single)
        strings, counts = strings.filter(several), counts.filter(several)
        for at in range(0, len(strings), SPLIT):
            words = pyarrow.array(self._split(END.join(strings[at : at + SPLIT].to_pylist())), "string")
            ends = compute.equal(words, END).to_numpy(zero_copy_only=False)
            weights = counts[at : at + SPLIT].to_numpy()[np.cumsum(ends)[~ends]]
            self._words.add(words.filter(pyarrow.array(~ends)), pyarrow.array(weights))


class TokenCounter:
    """Counts of token ids over texts, each encoded by itself with its special tokens (`tokenizer(text)`).

    Memory is bounded by max_entries different chunks and words, however many texts are added.
    """

    def __init__(
        self, folder: Path, *, tokenizer: TokenizerJson | None = None, max_entries: int = MAX_ENTRIES
    ) -> None:
        import tokenizers
        from tokenizers.pre_tokenizers import CharDelimiterSplit

        from vocabkit.tokenizer.encoder import load_encoder
        from vocabkit.tokenizer.tokenizer_json import read_tokenizer_json

        self.encoder = load_encoder(folder)
        self.recipe = read_recipe(tokenizer or read_tokenizer_json(folder), self.encoder)
        self._frame = self.encoder.encode("").ids  # what surrounds every text: <s>, </s>
        self._model = tokenizers.Tokenizer(self.encoder.model)  # and nothing else of the tokenizer
        self._model.pre_tokenizer = CharDelimiterSplit(" ")
        self._vector = np.zeros(self.recipe.ids, np.int64)
        self._counter = ChunkCounter(self.recipe, max_entries=max_entries)
        self._words, self._chunks = Tally(max_entries), Tally(max_entries)

    def add(self, texts: Sequence[str]) -> None:
        """Count these texts too."""
        self._counter.add(texts)
        if self._counter.full():
            self.absorb(self._counter.take())

    def absorb(self, parts: TextParts) -> None:
        """Count what a ChunkCounter has taken apart too."""
        for token_id in self._frame:
            self._vector[token_id] += parts.documents
        for at in range(0, len(parts.texts), BATCH):
            batch = parts.texts[at : at + BATCH]
            self._add(self.encoder.encode_batch_fast(batch, add_special_tokens=False), [1] * len(batch))
        self._words.add(*parts.words.combine_chunks().columns)
        self._chunks.add(*parts.chunks.combine_chunks().columns)
        if self._words.full() or self._chunks.full():
            self._encode()

    def take(self) -> np.ndarray:
        """Return the counts so far, (highest id + 1,) int64; the counter starts from zero again."""
        if self._counter.documents:
            self.absorb(self._counter.take())
        self._encode()
        taken = self._vector
        self._vector = np.zeros_like(taken)
        return taken

    def _encode(self) -> None:
        """Encode each different word and chunk once and add its ids as often as it was counted."""
        for batches, counts in _by_count(self._words):
            for batch, times in zip(batches, counts, strict=True):
                for word in [word for word in batch if len(word) > LONG_WORD]:
                    line = self._line([word])
                    self._vector += times * count_in_windows(self._model, line, size=len(self._vector))
            lines = [self._line([word for word in batch if len(word) <= LONG_WORD]) for batch in batches]
            self._add(self._model.encode_batch_fast(lines), counts)
        for batches, counts in _by_count(self._chunks):
            options = {"is_pretokenized": True, "add_special_tokens": False}
            self._add(self.encoder.encode_batch_fast(batches, **options), counts)

    def _line(self, words: Sequence[str]) -> str:
        """Words in the characters of the model, which have no space, with spaces between them."""
        assert self.recipe.cuts
        if self.recipe.cuts.words:
            return b"\xff".join(map(str.encode, words)).decode("latin-1").translate(BYTE_LEVEL)
        return " ".join(words)

    def _add(self, encodings: Sequence[Any], counts: Sequence[int]) -> None:
        """Add the ids of encodings, each as often as its count says. Whole numbers below 2 ** 53 are exact as
        float64, what bincount adds.
        """
        ids = [encoding.ids for encoding in encodings]
        weights = np.repeat(np.asarray(counts, np.int64), list(map(len, ids)))
        every = np.fromiter(itertools.chain.from_iterable(ids), np.int64)
        self._vector += np.bincount(every, weights, minlength=len(self._vector)).astype(np.int64)


def count_in_windows(model: Any, word: str, *, size: int, window: int = WINDOW) -> np.ndarray:
    """Return how often each id below size is in the encoding of a long word: (size,) int64.

    Encoded whole it would take 150 bytes of memory a character. Exact all the same, see "Windows" in
    tokenizer/bpe.py. model: a tokenizers.Tokenizer of BPE that takes the word as one. window: more characters
    than any token has.
    """

    def encoded(start: int) -> tuple[int, Any]:
        stop = start + window if len(word) - start > 2 * window else len(word)
        return stop, model.encode(word[start:stop])

    counts = np.zeros(size, np.int64)
    at, (stop, found) = 0, encoded(0)
    while stop < len(word):
        ids, offsets = found.ids, found.offsets
        for end in range(len(ids) - 1 - len(ids) // 16, 0, -1 - len(ids) // 16):
            start = at + offsets[end][0]  # of the next window, inside this one
            stop, found = encoded(start)
            if found.ids[:1] == [ids[end]]:  # as in this window, where the two stand side by side
                break
            pair = model.encode(word[at + offsets[end - 1][0] : start + found.offsets[0][1]])
            if pair.ids == [ids[end - 1], found.ids[0]]:
                break
        else:  # of a word that has no such place nothing is known
            return np.bincount(model.encode(word).ids, minlength=size)
        counts += np.bincount(ids[:end], minlength=size)
        at = start
    return counts + np.bincount(found.ids, minlength=size)


def _by_count(tally: Tally) -> Iterator[tuple[list[list[str]], list[int]]]:
    """Take what was tallied; yield some batches of strings at a time, each of strings that were met equally
    often, and these counts.

    So one count goes for all ids of a batch, and nobody need ask which of them belong to which string.
    """
    if not len(tally):
        return
    table = tally.take().sort_by("count")
    strings, counts = table["string"], table["count"].to_numpy()
    del table
    ends = [*(np.flatnonzero(np.diff(counts)) + 1).tolist(), len(counts)]
    spans = [
        (at, min(at + BATCH, end))
        for begin, end in itertools.pairwise([0, *ends])
        for at in range(begin, end, BATCH)
    ]
    for at in range(0, len(spans), BATCHES):
        part = spans[at : at + BATCHES]
        first = part[0][0]
        values = strings.slice(first, part[-1][1] - first).to_pylist()
        yield [values[a - first : b - first] for a, b in part], [int(counts[a]) for a, _ in part]


def merge(vectors: Iterable[np.ndarray]) -> np.ndarray:
    """Return the sum of the shards' counts: the reduce step."""
    return np.sum(list(vectors), axis=0)


ENTRIES = 4_000_000  # chunks, and words, that all workers together hold, and the total too: 40 bytes each


def count_corpus(
    model: Path,
    corpus: Sequence[str],
    *,
    tokenizer: TokenizerJson | None = None,
    workers: int | None = None,
    **options: Any,
) -> Progress:
    """Count the tokens of a corpus with the tokenizer of a folder; options: as for corpus/counting.count().

    tokenizer: the folder's, where it has been read already.
    """
    workers = processes(workers)
    total = TokenCounter(model, tokenizer=tokenizer, max_entries=ENTRIES)
    make_counter = functools.partial(ChunkCounter, total.recipe, max_entries=ENTRIES // workers)
    sources = find_sources(corpus)
    return count(sources, make_counter, total=total, model=model, what={}, workers=workers, **options)
