"""Rows of training data to samples: a text, or a conversation, and which of four kinds of data it is.

    instruction  conversations, in the formats that train/data/chats.py names
    bilingual    pairs: {"en", "vi"}, {"translation": {…}}, two cells of a TSV line, translated examples
    vietnamese   texts whose words are Vietnamese syllables for the most part
    english      all other texts

Rows of data/vi_words_similarity.jsonl ({"word", "examples", "examples_en"}) give a Vietnamese text of each
example, and of each that has a translation a pair. Reads and writes no file. Standard library only.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from vocabkit.corpus.records import FIELDS, BadRecord, clean_text, decoded, described, text_of_row
from vocabkit.text.languages import is_vietnamese_text
from vocabkit.train.data import chats
from vocabkit.train.data.chats import Chat, chat_of, unread_columns

KINDS = BILINGUAL, VIETNAMESE, ENGLISH, INSTRUCTION = ("bilingual", "vietnamese", "english", "instruction")
# Every field that a sample may come from.
COLUMNS = (*FIELDS, *chats.COLUMNS, "examples", "examples_en", "translation", "en", "vi")

IGNORED = -100  # the label of a token that is not learned (torch's cross_entropy)

WORDS_LOOKED_AT = 400  # of a text, to tell its language

VIETNAMESE_SHARE = 0.6  # of a text's words; more are Vietnamese


@dataclass(frozen=True)
class Sample:
    """One document of training: all of a text is learned, of a conversation the assistant's turns."""

    kind: str  # one of KINDS
    text: str = ""  # NFC; "" for a conversation
    chat: Chat | None = None
    unread: tuple[str, ...] = ()  # columns of its row of which nothing was made


def language_of(text: str) -> str:
    """Return VIETNAMESE or ENGLISH (which stands for everything else) by the share of Vietnamese syllables.

    >>> language_of("Hôm nay trời đẹp quá."), language_of("To be, or not to be."), language_of("x = 1")
    ('vietnamese', 'english', 'english')
    """
    if text.isascii() or not is_vietnamese_text(text, share=VIETNAMESE_SHARE, first=WORDS_LOOKED_AT):
        return ENGLISH
    return VIETNAMESE


def samples_of(row: Any, *, text_field: str | None, swap: bool = False) -> list[Sample]:
    """Return the samples of a record of corpus.parse_rows(); BadRecord says why there is none.

    text_field: the one field that is a text, instead of all that the module's head names. swap: the other
    language of a pair first (the caller alternates, so that both directions are learned).
    """
    if isinstance(row, list):
        return _of_cells(row, swap)
    if not isinstance(row, dict):
        return [_of_text(text_of_row(row, text_field))]
    row = {name: decoded(value) if isinstance(value, bytes) else value for name, value in row.items()}
    if chat := chat_of(row, field=text_field):
        return [Sample(INSTRUCTION, chat=chat, unread=chat.unread)]
    if text_field is not None:  # who names a column means it alone
        return [_of_text(text_of_row(row, text_field))]
    if isinstance(row.get("examples"), list):
        return list(_of_examples(row, swap))
    whole = isinstance(row.get("translation"), dict)
    pair = row["translation"] if whole else row
    if pair.get("en") is not None and pair.get("vi") is not None:
        sample = _of_pair([_string(pair[name], name) for name in ("en", "vi")], swap)
        read, others = (["translation"], pair) if whole else (["en", "vi"], {})
        unread = [f"translation.{name}" for name in unread_columns(others, "en", "vi")]
        return [replace(sample, unread=(*unread_columns(row, *read), *unread))]
    return [replace(_of_text(text_of_row(row, None)), unread=unread_columns(row, "text"))]


def _string(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise BadRecord(f'"{name}" is {described(value)}, expected a string')
    return value


def _of_text(text: str) -> Sample:
    text = clean_text(text)
    if not text.strip():
        raise BadRecord("its text is empty")
    return Sample(language_of(text), text)


def _of_pair(sides: list[str], swap: bool) -> Sample:
    first, second = (clean_text(side).strip() for side in sides[:: -1 if swap else 1])
    if not first or not second:
        raise BadRecord("one side of its pair is empty")
    return Sample(BILINGUAL, f"{first}\n{second}")


def _of_cells(cells: list[str], swap: bool) -> list[Sample]:
    """Two texts in two languages are a pair; else each cell that holds something is a text."""
    texts = [cell for cell in cells if cell.strip()]
    if len(texts) == 2 and language_of(texts[0]) != language_of(texts[1]):
        return [_of_pair(texts, swap)]
    if not texts:
        raise BadRecord("its cells are empty")
    return [_of_text(text) for text in texts]


def _of_examples(row: dict[str, Any], swap: bool) -> Iterator[Sample]:
    examples, translations = row["examples"], row.get("examples_en") or []
    if not examples:
        raise BadRecord('"examples" is empty')
    if not isinstance(translations, list):
        raise BadRecord(f'"examples_en" is {described(translations)}, expected a list')
    if translations and len(translations) != len(examples):
        raise BadRecord(
            f'"examples" holds {len(examples)} sentences, "examples_en" {len(translations)}, expected as many'
        )
    for number, example in enumerate(examples):
        example = _string(example, "examples")
        yield Sample(VIETNAMESE, _of_text(example).text)  # the file says so, however short it is
        if translations:
            pair = [example, _string(translations[number], "examples_en")]
            yield _of_pair(pair, swap ^ bool(number % 2))
