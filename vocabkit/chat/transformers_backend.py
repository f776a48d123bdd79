"""Generate an answer with model.generate(), token by token, in a thread of its own.

Reads and writes nothing. Phrases that are to be avoided take the answer back (vocabkit/chat/avoid.py):
generate() is stopped, the cache of keys and values cut to where the phrase began, and generate() goes on
from there.
"""

import codecs
import json
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
import transformers

from vocabkit.chat.avoid import Avoider
from vocabkit.errors import UserError
from vocabkit.models.load import prompt_ids
from vocabkit.tokenizer.bpe import byte_fallback_value, byte_level_bytes
from vocabkit.tokenizer.chat_template import Message


def generate(
    model: Any,
    tokenizer: Any,
    prompt: Sequence[Message] | Sequence[int],
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
    """Yield the answer's ids one by one as model.generate() makes them, without prompt and end token.

    Options that are None come from the folder's generation_config.json, and so do suppress_tokens, the list
    of end tokens and the rest; only beams are off, because they cannot be streamed. A temperature, top_p or
    top_k turns sampling on; temperature 0 is greedy. Setting `stop` or closing the iterator ends the answer.

    avoider: makes what keeps phrases out of this answer (vocabkit/chat/avoid.py); ids then come a little
    later. never: ids that are not chosen, as many as one likes.
    """
    messages = [item for item in prompt if isinstance(item, dict)]
    ids = prompt_ids(model, tokenizer, messages) if messages else [i for i in prompt if isinstance(i, int)]
    rows = model.get_input_embeddings().weight.shape[0]
    if not ids:
        raise UserError("the prompt is empty and this model needs a token to start from; write something")
    if max(ids) >= rows:
        raise UserError(
            f"{tokenizer.name_or_path}: the tokenizer gives id {max(ids)} but the model has {rows} rows; "
            "use the tokenizer files that belong to this model"
        )
    config = model.generation_config
    end = config.eos_token_id if config.eos_token_id is not None else tokenizer.eos_token_id
    end_ids = set() if end is None else set(end) if isinstance(end, list | tuple) else {end}
    # Keyword arguments, not a GenerationConfig: versions 4.50 to 4.55 take a value of the latter that equals
    # the library's default (do_sample=False) for "not given" and use the folder's instead.
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "num_beams": 1}
    if end_ids:
        options["eos_token_id"] = sorted(end_ids)
    if config.pad_token_id is None:
        pad = tokenizer.pad_token_id
        options["pad_token_id"] = pad if pad is not None else min(end_ids, default=0)
    if getattr(config, "stop_strings", None):
        options["tokenizer"] = tokenizer
    if repetition_penalty is not None:
        options["repetition_penalty"] = repetition_penalty
    sampling = {"temperature": temperature, "top_p": top_p, "top_k": top_k}
    sampling = {name: value for name, value in sampling.items() if value is not None}
    if greedy or temperature == 0:
        options["do_sample"] = False
    elif sampling:
        options.update(sampling, do_sample=True)
    if never:
        options["never"] = torch.zeros(rows, device=model.device)
        options["never"][list(never)] = float("-inf")
    avoiding = avoider() if avoider else None
    if avoiding is not None and model.config.is_encoder_decoder:
        raise UserError(
            f"{tokenizer.name_or_path} reads and writes with two stacks; --avoid needs a decoder alone"
        )
    stop = stop or threading.Event()
    return _generate(model, ids, options=options, end_ids=end_ids, seed=seed, stop=stop, avoider=avoiding)


class _Watch(transformers.StoppingCriteria):
    """Is told of every new token by generate(), passes on what is final, and says when to stop."""

    def __init__(self, answer: "_Answer", avoider: Avoider | None) -> None:
        self.answer, self.avoider = answer, avoider
        self.went_back: int | None = None

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        token_id = int(input_ids[0, -1])
        self.went_back = None
        if token_id not in self.answer.end_ids:
            if self.avoider is None:
                self.answer.put([token_id])
            else:
                self.went_back = self.avoider.add(token_id)
                if self.went_back is None:
                    self.answer.put(self.avoider.take())
        done = self.answer.stop.is_set() or self.went_back is not None
        return torch.full((len(input_ids),), done, dtype=torch.bool, device=input_ids.device)


class _Forbid(transformers.LogitsProcessor):
    """Keeps generate() from ids that are never chosen, and from those that are forbidden where it is now.

    never: (V,) float32, −∞ at these ids and 0 elsewhere; adding takes a twentieth of the time of filling.
    """

    def __init__(self, never: torch.Tensor | None, avoider: Avoider | None) -> None:
        self.never, self.avoider = never, avoider

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        if self.never is not None:
            scores = scores + self.never[: scores.shape[-1]]
        if self.avoider is not None and (ids := self.avoider.forbidden.get(len(self.avoider))):
            scores = scores.clone()
            scores[:, list(ids)] = float("-inf")
        return scores


class _Answer:
    """Where a thread puts the ids of an answer, and where it is told to stop."""

    def __init__(self, end_ids: set[int], stop: threading.Event) -> None:
        self.queue: queue.Queue[int | BaseException | None] = queue.Queue()
        self.end_ids, self.stop = end_ids, stop

    def put(self, ids: Sequence[int]) -> None:
        for token_id in ids:
            self.queue.put(token_id)


def _generate(
    model: Any,
    ids: list[int],
    *,
    options: dict[str, Any],
    end_ids: set[int],
    seed: int | None,
    stop: threading.Event,
    avoider: Avoider | None,
) -> Iterator[int]:
    answer = _Answer(end_ids, stop)

    def run() -> None:
        try:
            if seed is not None:
                torch.manual_seed(seed)
            _run(model, ids, answer, avoider, options)
            answer.queue.put(None)
        except BaseException as error:  # raised again in the caller's thread
            answer.queue.put(error)

    thread = threading.Thread(target=run, name="generate", daemon=True)
    thread.start()
    try:
        while (item := answer.queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        thread.join()


def _run(
    model: Any, ids: list[int], answer: _Answer, avoider: Avoider | None, options: dict[str, Any]
) -> None:
    """Call generate() until it ends an answer by itself, each time from where a phrase took it back to."""
    watch = _Watch(answer, avoider)
    options = dict(options)
    never = options.pop("never", None)
    options["stopping_criteria"] = transformers.StoppingCriteriaList([watch])
    if never is not None or avoider is not None:
        options["logits_processor"] = transformers.LogitsProcessorList([_Forbid(never, avoider)])
    room = options.pop("max_new_tokens")
    if avoider is not None:
        options["past_key_values"] = transformers.DynamicCache()
    made: list[int] = []
    while True:
        inputs = torch.tensor([ids + made], device=model.device)
        output = model.generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=room - len(made),
            **options,
        )
        if avoider is None:
            return
        if watch.went_back is None or avoider.ended or answer.stop.is_set():
            answer.put(avoider.finish())
            return
        made = output[0, len(ids) : len(ids) + watch.went_back].tolist()
        # One token is to be read again: generate() needs something that the cache does not hold.
        cache = options["past_key_values"]
        cache.crop(len(ids) + len(made) - 1 - cache.get_seq_length())  # negative: so many go


def stream_text(ids: Iterable[int], tokenizer: Any, *, skip_special_tokens: bool = False) -> Iterator[str]:
    """Yield the text of ids piece by piece: joined, it equals tokenizer.decode(ids) without space clean-up.

    No piece ends inside a character. A broken byte becomes "\\ufffd" once the next token proves it broken. In
    tokenizers with byte fallback (<0xE1>) a run of byte tokens is held back until it ends, because
    their decoder judges the run as a whole: one bad byte spoils all its characters. The work per token does
    not grow with the text.
    """
    decoder = tokenizer.backend_tokenizer.decoder
    kinds = _decoder_kinds(json.loads(decoder.__getstate__())) if decoder is not None else set()
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder()
    skipped = {token.content for token in added.values() if token.special} if skip_special_tokens else set()
    # An id without a token (a padding row) has no text, as in decode().
    tokens = ((i, t) for i in ids if (t := tokenizer.backend_tokenizer.id_to_token(i)) is not None)
    visible = ((i, t) for i, t in tokens if t not in skipped)
    if kinds - {"Fuse"} == {"ByteLevel"}:
        return _stream_bytes(visible)
    return _stream_window(visible, tokenizer, kinds)


def _stream_bytes(tokens: Iterable[tuple[int, str]]) -> Iterator[str]:
    """Byte-level tokens are bytes: a UTF-8 decoder that keeps the unfinished rest is enough."""
    utf8 = codecs.getincrementaldecoder("utf-8")("replace")
    for _, token in tokens:
        try:
            token_bytes = byte_level_bytes(token)
        except KeyError:  # the decoder of tokenizers takes such a token (" thời gian") as plain text
            token_bytes = token.encode("utf-8")
        if piece := utf8.decode(token_bytes):
            yield piece
    if rest := utf8.decode(b"", final=True):
        yield rest


def _stream_window(tokens: Iterable[tuple[int, str]], tokenizer: Any, kinds: set[str]) -> Iterator[str]:
    """Any other decoder: decode new ids behind the one before them, which keeps the space between."""

    def decode(window: list[int]) -> str:
        return tokenizer.decode(window, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    before: list[int] = []
    pending: list[int] = []
    for token_id, token in tokens:
        pending.append(token_id)
        if "ByteFallback" in kinds and byte_fallback_value(token) is not None:
            continue
        piece = decode(before + pending)[len(decode(before)) :]
        if "ByteLevel" in kinds and piece.endswith("\ufffd"):
            continue
        # "▁" alone decodes to nothing at the start of a text: one more id in front makes it a space again.
        window = before + pending
        before = next((w for w in (window[-1:], window[-2:]) if decode(w)), window)
        pending = []
        if piece:
            yield piece
    if pending and (piece := decode(before + pending)[len(decode(before)) :]):
        yield piece


def _decoder_kinds(state: dict[str, Any]) -> set[str]:
    if state["type"] == "Sequence":
        return set().union(*(_decoder_kinds(child) for child in state["decoders"]))
    return {state["type"]}
