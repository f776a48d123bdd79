"""Words → the list whose tokens save most, and what any such list saves on a text, exactly.

A word becomes an added token with the space before it: " thời gian". Tokenizers look for these before
anything else, leftmost-longest, and encode what lies between two of them by itself. Byte-level BPE splits
text at such a space anyway, and after a syllable too, so one found word saves (its tokens) - 1 and changes
nothing else, unless a letter follows: " con số" is also found in " con sống", and leaves "ng" to be encoded
alone. These false hits are counted with what they save or cost.

All that matters of a corpus is therefore where candidates stand, and which of them share text.
`StretchCounter` counts the stretches of text that candidates cover, joined where they overlap (" công nghệ
thông tin"); equal stretches are evaluated once. words/choose.py picks out of them.
"""

import functools
import hashlib
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vocabkit.corpus import counting
from vocabkit.corpus.files import Source
from vocabkit.corpus.workers import CorpusCounter
from vocabkit.tokenizer.encoder import encoded
from vocabkit.tokenizer.tokenizer_json import TokenizerJson
from vocabkit.vocab.word_list import content_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CHUNKS = 1_000_000  # different chunks between spaces remembered at a time


class Matcher:
    """Finds added tokens of the form " a b c" in text cut at its spaces."""

    def __init__(self, contents: Iterable[str]) -> None:
        import regex

        self.numbers = {content: number for number, content in enumerate(contents)}
        self._last: defaultdict[str, set[str]] = defaultdict(set)  # " a b" → last syllables that make a word
        self._begins: set[str] = set()  # all " a", " a b" that some word goes on from
        for content in self.numbers:
            head, _, last = content.rpartition(" ")
            self._last[head].add(last)
            for at in [at for at, char in enumerate(content) if char == " " and at > 0]:
                self._begins.add(content[:at])
        self._letters = regex.compile(r"[\p{L}\p{M}]*").match
        self._chunks: dict[str, tuple[str, bool]] = {}

    def cut(self, line: str) -> list[tuple[str, bool]]:
        """(letters at its beginning, whether it is nothing else) of what follows each space of a line."""
        if len(self._chunks) > CHUNKS:
            self._chunks.clear()
        known, cuts = self._chunks, []
        for chunk in line.split(" ")[1:]:
            found = known.get(chunk)
            if found is None:
                letters = self._letters(chunk).group()
                found = known[chunk] = (letters, letters == chunk != "")
            cuts.append(found)
        return cuts

    def hits(self, cuts: Sequence[tuple[str, bool]], at: int) -> list[tuple[int, int, str]]:
        """Every word found at a position, longest first: (its number, chunk it ends in, letters after it)."""
        found = []
        key = " " + cuts[at][0]
        end = at
        while key in self._begins and cuts[end][1] and end + 1 < len(cuts):
            end += 1
            syllable = cuts[end][0]
            if last := self._last.get(key):
                for size in range(1, len(syllable) + 1):
                    if syllable[:size] in last:
                        found.append((self.numbers[f"{key} {syllable[:size]}"], end, syllable[size:]))
            key = f"{key} {syllable}"
        return found[::-1]

    def stretches(self, line: str) -> list[str]:
        """The stretches of a line that words cover, each with the letters after its last word.

        >>> Matcher([" công nghệ", " công nghệ thông tin"]).stretches("Ngành công nghệ thông tin, công nghệ.")
        [' công nghệ thông tin', ' công nghệ']
        """
        cuts = self.cut(line)
        found: list[str] = []
        start, end = 0, -1  # of the stretch so far
        for at, (letters, _) in enumerate(cuts):
            if " " + letters in self._begins and (hits := self.hits(cuts, at)):
                if at > end:
                    if end >= 0:
                        found.append("".join(" " + cuts[i][0] for i in range(start, end + 1)))
                    start = at
                end = max(end, hits[0][1])
        if end >= 0:
            found.append("".join(" " + cuts[i][0] for i in range(start, end + 1)))
        return found


class StretchCounter(CorpusCounter):
    """Counts stretches of text, see Matcher.stretches. They repeat themselves: no memory is used up."""

    def __init__(self, contents: Sequence[str]) -> None:
        self._matcher = Matcher(contents)
        self._counts: Counter[str] = Counter()

    def add(self, texts: Sequence[str]) -> None:
        """Count these texts too."""
        for text in texts:
            for line in text.split("\n"):
                self._counts.update(self._matcher.stretches(line))

    def take(self) -> Counter[str]:
        """Return the counts so far; the counter starts from zero again."""
        taken, self._counts = self._counts, Counter()
        return taken


def count_stretches(
    model: Path, sources: Sequence[Source], contents: Sequence[str], **options: Any
) -> counting.Progress:
    """Count the stretches of a corpus that these words cover, as count_words() does."""
    words = hashlib.sha256("".join(contents).encode("utf-8")).hexdigest()
    return counting.count(
        sources,
        functools.partial(StretchCounter, contents),
        model=model,
        what={"counts": "stretches", "words_sha256": words},
        **options,
    )


@dataclass(frozen=True)
class Hit:
    """A word found in a stretch: first and last chunk, and the text it takes with the letters after it."""

    word: int
    start: int
    end: int
    text: int


class Savings:
    """What words save on a text that is given as stretches.

    contents: the words as added tokens (" thời gian"). stretches: counts of Matcher.stretches for them.
    texts: every (word as added token, letters after it) that is found; saved: the tokens that each saves.
    """

    def __init__(self, contents: Sequence[str], stretches: Mapping[str, int], encoder: "Tokenizer") -> None:
        self.contents = list(contents)
        matcher = Matcher(contents)
        self.stretches: list[list[Hit]] = []  # in the order in which they are found: leftmost, longest first
        self.counts: list[int] = []
        self.where: list[list[int]] = [[] for _ in contents]  # of each word: numbers of stretches
        self.texts: dict[tuple[str, str], int] = {}
        for text, count in stretches.items():
            cuts = matcher.cut(text)
            hits = []
            for at in range(len(cuts)):
                for word, end, rest in matcher.hits(cuts, at):
                    text_number = self.texts.setdefault((contents[word], rest), len(self.texts))
                    hits.append(Hit(word, at, end, text_number))
            for word in {hit.word for hit in hits}:
                self.where[word].append(len(self.stretches))
            self.stretches.append(hits)
            self.counts.append(count)
        whole, rests = (
            [len(encoding.ids) for encoding in encoded(encoder, texts)]
            for texts in ([word + rest for word, rest in self.texts], [rest for _, rest in self.texts])
        )
        self.saved = [before - 1 - after for before, after in zip(whole, rests, strict=True)]
        self._is_false = [rest != "" for _, rest in self.texts]

    def false_hits(self) -> list[float]:
        """Of each word: the share of its occurrences that a letter or mark follows."""
        all_hits, false = [0] * len(self.contents), [0] * len(self.contents)
        for hits, count in zip(self.stretches, self.counts, strict=True):
            for hit in hits:
                all_hits[hit.word] += count
                false[hit.word] += count * self._is_false[hit.text]
        return [part / max(whole, 1) for part, whole in zip(false, all_hits, strict=True)]

    def used(self, at: int, chosen: Container[int], more: int | None = None) -> list[int]:
        """The texts taken in a stretch by these words, and one more: leftmost, longest first."""
        found, free = [], 0
        for hit in self.stretches[at]:
            if hit.start >= free and (hit.word in chosen or hit.word == more):
                found.append(hit.text)
                free = hit.end + 1
        return found

    def of_stretch(self, at: int, chosen: Container[int], more: int | None = None) -> int:
        """Tokens saved in one occurrence of a stretch by these words, and one more."""
        return sum(self.saved[text] for text in self.used(at, chosen, more))


class Compatible:
    """Words that do not overlap: no ending of one, from a space on, begins another.

    Where " trở thành" and " thành lập" are both tokens, " trở thành lập" is cut by the first that begins
    (transformers) or by the longer one (llama.cpp). A word inside another is cut alike by both. Beginnings
    are compared as text, not by syllables: " số" of " con số" begins " sống còn" as well.
    """

    def __init__(self) -> None:
        self._endings: set[str] = set()
        self._beginnings: set[str] = set()

    def fits(self, content: str) -> bool:
        """Whether a word overlaps none of those added."""
        if any(ending in self._beginnings for ending in _endings(content)):
            return False
        return not any(content[:size] in self._endings for size in range(1, len(content)))

    def add(self, content: str) -> None:
        """Take a word in."""
        self._endings.update(_endings(content))
        self._beginnings.update(content[:size] for size in range(1, len(content)))


def _endings(content: str) -> list[str]:
    """What follows each space of a word but its first, with that space."""
    return [content[at:] for at, char in enumerate(content) if char == " " and at > 0]


def candidates(rows: Sequence[Mapping[str, Any]], tokenizer: TokenizerJson) -> list[str]:
    """Return the rows' words as added tokens, without those that stand inside an added token of the
    tokenizer.

    Such a word would be found where the added token was meant, or be one.
    """
    contents = map(content_of, rows)
    return [content for content in contents if not any(content.strip() in added for added in tokenizer.added)]
