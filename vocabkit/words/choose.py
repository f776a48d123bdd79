"""Words and syllables → one list of new tokens, each picked because it saves most beside those before it.

Reads a corpus and a tokenizer; returns the rows of data/vi_words_chosen.jsonl, in the order picked, of two
kinds:

    {"word": "thời▁gian", "impact": 1216, "qwen_tokens": [" thời", " g", "ian"], "freq": 608,
    "qwen_tokens_count": 3, "saved": 1248}
    {"syllable": " gian", "merge": ["Ġg", "ian"], "qwen_tokens": [" g", "ian"], "freq": 893, "saved": 269}

A word (words/count.py, words/stretches.py) is looked for in the text before anything else; a syllable is
made by one more merge (words/merges.py) in what is left. merge: the two tokens as the vocabulary stores
them, old ones or syllables of rows before; qwen_tokens: the old tokens that it replaces, for people (a
byte that is no character: <0xE1>). freq: how often these stand together, in words or not. So the first N
words and the first M syllables of a list are themselves a list, whatever N and M.

The two share text. Where " gian" is a token already, " thời gian" saves 1 and no longer 2; where " thời gian"
is taken, a merge of " g" and "ian" saves nothing. `Choice` counts both ways after each pick.
"""

import heapq
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vocabkit.corpus.files import Source
from vocabkit.errors import UserError
from vocabkit.tokenizer.bpe import text_for_people
from vocabkit.tokenizer.encoder import load_encoder
from vocabkit.tokenizer.tokenizer_json import UNIGRAM, read_tokenizer_json
from vocabkit.vocab.word_list import content_of
from vocabkit.words.count import count_words, require_words, without_marks, word_rows
from vocabkit.words.merges import Merged, Pair, Splits, count_splits, split_pattern
from vocabkit.words.stretches import Compatible, Savings, candidates, count_stretches

MAX_FALSE_HITS = 0.01


class Choice:
    """Picks words and merges, the one that saves most beside those before first.

    usable: words that may be picked. splits: the whole text, the places of words included; None: no merges.
    """

    def __init__(
        self, savings: Savings, splits: Splits | None = None, *, usable: Callable[[int], bool]
    ) -> None:
        self._savings, self._splits = savings, splits
        self._chosen: set[int] = set()
        self._compatible = Compatible()
        self._current = [0] * len(savings.counts)  # tokens saved in one place of each stretch so far
        self._parts: list[tuple[list[int], list[int]]] = []  # of savings.texts: splits taken, splits left
        self._texts_of: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)  # split → text, +1 or -1
        self._stretches_of: defaultdict[int, list[int]] = defaultdict(list)  # text → stretches
        if splits is not None:
            self._connect(splits)
        self._queue = [(-self._gain(word), word) for word in range(len(savings.contents)) if usable(word)]
        heapq.heapify(self._queue)

    def _connect(self, splits: Splits) -> None:
        for number, (word, rest) in enumerate(self._savings.texts):
            taken, left = splits.words(word + rest), splits.words(rest)
            self._parts.append((taken, left))
            for parts, sign in ((taken, 1), (left, -1)):
                for part in parts:
                    self._texts_of[part].append((number, sign))
        for at, hits in enumerate(self._savings.stretches):
            for text in {hit.text for hit in hits}:
                self._stretches_of[text].append(at)

    def _gain(self, word: int) -> int:
        savings = self._savings
        return sum(
            (savings.of_stretch(at, self._chosen, word) - self._current[at]) * savings.counts[at]
            for at in savings.where[word]
        )

    def best_word(self) -> tuple[int, int] | None:
        """Return (tokens it saves, word) of the best word, None if none saves anything.

        What a word saves only falls (but for letters after false hits), so the first of the queue that did
        not fall is the best. Words that overlap a chosen one leave the queue.
        """
        while self._queue:
            before, word = self._queue[0]
            if not self._compatible.fits(self._savings.contents[word]) or (saved := self._gain(word)) <= 0:
                heapq.heappop(self._queue)
            elif -saved == before:
                return saved, word
            else:
                heapq.heapreplace(self._queue, (-saved, word))
        return None

    def take_word(self, word: int) -> None:
        """Make the best word a token."""
        savings = self._savings
        for at in savings.where[word]:
            if self._splits is not None:
                self._move(self._splits, savings.used(at, self._chosen), -savings.counts[at])
                self._move(self._splits, savings.used(at, self._chosen, word), savings.counts[at])
            self._current[at] = savings.of_stretch(at, self._chosen, word)
        self._chosen.add(word)
        self._compatible.add(savings.contents[word])
        heapq.heappop(self._queue)

    def _move(self, splits: Splits, texts: Sequence[int], count: int) -> None:
        """Take texts out of what merges see, count times each."""
        for text in texts:
            taken, left = self._parts[text]
            for parts, by in ((taken, -count), (left, count)):
                for part in parts:
                    splits.add(part, by)

    def best_merge(self) -> tuple[int, Pair] | None:
        """Return (tokens it saves, pair) of the best merge, None if none saves anything."""
        return self._splits.best() if self._splits else None

    def take_merge(self, pair: Pair) -> Merged:
        """Make a pair of tokens a token."""
        assert self._splits is not None
        made, fewer_in = self._splits.merge(pair)
        changed: set[int] = set()
        for split, fewer in fewer_in.items():
            for text, sign in self._texts_of[split]:
                self._savings.saved[text] -= sign * fewer
                changed.update(self._stretches_of[text])
        for at in changed:
            self._current[at] = self._savings.of_stretch(at, self._chosen)
        return made


@dataclass(frozen=True)
class Wanted:
    """What is to be chosen: so many words and syllables at most, and so many of both together."""

    words: int
    syllables: int = 0
    total: int | None = None
    phrases: bool = False
    min_freq: int = 5


def choose(choice: Choice, wanted: Wanted) -> list[tuple[int | Merged, int]]:
    """Pick words and merges, as many as are wanted at most: [(word or merge, tokens it saves)], in order."""
    picked: list[tuple[int | Merged, int]] = []
    words, syllables = wanted.words, wanted.syllables
    while wanted.total is None or len(picked) < wanted.total:
        word = choice.best_word() if words else None
        merge = choice.best_merge() if syllables else None
        if word and (not merge or word[0] >= merge[0]):
            choice.take_word(word[1])
            words -= 1
            picked.append((word[1], word[0]))
        elif merge:
            picked.append((choice.take_merge(merge[1]), merge[0]))
            syllables -= 1
        else:
            break
    return picked


def chosen_rows(
    rows: Sequence[Mapping[str, Any]], savings: Savings, splits: Splits | None = None, *, wanted: Wanted
) -> tuple[list[dict[str, Any]], int]:
    """Return the rows of what is picked, in that order, and how many words false hits refused."""
    false = savings.false_hits()
    by_content = {content_of(row): row for row in rows}
    choice = Choice(savings, splits, usable=lambda word: false[word] <= MAX_FALSE_HITS)
    chosen: list[dict[str, Any]] = []
    for item, saved in choose(choice, wanted):
        if isinstance(item, Merged):
            assert splits is not None
            chosen.append(_syllable_row(splits, item, saved))
        else:
            chosen.append({**by_content[savings.contents[item]], "saved": saved})
    return chosen, sum(share > MAX_FALSE_HITS for share in false)


def _syllable_row(splits: Splits, merged: Merged, saved: int) -> dict[str, Any]:
    return {
        "syllable": text_for_people(splits.bytes[merged.token]),
        "merge": [splits.names[part] for part in merged.pair],
        "qwen_tokens": [text_for_people(splits.bytes[old]) for old in merged.replaces],
        "freq": merged.freq,
        "saved": saved,
    }


@dataclass(frozen=True)
class Chosen:
    """rows: the list. impact: the impact list of the same text. candidates: words there were to choose from.

    refused: words with too many false hits.
    """

    rows: list[dict[str, Any]]
    impact: list[dict[str, Any]]
    candidates: int
    refused: int


def choose_tokens(
    model: Path, sources: Sequence[Source], wanted: Wanted, *, work: Path, training_only: bool, **options: Any
) -> Chosen:
    """Choose new tokens for a tokenizer out of a corpus; training_only: not out of lines that are held out.

    Counts are saved in the folder work, so that a run that was killed goes on. Raises UserError for a corpus
    without Vietnamese words, and for syllables of a tokenizer that does not merge.
    """
    tokenizer, encoder = read_tokenizer_json(model), load_encoder(model)
    if wanted.syllables and tokenizer.family == UNIGRAM:
        raise UserError(
            f"{tokenizer.path} is {UNIGRAM}, which has no merges to continue; choose words only, without "
            "--syllables"
        )
    works = [work / f"{step}.progress.json" for step in ("words", "stretches", "splits")]
    options |= {"training_only": training_only}
    counted = count_words(model, sources, progress_file=works[0], phrases=wanted.phrases, **options)
    impact, rows = (
        word_rows(
            without_marks(counted.vector, phrases=phrases), tokenizer, encoder, min_freq=wanted.min_freq
        )
        for phrases in (False, wanted.phrases)
    )
    require_words(impact, corpus=[source.name for source in sources], min_freq=wanted.min_freq)
    contents = candidates(rows, tokenizer)
    counted = count_stretches(model, sources, contents, progress_file=works[1], **options)
    savings, splits = Savings(contents, counted.vector, encoder), None
    if wanted.syllables:
        pattern = split_pattern(tokenizer, encoder)
        counted = count_splits(model, sources, pattern, progress_file=works[2], **options)
        splits = Splits(counted.vector, tokenizer, encoder, pattern)
    chosen, refused = chosen_rows(rows, savings, splits, wanted=wanted)
    return Chosen(chosen, impact, len(rows), refused)
