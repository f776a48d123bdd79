"""The ids that an untrimmed model must not choose so that it writes allowed scripts only.

Reads tokenizer.json or a GGUF; writes nothing. What trimming takes out of a model for good can be masked
while it answers: tokens with a foreign character, and those that end inside a character which could turn out
foreign (the argument is that of vocabkit/vocab/plan.py). Added tokens stay: they are no text.
"""

from collections.abc import Iterable
from pathlib import Path

from vocabkit.errors import UserError
from vocabkit.text.unicode import DEFAULT_SCRIPTS, SCRIPTS, first_foreign
from vocabkit.text.utf8 import foreign_prefixes, tail_of
from vocabkit.tokenizer.tokenizer_json import TokenizerJson, read_tokenizer_json


def read_scripts(names: Iterable[str]) -> frozenset[str]:
    """Return these scripts with Common and Inherited, which every text needs; UserError for an unknown name.

    >>> sorted(read_scripts(["latin"]))
    ['Common', 'Inherited', 'Latin']
    """
    known = {script.lower(): script for script in SCRIPTS}
    found = set(DEFAULT_SCRIPTS - {"Latin"})
    for name in names:
        if name.lower() not in known:
            raise UserError(
                f"--only_scripts {name}: no script of Unicode; give names such as Latin, Greek, Han"
            )
        found.add(known[name.lower()])
    return frozenset(found)


def forbidden_ids(tokenizer: TokenizerJson, scripts: frozenset[str]) -> list[int]:
    """Return the ids of the tokens that can write a character outside scripts, ascending."""
    prefixes = foreign_prefixes(scripts)
    added = set(tokenizer.added.values())
    return [
        token_id
        for token_id, data in tokenizer.token_bytes.items()
        if token_id not in added
        and (
            first_foreign(data.decode("utf-8", errors="ignore"), scripts) is not None
            or tail_of(data) in prefixes
        )
    ]


def tokenizer_of(model: Path) -> TokenizerJson:
    """Return the tokenizer of a folder or of a GGUF file."""
    if model.suffix == ".gguf":
        from vocabkit.gguf.model import open_gguf

        return open_gguf(model).tokenizer
    return read_tokenizer_json(model)
