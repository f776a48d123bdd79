"""A GGUF as model_chat.py asks it: prompt ids, ids of the answer, text of ids; through llama-cpp-python.

Reads FILE.gguf; writes nothing. The chat template is the file's own, rendered as transformers does. Sampling
is llama.cpp's. It composes no characters and, as a library, does not read tokenizer.ggml.suppress_tokens:
both are done here.
"""

import codecs
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vocabkit.chat.avoid import Avoider
from vocabkit.errors import UserError
from vocabkit.gguf.model import SUPPRESS, open_gguf
from vocabkit.tokenizer.chat_template import Message, render

MAX_CONTEXT = 8192  # tokens of keys and values: a 7B takes half a gigabyte for them

F16, F32 = 1, 0  # enum ggml_type


def cores(topology: Path = Path("/sys/devices/system/cpu")) -> int:
    """Return how many cores this process may use; two hardware threads of one core count once.

    llama-cpp-python takes half of the processors for the cores, so that half of a machine without
    hyperthreads idles.
    """
    if sys.platform != "linux":
        return max((os.cpu_count() or 2) // 2, 1)
    files = [topology / f"cpu{at}" / "topology" / "thread_siblings_list" for at in os.sched_getaffinity(0)]
    return len({file.read_text(encoding="ascii") if file.is_file() else str(file) for file in files})


class LlamaModel:
    """A loaded GGUF. context: tokens it can attend to here."""

    def __init__(
        self, path: Path, *, exact: bool = False, context: int = MAX_CONTEXT, threads: int | None = None
    ) -> None:
        """Load a file; exact: keys and values in float32, for comparisons. threads: default one a core."""
        try:
            import llama_cpp
        except ImportError:
            raise UserError(
                f"{path} needs llama.cpp to run: pip install llama-cpp-python (it is built from source)"
            ) from None
        self.path = path
        header = open_gguf(path)  # the clear errors are there
        self._template = header.value("tokenizer.chat_template")
        suppressed = header.value(SUPPRESS) or []
        kind = F32 if exact else F16
        try:
            self.llama = llama_cpp.Llama(
                str(path), n_ctx=0 if context == 0 else context, type_k=kind, type_v=kind, verbose=False,
                n_threads=threads or cores(), n_threads_batch=threads or cores(),
            )  # fmt: skip
        except ValueError as error:
            raise UserError(
                f"{path}: llama.cpp cannot load it ({error}); download or export it again"
            ) from None
        self._api = llama_cpp
        self._vocab = self.llama._model.vocab
        trained = llama_cpp.llama_model_n_ctx_train(self.llama._model.model)
        self.context = min(self.llama.n_ctx(), trained)
        self.never = list(suppressed)

    def describe(self) -> str:
        """Return one line for people: type, size, number of tokens."""
        named = self.llama.metadata
        size = self._api.llama_model_n_params(self.llama._model.model)
        kind = named.get("general.architecture", "?")
        return f"{kind}, {size / 1e6:,.1f} M parameters, {self.path.stat().st_size / 1e6:,.0f} MB, llama.cpp"

    @property
    def has_chat_template(self) -> bool:
        """Whether the file says how to write a conversation."""
        return bool(self._template)

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Return the ids of a conversation; without a template, those of the last message alone."""
        if not self._template:
            return self.llama.tokenize(messages[-1]["content"].encode(), add_bos=True, special=False)
        tokens = {
            "bos_token": self._text(self.llama.token_bos()),
            "eos_token": self._text(self.llama.token_eos()),
        }
        text = render(self._template, messages, tokens=tokens, where=self.path)
        return self.llama.tokenize(text.encode(), add_bos=False, special=True)

    def _text(self, token_id: int) -> str:
        return self._api.llama_vocab_get_text(self._vocab, token_id).decode() if token_id >= 0 else ""

    def piece(self, token_id: int) -> bytes:
        """Return the bytes that a token writes; none for control tokens."""
        size = 64
        while True:
            buffer = (self._api.llama_cpp.ctypes.c_char * size)()
            found = self._api.llama_token_to_piece(self._vocab, token_id, buffer, size, 0, False)
            if found >= 0:
                return buffer.raw[:found]
            size = -found

    def to_text(self, ids: Iterable[int]) -> Iterator[str]:
        """Yield the text of ids piece by piece, no piece ending inside a character."""
        utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        for token_id in ids:
            if piece := utf8.decode(self.piece(token_id)):
                yield piece
        if rest := utf8.decode(b"", final=True):
            yield rest

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids."""
        return b"".join(map(self.piece, ids)).decode("utf-8", errors="replace")

    def generate(
        self,
        prompt: Sequence[int],
        *,
        max_new_tokens: int = 512,
        greedy: bool = False,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        repetition_penalty: float | None = None,
        seed: int | None = None,
        stop: threading.Event | None = None,
        avoider: Callable[[], Avoider] | None = None,
        never: Sequence[int] = (),
    ) -> Iterator[int]:
        """Yield the answer's ids as generate() of vocabkit/chat/transformers_backend.py does, without the
        end token.

        Options that are None are llama.cpp's: temperature 0.8, top_p 0.95, top_k 40, no penalty.
        """
        if not prompt:
            raise UserError(f"{self.path}: the prompt is empty; write something")
        if seed is not None:
            self.llama.set_seed(seed)
        avoiding = avoider() if avoider else None
        options: dict[str, Any] = {
            "temp": 0.0 if greedy else 0.8 if temperature is None else temperature,
            "top_p": 0.95 if top_p is None else top_p,
            "top_k": 40 if top_k is None else top_k,
            "repeat_penalty": 1.0 if repetition_penalty is None else repetition_penalty,
        }
        made: list[int] = []
        while True:
            mask = self._mask([*self.never, *never], avoiding)
            # Tokens that are in the cache already are not read again: llama-cpp-python compares beginnings.
            tokens = self.llama.generate([*prompt, *made], logits_processor=mask, **options)
            went_back = None
            for token_id in tokens:
                if self._api.llama_vocab_is_eog(self._vocab, token_id) or (stop and stop.is_set()):
                    break
                made.append(token_id)
                if avoiding is None:
                    yield token_id
                elif (went_back := avoiding.add(token_id)) is None:
                    yield from avoiding.take()
                if went_back is not None or len(made) >= max_new_tokens:
                    break
            tokens.close()
            if avoiding is None:
                return
            if went_back is None or avoiding.ended:
                yield from avoiding.finish()
                return
            del made[went_back:]

    def _mask(self, never: Sequence[int], avoider: Avoider | None) -> Any:
        """Return what keeps llama.cpp from ids: those never chosen, and those forbidden at this place."""
        import numpy as np

        if not never and avoider is None:
            return None
        banned = np.asarray(sorted(set(never)), np.int64)

        def mask(input_ids: Any, scores: Any) -> Any:
            scores[banned] = -np.inf
            if avoider is not None and (ids := avoider.forbidden.get(len(avoider))):
                scores[list(ids)] = -np.inf
            return scores

        return self._api.LogitsProcessorList([mask])
