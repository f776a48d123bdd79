"""Rung 1: every JSON file parses, the index is complete, rows == vocab_size, every id named has a token.

Reads the edited folder; writes nothing.
"""

from collections.abc import Iterator
from pathlib import Path

from vocabkit.checkpoint.record import EDIT_FILE
from vocabkit.errors import UserError
from vocabkit.files import read_json, read_json_object, read_text
from vocabkit.tokenizer import spm
from vocabkit.tokenizer.settings import collect_ids, read_spm_models, settings_files
from vocabkit.tokenizer.tokenizer_json import TokenizerJson
from vocabkit.verify.check import Check
from vocabkit.verify.edited import Edited


def check_files(edited: Edited) -> Check:
    """1: every JSON parses, the index is complete, rows == vocab_size, every id named has a token, files
    agree.
    """
    out, tokenizer = edited.out, edited.tokenizer
    check = Check("1 files", f"{sum(path.is_file() for path in out.iterdir())} files")
    n_tokens, vocab_size = edited.record.n_tokens, edited.record.vocab_size
    if sorted(tokenizer.tokens) != list(range(n_tokens)):
        check.findings.append(
            f"tokenizer.json has ids up to {max(tokenizer.tokens)}, expected 0 to {n_tokens - 1}"
        )
    if len(edited.new_to_old) != n_tokens:
        check.findings.append(f"{EDIT_FILE} maps {len(edited.new_to_old)} tokens, expected {n_tokens}")
    for path in settings_files(out):
        settings = read_json(path)
        # Padding rows have no token and may only be suppressed.
        suppressed = settings.pop("suppress_tokens", None) if isinstance(settings, dict) else None
        for limit, part in ((n_tokens, settings), (vocab_size, {"suppress_tokens": suppressed})):
            try:
                named = collect_ids(part)
            except UserError as error:
                check.findings.append(f"{path.name}: {error}")
                continue
            for token_id, where in named.items():
                if token_id >= limit:
                    check.findings.append(f"{path.name}: {where} is {token_id}, expected less than {limit}")
    check.find("other tokenizer files", _disagreements(out, tokenizer))
    try:
        checkpoint, tensors = edited.checkpoint, edited.tensors
    except UserError as error:
        check.findings.append(str(error))
        return check
    if tensors.rows != vocab_size:
        check.findings.append(f"config.json has vocab_size {tensors.rows}, {EDIT_FILE} {vocab_size}")
    check.numbers = {"n_tokens": n_tokens, "vocab_size": vocab_size, "checkpoint_bytes": checkpoint.size}
    return check


def _disagreements(out: Path, tokenizer: TokenizerJson) -> Iterator[str]:
    """Yield what vocab.json, added_tokens.json, merges.txt and SentencePiece files say other than
    tokenizer.json.
    """
    known = tokenizer.vocab | tokenizer.added
    for name in ("vocab.json", "added_tokens.json"):
        if (out / name).is_file():
            listed = read_json_object(out / name)
            yield from (f"{name}: {token!r} is {i}" for token, i in listed.items() if known.get(token) != i)
            if name == "vocab.json":
                yield from (f"{name} lacks {token!r}" for token in tokenizer.vocab.keys() - listed.keys())
    if (out / "merges.txt").is_file():
        lines = read_text(out / "merges.txt").split("\n")
        body = [line for line in lines[lines[0].startswith("#version") :] if line]
        if body != [" ".join(merge) for merge in tokenizer.merges]:
            yield f"merges.txt has {len(body)} merges, not the {len(tokenizer.merges)} of tokenizer.json"
    for name, model in read_spm_models(out).items():
        ids = spm.piece_tokens(model, path=out / name, vocab=tokenizer.piece_ids)
        if ids != sorted(ids):
            yield f"{name} has its pieces in another order than tokenizer.json"
