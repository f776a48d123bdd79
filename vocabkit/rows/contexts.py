"""Snippets of text in which new words stand, read by the old tokenizer and by the extended one, side by side.

Reads corpora of every kind of vocabkit/corpus/files.py, and word lists whose rows have "examples"; writes
nothing.

Which lines are for training and which for testing is decided by the line alone (one in four is for testing),
so that nothing that rows were fitted to is ever used to judge them. The sources are read in turns, a few
lines of each, until every word has enough: memory is bounded, what is found does not depend on how the
sources are cut into blocks, and common words do not make a large corpus be read to its end.
"""

import itertools
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from vocabkit.corpus.files import Source, find_sources, print_note
from vocabkit.corpus.lines import held_out, lines_in_turns
from vocabkit.corpus.streams import Notes
from vocabkit.errors import UserError
from vocabkit.rows.names import DEFAULT, START

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

TEST_ONE_IN = 4  # lines; the others are for training

CONTEXTS_PER_WORD = 25  # to learn from

BATCH = 512  # lines encoded in one call of the tokenizers library
BYTE_TOKEN = re.compile("<0x[0-9A-F]{2}>")  # how SentencePiece names a byte
MIN_AFTER = 4  # tokens after the word, or there is nothing to see of how it was read


@dataclass(frozen=True)
class Context:
    """A snippet in two encodings, neither with a start token.

    word: index of the word it was picked for. new_at: positions of new tokens in new_ids, own_at the first of
    the word's own. aligned: for each position in new_ids the position in old_ids of the last token that ends
    at the same byte, None where the old tokenizer does not cut; the states there have read the same text.
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


def find_contexts(
    sources: Sequence[Source],
    contents: Sequence[str],
    old_encoder: "Tokenizer",
    new_encoder: "Tokenizer",
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
        for line in lines_in_turns(sources, text_field=text_field, block_bytes=block_bytes, notes=notes)
        if held_out(line, one_in=TEST_ONE_IN) == (part == "test") and " " in line
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


def align(text: str, old: "Encoding", new: "Encoding") -> tuple[int | None, ...]:
    """Return for each new token the last old token that ends at the same byte of the text, or None.

    Bytes, not characters: a tokenizer made for English spells a Vietnamese letter with several tokens, and
    the model says something between them too.
    """
    ends = {end: at for at, end in enumerate(byte_ends(text, old.tokens, old.offsets))}
    return tuple(ends.get(end) for end in byte_ends(text, new.tokens, new.offsets))


def byte_ends(text: str, tokens: Sequence[str], offsets: Sequence[tuple[int, int]]) -> list[int]:
    """Return at which byte of the text each token ends.

    offsets: in characters, as the library gives them: tokens that share a character overlap, and how many
    bytes of it one has is told by its name alone, a sign a byte (byte-level BPE) or <0xE1>.

    >>> byte_ends("về", ["v", "á»", "ģ"], [(0, 1), (1, 2), (1, 2)])  # ề is E1 BB 81
    [1, 3, 4]
    """
    sizes = [0, *itertools.accumulate(len(char.encode("utf-8", "surrogatepass")) for char in text)]
    ends: list[int] = []
    for at, (token, (_, end)) in enumerate(zip(tokens, offsets, strict=True)):
        goes_on = at + 1 < len(offsets) and offsets[at + 1][0] < end
        before = ends[-1] if ends else 0
        ends.append(before + (1 if BYTE_TOKEN.fullmatch(token) else len(token)) if goes_on else sizes[end])
    return ends


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


def _read(
    text: str,
    word: int,
    number: dict[int, int],
    old_encoder: "Tokenizer",
    new_encoder: "Tokenizer",
) -> Context | None:
    """Return the context that a snippet is; None where its word is no longer a token between cuts of both."""
    old, new = (encoder.encode(text, add_special_tokens=False) for encoder in (old_encoder, new_encoder))
    aligned = align(text, old, new)
    new_at = tuple(at for at, token_id in enumerate(new.ids) if token_id in number)
    own = [at for at in new_at if number[new.ids[at]] == word]
    own = [at for at in own if aligned[at] is not None and (at == 0 or aligned[at - 1] is not None)]
    own = [at for at in own if len(new.ids) - at > MIN_AFTER]
    if not own or old_encoder.decode(old.ids) != new_encoder.decode(new.ids):
        return None
    return Context(word, text, tuple(old.ids), tuple(new.ids), aligned, new_at, own[0])


@dataclass(frozen=True)
class TaughtContexts:
    """The contexts that rows are distilled from; counts: how many each new token has. sources: the texts;
    encoder: the tokenizer with the new tokens.

    state_file: where an unfinished distilling is kept, from which the same command goes on.
    """

    contexts: list[Context]
    counts: list[int]
    sources: Sequence[Source]
    encoder: "Tokenizer"
    state_file: Path


def find_taught_contexts(
    texts: Sequence[str],
    contents: Sequence[str],
    *,
    old_encoder: "Tokenizer",
    new_encoder: "Tokenizer",
    ids: Sequence[int],
    state_file: Path,
    per_word: int | None = None,
    seed: int = 0,
) -> TaughtContexts:
    """Return up to per_word (None: CONTEXTS_PER_WORD) contexts of each new token.

    ids: those of the new tokens in new_encoder. UserError where no text has any of them.
    """
    per_word = CONTEXTS_PER_WORD if per_word is None else per_word
    if per_word < 1:
        raise UserError(f"--contexts_per_word is {per_word}, expected 1 or more, such as {CONTEXTS_PER_WORD}")
    sources = find_sources(texts)
    found = find_contexts(sources, contents, old_encoder, new_encoder, per_word=per_word, seed=seed, ids=ids)
    if not found:
        raise UserError(
            f"{', '.join(texts)}: none of the {len(contents):,} new tokens stands in the part that is "
            f"learned from (three lines in four); give other --contexts, or --init {DEFAULT}"
        )
    counts = counts_of(found, len(contents))
    print(
        f"contexts  {len(found):>13,} of {len(contents) - counts.count(0):,} new tokens; "
        f"{counts.count(0):,} stand in no text and keep their {START} rows"
    )
    return TaughtContexts(found, counts, sources, new_encoder, state_file)
