"""Counts files: how often each token of a tokenizer occurs in a corpus, {"token id": count} and its origin.

Reads and writes .json, also .xz (reads .gz and .bz2 too).
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from vocabkit.corpus.counting import Progress
from vocabkit.errors import UserError, reading
from vocabkit.files import open_text, parse_json, sha256_file, write_new_text
from vocabkit.shapes import check_shape

COUNTS_FORMAT = ("token-counts", 1)


class _Counts(TypedDict):
    tokenizer_sha256: str
    counts: dict[str, int]


def counts_about(progress: Progress, *, corpus: Sequence[str]) -> tuple[dict[int, int], dict[str, Any]]:
    """Return id → count of what occurs, and what a summary should say of its origin."""
    counts = {int(i): int(progress.vector[i]) for i in np.flatnonzero(progress.vector)}
    content = json.dumps({str(token_id): count for token_id, count in counts.items()})
    about = {
        "counts_sha256": hashlib.sha256(content.encode()).hexdigest(),
        "corpus": list(corpus),
        "documents": progress.documents,
        "bad_records": progress.bad,
        "notes": progress.notes,
    }
    return counts, about


def write_counts(path: Path, progress: Progress, *, model: Path, corpus: Sequence[str]) -> None:
    """Write counts.json or counts.json.xz: the counts that are not zero, and where they come from."""
    name, version = COUNTS_FORMAT
    counts, about = counts_about(progress, corpus=corpus)
    value = {
        "format": name,
        "version": version,
        "tokenizer_sha256": sha256_file(model / "tokenizer.json"),
        **about,
        "tokens": int(progress.vector.sum()),
        "counts": {str(token_id): count for token_id, count in counts.items()},
    }
    write_new_text(path, json.dumps(value, ensure_ascii=False))


def read_counts(path: Path, *, tokenizer_sha256: str) -> tuple[dict[int, int], dict[str, Any]]:
    """Return id → count of a counts file, and what else it says (nothing, if it is only {"id": count}).

    Raises UserError for counts of another tokenizer and for a file that holds none.
    """
    again = "count again: build_vocab.py --count_only"
    with reading(path, again=again), open_text(path) as file:
        value = parse_json(file.read())
    about: dict[str, Any] = {}
    if isinstance(value, dict) and "format" in value:
        if (value["format"], value.get("version")) != COUNTS_FORMAT:
            raise UserError(
                f"{path} has format {value['format']!r} version {value.get('version')!r}, expected "
                f"{COUNTS_FORMAT[0]!r} version {COUNTS_FORMAT[1]}; {again}"
            )
        check_shape(value, _Counts, path, again=again)
        if value["tokenizer_sha256"] != tokenizer_sha256:
            raise UserError(
                f"{path} counts the ids of tokenizer {value['tokenizer_sha256'][:12]}…, the model "
                f"given has {tokenizer_sha256[:12]}…; name the one that counted: --counts_of, or count again"
            )
        about = {key: value[key] for key in ("corpus", "documents", "bad_records", "notes") if key in value}
        value = value["counts"]
    check_shape(value, dict[str, int], path, again=f'expected {{"token id": count}}; {again}')
    with reading(path, again=again):
        return {int(token_id): count for token_id, count in value.items()}, about
