"""A conversation in the terminal: questions in, answers out as they are made, a time line after each.

Reads questions from the terminal, a pipe or --prompt; writes the conversation to stdout and all else to
stderr. Needs no torch: the model comes in as three functions.
"""

import re
import signal
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from vocabkit.errors import UserError
from vocabkit.tokenizer.chat_template import Message

HELP = "/reset forgets the conversation, /quit or Ctrl-D leaves, Ctrl-C stops an answer, /help shows this"


@dataclass
class Conversation:
    """One model, its history, and how to ask it.

    encode: messages → prompt ids. generate: prompt ids, max_new_tokens=, stop= → answer ids. to_text: ids →
    pieces of text. context: tokens the model can attend to, None for no limit.
    """

    name: str
    encode: Callable[[list[Message]], list[int]]
    generate: Callable[..., Iterator[int]]
    to_text: Callable[[Iterator[int]], Iterator[str]]
    max_new_tokens: int
    context: int | None = None
    system: str | None = None
    history: list[Message] = field(default_factory=list)
    n_tokens: int = 0  # of the last answer
    seconds: float = 0.0  # the last answer took, with reading the prompt

    def reset(self) -> None:
        """Forget the history; the system text stays."""
        self.history.clear()

    def answer(self, question: str, stop: threading.Event) -> Iterator[str]:
        """Yield the answer in pieces and remember both; a stopped answer is remembered as far as it came."""
        start = time.perf_counter()
        self.n_tokens = 0
        self.history.append({"role": "user", "content": question})
        pieces: list[str] = []
        try:
            ids, room = self._prompt()
            for piece in self.to_text(self._counted(self.generate(ids, max_new_tokens=room, stop=stop))):
                pieces.append(piece)
                yield piece
        except UserError:
            self.history.pop()
            raise
        self.history.append({"role": "assistant", "content": "".join(pieces)})
        self.seconds = time.perf_counter() - start

    def time_line(self) -> str:
        """Return what the last answer cost.

        >>> Conversation("m", list, iter, iter, 9, n_tokens=42, seconds=1.31).time_line()
        'm: timespent 1.31 seconds, 42 tokens, 32.1 tokens/s'
        """
        speed = self.n_tokens / self.seconds if self.seconds else 0.0
        return (
            f"{self.name}: timespent {self.seconds:.2f} seconds, {self.n_tokens} tokens, {speed:.1f} tokens/s"
        )

    def _counted(self, ids: Iterator[int]) -> Iterator[int]:
        for token_id in ids:
            self.n_tokens += 1
            yield token_id

    def _prompt(self) -> tuple[list[int], int]:
        """Prompt ids and the room for new ones; forgets the oldest turns when the context is full."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        ids = self.encode(system + self.history)
        if self.context is None:
            return ids, self.max_new_tokens
        room = min(self.max_new_tokens, self.context // 2)
        while len(ids) + room > self.context and len(self.history) > 2:
            del self.history[:2]
            note(f"{self.name}: the {self.context} tokens it can read are full: the oldest turn is forgotten")
            ids = self.encode(system + self.history)
        if len(ids) >= self.context:
            raise UserError(
                f"{self.name}: the question has {len(ids)} tokens, the model reads {self.context}; "
                "ask a shorter one"
            )
        return ids, min(self.max_new_tokens, self.context - len(ids))


@dataclass(frozen=True)
class Screen:
    """Prints a conversation to stdout, with colours if asked."""

    colour: bool

    def paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour else text

    def question_label(self) -> str:
        return self.paint("1;32", "Bạn: ")

    def ask(self, conversations: Sequence[Conversation], question: str) -> None:
        """Stream the answer of each model. Ctrl-C stops the one that is being written."""
        for conversation in conversations:
            if len(conversations) > 1:
                print(self.paint("1;34", conversation.name))
            print(self.paint("1;36", "Bot: "), end="", flush=True)
            stop = threading.Event()
            with _stopped_by_ctrl_c(stop):
                for piece in conversation.answer(question, stop):
                    print(self.printable(piece), end="", flush=True)
            print("\n" + self.paint("2", conversation.time_line()), flush=True)

    def printable(self, text: str) -> str:
        """On a terminal, drop control characters: an answer must not move the cursor or rename the window."""
        if not sys.stdout.isatty():
            return text
        return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")


def clean(text: str) -> str:
    """Return text as a tokenizer wants it: NFC, no surrogates from undecodable bytes.

    >>> clean("Vie\\u0323\\u0302t") == "Vi\\u1ec7t"
    True
    """
    return unicodedata.normalize("NFC", text.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))


def questions(screen: Screen, prompts: Sequence[str] | None) -> Iterator[str]:
    """Yield cleaned questions: the prompts if given, else the lines of stdin; blank ones are skipped.

    Questions that nobody types are printed too, so that the transcript is complete.
    """
    typed = prompts is None and sys.stdin.isatty()
    source = _typed(screen) if typed else sys.stdin if prompts is None else prompts
    for line in source:
        question = clean(line).strip()
        if question and not typed:
            print(screen.question_label() + question, flush=True)
        if question:
            yield question


def talk(conversations: Sequence[Conversation], screen: Screen, prompts: Sequence[str] | None) -> None:
    """Answer questions and obey /commands until there are no more."""
    for question in questions(screen, prompts):
        if not re.fullmatch(r"/\w*", question):
            try:
                screen.ask(conversations, question)
            except UserError as error:
                if prompts is not None or not sys.stdin.isatty():
                    raise
                note(f"\nerror: {error}")  # a question too long must not end an evening's conversation
        elif question == "/quit":
            return
        elif question == "/reset":
            for conversation in conversations:
                conversation.reset()
            note("the conversation is forgotten")
        elif question == "/help":
            note(HELP)
        else:
            note(f"{question}: no such command; {HELP}")


def note(text: str) -> None:
    """Print chatter where it does not mix with results."""
    print(text, file=sys.stderr, flush=True)


def _typed(screen: Screen) -> Iterator[str]:
    try:
        import readline  # noqa: F401  arrow keys and history in input(); Windows has none

        # Readline counts the columns of the prompt: \1 and \2 enclose what takes none.
        prompt = re.sub("(\x1b\\[[0-9;]*m)", "\1\\1\2", screen.question_label())
    except ImportError:
        prompt = screen.question_label()
    while True:
        try:
            yield input(prompt)
        except (EOFError, KeyboardInterrupt):
            print()
            return


class _stopped_by_ctrl_c:
    """While this is open, Ctrl-C sets the event and raises nothing."""

    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop

    def __enter__(self) -> None:
        self.before = signal.signal(signal.SIGINT, lambda number, frame: self.stop.set())

    def __exit__(self, *exception: object) -> None:
        signal.signal(signal.SIGINT, self.before)
