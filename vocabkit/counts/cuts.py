"""Where a text may be cut so that its pieces, encoded one by one, give the tokens of the whole.

Reads tokenizer.json; writes nothing. counts/tokens.py rests on this: no token crosses a cut, and none
depends on what lies beyond one. For the tokenizers that find_cuts() knows, these are such cuts:

    before a space that white space does not follow     "tôi   đi" → "tôi  ", " đi"
    after the last line end of a stretch of white space "tôi\\n\\n  đi" → "tôi\\n\\n", " ", " đi"
    behind ASCII letters and digits, before others      "f(x1, 2)" → "f", "(x", "1", ",", " 2", ")"

Byte-level BPE (GPT-2, Qwen, Llama 3) first splits text by a regular expression. None of its alternatives
matches white space after something else, except line ends after punctuation; and `\\s+(?!\\S)` leaves the
last character of white space before a word to that word. So a match ends before such a space, whatever
follows, and the next one starts there, whatever came before. With `\\s*[\\r\\n]+` (not in GPT-2) the same
holds after the last line end of such a stretch: the match goes up to it, and the next begins there. Nor does
an alternative match anything but letters after a letter, but digits after a digit, or a digit after
punctuation. (ASCII only: what is a letter beyond it differs from one version of Unicode to the next, and
marks may join what is before them.)

Added tokens are taken out before the expression sees a text, which then ends where they begin: white space
before what may be one stays together, and pairs of characters that one holds are no border.

Unigram (T5, mT5) splits at spaces itself, takes several for one, and reads a line end as a space. What its
normalizer makes into white space or nothing is treated as white space here.

Whole-text BPE (Gemma) is cut elsewhere, since its merges may join several spaces with the word after them:

    before a space that no space precedes               "tôi   đi" → "tôi", "   đi"
    after a line end that no line end follows           "tôi\\n\\n  đi" → "tôi\\n\\n", "  đi"

A space becomes ▁; where no token holds a ▁ behind another character, no merge crosses the first. Where the
line end is an added token, it is taken out before merges are looked for, so none crosses the second.

For any other tokenizer no cut is known: its texts are encoded whole.
"""

import itertools
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vocabkit.tokenizer.encoder import LLAMA3, QWEN2, splitting_pattern
from vocabkit.tokenizer.tokenizer_json import BYTE_FALLBACK_BPE, BYTE_LEVEL_BPE, UNIGRAM, TokenizerJson

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LINE_PATTERNS = {QWEN2, LLAMA3}  # those with \s*[\r\n]+, after which a line end is a cut

# White space: Python's, a superset of Unicode's. Where more is taken for white space, there are fewer cuts.
SPACES = [char for char in map(chr, range(0x3001)) if char.isspace()]
LONG_SPACES = [char.encode() for char in SPACES if not char.isascii()]


def _among(characters: Iterable[int]) -> bytes:
    """A table for bytes.translate: 1 for these bytes, 0 for all others."""
    found = frozenset(characters)
    return bytes(byte in found for byte in range(256))


WHITE = frozenset(char.encode()[0] for char in SPACES if char.isascii())
LEADS = _among(space[0] for space in LONG_SPACES)
LINE_END = _among(b"\n\r")
BLANK = _among(byte for char in SPACES if char not in "\n\r" for byte in char.encode())  # inside white space
LONGEST_INDENT = 200  # bytes

# Kinds of bytes: 0 is everything beyond ASCII.
OTHER, LETTER, DIGIT, BLANKS = 1, 2, 3, 4
KINDS = bytes(
    BLANKS if byte in WHITE
    else LETTER if byte in string.ascii_letters.encode()
    else DIGIT if byte in string.digits.encode()
    else OTHER if byte < 128
    else 0
    for byte in range(256)
)  # fmt: skip


@dataclass(frozen=True)
class Cuts:
    """Where a tokenizer's texts may be cut, and what else is known of the chunks.

    last: of several spaces the last one is the cut, else the first. lines: after line ends too. words: the
    expression that splits chunks into words. space: what stands for a space in the only word that a chunk is.
    Both None: only the tokenizer knows. whole: matches what keeps a document from being cut.
    """

    last: bool
    lines: bool
    words: str | None = None
    space: str | None = None
    whole: re.Pattern[str] | None = None


@dataclass(frozen=True)
class Recipe:
    """What counting needs of a tokenizer beside its file: little enough to hand to every worker."""

    ids: int  # highest id + 1
    cuts: Cuts | None
    added: tuple[str, ...]  # contents of the added tokens


def read_recipe(tokenizer: TokenizerJson, encoder: "Tokenizer") -> Recipe:
    """Find out how a tokenizer's texts may be cut. encoder: the same one as a tokenizers.Tokenizer."""
    return Recipe(
        max(tokenizer.tokens) + 1,
        find_cuts(tokenizer, encoder),
        tuple(tokenizer.added),
    )


def find_cuts(tokenizer: TokenizerJson, encoder: "Tokenizer") -> Cuts | None:
    """Return where texts may be cut for this tokenizer, None if no cut is known to be exact.

    encoder: the same tokenizer as a tokenizers.Tokenizer, asked what its normalizer does to characters.
    """
    added_tokens = tokenizer.data["added_tokens"]
    if not all(_is_cuttable(token, encoder) for token in added_tokens):
        return None
    no_spaces = not any(token["content"].startswith(" ") for token in added_tokens)  # among them
    normalizer, splitter = tokenizer.data.get("normalizer"), tokenizer.data.get("pre_tokenizer")
    if tokenizer.family == BYTE_LEVEL_BPE and normalizer in (None, {"type": "NFC"}):
        pattern = splitting_pattern(splitter)
        if pattern is not None and no_spaces:
            return Cuts(last=True, lines=pattern in LINE_PATTERNS, words=pattern)
    if tokenizer.family == BYTE_FALLBACK_BPE and not tokenizer.data["model"].get("ignore_merges"):
        spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
        if normalizer == spaces and (splitter is None or _splits_spaces_only(splitter)):
            if not any("▁" in token.lstrip("▁") for token in tokenizer.vocab):
                lines = any(token["content"] == "\n" and not token["normalized"] for token in added_tokens)
                return Cuts(last=False, lines=lines, space="▁", whole=any_of("▁"))
    # An added token that is looked for after normalizing leaves the white space before it, which at the end
    # of a chunk would be stripped.
    normalized = any(token["normalized"] for token in added_tokens)
    if tokenizer.family == UNIGRAM and no_spaces and not normalized and _splits_words(normalizer, splitter):
        return Cuts(last=True, lines=_is_space("\n", encoder), whole=any_of("▁" + _vanishing(encoder)))
    return None


def _is_cuttable(token: Mapping[str, Any], encoder: "Tokenizer") -> bool:
    """Whether an added token stays the same where texts are cut: it holds no white space, or nothing else,
    takes none from its neighbours, and is found in a text as it is written.
    """
    content = token["content"]
    if token["lstrip"] or token["rstrip"] or token["single_word"]:
        return False
    if not content.strip():
        return len(set(content)) == 1
    if any(char.isspace() for char in content):
        return False
    if not token["normalized"]:
        return True
    normalizer = encoder.normalizer
    return "▁" not in content and (normalizer is None or normalizer.normalize_str(content) == content)


def _splits_spaces_only(splitter: Any) -> bool:
    """Whether a pre_tokenizer splits at " " alone; behind a normalizer that leaves none, it does nothing."""
    return splitter.get("type") == "Split" and splitter.get("pattern") == {"String": " "}


def _splits_words(normalizer: Any, splitter: Any) -> bool:
    """Whether Unigram sees each word by itself, however many spaces surround it, as in T5 and mT5."""
    words = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    match normalizer, splitter:
        case {"type": "Sequence", "normalizers": [table, strip, several]}, _:
            return (
                splitter == words
                and table["type"] == "Precompiled"
                and strip == {"type": "Strip", "strip_left": False, "strip_right": True}
                and several == {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"}
            )
        case {"type": "Precompiled"}, {"type": "Sequence", "pretokenizers": pretokenizers}:
            return pretokenizers == [{"type": "WhitespaceSplit"}, words]
    return False


def _is_space(char: str, encoder: "Tokenizer") -> bool:
    """Whether the normalizer makes a space of this character between others."""
    return encoder.normalizer is not None and encoder.normalizer.normalize_str(f"a{char}b") == "a b"


def _vanishing(encoder: "Tokenizer") -> str:
    """Return what the normalizer turns into nothing, or into something that ends with a space, and the white
    space that it leaves or takes away at the end of a text.
    """
    if encoder.normalizer is None:
        return ""
    normalize = encoder.normalizer.normalize_str
    found = [char for char in SPACES if char not in " \n\t\r" and not _is_space(char, encoder)]
    for at in range(0, 0x110000, 256):
        block = "".join(map(chr, range(at, at + 256))) if not 0xD800 <= at < 0xE000 else ""
        if normalize(block) != block:  # most blocks pass unchanged
            for char in block:
                if not char.isspace() and (not (normal := normalize(char)) or normal[-1] in " ▁"):
                    found.append(char)
    return "".join(found)


def any_of(characters: str) -> re.Pattern[str]:
    return re.compile(f"[{re.escape(characters)}]")


class Cutter:
    """Cuts texts into chunks.

    No character is looked at in Python and no chunk made a Python object: this is what the speed comes from.

    >>> Cutter(Cuts(last=True, lines=True), added=[]).chunks(["a  b\\n\\n  c d", " e"]).to_pylist()
    ['a ', ' b\\n\\n', ' ', ' c', ' d', ' e']
    >>> Cutter(Cuts(last=False, lines=True), added=[]).chunks(["a  b\\n\\n  c d", " e"]).to_pylist()
    ['a', '  b\\n\\n', '  c', ' d', ' e']
    >>> Cutter(Cuts(last=True, lines=True, words=QWEN2), added=["<a>"]).chunks(["(x12)y.<a> c>"]).to_pylist()
    ['(x', '12', ')y', '.<a>', ' c', '>']
    """

    def __init__(self, cuts: Cuts, added: Iterable[str]) -> None:
        contents = [content.encode() for content in added]
        self._cuts = cuts
        self._added_starts = _among(content[0] for content in contents)
        self._inside_added = np.zeros(1 << 16, bool)  # pairs of bytes, first << 8 | second
        for content in contents:
            for first, second in itertools.pairwise(content):
                self._inside_added[first << 8 | second] = True

    def chunks(self, texts: Sequence[str]) -> Any:
        """Return the chunks of texts, one text after another, as a pyarrow.StringArray; no chunk is empty."""
        import pyarrow

        if not texts:
            return pyarrow.array([], pyarrow.string())
        _, offsets, buffer = pyarrow.array(texts, pyarrow.string()).buffers()
        starts = np.frombuffer(offsets, np.int32)[: len(texts) + 1]
        size = int(starts[-1])
        text = _Bytes(buffer, size)
        begins = np.zeros(size + 1, bool)
        begins[starts] = True
        begins[:size] |= self._at_spaces(text, begins)
        if self._cuts.lines:
            begins[self._after_lines(text)] = True
        if self._cuts.words:
            begins[self._at_borders(text)] = True
        begins[size] = True
        at = np.flatnonzero(begins).astype(np.int32)
        return pyarrow.StringArray.from_buffers(len(at) - 1, pyarrow.py_buffer(at), buffer)

    def _at_spaces(self, text: "_Bytes", begins: np.ndarray) -> np.ndarray:
        """Whether to cut before each byte since it is a space. begins: before which a text begins."""
        found = text.bytes[1 : text.size + 1] == ord(" ")
        if not self._cuts.last:
            found &= text.bytes[: text.size] != ord(" ")
            return found
        # In place, one array after the other: a text may be a line of many megabytes.
        leads = np.flatnonzero(found & text.translated(LEADS)[2 : text.size + 2])
        # An added token ends what the expressions see: all the white space before it must stay together.
        may_cut = ~text.translated(self._added_starts)[2 : text.size + 2]
        kinds = text.translated(KINDS, np.uint8)
        ink_before = kinds[: text.size] != BLANKS
        ink_before &= kinds[: text.size] != 0
        may_cut |= ink_before
        found &= may_cut
        del may_cut, ink_before
        blank_after = kinds[2 : text.size + 2] == BLANKS
        blank_after |= begins[1:]
        blank_after[leads[text.long_space_at(leads + 1)]] = True
        found &= np.logical_not(blank_after, out=blank_after)
        return found

    def _after_lines(self, text: "_Bytes") -> np.ndarray:
        """Where to cut since a line end comes before."""
        after = np.flatnonzero(text.bytes[1 : text.size + 1] == ord("\n")) + 1
        if not self._cuts.last:
            return after[text.bytes[after + 1] != ord("\n")]
        line_end, blank = text.translated(LINE_END), text.translated(BLANK)
        # BLANK has parts of other characters too: what looks like white space costs a cut and nothing else.
        at = after + 1
        inside = np.flatnonzero(blank[at])
        for _ in range(LONGEST_INDENT):
            at[inside] += 1
            inside = inside[blank[at[inside]]]
        last = ~line_end[at]
        last[inside] = False
        return after[last]

    def _at_borders(self, text: "_Bytes") -> np.ndarray:
        """Where to cut since a word ends there, whatever surrounds the two characters; both are ASCII."""
        kinds = text.translated(KINDS, np.uint8)[1 : text.size + 1]
        first, second = kinds[:-1], kinds[1:]
        ends = first == LETTER
        ends |= first == DIGIT
        ends &= second != 0
        ends &= first != second
        into_digits = first == OTHER
        into_digits &= second == DIGIT
        ends |= into_digits
        at = np.flatnonzero(ends) + 1
        pairs = text.bytes[at].astype(np.uint16) << 8 | text.bytes[at + 1]
        return at[~self._inside_added[pairs]]


class _Bytes:
    """The bytes of a text between others, so that one can look beyond either end.

    bytes[at + 1] is byte number at of the text.
    """

    def __init__(self, buffer: Any, size: int) -> None:
        self.size = size
        self._data = b"".join([b".", memoryview(buffer)[:size] if size else b"", b"..."])
        self.bytes = np.frombuffer(self._data, np.uint8)

    def translated(self, table: bytes, kind: type = bool) -> np.ndarray:
        return np.frombuffer(self._data.translate(table), kind)

    def long_space_at(self, at: np.ndarray) -> np.ndarray:
        """Whether one of LONG_SPACES stands at these places of the text."""
        found = np.zeros(len(at), bool)
        for space in LONG_SPACES:
            equal = np.ones(len(at), bool)
            for place, byte in enumerate(space):
                equal &= self.bytes[at + place + 1] == byte
            found |= equal
        return found
