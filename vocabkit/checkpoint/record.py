"""vocab_edit.json: what an edit did to a folder, and where it came from.

Reads and writes that file: one JSON object with "format", "version" and the fields of EditRecord, in order.
"""

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from vocabkit.errors import UserError
from vocabkit.files import read_versioned, write_json
from vocabkit.shapes import check_shape

EDIT_FILE = "vocab_edit.json"
EDIT_FORMAT = ("vocab-edit", 1)
TASKS = ("trimm_vocab", "extend_vocab")


class Stage(TypedDict, total=False):
    """A stage of finetune_qwen.py: what is read of it later."""

    base_model: str
    train_rows: str
    finetune_layers: str
    lora_rank: int | None
    objective: str
    steps: int
    bits_per_byte_before: float | None
    bits_per_byte_after: float | None


class _Syllable(TypedDict):
    syllable: str
    merge: list[str]


class _Keep(TypedDict):
    source: str


class _Init(TypedDict):
    name: str


# What the objects inside hold: only what is read again.
_INSIDE: dict[str, Any] = {
    "keep": _Keep | None,
    "syllables": list[_Syllable] | None,
    "init": _Init | None,
    "training": list[Stage] | None,
    "previous": dict[str, Any] | None,
}


@dataclass(frozen=True, kw_only=True)
class EditRecord:
    """What an edit did. A field that is None is not of this task and not in the file; but pad_rows is.

    task: trimm_vocab or extend_vocab. base_…: of the folder it was made from. new_to_old: for each id its
    id there, None for a new token. pad_rows: first and last row without a token. suppressed: reason → ids
    that generate() may not choose. previous: the record of the folder it was made from, if that was edited.
    training: the stages of finetune_qwen.py since.

    keep (trimm_vocab): the list and how many tokens it kept. Of extend_vocab: words, with ▁ for the spaces
    inside; syllables with their merges; words_file: name and sha256; replaces: for each new token, syllables
    first, the base's ids that it stands for; init: how the new rows were made.
    """

    task: str
    base_model: str
    base_tokenizer_sha256: str
    base_vocab_size: int
    base_n_tokens: int
    n_tokens: int
    vocab_size: int
    pad_rows: list[int] | None
    new_to_old: list[int | None]
    keep: dict[str, Any] | None = None
    words: list[str] | None = None
    syllables: list[dict[str, Any]] | None = None
    words_file: dict[str, str] | None = None
    replaces: list[list[int]] | None = None
    init: dict[str, Any] | None = None
    suppressed: dict[str, list[int]]
    made_by: str
    previous: "EditRecord | None" = None
    training: list[dict[str, Any]] | None = None

    @classmethod
    def read(cls, folder: Path) -> "EditRecord":
        """Read FOLDER/vocab_edit.json; UserError if it is missing, of another format or version, or lacks a
        field.
        """
        path = folder / EDIT_FILE
        value = read_versioned(path, format=EDIT_FORMAT[0], version=EDIT_FORMAT[1])
        return cls._from_json(value, path)

    @classmethod
    def find(cls, folder: Path) -> "EditRecord | None":
        """As read(), but None where the folder has no such file: its vocabulary was never edited."""
        return cls.read(folder) if (folder / EDIT_FILE).is_file() else None

    def write(self, folder: Path) -> None:
        """Write FOLDER/vocab_edit.json on one line: as a table of ids it would have 100,000."""
        write_json(folder / EDIT_FILE, self._as_json(), indent=None)

    @property
    def new_ids(self) -> list[int]:
        """Ids of the tokens that the base does not have."""
        return [new for new, old in enumerate(self.new_to_old) if old is None]

    @classmethod
    def _from_json(cls, value: Mapping[str, Any], path: Path) -> "EditRecord":
        given = {name: field for name, field in value.items() if name not in ("format", "version")}
        known = {field.name: field.default is dataclasses.MISSING for field in dataclasses.fields(cls)}
        lost = [name for name, needed in known.items() if needed and name not in given]
        strange = sorted(given.keys() - known.keys())
        if lost or strange:
            what = f"has no {lost[0]!r}" if lost else f"has {strange[0]!r}, which is not known here"
            raise UserError(f"{path} {what}; make the folder again with this release")
        again = "make the folder again with this release"
        for name, hint in (typing.get_type_hints(cls) | _INSIDE).items():
            if name in given:
                check_shape(given[name], hint, f"{path}: {name!r}", again=again)
        if given["task"] not in TASKS:
            raise UserError(f"{path}: 'task' is {given['task']!r}, expected {' or '.join(TASKS)}; {again}")
        rows = given["base_vocab_size"]
        if beyond := [old for old in given["new_to_old"] if old is not None and not 0 <= old < rows]:
            raise UserError(f"{path}: 'new_to_old' names {beyond[0]} of {rows:,} rows of the base; {again}")
        if given.get("previous") is not None:
            given["previous"] = cls._from_json(given["previous"], path)
        return cls(**given)

    def _as_json(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        if self.previous is not None:
            values["previous"] = self.previous._as_json()
        present = {name: value for name, value in values.items() if value is not None or name == "pad_rows"}
        return {"format": EDIT_FORMAT[0], "version": EDIT_FORMAT[1], **present}


def base_name(base: str) -> str:
    """Return a hub id as it is, of a path the last part."""
    return base.rstrip("/").split("/")[-1] if base.startswith((".", "/")) else base


@dataclass(frozen=True)
class NewRows:
    """Where the tokens of a folder end and its new ones begin: rows old < first ≤ new < stop ≤ padding."""

    first: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.first


def new_rows(folder: Path) -> NewRows | None:
    """Return the rows of the words that extend_vocab added last, None where it added none."""
    record = EditRecord.find(folder)
    ids = record.new_ids if record else []
    if not record or not ids:
        return None
    if ids != list(range(ids[0], record.n_tokens)):
        raise UserError(
            f"{folder / EDIT_FILE} has new tokens that are not the last ({ids[0]} to {ids[-1]} of "
            f"{record.n_tokens:,}); extend the base again: model_edit.py -t extend_vocab"
        )
    return NewRows(ids[0], record.n_tokens)
