"""Text in which new tokens do not belong: ordinary sentences of both languages, and prompts of a chat.

Reads the bundled sentences and prompts, and the texts that rows are learned from; writes nothing. Rows that
are learned only where their words stand come to win everywhere; so what must stay as it was is read too, and
one line in four of it is kept for measuring.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vocabkit.corpus.files import Source
from vocabkit.corpus.lines import held_out, lines_in_turns
from vocabkit.files import DATA, read_jsonl, text_lines
from vocabkit.rows.contexts import TEST_ONE_IN, byte_ends
from vocabkit.rows.names import BUNDLED_EXAMPLES
from vocabkit.text.languages import is_vietnamese_text
from vocabkit.text.unicode import nfc
from vocabkit.tokenizer.chat_template import render_chats

if TYPE_CHECKING:
    from tokenizers import Tokenizer

ENGLISH, VIETNAMESE, CHAT = "English", "Vietnamese", "chat prompts"  # kinds of text

PROMPTS = DATA / "chat_prompts.txt"
PLACES = {"train": 3000, "test": 1500}  # of each language
PROMPTS_TO_LEARN = 64  # sentences that are asked as a user would, so that answers begin as before
LOOK = 5000  # lines of a corpus that are looked at


@dataclass(frozen=True)
class OtherText:
    """A text as old ids, and after how many of them no new token belongs; size: bytes that come there.

    whole: whether it begins as it is, without a start token before it.
    """

    ids: Sequence[int]
    places: Sequence[int]
    size: int
    whole: bool = False


@dataclass(frozen=True)
class OtherTexts:
    """Kind → texts, to learn from (train) and to measure on (test)."""

    train: dict[str, list[OtherText]]
    test: dict[str, list[OtherText]]


def find_other_texts(
    folder: Path,
    old_encoder: "Tokenizer",
    new_encoder: "Tokenizer",
    *,
    first_new: int,
    corpora: Sequence[Source] = (),
) -> OtherTexts:
    """Return texts with about PLACES places of each language, and the prompts.

    folder: of the chat template. first_new: the first id of new_encoder that old_encoder does not have.
    corpora: texts that come before the bundled sentences.
    """
    found = OtherTexts({ENGLISH: [], VIETNAMESE: []}, {ENGLISH: [], VIETNAMESE: []})
    asked: list[str] = []
    room = {(part, kind): places for part, places in PLACES.items() for kind in found.train}
    for line in itertools.chain(_lines(corpora), _bundled()):
        part = "test" if held_out(line, one_in=TEST_ONE_IN) else "train"
        kind = VIETNAMESE if is_vietnamese_text(line, share=0.5) else ENGLISH
        if room[part, kind] > 0:
            text = other_text(nfc(line), old_encoder, new_encoder, first_new=first_new)
            if text.places:
                getattr(found, part)[kind].append(text)
                room[part, kind] -= len(text.places)
            if part == "train" and len(asked) < PROMPTS_TO_LEARN:
                asked.append(line)
        if all(left <= 0 for left in room.values()):
            break
    found.train[CHAT] = [*prompts(folder, old_encoder, asked)]
    found.test[CHAT] = [*prompts(folder, old_encoder, [line.strip() for _, line in text_lines(PROMPTS)])]
    return found


def _lines(corpora: Sequence[Source]) -> Iterator[str]:
    return itertools.islice(lines_in_turns(corpora, notes=lambda note: None), LOOK)


def _bundled() -> Iterator[str]:
    """Yield sentences of the bundled list of words, the two languages in turns."""
    for _, row in read_jsonl(BUNDLED_EXAMPLES):
        yield from itertools.chain.from_iterable(zip(row["examples"], row["examples_en"], strict=False))


def other_text(text: str, old_encoder: "Tokenizer", new_encoder: "Tokenizer", *, first_new: int) -> OtherText:
    """Return a text with the places where no new token stands, as the old tokenizer cuts it."""
    old, new = (encoder.encode(text, add_special_tokens=False) for encoder in (old_encoder, new_encoder))
    taken = [offsets for token_id, offsets in zip(new.ids, new.offsets, strict=True) if token_id >= first_new]
    ends = byte_ends(text, old.tokens, old.offsets)
    sizes = [end - before for before, end in itertools.pairwise([0, *ends])]
    places = [
        at
        for at, (start, end) in enumerate(old.offsets)
        if not any(start < stop and begin < end for begin, stop in taken)
    ]
    return OtherText(old.ids, places, sum(sizes[at] for at in places))


def prompts(folder: Path, encoder: "Tokenizer", questions: Iterable[str]) -> Iterator[OtherText]:
    """Yield questions as the folder's chat template writes them, up to where the answer begins."""
    questions = list(questions)
    texts = render_chats(folder, [[{"role": "user", "content": question}] for question in questions])
    for text in texts or (f"{question}\n" for question in questions):
        ids = encoder.encode(text, add_special_tokens=False).ids
        yield OtherText(ids, [len(ids)], 0, whole=texts is not None)
