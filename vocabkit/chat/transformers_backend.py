"""A folder that answers: prompt ids, ids made by model.generate() in a thread of its own, text of ids.

Reads the folder; writes nothing. Phrases that are to be avoided (vocabkit/chat/avoid.py) take the answer
back: generate() is stopped, the cache of keys and values cut to where the phrase began, and generate() goes
on from there.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
import transformers

from vocabkit.chat.avoid import Avoider
from vocabkit.chat.backends import Backend, Sampling
from vocabkit.chat.stream import stream_text
from vocabkit.errors import UserError
from vocabkit.models import load
from vocabkit.tokenizer.chat_template import Message
from vocabkit.tokenizer.settings import own_bans


class TransformersBackend(Backend):
    """A model and its tokenizer as transformers loads them."""

    def __init__(self, path: str, model: Any, tokenizer: Any) -> None:
        self.path, self.model, self.tokenizer = path, model, tokenizer
        self.context = load.context_length(model)
        alone = model.config.is_encoder_decoder
        done = "each question is answered alone" if alone else "it continues the text"
        self.without_template = None if load.has_chat_template(tokenizer) else done

    @classmethod
    def open(cls, path: str, *, dtype: str | None = None) -> "TransformersBackend":
        """Load a folder; dtype None: what load_model() chooses."""
        load.silence()
        tokenizer = load.load_tokenizer(path)
        return cls(path, load.load_model(path, dtype=dtype), tokenizer)

    def describe(self) -> str:
        return load.describe(self.model)

    def encode(self, messages: Sequence[Message]) -> list[int]:
        return load.prompt_ids(self.model, self.tokenizer, messages)

    def text(self, ids: Iterable[int]) -> Iterator[str]:
        return stream_text(ids, self.tokenizer, skip_special_tokens=True)

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def generate(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        *,
        stop: threading.Event | None = None,
        avoider: Avoider | None = None,
        never: Sequence[int] = (),
    ) -> Iterator[int]:
        """What sampling leaves open comes from the folder's generation_config.json, and so do its
        suppress_tokens, end tokens and the rest; only beams are off, because they cannot be streamed. A
        temperature, top_p or top_k turns sampling on. Raises UserError for an id without a row, and for an
        avoider where the model is no decoder alone.
        """
        rows = self.model.get_input_embeddings().weight.shape[0]
        if not prompt:
            raise UserError("the prompt is empty and this model needs a token to start from; write something")
        if max(prompt) >= rows:
            raise UserError(
                f"{self.path}: the tokenizer gives id {max(prompt)} but the model has {rows} rows; "
                "use the tokenizer files that belong to this model"
            )
        if avoider is not None and self.model.config.is_encoder_decoder:
            raise UserError(f"{self.path} reads and writes with two stacks; --avoid needs a decoder alone")
        end_ids = self._end_ids()
        options = self._options(sampling, end_ids)
        if never or avoider is not None:
            forbid = _Forbid(never, avoider, rows=rows, device=self.model.device)
            options["logits_processor"] = transformers.LogitsProcessorList([forbid])
        stop = stop or threading.Event()

        def answer(put: Callable[[Sequence[int]], None]) -> None:
            if sampling.seed is not None:
                torch.manual_seed(sampling.seed)
            watch = _Watch(put, end_ids, stop, avoider)
            _generate(self.model, list(prompt), watch, room=sampling.max_new_tokens, options=options)

        return _in_a_thread(answer, stop)

    def _end_ids(self) -> set[int]:
        end = self.model.generation_config.eos_token_id
        end = end if end is not None else self.tokenizer.eos_token_id
        return set() if end is None else set(end) if isinstance(end, list | tuple) else {end}

    def _options(self, sampling: Sampling, end_ids: set[int]) -> dict[str, Any]:
        # Keyword arguments, not a GenerationConfig: versions 4.50 to 4.55 take a value of the latter that
        # equals the library's default (do_sample=False) for "not given" and use the folder's instead.
        config = self.model.generation_config
        options: dict[str, Any] = {"num_beams": 1}
        if end_ids:
            options["eos_token_id"] = sorted(end_ids)
        if config.pad_token_id is None:
            pad = self.tokenizer.pad_token_id
            options["pad_token_id"] = pad if pad is not None else min(end_ids, default=0)
        if banned := config.suppress_tokens:
            # A token that was added to a trimmed folder has one of its padding rows, and may be chosen.
            tokens = range(len(self.tokenizer))
            own = set(own_bans(banned, tokens, self.tokenizer.added_tokens_decoder))
            options["suppress_tokens"] = [at for at in banned if at in own or at not in tokens]
        if getattr(config, "stop_strings", None):
            options["tokenizer"] = self.tokenizer
        if sampling.repetition_penalty is not None:
            options["repetition_penalty"] = sampling.repetition_penalty
        names = ("temperature", "top_p", "top_k")
        given = {name: value for name in names if (value := getattr(sampling, name)) is not None}
        if sampling.temperature == 0:
            options["do_sample"] = False
        elif given:
            options |= {**given, "do_sample": True}
        return options


class _Watch(transformers.StoppingCriteria):
    """Is told of every new token by generate(), hands on what is final, and says when to stop."""

    def __init__(
        self,
        put: Callable[[Sequence[int]], None],
        end_ids: set[int],
        stop: threading.Event,
        avoider: Avoider | None,
    ) -> None:
        self.put, self.end_ids, self.stop, self.avoider = put, end_ids, stop, avoider
        self.went_back: int | None = None

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        token_id = int(input_ids[0, -1])
        self.went_back = None
        if token_id not in self.end_ids:
            if self.avoider is None:
                self.put([token_id])
            else:
                self.went_back = self.avoider.add(token_id)
                self.put(self.avoider.take() if self.went_back is None else [])
        done = self.stop.is_set() or self.went_back is not None
        return torch.full((len(input_ids),), done, dtype=torch.bool, device=input_ids.device)


class _Forbid(transformers.LogitsProcessor):
    """Keeps generate() from ids that are never chosen, and from those that are forbidden where it is now."""

    def __init__(self, never: Sequence[int], avoider: Avoider | None, *, rows: int, device: Any) -> None:
        self.avoider = avoider
        self.never: torch.Tensor | None = None
        if never:  # (V,) float32; adding it takes a twentieth of the time of filling
            self.never = torch.zeros(rows, device=device)
            self.never[list(never)] = float("-inf")

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        if self.never is not None:
            scores = scores + self.never[: scores.shape[-1]]
        if self.avoider is not None and (ids := self.avoider.forbidden_next()):
            scores = scores.clone()
            scores[:, list(ids)] = float("-inf")
        return scores


def _generate(model: Any, prompt: list[int], watch: _Watch, *, room: int, options: dict[str, Any]) -> None:
    """Call generate() until it ends an answer by itself, each time from where a phrase took it back to."""
    avoider, made = watch.avoider, list[int]()
    if avoider is not None:
        cache = transformers.DynamicCache()
        options = {**options, "past_key_values": cache}
    while True:
        inputs = torch.tensor([prompt + made], device=model.device)
        output = model.generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=room - len(made),
            stopping_criteria=transformers.StoppingCriteriaList([watch]),
            **options,
        )
        if avoider is None:
            return
        if watch.went_back is None or avoider.ended or watch.stop.is_set():
            watch.put(avoider.finish())
            return
        made = output[0, len(prompt) : len(prompt) + watch.went_back].tolist()
        # One token is to be read again: generate() needs something that the cache does not hold.
        cache.crop(len(prompt) + len(made) - 1 - cache.get_seq_length())  # negative: so many go


def _in_a_thread(
    produce: Callable[[Callable[[Sequence[int]], None]], None], stop: threading.Event
) -> Iterator[int]:
    """Yield the ids that produce(put) puts while it runs in a thread; closing this stops it and waits.

    What produce raises is raised here.
    """
    items: queue.Queue[Sequence[int] | BaseException | None] = queue.Queue()

    def run() -> None:
        try:
            produce(items.put)
            items.put(None)
        except BaseException as error:  # raised again in the caller's thread
            items.put(error)

    thread = threading.Thread(target=run, name="generate", daemon=True)
    thread.start()
    try:
        while (item := items.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield from item
    finally:
        stop.set()
        thread.join()
