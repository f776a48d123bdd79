"""A model opened for a conversation: a folder by transformers, a GGUF file by llama.cpp.

Reads the model; says on stderr what it is. Heavy imports happen on opening.
"""

from collections.abc import Sequence
from pathlib import Path

from vocabkit.chat.backends import Backend, Sampling
from vocabkit.chat.conversation import Conversation, note
from vocabkit.chat.only_scripts import forbidden_ids, tokenizer_of
from vocabkit.checkpoint.hub import model_folder
from vocabkit.errors import UserError


def check_path(path: str) -> None:
    """Raise UserError for what is neither a folder nor a GGUF file, before anything heavy is loaded."""
    if not path.endswith(".gguf"):
        model_folder(path)
    elif not Path(path).is_file():
        raise UserError(f"{path} is missing; give a GGUF file or a folder")


def open_backend(path: str, *, dtype: str | None = None) -> Backend:
    """Load a model; dtype: of a folder's numbers, None for what load_model() chooses."""
    if path.endswith(".gguf"):
        from vocabkit.chat.llama_backend import LlamaBackend

        return LlamaBackend(path)
    from vocabkit.chat.transformers_backend import TransformersBackend

    return TransformersBackend.open(path, dtype=dtype)


def open_conversation(
    path: str,
    sampling: Sampling,
    *,
    dtype: str | None = None,
    system: str | None = None,
    scripts: frozenset[str] | None = None,
    phrases: Sequence[str] = (),
    ignore_case: bool = False,
) -> Conversation:
    """Load a model and return a conversation with it; scripts: the only ones that it may write."""
    note(f"loading {path}")
    never = forbidden_ids(tokenizer_of(Path(path)), scripts) if scripts else []
    if never:
        note(f"{path}: {len(never):,} tokens that could write another script are never chosen")
    backend = open_backend(path, dtype=dtype)
    note(f"{path}: {backend.describe()}")
    if backend.without_template:
        note(f"{path}: no chat template, so {backend.without_template}")
    return Conversation(
        backend, sampling, system=system, never=never, phrases=phrases, ignore_case=ignore_case
    )
