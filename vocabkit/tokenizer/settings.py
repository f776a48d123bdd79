"""Token ids inside JSON settings: config.json, generation_config.json, tokenizer_config.json and their like.

Which fields hold ids is decided by their names, those that transformers uses (configuration_utils.py,
generation/ configuration_utils.py, tokenization_utils_base.py); all nested objects (text_config, decoder …)
are searched.
"""

import re
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from vocabkit.errors import UserError
from vocabkit.files import read_json
from vocabkit.tokenizer import spm
from vocabkit.tokenizer.tokenizer_json import TokenizerJson

# eos_token_id, image_token_index, stop_token_ids, sep_id …, but not the ids of layers, speakers or heads
ID_FIELD = re.compile(r".*_token_(id|ids|index|idx)|(unk|bos|eos|pad|sep|cls|mask|decoder_start)_id")
# Fields of any shape in which every integer is an id
ID_LISTS = {
    "suppress_tokens",
    "begin_suppress_tokens",
    "bad_words_ids",
    "force_words_ids",
    "lang_to_id",
    "task_to_id",
}

MapId = Callable[[int, str], int]


def map_ids(settings: Any, map_id: MapId, *, where: str = "") -> Any:
    """Return a copy of settings with every token id replaced by map_id(old id, the field it stands in).

    Negative ids mean "none" and stay. Raises UserError, which begins with the field, for what stands in the
    place of an id and is no integer of JSON: no program reads "5248" or 5248.0 as the token 5248.

    >>> map_ids({"eos_token_id": [7, 9], "text_config": {"pad_token_id": 7}}, lambda old, where: old - 7)
    {'eos_token_id': [0, 2], 'text_config': {'pad_token_id': 0}}
    """
    if isinstance(settings, Mapping):
        return {
            name: _map_field(name, value, map_id, _inside(where, name)) for name, value in settings.items()
        }
    if isinstance(settings, list):
        return [map_ids(value, map_id, where=f"{where}[{at}]") for at, value in enumerate(settings)]
    return settings


def _inside(where: str, name: str) -> str:
    return where + name if where[-1:] in ("", " ") else f"{where}.{name}"


def _map_field(name: str, value: Any, map_id: MapId, where: str) -> Any:
    if ID_FIELD.fullmatch(name) or name in ID_LISTS:
        return _map_all(value, map_id, where)
    if name == "forced_decoder_ids" and value:  # pairs of position and id
        return [[at, _map_all(token_id, map_id, where)] for at, token_id in _pairs(value, where)]
    if name == "sequence_bias" and value:  # pairs of ids and a number
        return [[_map_all(ids, map_id, where), bias] for ids, bias in _pairs(value, where)]
    if name == "added_tokens_decoder" and isinstance(value, Mapping):  # keys are ids
        return {str(map_id(_integer(key, where), where)): token for key, token in value.items()}
    return map_ids(value, map_id, where=where)


def _map_all(value: Any, map_id: MapId, where: str) -> Any:
    if value is None or value is False:  # none
        return value
    if isinstance(value, list):
        return [_map_all(member, map_id, where) for member in value]
    if isinstance(value, Mapping):
        return {key: _map_all(member, map_id, where) for key, member in value.items()}
    if not is_id(value):
        raise _no_id(f"{where} is {value!r}")
    return value if value < 0 else map_id(value, where)


def is_id(value: object) -> bool:
    """Whether a value of a JSON file is an integer: True and 7.0 are none, though Python has them equal one.

    >>> is_id(7), is_id(7.0), is_id("7"), is_id(True)
    (True, False, False, False)
    """
    return isinstance(value, int) and not isinstance(value, bool)


def _no_id(found: str) -> UserError:
    return UserError(f"{found}, expected a token id, a whole number such as 7; mend the file")


def _pairs(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        raise UserError(f"{where} is no list of pairs, as transformers writes it; mend the file")
    return value


def _integer(key: str, where: str) -> int:
    if not (key.isascii() and key.isdigit() and key == str(int(key))):
        raise _no_id(f"{where} has the key {key!r}")
    return int(key)


def collect_ids(settings: Any, *, path: Path | None = None) -> dict[int, str]:
    """Return every token id that settings name, with a field that names it; path: of the file, for errors."""
    found: dict[int, str] = {}

    def note(token_id: int, where: str) -> int:
        found.setdefault(token_id, where)
        return token_id

    map_ids(settings, note, where="" if path is None else f"{path}: ")
    return found


def without_lost_bans(settings: Any, kept: Container[int]) -> Any:
    """Return settings without what forbids, or only lists, tokens that are not kept.

    A token that is not there needs no ban: such ids of suppress_tokens and begin_suppress_tokens go, the
    sequences of bad_words_ids and those of sequence_bias with a negative value that hold one, and the entries
    of lang_to_id. A field of which nothing is left goes too: generate() refuses empty ones.

    >>> without_lost_bans({"suppress_tokens": [1, 2], "bad_words_ids": [[3], [1, 3]], "eos_token_id": 3}, {1})
    {'suppress_tokens': [1], 'eos_token_id': 3}
    """

    def stays(value: Any) -> bool:
        if isinstance(value, list):
            return all(map(stays, value))
        return not isinstance(value, int) or isinstance(value, bool) or value < 0 or value in kept

    def field(name: str, value: Any) -> Any:
        if name in ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids") and isinstance(value, list):
            return list(filter(stays, value))
        if name == "sequence_bias" and isinstance(value, list):
            return [[ids, bias] for ids, bias in value if bias >= 0 or stays(ids)]
        if name == "lang_to_id" and isinstance(value, Mapping):
            return {language: token_id for language, token_id in value.items() if stays(token_id)}
        return without_lost_bans(value, kept)

    if isinstance(settings, Mapping):
        new = {name: field(name, value) for name, value in settings.items()}
        return {name: value for name, value in new.items() if value or value == settings[name]}
    if isinstance(settings, list):
        return [without_lost_bans(value, kept) for value in settings]
    return settings


def renumber(settings: Any, old_to_new: Mapping[int, int], *, path: Path) -> Any:
    """Return settings with old ids replaced by new ones; UserError for an id whose token is gone."""

    def map_id(old: int, where: str) -> int:
        if old not in old_to_new:
            raise UserError(f"{where} names id {old}, whose token is not kept; add it to the kept list")
        return old_to_new[old]

    return map_ids(settings, map_id, where=f"{path}: ")


def vocab_size_of(config: Mapping[str, Any], *, path: Path) -> int:
    """Return the rows that config.json promises, of the model or of its text part; UserError if none."""
    for part in (config, config.get("text_config"), config.get("llm_config"), config.get("language_config")):
        if isinstance(part, Mapping) and is_id(part.get("vocab_size")):
            return part["vocab_size"]
    raise UserError(f"{path} has no vocab_size; give the config.json of a text model")


def replace_vocab_size(settings: Any, *, old: int, new: int) -> Any:
    """Return settings with every vocab_size that equals old replaced by new, in nested objects too."""
    if isinstance(settings, Mapping):
        return {
            name: new
            if name == "vocab_size" and value == old
            else replace_vocab_size(value, old=old, new=new)
            for name, value in settings.items()
        }
    return settings


LEFT_OUT_NAMES = {"tekken.json", "vocab.txt", "README.md", "vocab_edit.json", "verify_report.json"}


def read_spm_models(folder: Path) -> dict[str, Any]:
    """Return file name → ModelProto of the SentencePiece files in a folder."""
    return {name: spm.read_spm(folder / name) for name in spm.NAMES if (folder / name).is_file()}


def settings_files(folder: Path) -> list[Path]:
    """Return the JSON files of a folder that may name ids in their fields, not those that list all tokens."""
    others = {"tokenizer.json", "vocab.json", "added_tokens.json", *LEFT_OUT_NAMES}
    return [
        path
        for path in sorted(folder.glob("*.json"))
        if path.name not in others and not path.name.endswith(".index.json")
    ]


def read_settings(path: Path, tokenizer: TokenizerJson, *, derived: Container[int] = ()) -> Any:
    """Return what a settings file holds, its suppress_tokens as own_bans() gives them."""
    settings = read_json(path)
    if isinstance(settings, dict) and isinstance(settings.get("suppress_tokens"), list):
        settings["suppress_tokens"] = own_bans(
            settings["suppress_tokens"], tokenizer.tokens, set(tokenizer.added.values()), derived=derived
        )
    return settings


def own_bans(
    listed: Sequence[int],
    tokens: Container[int],
    added: Container[int],
    *,
    derived: Container[int] = (),
) -> list[int]:
    """Return suppress_tokens without the padding rows of an earlier trimming and without what it derived.

    A row without a token is never kept, so that there is nothing left to suppress. Nor does a ban of a
    padding row hold for a token that was added later and got the row: those are the added tokens in the run
    of banned rows that ends with the padding.

    >>> own_bans([2, 5, 6, 7, 8], tokens={0, 1, 2, 3, 4, 5, 6}, added={0, 4, 5, 6})  # 7, 8: padding
    [2]
    """
    rows = {i for i in listed if is_id(i)}
    at = max(rows, default=-1)
    late = set()
    if at not in tokens:
        while at in rows and (at not in tokens or at in added):
            late.add(at)
            at -= 1
    return [
        i for i in listed if not is_id(i) or i in tokens and i not in derived and i not in late
    ]  # what is no id is refused by collect_ids()


def required_ids(folder: Path, tokenizer: TokenizerJson, spm_models: Mapping[str, Any]) -> set[int]:
    """Return the ids that a file other than tokenizer.json asks for; UserError if one that it names is no
    token.

    What a file only forbids is no reason to keep a token, see without_lost_bans().
    """
    required: set[int] = set()
    for path in settings_files(folder):
        settings = read_settings(path, tokenizer)
        for token_id, where in collect_ids(settings, path=path).items():
            if token_id not in tokenizer.tokens:
                raise UserError(
                    f"{where} is {token_id}, but none of the {len(tokenizer.tokens):,} tokens of "
                    "tokenizer.json has this id; mend the file, or download both again"
                )
        required |= collect_ids(without_lost_bans(settings, ()), path=path).keys()
    for name, model in spm_models.items():
        ids = spm.piece_tokens(model, path=folder / name, vocab=tokenizer.piece_ids)
        required.update(ids[at] for at in spm.required_pieces(model))
    return required
