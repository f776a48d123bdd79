"""verify_edit on two GGUF files: is the second the first with fewer tokens, and nothing else?

Reads both files and texts; writes nothing. Fields and rows are compared as bytes. With llama-cpp-python
installed its tokenizer encodes the texts with both: what uses kept tokens only must give the same tokens.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from vocabkit.checkpoint.shards import read_rows
from vocabkit.corpus.lines import check_readable, read_texts
from vocabkit.errors import UserError
from vocabkit.files import SELF_TEST_TEXTS
from vocabkit.gguf.files import GgufTensor
from vocabkit.gguf.model import MATRICES, NEW_TO_OLD, GgufModel, load_llama, open_gguf
from vocabkit.gguf.vocab import GGML, UNUSED
from vocabkit.text.unicode import nfc
from vocabkit.verify.check import SHOWN, Check, print_checks
from vocabkit.verify.rows import aligned

BLOCK = 4 << 20  # bytes compared at a time


def verify_gguf(base: Path, model: Path, *, texts: Sequence[str | Path] | None = None) -> bool:
    """Check MODEL beside BASE, print what was found; return whether all holds."""
    paths = list(texts) if texts else [SELF_TEST_TEXTS]
    check_readable(paths)
    source, edited = open_gguf(base), open_gguf(model)
    checks = check_gguf(source, edited)
    name = ", ".join(map(str, texts)) if texts else "the bundled texts"
    if not any(check.findings for check in checks):
        checks = [checks[0], check_texts(source, edited, read_texts(paths), name=name), *checks[1:]]
        checks.append(check_other_tensors(source, edited))
    print_checks(checks)
    passed = not any(check.findings for check in checks)
    print(f"{model}: {'every check holds' if passed else 'FAILED, see above'}")
    return passed


def check_gguf(source: GgufModel, edited: GgufModel) -> list[Check]:
    """1 fields: every token, type and score is that of its old id, merges are old ones in the old order, ids
    name tokens. 3 rows: each has the bytes of its old row, the others are zero.
    """
    new_to_old = edited.value(NEW_TO_OLD)
    if new_to_old is None:
        raise UserError(
            f"{edited.path} does not say which token was which: it was not made by -t trimm_vocab of a GGUF"
        )
    return [_check_fields(source, edited, new_to_old), _check_rows(source, edited, new_to_old)]


def _check_fields(source: GgufModel, edited: GgufModel, new_to_old: Sequence[int]) -> Check:
    check = Check("1 fields")
    count = len(edited.types)
    for name in ("tokens", "token_type", "scores"):
        old, new = source.value(GGML + name), edited.value(GGML + name)
        if (old is None) != (new is None):
            check.findings.append(f"{GGML}{name} is in one of the two files only")
        elif old is not None:
            wrong = (
                f"{at}: {new[at]!r}, was {old[o]!r}" for at, o in enumerate(new_to_old) if new[at] != old[o]
            )
            check.find(f"{name} moved", wrong)
    check.find("padding row has a token", (
        str(at) for at in range(len(new_to_old), count) if edited.types[at] != UNUSED
    ))  # fmt: skip
    merges = iter(source.tokenizer.merges)
    lost = [merge for merge in edited.tokenizer.merges if merge not in merges]  # consumes: order counts
    check.find("merge is new or out of order", map(repr, lost))
    for key, field in edited.fields.items():
        if key.startswith(GGML) and key.endswith("_token_id") and key in source.fields:
            new_id, old_id = field.value(), source.value(key)
            if not new_id < len(new_to_old) or new_to_old[new_id] != old_id:
                check.findings.append(f"{key} is {new_id}, expected the new id of {old_id}")
    others = {key for key in source.fields if not key.startswith("tokenizer.") and "vocab_size" not in key}
    check.find("field changed", sorted(k for k in others if source.fields[k] != edited.fields.get(k)))
    check.looked_at = (
        f"{len(edited.fields)} fields, {count:,} tokens, {len(edited.tokenizer.merges):,} merges"
    )
    return check


def _check_rows(source: GgufModel, edited: GgufModel, new_to_old: Sequence[int]) -> Check:
    check = Check("3 rows")
    before, after = source.tensors, edited.tensors
    check.find("tensor is gone", sorted(before.keys() - after.keys()))
    check.find("tensor is new", sorted(after.keys() - before.keys()))
    for name in (name for name in MATRICES if name in before and name in after):
        old, new = before[name], after[name]
        if new.type != old.type or new.rows != len(edited.types):
            check.findings.append(
                f"{name} has type {new.type} and {new.dims} values, was {old.type} {old.dims}"
            )
            continue
        kept = read_rows(old.as_rows(), new_to_old)
        rows = read_rows(new.as_rows(), range(len(new_to_old)))
        equal = ((a == b).all(axis=1) for a, b in aligned(kept, rows))
        wrong = [at for at, same in enumerate(itertools.chain.from_iterable(equal)) if not same]
        check.find(f"{name} row differs", map(str, wrong))
        zeros = list(read_rows(new.as_rows(), range(len(new_to_old), len(edited.types))))
        if any(block.any() for block in zeros):
            check.findings.append(f"{name}: a padding row is not zero")
    check.looked_at = f"{len(new_to_old):,} rows of {', '.join(name for name in MATRICES if name in after)}"
    return check


def check_other_tensors(source: GgufModel, edited: GgufModel) -> Check:
    """4: every tensor that has nothing to do with the vocabulary is the same, byte for byte."""
    check = Check("4 others")
    before, after = source.tensors, edited.tensors
    names = sorted(before.keys() & after.keys() - set(MATRICES))
    for name in names:
        old, new = before[name], after[name]
        same = (old.dims, old.type) == (new.dims, new.type)
        if not same or any(a != b for a, b in zip(_bytes(old), _bytes(new), strict=True)):
            check.findings.append(f"{name} differs")
    check.looked_at = f"{len(names):,} other tensors, {sum(before[n].size for n in names):,} bytes"
    return check


def _bytes(tensor: GgufTensor) -> Iterator[bytes]:
    with tensor.file.open("rb") as file:
        file.seek(tensor.start)
        for at in range(0, tensor.size, BLOCK):
            yield file.read(min(BLOCK, tensor.size - at))


def check_texts(source: GgufModel, edited: GgufModel, texts: Iterable[str], *, name: str) -> Check:
    """2: texts whose old tokens all stay are encoded alike by llama.cpp, and every text decodes as before."""
    check = Check("2 tokenizer")
    old_model, new_model = (load_llama(file, vocab_only=True) for file in (source.path, edited.path))
    if old_model is None or new_model is None:
        check.looked_at = (
            "not looked at: pip install llama-cpp-python, and llama.cpp's own tokenizer is asked"
        )
        return check
    old_to_new = {old: new for new, old in enumerate(edited.value(NEW_TO_OLD))}
    count = dict.fromkeys(("texts", "covered", "mismatches", "decode_differences"), 0)
    for text in texts:
        data = nfc(text).encode()
        old, new = (m.tokenize(data, add_bos=False, special=True) for m in (old_model, new_model))
        covered = old_to_new.keys() >= set(old)
        count["texts"] += 1
        count["covered"] += covered
        if covered and new != [old_to_new[token_id] for token_id in old]:
            count["mismatches"] += 1
            if count["mismatches"] <= SHOWN:
                check.findings.append(f"encodes differently: {text[:60]!r}")
        if old_model.detokenize(old, special=True) != new_model.detokenize(new, special=True):
            count["decode_differences"] += 1
            if count["decode_differences"] <= SHOWN:
                check.findings.append(f"decodes differently: {text[:60]!r}")
    check.numbers = count
    check.looked_at = f"{count['texts']:,} texts ({count['covered']:,} covered) of {name}, by llama.cpp"
    return check
