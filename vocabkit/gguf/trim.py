"""Trim a GGUF file directly: no conversion, no unpacking of quantized rows, nothing lost.

Reads FILE.gguf (all parts of a split one) and kept lists; writes FILE__trimm_vocab.gguf. The fields of the
file hold a whole tokenizer, so the same lists, rules and closure decide as for a folder
(vocabkit/vocab/plan.py), and the same theorem holds for what llama.cpp makes of a text. Of a SentencePiece
vocabulary the closure follows the scores, as llama.cpp merges.

Writing a removed script byte by byte is prevented by tokenizer.ggml.suppress_tokens, which llama.cpp's own
programs honour (common/sampling.cpp); what only links its library must read that field itself.
"""

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vocabkit.errors import UserError
from vocabkit.files import DATA, keep_private, progress_bar
from vocabkit.gguf.files import (
    FLOAT32,
    INT32,
    SPLIT,
    STRING,
    Field,
    GgufTensor,
    NewTensor,
    array,
    file_size,
    import_gguf,
    number,
    string,
    unchanged,
    with_rows,
    write_gguf,
)
from vocabkit.gguf.model import MATRICES, NEW_TO_OLD, TRIMMED_FROM, GgufModel, load_llama, open_gguf
from vocabkit.gguf.verify import check_gguf
from vocabkit.gguf.vocab import (
    ADDED_SCORE,
    CHAT_TEMPLATE,
    CONTROL,
    GGML,
    NORMAL,
    SUPPRESS,
    TAKEN_SIZES,
    UNUSED,
    USER_DEFINED,
)
from vocabkit.outputs import as_published, publication
from vocabkit.text.utf8 import tail_of
from vocabkit.tokenizer import bpe
from vocabkit.tokenizer.chat_template import frames, render
from vocabkit.verify.check import print_checks
from vocabkit.vocab.lists import read_keep, wanted_ids
from vocabkit.vocab.plan import (
    FOREIGN,
    PADDING,
    Plan,
    make_plan,
    own_script,
    suppressed_ids,
    writing_of,
)


def trim_gguf(
    model: Path,
    out: Path | None = None,
    *,
    keep_paths: Sequence[Path] = (),
    allow_all_bytes: bool = False,
    dry_run: bool = False,
) -> None:
    """Trim MODEL.gguf into OUT, or MODEL__trimm_vocab.gguf beside it; check it, and only then name it.

    Raises UserError for whatever the user can mend; OUT then does not exist, and the source is as it was.
    """
    out = out or default_file(model)
    source = open_gguf(model)
    targets = _targets(source, out)
    ids, origin = _choose(source, keep_paths)
    plan = _plan(source, ids, allow_all_bytes=allow_all_bytes)
    fields = new_fields(source, plan)
    new_parts: list[dict[str, Any]] = [
        {
            "fields": file.fields if at else fields,
            "tensors": [_trimmed(tensor, plan) for tensor in file.tensors.values()],
            "version": file.version,
            "alignment": file.alignment,
        }
        for at, file in enumerate(source.parts)
    ]
    _print_plan(source, plan, origin, after=sum(file_size(**part) for part in new_parts))
    if dry_run:
        return
    with publication(targets) as files:
        with progress_bar(_bytes_of(source), "weights") as bar:
            for place, new in zip(files.places, new_parts, strict=True):
                write_gguf(place, **new, progress=bar.update)
        for part, place in zip(source.parts, files.places, strict=True):
            keep_private(part.path, place)
        checks = check_gguf(source, open_gguf(out, files.places))
        print_checks(checks)
        if any(check.findings for check in checks):
            raise UserError(
                f"{out} was not written: the checks above found differences from {source.path}; "
                "please report them"
            )
    print(f"{targets[0]}: written and verified; try: python3 model_chat.py {targets[0]}")


def default_file(model: Path) -> Path:
    """Return MODEL__trimm_vocab.gguf; of a split model all parts get this stem.

    >>> default_file(Path("qwen-q4_k_m-00001-of-00002.gguf"))
    PosixPath('qwen-q4_k_m__trimm_vocab.gguf')
    """
    match = SPLIT.fullmatch(model.name)
    return model.with_name(f"{match[1] if match else model.name.removesuffix('.gguf')}__trimm_vocab.gguf")


def _targets(source: GgufModel, out: Path) -> list[Path]:
    if out.suffix != ".gguf":
        raise UserError(f"{out} does not end in .gguf, which llama.cpp expects; name it {out}.gguf")
    count = len(source.parts)
    if count == 1:
        return [out]
    return [out.with_name(f"{out.stem}-{at:05}-of-{count:05}.gguf") for at in range(1, count + 1)]


def _choose(source: GgufModel, keep_paths: Sequence[Path]) -> tuple[set[int], dict[str, Any]]:
    """Return the ids to keep and where they come from, as lists.wanted_ids() does.

    A SentencePiece GGUF has no merges, so no fingerprint can tell its list: the one fits whose every row is a
    token of this vocabulary, at its id.
    """
    if source.tokenizer.merges:
        return wanted_ids(source.tokenizer, keep_paths)
    token_bytes = source.tokenizer.token_bytes
    if keep_paths:
        ids, _ = read_keep(keep_paths, token_bytes=token_bytes)
        return ids, {"how": "given", "source": ", ".join(map(as_published, keep_paths))}
    for path in sorted(DATA.glob("*/summary.json")):
        with contextlib.suppress(UserError):
            ids, _ = read_keep([path.parent], token_bytes=token_bytes)
            return ids, {"how": "bundled", "source": f"data/{path.parent.name}"}
    return wanted_ids(source.tokenizer, ())


def _plan(source: GgufModel, ids: Iterable[int], *, allow_all_bytes: bool) -> Plan:
    """Return the plan: as for a folder, but no padding rows, since nothing would keep a sampler from them."""
    named = {field.value() for key, field in source.fields.items() if _is_id(key)}
    kept = {at for at, kind in enumerate(source.types) if kind not in (NORMAL, UNUSED)}
    plan = make_plan(
        source.tokenizer,
        ids,
        required_ids=kept | {at for at in named if at in source.tokenizer.tokens} | _chat_ids(source),
        spm_models=source.merge_orders(),
        pad_multiple=1,
        allow_all_bytes=allow_all_bytes,
    )
    if plan.vocab_size in TAKEN_SIZES:
        suppressed = {**plan.suppressed, PADDING: [plan.vocab_size]}
        plan = replace(plan, vocab_size=plan.vocab_size + 1, suppressed=suppressed)
    return plan


def _chat_ids(source: GgufModel) -> set[int]:
    """Return the ids of what the chat template writes around messages, none without llama.cpp to cut it."""
    template = source.value(CHAT_TEMPLATE)
    try:
        llama = load_llama(source.path, vocab_only=True) if template else None
    except ValueError:  # it does not know this file; what is wrong with it is said elsewhere
        return set()
    if llama is None:
        return set()
    ids = {name: source.value(f"{GGML}{name}_id") for name in ("bos_token", "eos_token")}
    tokens = {name: source.tokenizer.tokens[at] for name, at in ids.items() if at in source.tokenizer.tokens}
    texts = frames(lambda messages: render(template, [messages], tokens=tokens, where=source.path)[0])
    found = {at for text in texts for at in llama.tokenize(text.encode(), add_bos=False, special=True)}
    return own_script(source.tokenizer, found)


def _trimmed(tensor: GgufTensor, plan: Plan) -> NewTensor:
    if tensor.name in MATRICES:
        return with_rows(tensor, plan.new_to_old, count=plan.vocab_size)
    return unchanged(tensor)


def _is_id(key: str) -> bool:
    """Whether a field names a token."""
    return key.startswith(GGML) and key.endswith("_token_id")


def new_fields(source: GgufModel, plan: Plan) -> dict[str, Field]:
    """Return the fields of the trimmed file: tokens, types, scores and merges that stay, ids renumbered.

    Raises UserError for a field that speaks of every token in a way that is not known.
    """
    count, old_to_new = len(source.types), plan.old_to_new
    padding = plan.vocab_size - plan.n_tokens
    tokens = source.value(GGML + "tokens")
    stored = {old: tokens[old] for old in plan.new_to_old}
    kept = {token for old, token in stored.items() if source.types[old] not in (CONTROL, USER_DEFINED)}
    fields: dict[str, Field] = {}
    for key, field in source.fields.items():
        if key == GGML + "tokens":
            names = [*stored.values(), *(f"[PAD{plan.n_tokens + at}]" for at in range(padding))]
            field = array(names, items=STRING)
        elif key == GGML + "token_type":
            types = [source.types[old] for old in plan.new_to_old] + [UNUSED] * padding
            field = array(types, items=field.items or INT32)
        elif key == GGML + "scores":
            scores = field.value()
            field = array([scores[at] for at in plan.new_to_old] + [ADDED_SCORE] * padding, items=FLOAT32)
        elif key == GGML + "merges" and source.tokenizer.merges:
            merges = field.value()
            at_of = bpe.filter_merges(source.tokenizer.merges, kept)
            field = array([merges[at] for at in at_of], items=STRING)
        elif key == "tokenizer.huggingface.json":
            continue  # the whole tokenizer.json once more, with the old ids
        elif _is_id(key):
            value = field.value()
            if value not in old_to_new:
                continue  # names a padding row, or nothing: llama.cpp takes its own default for none
            field = number(old_to_new[value], type=field.type)
        elif key.endswith(".vocab_size"):
            field = number(plan.vocab_size, type=field.type)
        elif key == SUPPRESS or key.endswith("_token_ids"):
            field = array(
                [old_to_new[at] for at in field.value() if at in old_to_new], items=field.items or INT32
            )
        elif key.startswith("tokenizer.") and field.items is not None and len(field.value()) == count:
            raise UserError(
                f"{source.path}: {key} has an entry for each of {count:,} tokens, and it is not known how to "
                "trim it; this file cannot be trimmed"
            )
        fields[key] = field
    # Bans of an earlier trimming are decided anew.
    broken = {plan.old_to_new[old] for old in plan.new_to_old if tail_of(source.tokenizer.token_bytes[old])}
    before = [i for i in fields[SUPPRESS].value() if i not in broken] if SUPPRESS in fields else []
    fields.pop(SUPPRESS, None)
    if suppressed := suppressed_ids({**plan.suppressed, "before": before}):
        fields[SUPPRESS] = array(suppressed, items=INT32)
    fields[NEW_TO_OLD] = array(plan.new_to_old, items=INT32)
    fields[TRIMMED_FROM] = string(source.path.name)
    return fields


def _print_plan(source: GgufModel, plan: Plan, origin: Mapping[str, Any], *, after: int) -> None:
    matrices = [tensor for name, tensor in source.tensors.items() if name in MATRICES]
    before, tokens = _bytes_of(source), len(source.tokenizer.tokens)
    type_name = import_gguf().GGMLQuantizationType
    types = ", ".join(sorted({type_name(tensor.type).name for tensor in matrices}))
    print(f"{source.path}: {source.tokenizer.family}, rows of {types}")
    print(f"kept list: {origin['how']}: {origin['source']}")
    print(f"tokens    {tokens:>13,} → {plan.n_tokens:>13,}  ({plan.n_tokens / tokens:.1%} kept)")
    print(f"          {plan.added_by_closure:>13,} added by closure: the parts that others are merged from")
    print(f"rows      {len(source.types):>13,} → {plan.vocab_size:>13,}")
    print(f"bytes     {before:>13,} → {after:>13,}  ({(before - after) / before:.1%} saved)")
    if ids := plan.suppressed.get(FOREIGN):
        print(f"not generated by llama.cpp: {len(ids)} ids, {FOREIGN}")
    if plan.written_scripts:
        print(f"the list keeps tokens of {json.dumps(plan.written_scripts, ensure_ascii=False)}")
    for line in writing_of(plan):
        print(line)


def _bytes_of(source: GgufModel) -> int:
    return sum(part.path.stat().st_size for part in source.parts)
