"""vocab_edit.json: what an edit did to a folder, and where it came from.

Reads and writes that file.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vocabkit.errors import UserError
from vocabkit.files import read_json_object


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


def read_edit(folder: Path) -> dict[str, Any]:
    """Return vocab_edit.json of a folder, {} where it has none."""
    return read_json_object(folder / EDIT_FILE, missing_ok=True)


def new_rows(folder: Path) -> NewRows | None:
    """Return the rows of the words that extend_vocab added last, None where it added none."""
    edit = read_edit(folder)
    ids = [at for at, old in enumerate(edit.get("new_to_old", [])) if old is None]
    if not ids:
        return None
    if ids != list(range(ids[0], edit["n_tokens"])):
        raise UserError(
            f"{folder / EDIT_FILE} has new tokens that are not the last ({ids[0]} to {ids[-1]} of "
            f"{edit['n_tokens']:,}); extend the base again: model_edit.py -t extend_vocab"
        )
    return NewRows(ids[0], edit["n_tokens"])


EDIT_FILE = "vocab_edit.json"

EDIT_FORMAT = ("vocab-edit", 1)
