"""A conversation in the terminal: questions in, answers out as they are made, a time line after each.

Reads questions from the terminal, a pipe or --prompt; writes the conversation to stdout and all else to
stderr. Needs no torch: the model comes in as a Backend.
"""

import contextlib
import re
import signal
import sys
import threading
import time
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from vocabkit.chat.avoid import Avoider
from vocabkit.chat.backends import Backend, Sampling
from vocabkit.errors import UserError
from vocabkit.text.unicode import nfc
from vocabkit.tokenizer.chat_template import Message

HELP = "/reset forgets the conversation, /quit or Ctrl-D leaves, Ctrl-C stops an answer, /help shows this"


@dataclass
class Conversation:
    """One model, its history, and how it is to answer.

    never: ids that are not chosen. phrases: what no answer may hold, whatever its case if ignore_case.
    """

    backend: Backend
    sampling: Sampling
    system: str | None = None
    never: Sequence[int] = ()
    phrases: Sequence[str] = ()
    ignore_case: bool = False
    history: list[Message] = field(default_factory=list)
    n_tokens: int = 0  # of the last answer
    seconds: float = 0.0  # the last answer took, with reading the prompt

    @property
    def name(self) -> str:
        """The path of the model."""
        return self.backend.path

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
            prompt, room = self._prompt()
            for piece in self.backend.text(self._counted(self._generate(prompt, room, stop))):
                pieces.append(piece)
                yield piece
        except UserError:
            self.history.pop()
            raise
        self.history.append({"role": "assistant", "content": "".join(pieces)})
        self.seconds = time.perf_counter() - start

    def time_line(self) -> str:
        """Return what the last answer cost."""
        speed = self.n_tokens / self.seconds if self.seconds else 0.0
        return (
            f"{self.name}: timespent {self.seconds:.2f} seconds, {self.n_tokens} tokens, {speed:.1f} tokens/s"
        )

    def _generate(self, prompt: list[int], room: int, stop: threading.Event) -> Iterator[int]:
        avoider = None
        if self.phrases:
            avoider = Avoider(self.phrases, self.backend.decode, ignore_case=self.ignore_case)
        sampling = replace(self.sampling, max_new_tokens=room)
        return self.backend.generate(prompt, sampling, stop=stop, avoider=avoider, never=self.never)

    def _counted(self, ids: Iterator[int]) -> Iterator[int]:
        for token_id in ids:
            self.n_tokens += 1
            yield token_id

    def _prompt(self) -> tuple[list[int], int]:
        """Prompt ids and the room for new ones; forgets the oldest turns when the context is full."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        ids, context = self.backend.encode(system + self.history), self.backend.context
        if context is None:
            return ids, self.sampling.max_new_tokens
        room = min(self.sampling.max_new_tokens, context // 2)
        while len(ids) + room > context and len(self.history) > 2:
            del self.history[:2]
            note(f"{self.name}: the {context} tokens it can read are full: the oldest turn is forgotten")
            ids = self.backend.encode(system + self.history)
        if len(ids) >= context:
            raise UserError(
                f"{self.name}: the question has {len(ids)} tokens, the model reads {context}; "
                "ask a shorter one"
            )
        return ids, min(self.sampling.max_new_tokens, context - len(ids))


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
    return nfc(text.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))


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


@contextlib.contextmanager
def _stopped_by_ctrl_c(stop: threading.Event) -> Iterator[None]:
    """While this is open, Ctrl-C sets the event and raises nothing."""
    before = signal.signal(signal.SIGINT, lambda number, frame: stop.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
