"""A GGUF file as a tokenizer and rows: what trimming and verifying need of it.

Reads the header of a file or of all parts of a split one; writes nothing.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from vocabkit.errors import UserError, reading
from vocabkit.gguf.files import (
    FLOAT32,
    INT32,
    STRING,
    UINT32,
    Field,
    GgufFile,
    GgufTensor,
    read_gguf,
    split_files,
)
from vocabkit.gguf.vocab import (
    CHAT_TEMPLATE,
    CONTROL,
    GGML,
    NORMAL,
    SUPPRESS,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
)
from vocabkit.tokenizer import bpe, spm
from vocabkit.tokenizer.tokenizer_json import BYTE_FALLBACK_BPE, BYTE_LEVEL_BPE, TokenizerJson

# Kinds of vocabulary that are read, by tokenizer.ggml.model. One more needs a line here and, to be exported,
# a function in vocab.py; the kind of model does not matter.
FAMILIES = {"gpt2": BYTE_LEVEL_BPE, "llama": BYTE_FALLBACK_BPE}

# The tensors with a row for each token, by the names that every architecture of llama.cpp has for them.
MATRICES = ("token_embd.weight", "output.weight", "output.bias")

NEW_TO_OLD = "vocabkit.new_to_old"  # what each row was: for verify_edit

TRIMMED_FROM = "vocabkit.trimmed_from"  # the name of the file


@dataclass(frozen=True)
class GgufModel:
    """A model in one file or several: its parts, its fields, its tokenizer as our other modules know one.

    types, scores: of each token; scores are those by which llama.cpp merges a SentencePiece vocabulary.
    """

    path: Path
    parts: list[GgufFile]
    tokenizer: TokenizerJson
    types: list[int]
    scores: list[float]

    @property
    def fields(self) -> dict[str, Field]:
        """The fields of the first part, which has all that are not about the splitting."""
        return self.parts[0].fields

    @property
    def tensors(self) -> dict[str, GgufTensor]:
        """The tensors of all parts by name."""
        return {name: tensor for part in self.parts for name, tensor in part.tensors.items()}

    def value(self, key: str) -> Any:
        """Return a field's value, None where there is none."""
        return self.fields[key].value() if key in self.fields else None

    def merge_orders(self) -> list[SimpleNamespace]:
        """Return the scores of a SentencePiece vocabulary as a tokenizer.model has them, for make_plan()."""
        if self.tokenizer.family == BYTE_LEVEL_BPE:
            return []
        pieces = [
            SimpleNamespace(piece=token, type=kind, score=score)
            for token, kind, score in zip(self.value(GGML + "tokens"), self.types, self.scores, strict=True)
        ]
        return [SimpleNamespace(pieces=pieces, trainer_spec=SimpleNamespace(model_type=spm.BPE))]


def open_gguf(path: Path, files: Sequence[Path] | None = None) -> GgufModel:
    """Open FILE.gguf; UserError if it is damaged, has no vocabulary, or one of an unknown type.

    files: its parts where they do not have their names yet.
    """
    parts = [read_gguf(file) for file in files or split_files(path)]
    with reading(path):
        return _model(path, parts)


# What fields hold, by the end of their keys; a number alone, or items of an array.
WHOLE = (UINT32, INT32)
KINDS: dict[str, tuple[int, ...]] = {
    GGML + "model": (STRING,), CHAT_TEMPLATE: (STRING,), "_token_id": WHOLE, ".vocab_size": (*WHOLE, 10, 11),
}  # fmt: skip
KINDS_OF_ITEMS: dict[str, tuple[int, ...]] = {
    GGML + "tokens": (STRING,), GGML + "merges": (STRING,), GGML + "token_type": WHOLE, SUPPRESS: WHOLE,
    GGML + "scores": (FLOAT32,), "_token_ids": WHOLE, NEW_TO_OLD: WHOLE,
}  # fmt: skip


def _check_kinds(path: Path, fields: Mapping[str, Field]) -> None:
    """Raise UserError for a field that is read here and has another type than llama.cpp writes."""
    for key, field in fields.items():
        for ends, of_items in ((KINDS, False), (KINDS_OF_ITEMS, True)):
            for end, allowed in ends.items():
                kind = field.items if of_items else field.type
                if key.endswith(end) and kind not in allowed:
                    shown = (
                        repr(field.value())[:60] if field.items is None else f"an array of type {field.items}"
                    )
                    raise UserError(
                        f"{path}: {key} is {shown}, not of the type it must have; export the model again"
                    )


def _model(path: Path, parts: list[GgufFile]) -> GgufModel:
    fields = parts[0].fields
    _check_kinds(path, fields)
    kind = fields[GGML + "model"].value() if GGML + "model" in fields else None
    if kind not in FAMILIES or GGML + "tokens" not in fields:
        raise UserError(
            f"{path}: tokenizer.ggml.model is {kind!r}, expected one of {', '.join(FAMILIES)}; this "
            "vocabulary cannot be trimmed"
        )
    tokens: list[str] = fields[GGML + "tokens"].value()
    types = _list(fields, "token_type", len(tokens), path) or [NORMAL] * len(tokens)
    scores = _list(fields, "scores", len(tokens), path) or [0.0] * len(tokens)
    merges = fields[GGML + "merges"].value() if kind == "gpt2" and GGML + "merges" in fields else []
    names = [name for part in parts for name in part.tensors]
    if len(set(names)) < len(names) or MATRICES[0] not in names:
        twice = next((name for name, count in Counter(names).items() if count > 1), None)
        what = f"has {twice!r} in two of its parts" if twice else f"has no tensor {MATRICES[0]}"
        raise UserError(f"{path} {what}: it is no whole model; download it again")
    for tensor in (part.tensors[name] for part in parts for name in MATRICES if name in part.tensors):
        if tensor.rows != len(tokens):
            raise UserError(
                f"{tensor.file}: {tensor.name} has {tensor.rows:,} rows, the file {len(tokens):,} tokens; "
                "this file is damaged or of an unknown kind"
            )
    if twice := next((t for t, count in Counter(tokens).items() if count > 1 and t), None):
        raise UserError(f"{path} has the token {twice!r} twice, which llama.cpp refuses; export it again")
    tokenizer = _as_tokenizer(path, FAMILIES[kind], tokens, types, merges)
    _ = tokenizer.token_bytes  # a token outside the byte alphabet, or of bytes that are no text, raises here
    return GgufModel(path, parts, tokenizer, types, scores)


def _list(fields: Mapping[str, Field], name: str, count: int, path: Path) -> list[Any] | None:
    if GGML + name not in fields:
        return None
    values: list[Any] = fields[GGML + name].value()
    if len(values) != count:
        raise UserError(
            f"{path}: {GGML}{name} has {len(values):,} entries for {count:,} tokens; download the file again"
        )
    return values


def _as_tokenizer(
    path: Path, family: str, tokens: Sequence[str], types: Sequence[int], merges: Sequence[str]
) -> TokenizerJson:
    """Return the tokens of a GGUF as a tokenizer.json would hold them; UNUSED ones are left out."""
    kinds = list(enumerate(zip(tokens, types, strict=True)))
    added: list[dict[str, Any]] = [
        {"id": token_id, "content": token, "special": kind == CONTROL, "normalized": False}
        for token_id, (token, kind) in kinds
        if kind in (CONTROL, USER_DEFINED)
    ]
    vocab = {token: at for at, (token, kind) in kinds if kind not in (CONTROL, USER_DEFINED, UNUSED)}
    unknown = next((token for _, (token, kind) in kinds if kind == UNKNOWN), None)
    data = {"added_tokens": added, "model": {"unk_token": unknown}}
    pairs = [bpe.parse_merge(merge) for merge in merges]
    for left, right in pairs:
        if lost := [part for part in (left + right, left, right) if part not in vocab]:
            raise UserError(
                f"{path}: the merge {left!r} {right!r} needs {lost[0]!r}, no token; with such merges "
                "llama.cpp loses text: export the model again"
            )
    return TokenizerJson(path, data, family, vocab, {e["content"]: e["id"] for e in added}, pairs)


def load_llama(path: Path, **options: Any) -> Any:
    """Return a llama_cpp.Llama of a file, None if llama-cpp-python is not installed; ValueError if it cannot.

    Its chat templates stay in the file: the constructor would compile them, and fail where it cannot.
    """
    try:
        import llama_cpp
    except ImportError:
        return None

    class WithoutTemplates(llama_cpp.Llama):  # type: ignore[misc]
        def __setattr__(self, name: str, value: Any) -> None:
            if name == "metadata":
                value = {key: text for key, text in value.items() if not key.startswith(CHAT_TEMPLATE)}
            super().__setattr__(name, value)

    return WithoutTemplates(str(path), verbose=False, **options)
