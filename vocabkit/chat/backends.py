"""A model as a conversation needs it, whatever runs it: a folder by transformers, a GGUF by llama.cpp.

Reads the model; writes nothing. Heavy imports happen on opening.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from vocabkit.chat.avoid import Avoider
from vocabkit.chat.conversation import Conversation, note
from vocabkit.chat.only_scripts import forbidden_ids, tokenizer_of
from vocabkit.checkpoint.hub import model_folder
from vocabkit.errors import UserError


@dataclass(frozen=True)
class Wishes:
    """How answers are to be made: sampling options by name, phrases to avoid, the only scripts allowed."""

    sampling: dict[str, Any] = field(default_factory=dict)
    max_new_tokens: int = 512
    system: str | None = None
    phrases: Sequence[str] = ()
    ignore_case: bool = False
    scripts: frozenset[str] | None = None

    def avoider(self, decode: Callable[[Sequence[int]], str]) -> Callable[[], Avoider] | None:
        """Return what makes an Avoider for one answer, None where nothing is to be avoided."""
        if not self.phrases:
            return None
        return partial(Avoider, self.phrases, decode, ignore_case=self.ignore_case)


def check_path(path: str) -> None:
    """Raise UserError for what is neither a folder nor a GGUF file, before anything heavy is loaded."""
    if not path.endswith(".gguf"):
        model_folder(path)
    elif not Path(path).is_file():
        raise UserError(f"{path} is missing; give a GGUF file or a folder")


def open_conversation(path: str, wishes: Wishes, *, dtype: str | None = None) -> Conversation:
    """Load a model and return a conversation with it."""
    never = forbidden_ids(tokenizer_of(Path(path)), wishes.scripts) if wishes.scripts else []
    if never:
        note(f"{path}: {len(never):,} tokens that could write another script are never chosen")
    opened = _llama(path, wishes) if path.endswith(".gguf") else _transformers(path, wishes, dtype)
    encode, generate, to_text, decode, context = opened
    options = {**wishes.sampling, "never": never, "avoider": wishes.avoider(decode)}
    return Conversation(
        name=path,
        encode=encode,
        generate=partial(generate, **options),
        to_text=to_text,
        max_new_tokens=wishes.max_new_tokens,
        context=context,
        system=wishes.system,
    )


def _transformers(path: str, wishes: Wishes, dtype: str | None) -> tuple[Any, ...]:
    from vocabkit.chat.transformers_backend import generate, stream_text
    from vocabkit.models.load import (
        context_length,
        describe,
        has_chat_template,
        load_model,
        load_tokenizer,
        prompt_ids,
        silence,
    )

    silence()
    tokenizer = load_tokenizer(path)
    model = load_model(path, dtype=dtype)
    note(f"{path}: {describe(model)}")
    if not has_chat_template(tokenizer):
        alone = (
            "each question is answered alone" if model.config.is_encoder_decoder else "it continues the text"
        )
        note(f"{path}: no chat template, so {alone}")
    decode = partial(tokenizer.decode, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    to_text = partial(stream_text, tokenizer=tokenizer, skip_special_tokens=True)
    encode = partial(prompt_ids, model, tokenizer)
    return encode, partial(generate, model, tokenizer), to_text, decode, context_length(model)


def _llama(path: str, wishes: Wishes) -> tuple[Any, ...]:
    from vocabkit.chat.llama_backend import LlamaModel

    model = LlamaModel(Path(path))
    note(f"{path}: {model.describe()}")
    if not model.has_chat_template:
        note(f"{path}: no chat template, so it continues the text")
    return model.prompt_ids, model.generate, model.to_text, model.decode, model.context
