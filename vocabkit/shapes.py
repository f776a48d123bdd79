"""What JSON files must look like: values compared with the types of annotations, and the settings of models.

Reads and writes nothing. Standard library only.
"""

import types
import typing
from pathlib import Path
from typing import Any, TypedDict

from vocabkit.errors import UserError

_NAMES = {
    int: "a whole number", float: "a number", str: "a string", bool: "true or false", dict: "an object",
    list: "a list", types.NoneType: "null",
}  # fmt: skip


def misfit(value: Any, hint: Any, where: str = "") -> str | None:
    """Return where and how a value of JSON differs from a type, written as an annotation; None if it fits.

    An object may have more fields than a TypedDict names. true is no whole number, and 7.0 is none.

    >>> misfit({"a": [1, "2"]}, dict[str, list[int]])
    "['a'][1] is '2', expected a whole number"
    """
    kind, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return None
    if kind in (typing.Union, types.UnionType):
        found = {one: misfit(value, one, where) for one in inner}
        near = [one for one in inner if _plain(one) is type(value)]  # what it was meant to be
        return None if None in found.values() else found[(near or inner)[0]]
    if typing.is_typeddict(hint):
        if isinstance(value, dict):
            if lost := sorted(hint.__required_keys__ - value.keys()):
                return f"{where or 'it'} has no {lost[0]!r}"
            fields = [(name, field) for name, field in typing.get_type_hints(hint).items() if name in value]
            return next(
                filter(None, (misfit(value[n], field, f"{where}[{n!r}]") for n, field in fields)), None
            )
    elif kind is list and isinstance(value, list):
        if set(map(type, value)) <= {inner[0]}:  # fast for a table of ids
            return None
        return next(filter(None, (misfit(v, inner[0], f"{where}[{at}]") for at, v in enumerate(value))), None)
    elif kind is dict and isinstance(value, dict):
        return next(
            filter(None, (misfit(v, inner[1], f"{where}[{key!r}]") for key, v in value.items())), None
        )
    plain = _plain(hint)
    if type(value) is plain or (plain is float and type(value) is int):
        return None
    return f"{where or 'it'} is {repr(value)[:80]}, expected {_NAMES.get(plain, plain)}"


def _plain(hint: Any) -> Any:
    """The type whose parts an annotation says more of."""
    return dict if typing.is_typeddict(hint) else typing.get_origin(hint) or hint


def check_shape(value: Any, hint: Any, path: object, *, again: str = "download the file again") -> None:
    """Raise UserError, with file and place, where a value of JSON is not of a type; see misfit()."""
    if found := misfit(value, hint):
        raise UserError(f"{path}: {found}; {again}")


class _Template(TypedDict):
    name: str
    template: str


class _Token(TypedDict):
    content: str


class Settings(TypedDict, total=False):
    """What is read of config.json, generation_config.json and tokenizer_config.json; all but token ids, which
    tokenizer/settings.py checks in more places.
    """

    model_type: str | None
    architectures: list[str] | None
    text_config: "Settings | None"
    vocab_size: int | None
    hidden_size: int | None
    num_hidden_layers: int | None
    num_attention_heads: int | list[int] | None  # a list: one for each layer
    num_key_value_heads: int | list[int] | None
    intermediate_size: int | list[int] | None
    max_position_embeddings: int | None
    head_dim: int | None
    rms_norm_eps: float | None
    rope_theta: float | None
    rope_parameters: dict[str, Any] | None
    rope_scaling: dict[str, Any] | None
    quantization_config: dict[str, Any] | None
    is_encoder_decoder: bool | None
    tie_word_embeddings: bool | None
    suppress_tokens: list[int] | None
    begin_suppress_tokens: list[int] | None
    added_tokens_decoder: dict[str, dict[str, Any]] | None
    chat_template: str | list[_Template] | None
    bos_token: str | _Token | None
    eos_token: str | _Token | None
    pad_token: str | _Token | None
    unk_token: str | _Token | None


class _Size(TypedDict, total=False):
    total_size: float | None
    total_parameters: int


class Index(TypedDict, total=False):
    """Of model.safetensors.index.json, and that of .bin files."""

    weight_map: dict[str, Any]
    metadata: _Size | None


def check_file(value: dict[str, Any], path: Path) -> None:
    """Check a file of a checkpoint that is known by its name; any other may hold what it likes."""
    if path.name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        check_shape(value, Settings, path)
    elif path.name.endswith(".index.json"):
        check_shape(value, Index, path)
