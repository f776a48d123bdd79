"""Texts → ids by gigatoken, many times faster than by the tokenizers library, where it gives the same ids.

Reads tokenizer.json; writes nothing. tokenizers is what says how a text is encoded; gigatoken knows the usual
BPE tokenizers and refuses others. That both agree is not taken on trust:

- why_not() compares them on fixed texts, every character that is assigned among them, before a run.
- Only characters that this Python's Unicode knows are given to gigatoken: its Unicode is newer than that of
  tokenizers, and what is a letter in the one is nothing in the other (13 of Unicode 17 for Llama 3).
- Texts are in NFC, as corpus/records.py makes them: the normalizer of tokenizers knows fewer marks.
- counts/tokens.py encodes one text in a thousand by both.
"""

import functools
import itertools
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vocabkit.files import sha256_file
from vocabkit.tokenizer.encoder import encoded, load_encoder

if TYPE_CHECKING:
    from tokenizers import AddedToken, Tokenizer

LAST = 0x40000  # characters beyond are taken for unassigned: few are not, and hardly any text has them
PACK, BATCH = 64, 4096  # characters that share a text of the probe, texts that are encoded together
MOST_GROWN = 256 << 20  # bytes: gigatoken remembers every word; it is begun anew where that takes so much


@functools.cache
def _categories() -> list[str]:
    return [unicodedata.category(chr(code)) for code in range(LAST)]


@functools.cache
def _unassigned() -> np.ndarray:
    """Whether each code point is unknown to this Python, (0x110000,) bool."""
    return np.array(_categories() + ["Cn"] * (0x110000 - LAST)) == "Cn"


def has_unassigned(text: str) -> bool:
    """Whether a text holds a character that this Python's Unicode does not know.

    >>> has_unassigned("Xin chào 👋"), has_unassigned("a\\u0378")
    (False, True)
    """
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    # Nearly all Latin letters are skipped, which takes no table: all are assigned up to ͷ, and from Ḁ to ỿ.
    return bool(_unassigned()[codes[(codes > 0x377) & ((codes < 0x1E00) | (codes > 0x1EFF))]].any())


_reasons: dict[str, str | None] = {}  # sha256 of a tokenizer.json → what why_not() has found


class FastEncoder:
    """A folder's tokenizer as gigatoken runs it. Raises ImportError without gigatoken, RuntimeError for a
    tokenizer that it does not know.
    """

    def __init__(self, folder: Path) -> None:
        self._json = (folder / "tokenizer.json").read_bytes()
        self._start()

    def _start(self) -> None:
        import gigatoken
        import psutil

        self._encode = gigatoken.Tokenizer.from_json(self._json).encode
        self._memory = psutil.Process().memory_info
        self._most = self._memory().rss + MOST_GROWN

    def ids(self, texts: Iterable[str]) -> list[np.ndarray]:
        """Return the ids of each text, uint32, without special tokens."""
        if self._memory().rss > self._most:
            del self._encode
            self._start()
        return [self._encode(text) for text in texts]


def encoded_differently(texts: Sequence[str], fast: FastEncoder, encoder: "Tokenizer") -> Iterator[str]:
    """Yield the texts to which the two libraries give different ids."""
    for text, ids, encoding in zip(texts, fast.ids(texts), encoded(encoder, texts), strict=True):
        if ids.tolist() != encoding.ids:
            yield text


def why_not(folder: Path) -> str | None:
    """Return why a folder's texts cannot be encoded by gigatoken, in a few words; None if they can."""
    sha256 = sha256_file(folder / "tokenizer.json")
    if sha256 not in _reasons:
        _reasons[sha256] = _why_not(folder)
    return _reasons[sha256]


def _why_not(folder: Path) -> str | None:
    try:
        fast = FastEncoder(folder)
    except ImportError as error:
        return f"{error.name} is not installed (pip install {error.name})"
    except RuntimeError as error:
        return f"gigatoken does not know this tokenizer ({str(error).splitlines()[0]})"
    encoder = load_encoder(folder)
    added = list(encoder.get_added_tokens_decoder().values())
    if whole := next((token.content for token in added if token.single_word), None):
        return f"{whole!r} is an added token where it is a whole word, and they differ on what that is"
    texts = probe(added, assigned())
    while some := list(itertools.islice(texts, BATCH)):
        for text in encoded_differently(some, fast, encoder):
            return f"gigatoken encodes {text[:40]!r} otherwise than tokenizers"
    return None


def assigned() -> list[str]:
    """Return every character that this Python's Unicode knows."""
    return [chr(at) for at, kind in enumerate(_categories()) if kind not in ("Cn", "Co", "Cs")]


def probe(added: Sequence["AddedToken"], characters: Sequence[str]) -> Iterator[str]:
    """Yield texts in NFC by which two tokenizers are compared: every character alone and between others, in
    all normal forms, added tokens whole and broken, control characters, long runs.
    """
    for text in _probe(added, characters):
        yield unicodedata.normalize("NFC", text)


def _probe(added: Sequence["AddedToken"], characters: Sequence[str]) -> Iterator[str]:
    spaces = list(filter(str.isspace, characters))
    for token in added:
        text = token.content
        yield text
        yield f"a{text}b {text} 1{text}{text}.\n {text}\n{text[:-1]} {text[1:]}{text.upper()}"
        if token.lstrip or token.rstrip:
            yield "".join(f"a{space}{text}{space}" for space in spaces)
    runs = ("a", "A", "1", " ", "\n", "\t", " \n", "\r\n", ".", "-", "é", "\u3000", "ế", "的", "👍🏽",
            "Việt ", "▁", "'s")  # fmt: skip
    for run, times in itertools.product(runs, (2, 3, 4, 8, 16, 17, 65, 129, 1025)):
        yield f"x{run * times}y"
    controls = list(map(chr, range(0x21)))
    for first in controls:
        yield "".join(f"a{first}{second}b" for second in controls)
    forms = [unicodedata.normalize(form, char) for form in ("NFD", "NFKC") for char in characters]
    for chars in (characters, [form for form in forms if len(form) > 1]):
        for at in range(0, len(chars), PACK):
            yield "".join(f"a{char}b {char}.1" for char in chars[at : at + PACK])
    yield from characters
