"""Vietnamese word segmentation: what pyvi's ViTokenizer.tokenize says, some twenty times faster.

Reads the model and the word list that come with pyvi; writes nothing. pyvi cuts a sentence into syllables
with a regular expression, describes each by some twenty features made of its neighbours, and lets a
conditional random field (python-crfsuite) decide which of them are joined: "học_sinh đi học". Nearly all of
its time goes into making the features and handing them over one at a time. Here

    no syllable crosses a space, so every different chunk between spaces is cut once; a feature's weights
    depend on one syllable (or are a flag), so they are looked up for all syllables of many sentences at once,
    in arrays; with two labels the best sequence is a recurrence over the positions, run for all sentences at
    once.

The weights are read from crfsuite's model file (format "lCRF" 100), as pyvi's own reader of it fails on this
model and prints six digits only. `Segmenter` compares itself with pyvi on a few sentences when it is made.
"""

import string
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vocabkit.errors import UserError

LINE_START, SPACE = 0, 1  # codes of what stands before a syllable; other characters get codes from 2 on
MAX_CHUNKS = 1_000_000  # different chunks remembered at a time: some 300 bytes each
PROBES = (
    "Tại sao học sinh lớp 12 ở TP.HCM phải học đi học lại môn công nghệ thông tin ?",
    "Ông Nguyễn Văn A (Việt Nam) nói: “Thời gian là vàng bạc”, v.v...",
)
_FLAGS = ("isupper", "istitle", "isdigit")


@dataclass(frozen=True)
class Segmented:
    """Sentences as arrays over all their syllables, one sentence after another.

    syllables: (S,) int64, indices into Segmenter.syllables; joined: (S,) bool, whether pyvi joins a syllable
    with the one before it; spaced: (S,) bool, whether exactly one space stands between these two; before:
    (S,) int64, codes of the character before it (Segmenter.before); starts: (sentences + 1,) int64, where
    each sentence begins.
    """

    syllables: np.ndarray
    joined: np.ndarray
    spaced: np.ndarray
    before: np.ndarray
    starts: np.ndarray


def read_crf(data: bytes) -> tuple[dict[str, list[float]], np.ndarray]:
    """Return the weights in a model file of crfsuite; UserError if it is none with the labels B_W and I_W.

    attribute → [weight for B_W, weight for I_W], and (2, 2) float64: from label to label.
    """
    try:
        magic, _, kind, version, _, _, n_attributes, at, labels_at, attributes_at = struct.unpack_from(
            "<4sI4sIIIIIII", data
        )
        if (magic, kind, version) != (b"lCRF", b"FOMC", 100):
            raise ValueError(f"{magic!r} {kind!r} {version}")
        if (labels := _names(data, labels_at, 2)) != ["B_W", "I_W"]:
            raise ValueError(f"labels {labels}")
        names = _names(data, attributes_at, n_attributes)
        (n_features,) = struct.unpack_from("<I", data, at + 8)  # the one in the header is zero
        transitions = np.zeros((2, 2))
        states: dict[str, list[float]] = {}
        for kind_of, source, label, weight in struct.iter_unpack(
            "<IIId", data[at + 12 : at + 12 + 20 * n_features]
        ):
            if kind_of:
                transitions[source, label] = weight
            else:
                states.setdefault(names[source], [0.0, 0.0])[label] = weight
    except (struct.error, ValueError, IndexError) as error:
        raise UserError(
            f"the model of the installed pyvi is of an unknown form ({error}); install the version of "
            "constraints.txt: pip install pyvi -c constraints.txt"
        ) from None
    return states, transitions


def _names(data: bytes, at: int, count: int) -> list[str]:
    """The strings of a CQDB chunk in the order of their numbers: its header points to an array of offsets."""
    (offsets_at,) = struct.unpack_from("<I", data, at + 20)
    names = []
    for offset in struct.unpack_from(f"<{count}I", data, at + offsets_at):
        _, size = struct.unpack_from("<II", data, at + offset)
        names.append(data[at + offset + 8 : at + offset + 8 + size - 1].decode("utf-8"))
    return names


class Segmenter:
    """Segments sentences (NFC, without line ends) as pyvi does.

    >>> Segmenter().tokenize(["Học sinh đi học."])
    ['Học_sinh đi học .']
    """

    def __init__(self) -> None:
        try:
            from pyvi.ViTokenizer import ViTokenizer
        except ImportError as error:
            raise UserError(
                f"pyvi is needed ({error}); install it: pip install pyvi -c constraints.txt"
            ) from None
        self._pyvi = ViTokenizer
        with open(ViTokenizer.model.modelfile.name, "rb") as file:
            states, self._transitions = read_crf(file.read())
        self.dictionary: set[str] = ViTokenizer.bi_grams | ViTokenizer.tri_grams
        self.syllables: list[str] = []  # every different syllable or sign met so far, as written
        self.before: list[str] = ["\n", " "]  # the characters that the codes stand for
        self._codes = {"\n": LINE_START, " ": SPACE}
        self._known: dict[str, int] = {}
        self._chunks: dict[str, tuple[list[int], list[int], bool]] = {}
        self._read_weights(states)
        self._columns: list[tuple[int, bool, bool, bool, bool, bool, bool]] = []  # see _number()
        self._table = np.zeros((0, 7), np.int64)  # the same as an array, as of the last segment()
        found, expected = self.tokenize(PROBES), [ViTokenizer.tokenize(text) for text in PROBES]
        if found != expected:
            raise UserError(
                f"the installed pyvi segments otherwise than the tested one ({expected[0]!r}); install the "
                "version of constraints.txt: pip install pyvi -c constraints.txt"
            )

    def _read_weights(self, states: dict[str, list[float]]) -> None:
        """Lay the weights out in arrays indexed by lower-cased syllables; number 0 is any other syllable."""
        places = ("", "-1:", "+1:")
        lower = {name.partition("word.lower():")[2] for name in states}
        n_grams = [gram.split(" ") for gram in self.dictionary]
        lower.update(syllable for gram in n_grams for syllable in gram)
        self._lower = {syllable: number for number, syllable in enumerate(sorted(lower - {""}), 1)}
        size = len(self._lower) + 1
        none = [0.0, 0.0]
        self._by_lower = np.zeros((3, size, 2))  # of the syllable itself, as the one before, as the one after
        for place, table in zip(places, self._by_lower, strict=True):
            for syllable, number in self._lower.items():
                table[number] = states.get(f"{place}word.lower():{syllable}", none)
        self._by_flag = np.array([[states.get(f"{p}word.{f}()", none) for f in _FLAGS] for p in places])
        self._bias = np.array(states.get("bias", none))
        self._grams = {}  # (number of syllables) → (sorted keys, weights as the end, as the beginning)
        for count, first, last in ((2, "-1:word.bi_gram()", "+1:word.bi_gram()"),
                                   (3, "-2:word.tri_gram()", "+2:word.tri_gram()")):  # fmt: skip
            keys = sorted(self._key([self._lower[s] for s in gram]) for gram in n_grams if len(gram) == count)
            self._grams[count] = (
                np.array(keys, np.int64), np.array(states.get(first, none)), np.array(states.get(last, none))
            )  # fmt: skip

    def _key(self, numbers: Sequence[Any]) -> Any:
        """One number for a sequence of syllables."""
        key = numbers[0]
        for number in numbers[1:]:
            key = key * (len(self._lower) + 1) + number
        return key

    def _number(self, syllable: str) -> int:
        """The index of a syllable, which is described when it is met for the first time: what the weights
        depend on, then what the rules after them do (_joined()).
        """
        found = self._known.get(syllable)
        if found is None:
            found = self._known[syllable] = len(self.syllables)
            self.syllables.append(syllable)
            self._columns.append((
                self._lower.get(syllable.lower(), 0),
                syllable.isupper(), syllable.istitle(), syllable.isdigit(),
                syllable in string.punctuation, syllable[0].isdigit(), syllable[0].istitle(),
            ))  # fmt: skip
        return found

    def _cut(self, chunk: str) -> tuple[list[int], list[int], bool]:
        """Syllables of a chunk without spaces, codes of what stands before each, whether the last ends it."""
        numbers, before, end = [], [], 0
        chunk, found = self._pyvi.sylabelize(chunk)
        for syllable in found:
            at = chunk.index(syllable, end)
            character = chunk[at - 1] if at else " "
            code = self._codes.setdefault(character, len(self.before))
            if code == len(self.before):
                self.before.append(character)
            numbers.append(self._number(syllable))
            before.append(code)
            end = at + len(syllable)
        return numbers, before, end == len(chunk)

    def segment(self, sentences: Sequence[str]) -> Segmented:
        """Segment sentences; a few thousand at a time are fastest."""
        if len(self._chunks) > MAX_CHUNKS:
            self._chunks.clear()
        known, cut = self._chunks, self._cut
        syllables: list[int] = []
        before: list[int] = []
        spaced: list[bool] = []
        starts = [0]
        for sentence in sentences:
            open_end = False  # whether the chunk before ends with a syllable
            first = len(syllables)
            for position, chunk in enumerate(sentence.split(" ")):
                found = known.get(chunk)
                if found is None:
                    found = known[chunk] = cut(chunk)
                numbers, codes, ends = found
                if not numbers:
                    open_end = False
                    continue
                syllables += numbers
                before += codes
                clean = codes[0] == SPACE
                if clean and position == 0:
                    before[first] = LINE_START
                spaced.append(open_end and clean)
                if len(numbers) > 1:
                    spaced += [False] * (len(numbers) - 1)
                open_end = ends
            starts.append(len(syllables))
        if len(self._columns) > len(self._table):
            self._table = np.array(self._columns, np.int64)
        ids = np.array(syllables, np.int64)
        bounds = np.array(starts, np.int64)
        joined = self._joined(self._table[ids], bounds)
        return Segmented(ids, joined, np.array(spaced, bool), np.array(before, np.int64), bounds)

    def _joined(self, rows: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Whether each syllable is joined with the one before it: pyvi's decision. rows: (S, 7), _columns."""
        joined = _best_labels(self._scores(rows, starts), self._transitions, starts) > 0
        punctuation, digit, title = rows[:, 4:].T > 0
        joined[starts[:-1][starts[:-1] < len(joined)]] = False
        joined &= ~punctuation & ~digit
        joined[1:] &= ~punctuation[:-1] & ~digit[:-1] & ~(title[1:] & ~title[:-1])
        return joined

    def _scores(self, rows: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """(S, 2) float64: what the features of each syllable say for B_W and I_W."""
        lower, flags = rows[:, 0], rows[:, 1:4].astype(np.float64)
        sentence = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        same = [sentence[gap:] == sentence[:-gap] for gap in (1, 2)]  # as the one 1 or 2 further
        scores = self._bias + self._by_lower[0][lower] + flags @ self._by_flag[0]
        as_before = self._by_lower[1][lower] + flags @ self._by_flag[1]
        as_after = self._by_lower[2][lower] + flags @ self._by_flag[2]
        scores[1:][same[0]] += as_before[:-1][same[0]]
        scores[:-1][same[0]] += as_after[1:][same[0]]
        for count in (2, 3):
            keys, ends, begins = self._grams[count]
            if len(lower) < count:
                continue
            parts = [lower[at : len(lower) - count + 1 + at] for at in range(count)]
            found = self._key(parts)
            place = np.minimum(np.searchsorted(keys, found), len(keys) - 1)
            hit = (keys[place] == found) & same[count - 2] & (np.minimum.reduce(parts) > 0)
            scores[count - 1 :][hit] += ends
            scores[: len(lower) - count + 1][hit] += begins
        return scores

    def tokenize(self, sentences: Sequence[str]) -> list[str]:
        """Return what ViTokenizer.tokenize returns for each sentence."""
        found = self.segment(sentences)
        texts = []
        for at, sentence in enumerate(sentences):
            first, end = int(found.starts[at]), int(found.starts[at + 1])
            parts = [
                ("_" if found.joined[i] else " ") + self.syllables[found.syllables[i]]
                for i in range(first, end)
            ]
            texts.append("".join(parts)[1:] if parts else sentence)
        return texts


def _best_labels(scores: np.ndarray, transitions: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """(S,) int64: the best sequence of labels of each sentence (Viterbi), all sentences side by side."""
    lengths = np.diff(starts)
    order = np.argsort(-lengths, kind="stable")[: np.count_nonzero(lengths)]  # longest first
    first, lengths = starts[order], lengths[order]
    longest = max(lengths, default=0)
    longer = np.searchsorted(-lengths, -np.arange(longest))  # number of sentences that have each position
    scores = np.ascontiguousarray(scores.T)
    best = scores[:, first]  # (label, sentences): of the sequences that end in this label here
    came_from = np.zeros(scores.shape, np.int8)
    for at in range(1, longest):
        here = first[: longer[at]] + at
        ways = best[:, None, : len(here)] + transitions[:, :, None]  # (label before, label, sentences)
        came_from[:, here] = ways[1] > ways[0]
        best[:, : len(here)] = np.maximum(ways[0], ways[1]) + scores[:, here]
    labels = np.zeros(scores.shape[1], np.int64)
    label = best.argmax(axis=0)
    for at in reversed(range(longest)):
        here = first[: longer[at]] + at
        labels[here] = label[: len(here)]
        label[: len(here)] = came_from[labels[here], here]
    return labels
