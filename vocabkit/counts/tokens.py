"""How often each token occurs in a corpus: the same counts as encoding every document, many times faster.

Reads a folder's tokenizer and the sources of corpus/files.py; writes count()'s progress file. Texts are
encoded by gigatoken where that gives the same ids (counts/fast.py), else by the tokenizers library.
"""

import functools
import itertools
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vocabkit.corpus.counting import Progress, count
from vocabkit.corpus.files import Source, find_sources
from vocabkit.corpus.workers import CorpusCounter
from vocabkit.counts.fast import FastEncoder, encoded_differently, has_unassigned, why_not
from vocabkit.errors import UserError
from vocabkit.tokenizer.encoder import encoded, load_encoder

CHECKED = 1000  # one document in so many is encoded by both libraries
LONGEST_CHECKED = 1 << 18  # characters: tokenizers takes 150 bytes for each of a long word
SMALL = 4 << 20  # bytes of files that tokenizers counts before gigatoken has been compared with it


class TokenCounter(CorpusCounter):
    """Counts of token ids over texts, each encoded by itself with its special tokens (`tokenizer(text)`).

    fast: by gigatoken, which may_be_fast() has found to be exact for this folder. Texts are in NFC then.
    """

    def __init__(self, folder: Path, *, fast: bool = False) -> None:
        self.encoder = load_encoder(folder)
        self._fast = FastEncoder(folder) if fast else None
        self._frame = self.encoder.encode("").ids  # what surrounds every text: <s>, </s>
        self.ids = max(self.encoder.get_vocab().values()) + 1
        self._vector = np.zeros(self.ids, np.int64)
        self._documents = 0

    def add(self, texts: Sequence[str]) -> None:
        """Count these texts too. Raises UserError if the libraries differ on one."""
        for token_id in self._frame:
            self._vector[token_id] += len(texts)
        if self._fast:
            texts = self._add_fast(texts, self._fast)
        ids = (encoding.ids for encoding in encoded(self.encoder, texts))
        self._add(np.fromiter(itertools.chain.from_iterable(ids), np.int64))

    def _add_fast(self, texts: Sequence[str], fast: FastEncoder) -> list[str]:
        """Count what gigatoken may encode; return the other texts."""
        others: list[str] = []
        if has_unassigned("".join(text for text in texts if not text.isascii())):
            known: list[str] = []
            for text in texts:
                (others if has_unassigned(text) else known).append(text)
            texts = known
        self._check(texts, fast)
        self._add(np.concatenate([np.zeros(0, np.uint32), *fast.ids(texts)]))
        return others

    def _check(self, texts: Sequence[str], fast: FastEncoder) -> None:
        """Compare one text in CHECKED."""
        chosen = [text[:LONGEST_CHECKED] for text in texts[-self._documents % CHECKED :: CHECKED]]
        self._documents += len(texts)
        for text in encoded_differently(chosen, fast, self.encoder):
            lines = encoded_differently(text.splitlines(keepends=True), fast, self.encoder)
            raise UserError(
                f"gigatoken and tokenizers give different ids to {next(lines, text)[:500]!r}; to count by "
                "tokenizers alone, remove OUT.part, then: pip uninstall gigatoken"
            )

    def _add(self, ids: np.ndarray) -> None:
        self._vector += np.bincount(ids, minlength=self.ids)

    def take(self) -> np.ndarray:
        """Return the counts so far, (highest id + 1,) int64; the counter starts from zero again."""
        taken = self._vector
        self._vector = np.zeros_like(taken)
        return taken


def may_be_fast(model: Path, sources: Sequence[Source]) -> bool:
    """Whether gigatoken counts these sources; a note says why it cannot. Few are not worth its start."""
    if sum(SMALL if source.size is None else source.size for source in sources) < SMALL:
        return False
    reason = why_not(model)
    if reason:
        print(f"note: {reason}: tokenizers counts, which takes far longer", file=sys.stderr)
    return not reason


def merge(vectors: Iterable[np.ndarray]) -> np.ndarray:
    """Return the sum of the shards' counts: the reduce step."""
    return np.sum(list(vectors), axis=0)


def count_corpus(model: Path, corpus: Sequence[str], **options: Any) -> Progress:
    """Count the tokens of a corpus with a folder's tokenizer; options: as for corpus/counting.count()."""
    sources = find_sources(corpus)
    make_counter = functools.partial(TokenCounter, model, fast=may_be_fast(model, sources))
    return count(sources, make_counter, model=model, what={}, **options)
