"""Corpus → how often each token occurs: exactly what encoding every document gives, several times faster.

Reads tokenizer.json; writes nothing. A corpus repeats itself, so the documents are cut into chunks, equal
chunks are counted, and each different chunk is encoded once. That is exact if no token crosses a cut and no
token depends on what lies beyond one. Two kinds of place are such cuts, for the tokenizers that `find_cuts`
knows:

    before a space that follows a character other than white space    "tôi đi" → "tôi", " đi"
    after a line end that a character other than white space follows   "tôi\\nđi" → "tôi\\n", "đi"

Byte-level BPE (GPT-2, Qwen, Llama 3) first splits text by a regular expression. None of its alternatives
matches white space after something else, except line ends after punctuation; and what looks ahead,
`\\s+(?!\\S)`, looks from white space one character on. So the match before such a space ends there, whatever
follows, and the next match starts there, whatever came before. With `\\s*[\\r\\n]+` (not in GPT-2) the same
holds after the last line end of a stretch of white space.
Whole-text BPE (Gemma): merges may cross anything that a token can hold. A space becomes ▁; where no token
holds a ▁ behind another character, no merge crosses the first cut. Where the line end is an added token, it
is taken out before merges are looked for, so none crosses the second.
Unigram (T5, mT5) splits at spaces itself and reads a line end as a space. What its normalizer makes into
white space or nothing is treated as white space here.

Everything else is encoded document by document: no faster, exact all the same.
"""

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vocabkit.bpe import byte_level_token
from vocabkit.tokenizer_json import BYTE_FALLBACK_BPE, BYTE_LEVEL_BPE, UNIGRAM, TokenizerJson

QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LINE_PATTERNS = {QWEN2, LLAMA3}  # those with \s*[\r\n]+, after which a line end is a cut

# Stand-ins while a text is split at its spaces: a chunk without the space before it, a space that is no cut,
# the end of a document. A document that holds one of them is encoded whole.
NO_SPACE, SPACE, END = "\x01", "\x02", "\x04"
# White space that the fast way does not tell apart: Python's own (a superset of Unicode's), without the four
# that it does.
OTHER_SPACE = "".join(char for char in map(chr, range(0x3001)) if char.isspace() and char not in " \n\t\r")
# Scripts whose letters and digits were settled long ago, so that the Unicode versions of the two regular
# expression libraries agree on them; chunks with anything else are not split into words by ours.
SETTLED = re.compile("[\x00-\u024f\u0300-\u036f\u0400-\u052f\u1e00-\u1eff\u2010-\u2027\u2030-\u205e"
                     "\u20a0-\u20ac\u2190-\u23ff\u2500-\u27bf\u3001-\u303f\u3041-\u3096\u30a0-\u30ff\u4e00-\u9fa5\uac00-\ud7a3"
                     "\uff01-\uffee\U0001f300-\U0001f5ff\U0001f600-\U0001f64f]*")  # fmt: skip
MAX_ENTRIES = 1_000_000  # different chunks, and words, held at a time: some 100 bytes each
JOINED = 64  # chunks split together: more, and what may not be split spoils too many
BATCH = 1024  # words or documents in one call of the tokenizers library


@dataclass(frozen=True)
class Cuts:
    """Where a tokenizer's texts may be cut.

    lines: after line ends too. words: the expression that splits chunks further, None where none does.
    whole: matches what sends a document the slow way.
    """

    lines: bool
    words: str | None
    whole: re.Pattern[str]


@dataclass(frozen=True)
class Recipe:
    """What counting needs of a tokenizer beside its file: little enough to hand to every worker."""

    folder: Path  # where tokenizer.json is
    ids: int  # highest id + 1
    cuts: Cuts | None
    added_starts: str  # the first characters of added tokens


def read_recipe(folder: Path) -> Recipe:
    """Read FOLDER/tokenizer.json and find out how its texts may be cut; UserError if it is not supported."""
    from vocabkit.tokenizer_json import read_tokenizer_json
    from vocabkit.verify import load_encoder

    tokenizer = read_tokenizer_json(folder)
    return Recipe(
        folder,
        max(tokenizer.tokens) + 1,
        find_cuts(tokenizer, load_encoder(folder)),
        "".join(sorted({token["content"][0] for token in tokenizer.data["added_tokens"]})),
    )


def find_cuts(tokenizer: TokenizerJson, encoder: Any) -> Cuts | None:
    """Return where texts may be cut for this tokenizer, None if no cut is known to be exact.

    encoder: the same tokenizer as a tokenizers.Tokenizer, asked what its normalizer does to characters.
    """
    added = tokenizer.data["added_tokens"]
    if any(token["lstrip"] or token["rstrip"] or token["single_word"] for token in added):
        return None
    if any(re.search(r"\S |\n\S", token["content"]) for token in added):
        return None
    normalizer, splitter = tokenizer.data.get("normalizer"), tokenizer.data.get("pre_tokenizer")
    marks = NO_SPACE + SPACE + END
    if tokenizer.family == BYTE_LEVEL_BPE and normalizer in (None, {"type": "NFC"}):
        pattern = _splitting_pattern(splitter)
        if pattern is not None:
            return Cuts(pattern in LINE_PATTERNS, pattern, _any_of(marks))
    if tokenizer.family == BYTE_FALLBACK_BPE:
        spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
        if normalizer == spaces and (splitter is None or _splits_spaces_only(splitter)):
            if not any("▁" in token.lstrip("▁") for token in tokenizer.vocab):
                lines = any(token["content"] == "\n" and not token["normalized"] for token in added)
                return Cuts(lines, None, _any_of(marks + "▁"))
    if tokenizer.family == UNIGRAM and _is_metaspace(splitter) and _keeps_words(normalizer):
        return Cuts(True, None, _any_of(marks + "▁" + _vanishing(encoder)))
    return None


def _splitting_pattern(splitter: Any) -> str | None:
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


def _splits_spaces_only(splitter: Any) -> bool:
    """Whether a pre_tokenizer splits at " " alone; behind a normalizer that leaves none, it does nothing."""
    return splitter.get("type") == "Split" and splitter.get("pattern") == {"String": " "}


def _is_metaspace(splitter: Any) -> bool:
    match splitter:
        case {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, last]}:
            splitter = last
    match splitter:
        case {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}:
            return True
    return False


def _keeps_words(normalizer: Any) -> bool:
    """Whether a normalizer treats what stands between spaces by itself."""
    match normalizer:
        case {"type": "Sequence", "normalizers": parts}:
            return all(_keeps_words(part) for part in parts)
        case {"type": "Precompiled"} | {"type": "Strip", "strip_left": False, "strip_right": True}:
            return True
        case {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"}:
            return True
    return normalizer is None


def _vanishing(encoder: Any) -> str:
    """Return what the normalizer turns into nothing or into something that ends with a space."""
    if encoder.normalizer is None:
        return ""
    normalize = encoder.normalizer.normalize_str
    found = []
    for at in range(0, 0x110000, 256):
        block = "".join(map(chr, range(at, at + 256))) if not 0xD800 <= at < 0xE000 else ""
        if normalize(block) != block:  # most blocks pass unchanged
            for char in block:
                if not char.isspace() and (not (normal := normalize(char)) or normal[-1] in " ▁"):
                    found.append(char)
    return "".join(found)


def _batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, BATCH)):
        yield batch


def _any_of(characters: str) -> re.Pattern[str]:
    return re.compile(f"[{re.escape(characters)}]")


def chunks(texts: Sequence[str], *, lines: bool) -> list[str]:
    """Return the chunks of texts that hold no stand-in; those at spaces lack that space, NO_SPACE marks the
    others.

    Works on all texts at once with str.replace and str.split, which cost nothing per character: this is what
    the speed comes from. `chunk_text` undoes the stand-ins.

    >>> [chunk_text(chunk) for chunk in chunks(["a  b\\n\\nc d"], lines=True)]
    ['a', '  b\\n\\n', 'c', ' d']
    """
    text = END.join(texts)
    if "  " in text:  # only the first space of several is a cut
        text = text.replace("  ", " " + SPACE)
        while SPACE + " " in text:
            text = text.replace(SPACE + " ", SPACE + SPACE)
    for char in "\t\r":
        if char in text:  # white space before a space: no cut
            text = text.replace(char + " ", char + SPACE)
    cut = " " + NO_SPACE
    if lines:
        text = text.replace("\n", "\n" + cut)
        blank = "\n" + cut + "\n"
        while blank in text:
            text = text.replace(blank, "\n\n")
        text = text.replace("\n" + cut + " ", "\n" + SPACE)
        for char in "\t\r":
            if char in text:
                text = text.replace("\n" + cut + char, "\n" + char)
    else:
        text = text.replace("\n ", "\n" + SPACE)
    return (NO_SPACE + text.replace(END, cut)).split(" ")


def chunk_text(chunk: str) -> str:
    """Return the text that a chunk stands for."""
    chunk = chunk.replace(SPACE, " ")
    return chunk[1:] if chunk[:1] == NO_SPACE else " " + chunk


def _careful_pattern(lines: bool) -> re.Pattern[str]:
    """The same cuts as an expression, for documents with other white space than space, tab and line end."""
    if lines:
        return re.compile(r"\s*\S+(?:[^\S ]\s*(?<!\n)\S+)*(?:[^\S ]\s*)?|\s+")
    return re.compile(r"\s*\S+(?:[^\S ]\s*\S+)*(?:[^\S ]\s*)?|\s+")


class TokenCounter:
    """Counts of token ids over texts, each encoded by itself with its special tokens (`tokenizer(text)`).

    Memory is bounded by max_entries different chunks and as many words, however many texts are added.
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
            self._other_space = _any_of(OTHER_SPACE)
            self._pattern = _careful_pattern(self._cuts.lines)
            self._may_be_added = _any_of(recipe.added_starts or NO_SPACE).search
            if self._cuts.words:
                import regex

                self._split = regex.compile(self._cuts.words).findall

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
        if len(self._chunks) + len(self._texts) > self._max_entries:
            self._to_words()

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
            ids = [token_id for encoding in encodings for token_id in encoding.ids]
            self._vector += np.bincount(ids, minlength=len(self._vector))

    def _to_words(self) -> None:
        """Take the different chunks apart into words, where the tokenizer does, and count those instead."""
        for chunk, count in self._chunks.items():
            self._texts[chunk_text(chunk)] += count
        self._chunks.clear()
        if self._split is not None:
            # Chunks that come equally often are split together: one after another they are text again, as
            # long as each begins with the space before which a text may be cut.
            groups: defaultdict[int, list[str]] = defaultdict(list)
            for text, count in self._texts.items():
                if text[:1] == " " and not text[-1].isspace():
                    groups[count].append(text)
                else:
                    self._count_words([text], count)
            for count, group in groups.items():
                for at in range(0, len(group), JOINED):
                    self._count_words(group[at : at + JOINED], count)
            self._texts.clear()
        if len(self._words) + len(self._texts) > self._max_entries:
            self._encode_words()

    def _count_words(self, texts: Sequence[str], count: int) -> None:
        """Count the words of chunks that may stand one after another; what we must not split stays whole."""
        assert self._split
        text = "".join(texts)
        if not text.isascii() and self._encoder.normalizer:
            text = self._encoder.normalizer.normalize_str(text)
        if not self._may_be_added(text) and SETTLED.fullmatch(text):
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
        """Add counts to the ids' places. Whole numbers below 2 ** 53 are exact as float64, what bincount
        adds.
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
