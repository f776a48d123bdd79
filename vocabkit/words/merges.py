"""Syllables that take several tokens, and what continuing the BPE merges inside words saves.

A tokenizer splits text into words before it merges (`split_pattern`); merges join tokens inside one word
only. So a corpus is the counts of its different words here. A new merge of two tokens joins them wherever
they stand side by side in a word, after all old merges (vocabkit/tokenizer/bpe.py has the theorem): each
place saves one token, in text of any language, and this is counted exactly where the tokenizer splits by a
known expression. Whole-text tokenizers (Gemma) are counted as if they split like Qwen; what that misses is
measured.

Candidates are pairs of tokens inside well-formed Vietnamese syllables, whole (" g" + "ian") or in part
("th" + "uy" of "thuyền"): each token made, whole syllable or not, costs one new row.
"""

import functools
import hashlib
import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vocabkit.corpus import counting
from vocabkit.corpus.files import Source
from vocabkit.corpus.workers import CorpusCounter
from vocabkit.text.languages import is_syllable
from vocabkit.tokenizer.encoder import QWEN2, encoded, splitting_pattern
from vocabkit.tokenizer.tokenizer_json import BYTE_LEVEL_BPE, TokenizerJson

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.pre_tokenizers import PreTokenizer

MAX_WORDS = 4_000_000  # different ones that all workers together hold: some 100 bytes each

Pair = tuple[int, int]


def split_pattern(tokenizer: TokenizerJson, encoder: "Tokenizer") -> "str | PreTokenizer":
    """Return what splits text into words: the tokenizer's own expression if it is known, else for byte-level
    tokenizers their own pre_tokenizer, which is slower, and for others Qwen's expression.
    """
    if tokenizer.family != BYTE_LEVEL_BPE:
        return QWEN2
    return splitting_pattern(tokenizer.data.get("pre_tokenizer")) or encoder.pre_tokenizer


def _splitter(pattern: "str | PreTokenizer") -> Callable[[str], list[str]]:
    import regex

    if isinstance(pattern, str):
        found: Callable[[str], list[str]] = regex.compile(pattern).findall
        return found
    return lambda text: [text[begin:end] for _, (begin, end) in pattern.pre_tokenize_str(text)]


class SplitCounter(CorpusCounter):
    """Counts the words with a letter that a tokenizer splits text into, as they stand: " gian", "(gian".

    >>> counter = SplitCounter(QWEN2)
    >>> counter.add(["thời gian, 12 gian"])
    >>> sorted(counter.take().items())
    [(' gian', 2), ('thời', 1)]
    """

    def __init__(self, pattern: "str | PreTokenizer", *, max_words: int = MAX_WORDS) -> None:
        self._split = _splitter(pattern)
        self._max_words = max_words
        self._counts: Counter[str] = Counter()

    def add(self, texts: Sequence[str]) -> None:
        """Count these texts too."""
        for text in texts:
            self._counts.update(self._split(text))
        if len(self._counts) > self._max_words:
            # Most words come once. What is dropped here is counted a little low.
            self._counts = Counter({word: count for word, count in self._counts.items() if count > 1})

    def take(self) -> Counter[str]:
        """Return the counts so far; the counter starts from zero again."""
        taken = Counter({w: count for w, count in self._counts.items() if any(map(str.isalpha, w))})
        self._counts = Counter()
        return taken


def count_splits(
    model: Path,
    sources: Sequence[Source],
    pattern: "str | PreTokenizer",
    *,
    workers: int | None = None,
    **options: Any,
) -> counting.Progress:
    """Count the words that a tokenizer splits a corpus into, as count_words() does."""
    workers = counting.processes(workers)
    named = pattern if isinstance(pattern, str) else pattern.__getstate__().decode("utf-8")
    return counting.count(
        sources,
        functools.partial(SplitCounter, pattern, max_words=MAX_WORDS // workers),
        model=model,
        what={"counts": "splits", "pattern_sha256": hashlib.sha256(named.encode("utf-8")).hexdigest()},
        workers=workers,
        **options,
    )


@dataclass(frozen=True)
class Merged:
    """A token made: its number, the two that it joins, the old ids it replaces, and in how many places of the
    text, new words included, the two stood side by side.
    """

    token: int
    pair: Pair
    replaces: list[int]
    freq: int


class Splits:
    """The different words of a corpus as tokens, with counts, on which new merges are performed.

    counts: how often each word stands outside new tokens; add() changes it. Tokens are numbers: ids of the
    tokenizer, and those after its last for what merge() makes. names: each token as stored; bytes: what it
    stands for.
    """

    def __init__(
        self,
        counts: Mapping[str, int],
        tokenizer: TokenizerJson,
        encoder: "Tokenizer",
        pattern: "str | PreTokenizer",
    ) -> None:
        self._split = _splitter(pattern)
        self._encoder = encoder
        self.names = dict(tokenizer.tokens)
        self._next = max(self.names) + 1
        self.bytes = dict(tokenizer.token_bytes)
        self._known = set(self.names.values())
        # SentencePiece spells with bytes what it could not merge, after all merging.
        self._single = tokenizer.byte_ids() if tokenizer.family != BYTE_LEVEL_BPE else set()
        self.numbers: dict[str, int] = {}
        self.tokens: list[list[int]] = []
        self.counts: list[int] = []
        self._total: list[int] = []  # what counts were in the beginning
        self._replaces: dict[int, list[int]] = {}
        self._is_syllable: list[bool] = []
        self._before: list[int] = []  # bytes of a word before its syllable, a space not counted
        self._where: defaultdict[Pair, set[int]] = defaultdict(set)
        self._saves: Counter[Pair] = Counter()
        self._allowed: set[Pair] = set()
        self._queue: list[tuple[int, Pair]] = []
        self.learn(counts)
        for word, count in counts.items():
            self._total[self.numbers[word]] = count
            self.add(self.numbers[word], count)

    def learn(self, words: Iterable[str]) -> None:
        """Take in words that have no count; before the first merge."""
        new = [word for word in dict.fromkeys(words) if word not in self.numbers]
        for word, encoding in zip(new, encoded(self._encoder, new), strict=True):
            self.numbers[word] = len(self.tokens)
            self.tokens.append(encoding.ids)
            self.counts.append(0)
            self._total.append(0)
            before = "" if word[:1].isalpha() else word[:1]
            self._is_syllable.append(is_syllable(word[len(before) :]))
            self._before.append(0 if before == " " else len(before.encode()))
            self._index(len(self.tokens) - 1)

    def words(self, text: str) -> list[int]:
        """Return the numbers of the words that a text splits into, which are learnt if they are new."""
        words = self._split(text)
        self.learn(words)
        return [self.numbers[word] for word in words]

    def _index(self, number: int) -> None:
        inside = pairs(self._of_syllable(number)) if self._is_syllable[number] else {}
        for pair in pairs(self.tokens[number]):
            self._where[pair].add(number)
            if pair in inside and pair not in self._allowed and self._may_merge(pair):
                self._allowed.add(pair)
                heapq.heappush(self._queue, (-self._saves[pair], pair))

    def _of_syllable(self, number: int) -> list[int]:
        """The tokens of a word without those that hold what stands before the syllable, as in "—the"."""
        tokens, left = self.tokens[number], self._before[number]
        for at, token in enumerate(tokens):
            if left <= 0:
                return tokens[at:]
            left -= len(self.bytes[token])
        return []

    def _may_merge(self, pair: Pair) -> bool:
        """Whether two tokens of a syllable may be one: no punctuation before it, and no token already."""
        if not self._single.isdisjoint(pair):
            return False
        first = self.bytes[pair[0]][:1]
        name = self.names[pair[0]] + self.names[pair[1]]
        return (first == b" " or not first.isascii() or first.isalpha()) and name not in self._known

    def add(self, number: int, count: int) -> None:
        """Count a word so many times more (or less)."""
        self.counts[number] += count
        for pair, places in pairs(self.tokens[number]).items():
            self._change(pair, count * places)

    def _change(self, pair: Pair, by: int) -> None:
        self._saves[pair] += by
        if by > 0 and pair in self._allowed:  # the queue must never promise too little
            heapq.heappush(self._queue, (-self._saves[pair], pair))

    def best(self) -> tuple[int, Pair] | None:
        """Return (tokens it saves, pair) of the best merge, None if none saves anything."""
        while self._queue:
            saved, pair = -self._queue[0][0], self._queue[0][1]
            if saved == self._saves[pair]:
                return (saved, pair) if saved > 0 else None
            heapq.heappop(self._queue)
            if saved > self._saves[pair]:
                heapq.heappush(self._queue, (-self._saves[pair], pair))
        return None

    def merge(self, pair: Pair) -> tuple[Merged, dict[int, int]]:
        """Make a token of a pair wherever it stands; also return the words changed: number → tokens saved."""
        made, self._next = self._next, self._next + 1
        freq = sum(pairs(self.tokens[number])[pair] * self._total[number] for number in self._where[pair])
        self._replaces[made] = [old for part in pair for old in self._replaces.get(part, [part])]
        self.names[made] = self.names[pair[0]] + self.names[pair[1]]
        self.bytes[made] = self.bytes[pair[0]] + self.bytes[pair[1]]
        self._known.add(self.names[made])
        changed = {}
        for number in sorted(self._where[pair]):
            before = self.tokens[number]
            for old, places in pairs(before).items():
                self._where[old].discard(number)
                self._saves[old] -= places * self.counts[number]
            self.tokens[number] = after = merged(before, pair, made)
            self._index(number)
            for new, places in pairs(after).items():
                self._change(new, places * self.counts[number])
            changed[number] = len(before) - len(after)
        return Merged(made, pair, self._replaces[made], freq), changed


def pairs(tokens: Sequence[int]) -> dict[Pair, int]:
    """Return how many places each pair of neighbours could be merged in.

    >>> pairs([1, 2, 1, 2]), pairs([5, 5, 5])
    ({(1, 2): 2, (2, 1): 1}, {(5, 5): 1})
    """
    found: dict[Pair, int] = {}
    before = None
    for pair in zip(tokens, tokens[1:], strict=False):
        if pair == before:  # the same token three times: two of them merge
            before = None
            continue
        found[pair] = found.get(pair, 0) + 1
        before = pair
    return found


def merged(tokens: Sequence[int], pair: Pair, made: int) -> list[int]:
    """Return tokens with a pair replaced wherever it stands, from the left.

    >>> merged([1, 2, 3, 1, 2], (1, 2), 9)
    [9, 3, 9]
    """
    out: list[int] = []
    for token in tokens:
        if out and (out[-1], token) == pair:
            out[-1] = made
        else:
            out.append(token)
    return out
