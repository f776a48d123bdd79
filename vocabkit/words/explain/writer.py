"""A language model writes the rows of words (see words/explain/rows.py); a wrong one is asked for again,
saying why.

The model comes in as a function, so neither torch nor a server is needed here. Reads and writes no file.
"""

import contextlib
import json
import queue
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from vocabkit.text.unicode import nfc
from vocabkit.vocab.word_list import text_of
from vocabkit.words.explain.rows import (
    MIN_WORDS,
    SENTENCE_MARKS,
    SIZES,
    RowChecker,
    is_strings,
    with_one_token,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LOOKS = 1000  # places of an answer where an object is looked for: one that repeats { has thousands
ATTEMPTS = 4  # of one word: a model that cannot do it after three corrections will not
QUOTED = 4000  # characters of a wrong answer that the model is shown again
ASKED = tuple(SIZES)  # the lists that the model writes; the rest of a row is known

PROMPT = """\
You write entries of a Vietnamese dictionary for learners. Write one entry for the word "{word}": one JSON \
object with exactly these keys, and nothing around it:

{{"word": "{joined}", "en": [...], "near": [...], "examples": [...], "examples_en": [...]}}

"en": {en[0]} to {en[1]} English equivalents, the best first, single common words where possible.
"near": {near[0]} to {near[1]} Vietnamese words or phrases near in meaning, not the word itself.
"examples": exactly {examples[0]} natural, true Vietnamese sentences on different topics.
- Each has {min_vi} words or more and ends with one of {marks}
- Each holds "{word}" exactly so, with these upper and lower case letters, never as the first word of the \
sentence, and no letter right after it.
- The word stands near the beginning of one, in the middle of another, at the end of the third.
- They begin with different words.
"examples_en": their English translations in the same order, each of {min_en} words or more.\
"""
DICTIONARY = '\n\nA dictionary translates "{word}" as: {equivalents}.'
AGAIN = (
    "This entry cannot be used:\n{problems}\nWrite the whole JSON object again, corrected, and nothing else."
)


def schema(word: str) -> dict[str, Any]:
    """Return the JSON schema of the answer for a word, for servers that can enforce one."""
    lists = {
        key: {"type": "array", "items": {"type": "string"}, "minItems": low, "maxItems": high}
        for key, (low, high) in SIZES.items()
    }
    return {
        "type": "object",
        "properties": {"word": {"type": "string", "enum": [word]}, **lists},
        "required": ["word", *lists],
        "additionalProperties": False,
    }


def question(word: str, equivalents: Sequence[str] = ()) -> str:
    """Return what a model is asked for a word such as "thời▁gian"."""
    text = PROMPT.format(
        word=text_of(word), joined=word, min_vi=MIN_WORDS["examples"], min_en=MIN_WORDS["examples_en"],
        marks=" ".join(SENTENCE_MARKS), **SIZES,
    )  # fmt: skip
    known = DICTIONARY.format(word=text_of(word), equivalents=", ".join(equivalents))
    return text + (known if equivalents else "")


def parse_answer(text: str) -> dict[str, Any] | None:
    """Return the row in a model's answer, its text in NFC with single spaces; None if there is no JSON
    object.

    What the model thought before (<think>), code fences, text around and other keys are left out.

    >>> parse_answer('Sure!\\n```json\\n{"word": "thời gian", "en": [" time"]}\\n```')
    {'word': 'thời▁gian', 'en': ['time']}
    """
    text = re.sub(r"<think>.*?(</think>|$)", "", text, flags=re.DOTALL)
    decoder, at = json.JSONDecoder(strict=False), text.find("{")
    objects: list[dict[str, Any]] = []
    while at >= 0 and len(objects) < LOOKS:
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):  # RecursionError: thousands of brackets
            value, end = {}, at + 1
        objects.append(value)
        at = text.find("{", end)
    objects = [value for value in objects if value]
    if not objects:
        return None
    row = max(reversed(objects), key=lambda value: len(value.keys() & {"word", *ASKED}))
    row = {key: _clean(row[key]) for key in ("word", *ASKED) if key in row}
    if isinstance(row.get("word"), str):
        row["word"] = row["word"].replace(" ", "▁")
    return row


def _clean(value: Any) -> Any:
    if isinstance(value, list):
        return [_clean(entry) for entry in value]
    return " ".join(nfc(value).split()) if isinstance(value, str) else value


class Chat(Protocol):
    """A model: a conversation in, the answer's text out. Called from as many threads as Writer.write() is.

    schema: of the JSON that is asked for, see schema().
    """

    def __call__(self, messages: list[dict[str, str]], /, *, schema: dict[str, Any]) -> str: ...


class Writer:
    """Makes rows with a model, and remembers them so that no sentence comes twice."""

    def __init__(
        self,
        chat: Chat,
        *,
        words: Sequence[str],
        encoder: "Tokenizer | None" = None,
        dictionary: Mapping[str, list[str]] | None = None,
    ) -> None:
        self._chat, self._encoder, self._dictionary = chat, encoder, dictionary or {}
        self._checker = RowChecker(words=words, encoder=encoder)
        self._lock = threading.Lock()

    def take(self, row: Any) -> list[str]:
        """Add a row, or return what is wrong with it."""
        with self._lock:  # between the look and the adding no other thread may add the same sentence
            problems = list(self._checker.problems(row))
            if not problems:
                self._checker.add(row, f"that of {row['word']}")
        return problems

    def write(self, word: str) -> dict[str, Any]:
        """Return {"row": …}, or {"word": …, "problems": […]} of the last of ATTEMPTS answers."""
        equivalents = self._dictionary.get(text_of(word).lower(), [])
        first = {"role": "user", "content": question(word, equivalents)}
        messages, problems = [first], [""]
        for _ in range(ATTEMPTS):
            answer = self._chat(messages, schema=schema(word))
            row = parse_answer(answer)
            if row is None:
                problems = ["holds no whole JSON object"]
            elif row.get("word") != word:
                problems = [f'"word" is {row.get("word")!r}, expected {word!r}']
            elif not (problems := self._incomplete(row)):
                row = with_one_token(row, self._encoder)
                if not (problems := self.take(row)):
                    return {"row": row}
            again = AGAIN.format(problems="\n".join(f"- {problem}" for problem in problems))
            said = {"role": "assistant", "content": answer[:QUOTED] or "{}"}
            messages = [first, said, {"role": "user", "content": again}]
        return {"word": word, "problems": problems}

    def _incomplete(self, row: Mapping[str, Any]) -> list[str]:
        """What keeps "en_one_token" from being computed: the checker would say the same at greater length."""
        return [
            f'"{key}" is {row.get(key)!r}, expected a list of strings'
            for key in ASKED
            if not is_strings(row.get(key))
        ]


def in_parallel(
    work: Callable[[str], dict[str, Any]], words: Sequence[str], *, threads: int
) -> Iterator[dict[str, Any]]:
    """Yield what work makes of each word, as they get ready; what it raises is raised here.

    The threads end with the program: Ctrl-C need not wait for answers that are being written.
    """
    if threads == 1:
        yield from map(work, words)
        return
    todo: queue.SimpleQueue[str] = queue.SimpleQueue()
    done: queue.SimpleQueue[dict[str, Any] | BaseException] = queue.SimpleQueue()
    stop = threading.Event()

    def run() -> None:
        with contextlib.suppress(queue.Empty):
            while not stop.is_set():
                word = todo.get_nowait()
                try:
                    done.put(work(word))
                except BaseException as error:  # raised again in the caller's thread
                    done.put(error)

    for word in words:
        todo.put(word)
    for _ in range(threads):
        threading.Thread(target=run, daemon=True).start()
    try:
        for _ in words:
            if isinstance(item := done.get(), BaseException):
                raise item
            yield item
    finally:
        stop.set()
