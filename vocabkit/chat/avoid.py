"""Phrases that a model may not say: where an answer must go back, and what may be shown of it.

Reads and writes nothing and knows no model. A backend makes tokens one by one and tells them to an Avoider:

    went_back = avoider.add(token_id)     a phrase is complete: take the answer back to this many tokens,
                                          choose none of avoider.forbidden_next() there, and go on
    avoider.take()                        the tokens that no phrase can take back any more: show these

A phrase is looked for in the text, not among tokens: whichever way a tokenizer cuts it, it is found when its
last character is there. Then the token in which it began is forbidden at its place, after the same tokens,
and the model chooses again. A token that has been taken is never taken back, so a reader sees no correction.
Every step back forbids one more token after one more beginning of the answer; there are finitely many, and
after MAX_RETRIES of them the answer ends, cut before the phrase.

Text is compared composed (NFC) and, on request, without case. A phrase is found inside words too: "art" in
"start". What the prompt says is not the model's and is not looked at.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from vocabkit.errors import UserError
from vocabkit.files import text_lines
from vocabkit.text.languages import is_syllable
from vocabkit.text.unicode import nfc

MAX_RETRIES = 1000  # in one answer
MAX_FORBIDDEN = 50  # tokens at one place: beyond, the token before it is at fault
CONTEXT = 4  # taken tokens that are decoded again, for decoders that look at what comes before


class Avoider:
    """The tokens of an answer so far, and which tokens may not stand where.

    decode: ids → text; what is no whole character yet may come as U+FFFD at the end.
    """

    def __init__(
        self, phrases: Iterable[str], decode: Callable[[Sequence[int]], str], *, ignore_case: bool = False
    ) -> None:
        self._decode = decode
        self._ignore_case = ignore_case
        self._phrases = sorted({self._normal(phrase) for phrase in phrases} - {""})
        self._beginnings = {phrase[:size] for phrase in self._phrases for size in range(1, len(phrase))}
        self._longest = max(map(len, self._phrases), default=0)
        self._ids: list[int] = []
        self._taken = 0
        self._retries = 0
        self._texts = [""]  # see _read(), as of the last token
        self._shown = ""  # the end of the text that was taken, long enough to hold all of a phrase but one
        self._forbidden: dict[int, set[int]] = {}  # how many tokens come before → which may not follow
        self.ended = False  # no way round a phrase: the answer is over

    def forbidden_next(self) -> set[int]:
        """Return the tokens that may not come next."""
        return self._forbidden.get(len(self._ids), set())

    def add(self, token_id: int) -> int | None:
        """Take note of the next token; return how many tokens of the answer stay if it must go back."""
        self._ids.append(token_id)
        start = self._found_at()
        return None if start is None else self._go_back(start)

    def take(self) -> list[int]:
        """Return the tokens since the last call that stay: those before anything that begins a phrase."""
        return self._hand_over(self._held_from())

    def finish(self) -> list[int]:
        """Return the tokens that are left when the model has ended its answer."""
        return self._hand_over(len(self._ids))

    def _hand_over(self, end: int) -> list[int]:
        ready = self._ids[self._taken : end]
        shown = self._shown + self._texts[len(ready)]
        self._shown = shown[max(len(shown) - self._longest + 1, 0) :]
        self._taken += len(ready)
        return ready

    def _go_back(self, start: int) -> int:
        """Forbid the token at start; where too many are forbidden, the one before it."""
        self._retries += 1
        while len(self._forbidden.setdefault(start, set()) | {self._ids[start]}) > MAX_FORBIDDEN:
            if start == self._taken:
                self.ended = True
                break
            start -= 1
        self._forbidden[start].add(self._ids[start])
        self.ended = self.ended or self._retries >= MAX_RETRIES
        self._forbidden = {at: ids for at, ids in self._forbidden.items() if at <= start}
        del self._ids[start:]
        return start

    def _normal(self, text: str) -> str:
        text = nfc(text)
        return nfc(text.casefold()) if self._ignore_case else text

    def _read(self) -> list[str]:
        """The text of the tokens not yet taken, after each of them and before the first: normalized."""
        before = self._ids[max(self._taken - CONTEXT, 0) : self._taken]
        known = len(self._decode(before)) if before else 0
        tail = self._ids[self._taken :]
        texts = [self._decode([*before, *tail[:size]])[known:] for size in range(len(tail) + 1)]
        return [self._normal(text.rstrip("\ufffd")) for text in texts]

    def _found_at(self) -> int | None:
        """The token in which the first complete phrase begins, or the first that can still go.

        A step back can bring new tokens next to text that was taken while others stood there.
        """
        texts = self._texts = self._read()
        text = self._shown + texts[-1]
        places = [at for phrase in self._phrases if (at := text.find(phrase)) >= 0]
        return self._token_at(min(places)) if places else None

    def _held_from(self) -> int:
        """The first token that holds a part of what could become a phrase.

        The last character always does: a combining mark may still follow it.
        """
        if not self._texts[-1]:
            return self._taken
        text = self._shown + self._texts[-1]
        longest = min(self._longest - 1, len(text))
        size = next((size for size in range(longest, 1, -1) if text[-size:] in self._beginnings), 1)
        return self._token_at(len(text) - size)

    def _token_at(self, place: int) -> int:
        """The token that holds the character at a place of the text, counted from the shown part on."""
        texts, place = self._texts, max(place - len(self._shown), 0)
        size = max(size for size, text in enumerate(texts[:-1]) if len(text) <= place)
        # Tokens that add no character yet begin the one that a later token completes.
        while size > 0 and len(texts[size - 1]) == len(texts[size]):
            size -= 1
        return self._taken + size


def read_phrases(phrases: Iterable[str], file: Path | None) -> list[str]:
    """Return the phrases given and those of a file, one a line; UserError for a file without any.

    An empty line and one that begins with # say nothing. A word that is written with underscores between its
    Vietnamese syllables, as pyvi does, stands for the one with spaces as well.
    """
    found = [phrase for phrase in phrases if phrase]
    if file is not None:
        listed = [form for _, line in text_lines(file) for form in _forms(line)]
        if not listed:
            raise UserError(f"{file} holds no phrase; write one a line")
        found += listed
    return list(dict.fromkeys(found))


def _forms(line: str) -> list[str]:
    """Return a line of a file as phrases.

    >>> _forms("thời_gian"), _forms("snake_case")
    (['thời_gian', 'thời gian'], ['snake_case'])
    """
    phrase = line.strip()
    words = [
        word.replace("_", " ") if all(map(is_syllable, word.split("_"))) else word for word in phrase.split()
    ]
    spaced = " ".join(words)
    return [phrase, spaced] if "_" in phrase and spaced != phrase else [phrase]
