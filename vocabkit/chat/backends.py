"""What a conversation needs of a model, whatever runs it, and how the tokens of an answer are chosen.

Reads and writes nothing. Two classes are such backends: TransformersBackend runs a folder, LlamaBackend a
GGUF file. A further runtime is one more class like them, and a line in chat/open.py.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from vocabkit.chat.avoid import Avoider
from vocabkit.tokenizer.chat_template import Message


@dataclass(frozen=True)
class Sampling:
    """How the tokens of an answer are chosen; None: as the model's settings or its runtime say.

    temperature: 0 takes the likeliest token always, 1 has the model's own probabilities. top_p, top_k: only
    from the likeliest tokens with this probability together, from so many (0: from all).
    repetition_penalty: above 1 makes tokens that were used less likely. seed: set before the answer.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    max_new_tokens: int = 512


class Backend(Protocol):
    """A loaded model: messages → prompt ids → ids of an answer → its text.

    path: as it was given. context: how many tokens the model can attend to, None for no limit.
    without_template: what is done with messages where the model has no chat template, None where it has one.
    """

    path: str
    context: int | None
    without_template: str | None

    def describe(self) -> str:
        """Return one line for people: the model's type, its size and where it runs."""

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Return the ids that ask the model for the next message."""

    def generate(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        *,
        stop: threading.Event | None = None,
        avoider: Avoider | None = None,
        never: Sequence[int] = (),
    ) -> Iterator[int]:
        """Yield the ids of the answer one by one as they are made, without prompt and end token.

        Setting `stop` or closing the iterator ends the answer. avoider: keeps phrases out of this one answer;
        its ids then come a little later. never: ids that are not chosen, as many as one likes. Raises
        UserError for a prompt without ids.
        """

    def text(self, ids: Iterable[int]) -> Iterator[str]:
        """Yield the text of ids piece by piece, no piece ending inside a character."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids; what is no whole character yet is U+FFFD at its end."""
