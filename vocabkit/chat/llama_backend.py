"""A GGUF that answers: prompt ids, ids of the answer, text of ids; through llama-cpp-python.

Reads FILE.gguf; writes nothing. The chat template is the file's own, rendered as transformers does. Sampling
is llama.cpp's. It composes no characters and, as a library, does not read tokenizer.ggml.suppress_tokens:
both are done here.
"""

import datetime
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vocabkit.chat.avoid import Avoider
from vocabkit.chat.backends import Backend, Sampling
from vocabkit.chat.stream import stream_bytes
from vocabkit.errors import UserError
from vocabkit.gguf.model import load_llama, open_gguf
from vocabkit.gguf.vocab import CHAT_TEMPLATE, SUPPRESS
from vocabkit.tokenizer.chat_template import Message, render

MAX_CONTEXT = 8192  # tokens of keys and values: a 7B takes half a gigabyte for them

F16 = 1  # enum ggml_type, of the cache of keys and values

# What llama.cpp takes where Sampling leaves it open: temperature, top_p, top_k, no penalty.
TEMPERATURE, TOP_P, TOP_K, NO_PENALTY = 0.8, 0.95, 40, 1.0


def cores(topology: Path = Path("/sys/devices/system/cpu")) -> int:
    """Return how many cores this process may use; two hardware threads of one core count once.

    llama-cpp-python takes half of the processors for the cores, so that half of a machine without
    hyperthreads idles.
    """
    if sys.platform != "linux":
        return max((os.cpu_count() or 2) // 2, 1)
    files = [topology / f"cpu{at}" / "topology" / "thread_siblings_list" for at in os.sched_getaffinity(0)]
    return len({file.read_text(encoding="ascii") if file.is_file() else str(file) for file in files})


class LlamaBackend(Backend):
    """A loaded GGUF. path: as it was given; context: tokens it can attend to here."""

    def __init__(self, path: str, *, threads: int | None = None) -> None:
        """Load a file; threads: None for one a core."""
        try:
            import llama_cpp
        except ImportError:
            raise UserError(
                f"{path} needs llama.cpp to run: pip install llama-cpp-python (it is built from source)"
            ) from None
        self.path = path
        header = open_gguf(Path(path))  # the clear errors are there
        self._template: str | None = header.value(CHAT_TEMPLATE)
        self.without_template = None if self._template else "it continues the text"
        self._suppressed: list[int] = header.value(SUPPRESS) or []
        threads = threads or cores()
        try:
            self.llama = load_llama(
                Path(path), n_ctx=MAX_CONTEXT, type_k=F16, type_v=F16,
                n_threads=threads, n_threads_batch=threads,
            )  # fmt: skip
        except ValueError as error:
            raise UserError(
                f"{path}: llama.cpp cannot load it ({error}); download or export it again"
            ) from None
        self._api = llama_cpp
        self._model = self.llama._model.model
        self._vocab = self.llama._model.vocab
        self.context = min(self.llama.n_ctx(), llama_cpp.llama_model_n_ctx_train(self._model))

    def describe(self) -> str:
        kind = self.llama.metadata.get("general.architecture", "?")
        size, on_disk = self._api.llama_model_n_params(self._model), Path(self.path).stat().st_size
        return f"{kind}, {size / 1e6:,.1f} M parameters, {on_disk / 1e6:,.0f} MB, llama.cpp"

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Without a template, the ids of the last message alone."""
        if not self._template:
            return self.llama.tokenize(messages[-1]["content"].encode(), add_bos=True, special=False)
        tokens = {
            "bos_token": self._text(self.llama.token_bos()),
            "eos_token": self._text(self.llama.token_eos()),
        }
        now = datetime.datetime.now()
        (text,) = render(self._template, [messages], tokens=tokens, where=Path(self.path), now=now)
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

    def text(self, ids: Iterable[int]) -> Iterator[str]:
        return stream_bytes(map(self.piece, ids))

    def decode(self, ids: Sequence[int]) -> str:
        return b"".join(map(self.piece, ids)).decode("utf-8", errors="replace")

    def generate(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        *,
        stop: threading.Event | None = None,
        avoider: Avoider | None = None,
        never: Sequence[int] = (),
    ) -> Iterator[int]:
        """What sampling leaves open is as TEMPERATURE and those beside it say."""
        if not prompt:
            raise UserError(f"{self.path}: the prompt is empty; write something")
        if sampling.seed is not None:
            self.llama.set_seed(sampling.seed)
        options = {
            "temp": _given(sampling.temperature, TEMPERATURE),
            "top_p": _given(sampling.top_p, TOP_P),
            "top_k": _given(sampling.top_k, TOP_K),
            "repeat_penalty": _given(sampling.repetition_penalty, NO_PENALTY),
            "logits_processor": self._mask([*self._suppressed, *never], avoider),
        }
        made: list[int] = []
        while True:
            # Tokens that are in the cache already are not read again: llama-cpp-python compares beginnings.
            tokens = self.llama.generate([*prompt, *made], **options)
            went_back = None
            for token_id in tokens:
                if self._api.llama_vocab_is_eog(self._vocab, token_id) or (stop and stop.is_set()):
                    break
                made.append(token_id)
                if avoider is None:
                    yield token_id
                elif (went_back := avoider.add(token_id)) is None:
                    yield from avoider.take()
                if went_back is not None or len(made) >= sampling.max_new_tokens:
                    break
            tokens.close()
            if avoider is None:
                return
            if went_back is None or avoider.ended:
                yield from avoider.finish()
                return
            del made[went_back:]

    def _mask(self, never: Sequence[int], avoider: Avoider | None) -> Any:
        """Return what keeps llama.cpp from ids: those never chosen, and those forbidden at this place."""
        if not never and avoider is None:
            return None
        banned = np.asarray(sorted(set(never)), np.int64)

        def mask(input_ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
            scores[banned] = -np.inf
            if avoider is not None and (ids := avoider.forbidden_next()):
                scores[list(ids)] = -np.inf
            return scores

        return self._api.LogitsProcessorList([mask])


def _given(value: float | None, default: float) -> float:
    return default if value is None else value
