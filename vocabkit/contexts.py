"""Snippets of text in which new words stand, read by the old tokenizer and by the extended one, side by side.

Reads corpora of every kind of vocabkit/corpus.py, and word lists whose rows have "examples"; writes nothing.

Which lines are for training and which for testing is decided by the line alone (one in four is for testing),
so that nothing that rows were fitted to is ever used to judge them. The sources are read in turns, a few
lines of each, until every word has enough: memory is bounded, what is found does not depend on how the
sources are cut into blocks, and common words do not make a large corpus be read to its end.
"""

import itertools
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from vocabkit.corpus import Source, parse_block, print_note, read_blocks
from vocabkit.corpus_records import JSONL
from vocabkit.corpus_streams import Notes

TEST_ONE_IN = 4
TURN = 64  # lines of a source before it is the next one's turn
BATCH = 512  # lines encoded in one call of the tokenizers library
MIN_AFTER = 4  # tokens after the word, or there is nothing to see of how it was read
EXAMPLES = "examples"  # field of the rows of a word list that holds sentences


@dataclass(frozen=True)
class Context:
    """A snippet in two encodings, neither with a start token.

    word: index of the word it was picked for. new_at: positions of new tokens in new_ids, own_at the first of
    the word's own. aligned: for each position in new_ids the position in old_ids of the last token that ends
    where it ends, None where the old tokenizer does not cut; the states there have read the same text.
    """

    word: int
    text: str
    old_ids: tuple[int, ...]
    new_ids: tuple[int, ...]
    aligned: tuple[int | None, ...]
    new_at: tuple[int, ...]
    own_at: int

    def old_span(self, at: int) -> tuple[int, int]:
        """Return the first position in old_ids of the tokens that the new token at a position replaces, and
        the one behind its last.
        """
        before = 0 if at == 0 else self.aligned[at - 1]
        end = self.aligned[at]
        if before is None or end is None:
            raise ValueError(f"position {at} of {self.text!r} is not a cut of both tokenizers")
        return (before + 1 if at else 0), end + 1


def is_test(line: str) -> bool:
    """Whether a line is for testing: one in four, by its CRC-32, so that equal lines are on one side.

    >>> [is_test(f"Dòng {n}") for n in range(6)]
    [True, False, True, False, False, False]
    """
    return zlib.crc32(line.encode("utf-8")) % TEST_ONE_IN == 1  # 0 would be the empty line


def find_contexts(
    sources: Sequence[Source],
    contents: Sequence[str],
    old_encoder: Any,
    new_encoder: Any,
    *,
    per_word: int,
    tokens: int = 50,
    part: str = "train",
    seed: int = 0,
    text_field: str | None = None,
    block_bytes: int | None = None,
    ids: Sequence[int] | None = None,
    notes: Notes = print_note,
) -> list[Context]:
    """Return up to per_word contexts of each word, those of a word together, in the order they were read.

    contents: texts of the new tokens (" thời gian"); ids: their ids in new_encoder, which must be given where
    a content alone is not read as its token (None: it is). tokens: about how many a
    snippet has, all that the line gives if it is shorter; the word stands anywhere between one fifth and
    three fifths of it, as seed, line and word decide. Both encodings of a snippet decode to its text. A line
    gives a word one context at most. A word that is found too rarely has fewer, or none (see counts_of()).
    """
    if part not in ("train", "test"):
        raise ValueError(f"part is {part!r}, expected 'train' or 'test'")
    if ids is None:
        encoded = new_encoder.encode_batch(list(contents), add_special_tokens=False)
        ids = [encoding.ids[0] for encoding in encoded if len(encoding.ids) == 1]
    number = {token_id: at for at, token_id in enumerate(ids)}
    if len(number) < len(contents):
        raise ValueError("not every content is one token of the extended tokenizer")
    found: list[dict[str, Context]] = [{} for _ in contents]  # text → context: repeated text counts once
    missing = set(range(len(contents))) if per_word > 0 else set()
    lines = (
        line
        for line in _lines(sources, text_field=text_field, block_bytes=block_bytes, notes=notes)
        if is_test(line) == (part == "test") and " " in line
    )
    bar = tqdm(total=per_word * len(contents), desc="contexts", leave=False, disable=None)
    while missing and (batch := list(itertools.islice(lines, BATCH))):
        for line, encoding in zip(
            batch, new_encoder.encode_batch(batch, add_special_tokens=False), strict=True
        ):
            first: dict[int, int] = {}
            for at, token_id in enumerate(encoding.ids):
                if (word := number.get(token_id)) in missing and len(encoding.ids) - at > MIN_AFTER:
                    first.setdefault(word, at)
            for word, at in first.items():
                text = _snippet(line, encoding.offsets, at, tokens=tokens, seed=[seed, contents[word], line])
                context = _read(text, word, number, old_encoder, new_encoder)
                if context and text not in found[word]:
                    found[word][text] = context
                    bar.update()
                    if len(found[word]) == per_word:
                        missing.discard(word)
    bar.close()
    return [context for contexts in found for context in contexts.values()]


def counts_of(contexts: Iterable[Context], words: int) -> list[int]:
    """Return how many contexts each of so many words has; 0: none was found."""
    counts = [0] * words
    for context in contexts:
        counts[context.word] += 1
    return counts


def align(
    old_offsets: Sequence[tuple[int, int]], new_offsets: Sequence[tuple[int, int]]
) -> tuple[int | None, ...]:
    """Return for each new token the last old token that ends where it ends, None where none does.

    Offsets are in characters. Tokens that share a character (its bytes are several tokens) end inside it, all
    but the last.

    >>> align([(0, 3), (3, 8), (8, 12), (12, 13)], [(0, 3), (3, 12), (12, 13)])
    (0, 2, 3)
    """
    ends = {end: at for at, end in enumerate(_ends(old_offsets)) if end is not None}
    return tuple(None if end is None else ends.get(end) for end in _ends(new_offsets))


def _ends(offsets: Sequence[tuple[int, int]]) -> Iterator[int | None]:
    """The end of each token in the text, None for one whose last character goes on in the next token."""
    for at, (_, end) in enumerate(offsets):
        yield None if at + 1 < len(offsets) and offsets[at + 1][0] < end else end


def _lines(
    sources: Sequence[Source], *, text_field: str | None, block_bytes: int | None, notes: Notes
) -> Iterator[str]:
    """The lines of all sources, some of each in turn."""
    readers = [
        _lines_of(source, text_field=text_field, block_bytes=block_bytes, notes=notes) for source in sources
    ]
    while readers:
        still = []
        for reader in readers:
            turn = list(itertools.islice(reader, TURN))
            yield from turn
            if len(turn) == TURN:
                still.append(reader)
        readers = still


def _lines_of(
    source: Source, *, text_field: str | None, block_bytes: int | None, notes: Notes
) -> Iterator[str]:
    """The lines of one source that are not blank; bad records are counted into one note at its end."""
    first_bad = ""
    count = bad = 0
    for block in read_blocks(source, text_field=text_field, block_bytes=block_bytes, notes=notes):
        if not count and block.kind == JSONL and text_field is None and _has_examples(block.data):
            text_field = EXAMPLES
        texts, seen, wrong = parse_block(block, text_field=text_field)
        count += seen
        bad += len(wrong)
        first_bad = first_bad or next(iter(wrong), "")
        for text in texts:
            yield from (line.strip() for line in text.split("\n") if line.strip())
    if bad:
        notes(f"{bad:,} of {count:,} records of {source.name} give no text, the first is {first_bad}")


def _has_examples(data: Any) -> bool:
    """Whether the first row of a .jsonl block is that of a word list: it has sentences and no text."""
    try:
        row = json.loads(data.split(b"\n", 1)[0])
    except ValueError:
        return False
    return (
        isinstance(row, dict) and EXAMPLES in row and not {"text", "messages", "conversations"} & row.keys()
    )


def _snippet(
    line: str, offsets: Sequence[tuple[int, int]], at: int, *, tokens: int, seed: Sequence[object]
) -> str:
    """Cut the text around the token at a position out of a line, at spaces, where its length allows."""
    share = zlib.crc32(repr(list(seed)).encode("utf-8")) / 2**32
    before = int(tokens * (0.2 + 0.4 * share))
    start = max(0, min(at - before, len(offsets) - tokens))
    end = min(len(offsets), start + tokens)
    while start > 0 and line[offsets[start][0]] != " ":
        start -= 1
    while end < len(offsets) and line[offsets[end][0]] != " ":
        end += 1
    return line[offsets[start][0] : offsets[end - 1][1]]


def _read(text: str, word: int, number: dict[int, int], old_encoder: Any, new_encoder: Any) -> Context | None:
    """Return the context that a snippet is; None where its word is no longer a token between cuts of both."""
    old, new = (encoder.encode(text, add_special_tokens=False) for encoder in (old_encoder, new_encoder))
    aligned = align(old.offsets, new.offsets)
    new_at = tuple(at for at, token_id in enumerate(new.ids) if token_id in number)
    own = [at for at in new_at if number[new.ids[at]] == word]
    own = [at for at in own if aligned[at] is not None and (at == 0 or aligned[at - 1] is not None)]
    own = [at for at in own if len(new.ids) - at > MIN_AFTER]
    if not own or old_encoder.decode(old.ids) != new_encoder.decode(new.ids):
        return None
    return Context(word, text, tuple(old.ids), tuple(new.ids), aligned, new_at, own[0])
