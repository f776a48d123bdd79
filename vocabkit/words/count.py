"""Corpus → the Vietnamese compound words in it and the tokens that each would save as one token.

Reads the sources of corpus/files.py and tokenizer.json; writes data/vi_words_impact.jsonl.xz, one row a word:

    {"word": "thời▁gian", "impact": 2408, "qwen_tokens": [" thời", " g", "ian"], "freq": 1204,
    "qwen_tokens_count": 3}

A text is cut into lines and these after . ! ? …; equal sentences are counted and segmented once (for each
stretch and worker, so that memory is bounded). A word counts where its syllables stand in the text with one
space between them and nothing else: what pyvi makes of punctuation changes nothing. The character before it
belongs to the form that is counted, since the tokens depend on it:

    " thời gian"    in running text    the new token " thời gian" catches this form, and no other
    "\\nthời gian"   at the start of a line (the line end stands for it, it is no part of the tokens)
    "(thời gian"    after a bracket, a quote, a tab, …

freq and tokens are those of the first form, impact = freq × (tokens - 1). "Tại▁sao" and "tại▁sao" are two
words. A phrase is two or three words in a row, of four syllables at most: "tất▁cả▁các". They are counted
on request, as " +tất cả các", since pyvi may have found the same syllables as one word elsewhere.
"""

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vocabkit.corpus import counting
from vocabkit.corpus.files import Source
from vocabkit.corpus.workers import CorpusCounter
from vocabkit.errors import UserError
from vocabkit.text.languages import is_english_word, is_syllable
from vocabkit.tokenizer.bpe import text_for_people
from vocabkit.tokenizer.encoder import encoded
from vocabkit.tokenizer.tokenizer_json import TokenizerJson
from vocabkit.vocab.word_list import JOINER
from vocabkit.words.segment import Segmenter

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SENTENCE_ENDS = (". ", "! ", "? ", "… ")

SENTENCES = 400_000  # different ones that all workers together hold: some 200 bytes each

PHRASE_WORDS, PHRASE_SYLLABLES = 3, 4
PHRASE = "+"  # second character of a phrase among the forms
MAX_FORMS = 4_000_000  # different words and phrases that all workers together hold: some 150 bytes each
BATCH = 4096  # sentences segmented at a time: enough for arrays, little enough for the cache


def sentences(text: str) -> list[str]:
    """Cut a text into sentences. All but the first of a line begin with the space before them.

    >>> sentences("Trời đẹp. Đi chơi!\\nKhông?")
    ['Trời đẹp.', ' Đi chơi!', 'Không?']
    """
    for end in SENTENCE_ENDS:
        text = text.replace(end, f"{end[0]}\n ")
    return text.split("\n")


def is_compound(syllables: Sequence[str], dictionary: frozenset[str] | set[str] = frozenset()) -> bool:
    """Whether these are the syllables of a Vietnamese compound: two or more, each one well-formed.

    A pair such as "to go" is well-formed too: where all syllables are English words without any mark, the
    word must be in the dictionary (lower case, with spaces). A capital by itself is a mark, no syllable.

    >>> is_compound(["công", "an"]), is_compound(["tham", "gia"]), is_compound(["internet", "banking"])
    (True, True, False)
    >>> is_compound(["to", "go"]), is_compound(["con", "tin"], {"con tin"}), is_compound(["Cả", "A"])
    (False, True, False)
    """
    if len(syllables) < 2 or not all(map(is_syllable, syllables)):
        return False
    word = " ".join(syllables)
    return not word.isascii() or word.lower() in dictionary or not all(map(is_english_word, syllables))


class WordCounter(CorpusCounter):
    """Counts compound words by form: the character before the word, then the word with spaces.

    >>> counter = WordCounter()
    >>> counter.add(["Thời gian là vàng. Thời gian (thời gian) trôi."])
    >>> sorted(counter.take().items())
    [('\\nThời gian', 1), (' Thời gian', 1), ('(thời gian', 1)]
    """

    def __init__(
        self,
        *,
        phrases: bool = False,
        max_entries: int = SENTENCES,
        max_forms: int = MAX_FORMS,
    ) -> None:
        self._segmenter = Segmenter()
        self._longest = PHRASE_WORDS if phrases else 1
        self._max_entries, self._max_forms = max_entries, max_forms
        self._sentences: Counter[str] = Counter()
        # (code of what is before, 1 for a word or more for a phrase, *numbers of syllables)
        self._words: Counter[tuple[int, ...]] = Counter()
        self._good: list[bool] = []  # of each syllable of the segmenter: whether a word may hold it

    def add(self, texts: Sequence[str]) -> None:
        """Count these texts too."""
        for text in texts:
            self._sentences.update(sentences(text))
        if len(self._sentences) > self._max_entries:
            self._segment()

    def take(self) -> Counter[str]:
        """Return the counts so far; the counter starts from zero again."""
        self._segment()
        before, syllables = self._segmenter.before, self._segmenter.syllables
        taken: Counter[str] = Counter()
        for (code, kind, *numbers), count in self._words.items():
            parts = [syllables[number] for number in numbers]
            if is_compound(parts, self._segmenter.dictionary):
                taken[before[code] + (PHRASE if kind > 1 else "") + " ".join(parts)] += count
        self._words.clear()
        return taken

    def _segment(self) -> None:
        items = list(self._sentences.items())
        self._sentences.clear()
        for at in range(0, len(items), BATCH):
            texts, counts = zip(*items[at : at + BATCH], strict=True)
            self._count(texts, counts)
            if self._longest > 1 and len(self._words) > self._max_forms:
                # Most phrases come once. What is dropped here is counted a little low.
                self._words = Counter({form: count for form, count in self._words.items() if count > 1})

    def _count(self, texts: Sequence[str], counts: Sequence[int]) -> None:
        """Count the words of different sentences, each as often as the sentence was met."""
        found = self._segmenter.segment(texts)
        size = len(found.syllables)
        if not size:
            return
        known = self._good
        known.extend(map(is_syllable, self._segmenter.syllables[len(known) :]))
        begins = np.append(np.flatnonzero(~found.joined), size)  # of words, and the end
        times = np.repeat(np.array(counts), np.diff(found.starts))
        inside = np.array(known)[found.syllables] & (found.spaced | ~found.joined)
        good = np.logical_and.reduceat(inside, begins[:-1])  # words without anything that is no syllable
        near = good & found.spaced[begins[:-1]]  # and with one space before them, in the same sentence
        chain = good
        syllables = found.syllables.tolist()
        words = self._words
        for count in range(1, self._longest + 1):
            if count > 1:  # words from here on, count of them: the last one must be good and near
                chain = chain[:-1] & near[count - 1 :]
            lengths = begins[count:] - begins[:-count]
            at = np.flatnonzero(chain & (lengths > 1) & ((count == 1) | (lengths <= PHRASE_SYLLABLES)))
            first = begins[:-count][at]
            spans = (
                found.before[first].tolist(),
                first.tolist(),
                lengths[at].tolist(),
                times[first].tolist(),
            )
            for code, begin, length, weight in zip(*spans, strict=True):
                form = (code, count, *syllables[begin : begin + length])
                words[form] += weight


def without_marks(forms: Mapping[str, int], *, phrases: bool) -> Counter[str]:
    """Return the counts of words, or of words and phrases together, by form.

    >>> forms = {" +tất cả các": 2, " tất cả các": 1}
    >>> without_marks(forms, phrases=True), without_marks(forms, phrases=False)
    (Counter({' tất cả các': 3}), Counter({' tất cả các': 1}))
    """
    found: Counter[str] = Counter()
    for form, count in forms.items():
        if not form.startswith(PHRASE, 1):
            found[form] += count
        elif phrases:
            found[form[0] + form[2:]] += count
    return found


def count_words(
    model: Path,
    sources: Sequence[Source],
    *,
    phrases: bool = False,
    workers: int | None = None,
    **options: Any,
) -> counting.Progress:
    """Count the compound words of a corpus, and phrases if asked; options: as for corpus/counting.count().

    progress.vector: Counter of forms, see WordCounter.
    """
    workers = counting.processes(workers)
    limits = {"max_entries": SENTENCES // workers, "max_forms": MAX_FORMS // workers}
    return counting.count(
        sources,
        functools.partial(WordCounter, phrases=phrases, **limits),
        model=model,
        what={"counts": "words", "phrases": phrases},
        workers=workers,
        **options,
    )


def word_rows(
    forms: Mapping[str, int], tokenizer: TokenizerJson, encoder: "Tokenizer", *, min_freq: int
) -> list[dict[str, Any]]:
    """Return the rows of the impact list, highest impact first, equal ones by word.

    encoder: the same tokenizer as a tokenizers.Tokenizer. Words that are one token already are left out.
    """
    words = [form[1:] for form, count in forms.items() if form[0] == " " and count >= min_freq]
    rows = []
    for word, encoding in zip(words, encoded(encoder, [" " + word for word in words]), strict=True):
        if len(encoding.ids) > 1:
            tokens = [text_for_people(tokenizer.token_bytes[token_id]) for token_id in encoding.ids]
            freq = forms[" " + word]
            rows.append(
                {
                    "word": word.replace(" ", JOINER),
                    "impact": freq * (len(tokens) - 1),
                    "qwen_tokens": tokens,
                    "freq": freq,
                    "qwen_tokens_count": len(tokens),
                }
            )
    return sorted(rows, key=lambda row: (-row["impact"], row["word"]))


def require_words(rows: Sequence[Any], *, corpus: Sequence[str], min_freq: int) -> None:
    """Raise UserError if no word was found."""
    if not rows:
        raise UserError(
            f"{', '.join(corpus)}: no Vietnamese compound word comes {min_freq} times; give Vietnamese "
            "texts, or a lower --min_freq"
        )
