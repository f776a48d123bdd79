"""Do two folders share one vocabulary? Tokens, merges, added tokens, settings and rows, each by itself.

Reads tokenizer.json, config.json, tokenizer_config.json and chat_template.jinja of both folders, never a
weight; prints. What is printed of a kind is either "identical" or the differences, with examples.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vocabkit.checkpoint.record import EditRecord
from vocabkit.files import read_json_object, read_text, sha256_file
from vocabkit.tokenizer.bpe import text_for_people
from vocabkit.tokenizer.settings import vocab_size_of
from vocabkit.tokenizer.tokenizer_json import UNIGRAM, TokenizerJson, leaves, read_tokenizer_json

SHOWN = 25  # added tokens spelled out: all 23 that Qwen3 added to Qwen2
EXAMPLES = 5  # examples of any other kind
LONGEST = 240  # characters of one setting; the splitting regex of Qwen takes 190
WIDTH = 120  # columns of a line
INDENT = " " * 14
FLAGS = ("special", "normalized", "lstrip", "rstrip", "single_word")
# Fields of tokenizer_config.json that change what transformers does with the same tokenizer.json
CHAT_FIELDS = (
    "bos_token", "eos_token", "pad_token", "unk_token", "add_bos_token", "add_eos_token",
    "clean_up_tokenization_spaces",
)  # fmt: skip


@dataclass
class Kind:
    """One kind of difference: the line that says there is none, the differences, words for the verdict.

    A difference is a line, given as the pieces that a line break may separate.
    """

    name: str
    same: str
    differences: list[list[str]] = field(default_factory=list)
    verdict: str = ""


def compare_vocab(base: Path, model: Path) -> bool:
    """Print what the vocabularies of two folders have in common, and a verdict in the last line.

    Returns whether they are identical, rows included (rows that are unknown count as equal).
    """
    left, right = read_tokenizer_json(base), read_tokenizer_json(model)
    rows = _rows(base), _rows(model)
    for name, tokenizer, count in (("base", left, rows[0]), ("model", right, rows[1])):
        print(f"{name:6}{tokenizer.path.parent}")
        print(
            f"      {tokenizer.family}: {_counts(tokenizer)}, {len(tokenizer.added):,} added tokens, "
            f"{'rows unknown (no config.json)' if count is None else f'{count:,} rows'}"
        )
    tokens = compare_tokens(left, right)
    is_bpe = UNIGRAM not in (left.family, right.family)
    order = compare_merges(left, right) if is_bpe else compare_scores(left, right)
    added, settings = compare_added(left, right), compare_settings(left, right)
    size, beside = _compare_rows(*rows), _compare_beside(base, model)
    kinds = (tokens, order, added, settings, size)
    print()
    for kind in (*kinds, beside):
        for at, pieces in enumerate(kind.differences or [kind.same.split(", ")]):
            _print_wrapped("" if at else kind.name, pieces)
    print()
    print(_verdict(left, kinds, beside) + _edited_from(base, model))
    return not any(kind.differences for kind in kinds)


def _print_wrapped(name: str, pieces: Sequence[str]) -> None:
    """Print a line, broken between pieces only: a blank inside a token or a regular expression matters."""
    line = f"{name:{len(INDENT)}}{pieces[0]}"
    for piece in pieces[1:]:
        if len(line) + len(piece) + 3 > WIDTH:
            print(line + ",")
            line = f"{INDENT}  {piece}"
        else:
            line += f", {piece}"
    print(line)


def compare_tokens(left: TokenizerJson, right: TokenizerJson) -> Kind:
    """Compare the tokenizers' own tokens (without the added ones) and their ids.

    Tokens of two families are compared by their bytes: " Việt" is ĠViá»ĩt in one and ▁Việt in the other.
    """
    before: Mapping[Any, int] = left.vocab
    after: Mapping[Any, int] = right.vocab
    if left.family != right.family:
        before, after = (
            {side.token_bytes[token_id]: token_id for token_id in side.vocab.values()}
            for side in (left, right)
        )
    both = [token for token in before if token in after]
    moved = [token for token in both if before[token] != after[token]]
    gone = [token_id for token, token_id in before.items() if token not in after]
    new = [token_id for token, token_id in after.items() if token not in before]
    kind = Kind("tokens", f"identical: {len(both):,} at the same ids")
    if not (moved or gone or new):
        return kind
    kind.differences.append([f"{len(both) - len(moved):,} at the same ids"])
    kind.differences += _listed(
        "at other ids", (f"{_text(left, before[t])} {before[t]} → {after[t]}" for t in moved)
    )
    kind.differences += _listed("only in base", (f"{_text(left, i)} {i}" for i in gone))
    kind.differences += _listed("only in model", (f"{_text(right, i)} {i}" for i in new))
    kind.verdict = (
        f"{len(both):,} tokens are in both ({len(both) - len(moved):,} at the same ids), "
        f"{len(gone):,} only in base, {len(new):,} only in model"
    )
    return kind


def compare_merges(left: TokenizerJson, right: TokenizerJson) -> Kind:
    """Compare the merges of two BPE tokenizers and their order."""
    kind = Kind("merges", f"identical: {len(left.merges):,} in the same order")
    if left.merges == right.merges:
        return kind
    before, after = dict.fromkeys(left.merges), dict.fromkeys(right.merges)
    common = [merge for merge in before if merge in after]
    other = [merge for merge in after if merge in before]
    order = "the same" if common == other else "another"
    kind.differences.append([f"{len(common):,} in both, in {order} order"])
    if common != other:
        at = next(at for at, pair in enumerate(zip(common, other, strict=True)) if pair[0] != pair[1])
        kind.differences.append(
            [
                f"number {at + 1:,} of these is {_merge(left, common[at])} in base",
                f"{_merge(right, other[at])} in model",
            ]
        )
    gone, new = ([m for m in one if m not in two] for one, two in ((before, after), (after, before)))
    kind.differences += _listed("only in base", (_merge(left, merge) for merge in gone))
    kind.differences += _listed("only in model", (_merge(right, merge) for merge in new))
    order = "" if common == other else ", in another order"
    kind.verdict = (
        f"{len(common):,} merges are in both{order}, {len(gone):,} only in base, {len(new):,} only in model"
    )
    return kind


def _merge(tokenizer: TokenizerJson, merge: tuple[str, str]) -> str:
    return " + ".join(_text(tokenizer, tokenizer.vocab[part]) for part in merge)


def compare_scores(left: TokenizerJson, right: TokenizerJson) -> Kind:
    """Compare the scores that a Unigram tokenizer chooses by; BPE beside Unigram is a difference too."""
    kind = Kind("scores", "identical for all tokens")
    if left.family != right.family:
        kind.differences = [[f"none in {'base' if right.family == UNIGRAM else 'model'}"]]
        kind.verdict = f"base is {left.family}, model {right.family}"
        return kind
    before, after = (dict(map(tuple, tokenizer.data["model"]["vocab"])) for tokenizer in (left, right))
    changed = (
        f"{_text(left, left.vocab[token])} {score} → {after[token]}"
        for token, score in before.items()
        if token in after and after[token] != score
    )
    kind.differences = _listed("other scores", changed)
    kind.verdict = "other scores" if kind.differences else ""
    return kind


def compare_added(left: TokenizerJson, right: TokenizerJson) -> Kind:
    """Compare added tokens, special or not: which there are, their ids, their flags."""
    before, after = ({t["content"]: t for t in tokenizer.data["added_tokens"]} for tokenizer in (left, right))
    both = [token for token in before if token in after]
    moved = [token for token in both if before[token]["id"] != after[token]["id"]]
    changed = [
        f"{token} ({flag} {bool(before[token].get(flag))} → {bool(after[token].get(flag))})"
        for token in both
        for flag in FLAGS
        if bool(before[token].get(flag)) != bool(after[token].get(flag))
    ]
    gone, new = ([t for t in one if t not in other] for one, other in ((before, after), (after, before)))
    kind = Kind("added tokens", f"identical: {len(both):,} at the same ids")
    if not (moved or changed or gone or new):
        return kind
    kind.differences = [[f"{len(both) - len(moved):,} at the same ids"]]
    kind.differences += _listed(
        "at other ids", (f"{t} {before[t]['id']} → {after[t]['id']}" for t in moved), shown=SHOWN
    )
    kind.differences += _listed("other flags", changed)
    kind.differences += _listed("only in base", (f"{t} {before[t]['id']}" for t in gone), shown=SHOWN)
    kind.differences += _listed("only in model", (f"{t} {after[t]['id']}" for t in new), shown=SHOWN)
    parts = [
        f"{len(tokens):,} {what} ({_ends(tokens)})"
        for what, tokens in (
            ("at other ids", moved),
            ("only in base", gone),
            ("only in model", new),
            ("with other flags", changed),
        )
        if tokens
    ]
    kind.verdict = f"added tokens differ: {', '.join(parts)}"
    return kind


def compare_settings(left: TokenizerJson, right: TokenizerJson) -> Kind:
    """Compare all else in tokenizer.json that changes which ids or texts come out."""
    before, after = settings_of(left), settings_of(right)
    kind = Kind("settings", f"identical: {', '.join(before)}")
    changed = [name for name in before if before[name] != after[name]]
    for name in changed:
        for folder, mine, other in (
            ("base", before[name], after[name]),
            ("model", after[name], before[name]),
        ):
            if isinstance(mine, list):  # of the members of a sequence only those that differ
                mine = [leaf for leaf in mine if leaf not in other] or (mine if mine and other else [])
            kind.differences.append([f"{name} in {folder}: {_cut(_say(mine))}"])
    if changed:
        kind.verdict = f"settings differ: {', '.join(changed)}"
    return kind


def settings_of(tokenizer: TokenizerJson) -> dict[str, Any]:
    """Return what changes ids or texts, in one spelling: the same behaviour gives the same value.

    Left out are what only moves offsets (ByteLevel as post_processor, trim_offsets) and the ids behind the
    tokens that are named, which are compared as tokens.
    """
    data, model = tokenizer.data, tokenizer.data["model"]
    unk_id = model.get("unk_id")
    return {
        "kind": tokenizer.family,
        "normalizer": leaves(data.get("normalizer")),
        "pre_tokenizer": [_pre_tokenizer(leaf) for leaf in leaves(data.get("pre_tokenizer"))],
        "post_processor": [
            _without_ids(leaf)
            for leaf in leaves(data.get("post_processor"))
            if leaf.get("type") != "ByteLevel"
        ],
        "decoder": [
            {"type": "ByteLevel"} if leaf.get("type") == "ByteLevel" else leaf
            for leaf in leaves(data.get("decoder"))
        ],
        "ignore_merges": bool(model.get("ignore_merges")),
        "byte_fallback": bool(model.get("byte_fallback")),
        "fuse_unk": bool(model.get("fuse_unk")),
        "unk_token": model.get("unk_token") if unk_id is None else tokenizer.tokens[unk_id],
        "truncation": data.get("truncation"),
        "padding": _without_ids(data["padding"]) if data.get("padding") else None,
    }


def _pre_tokenizer(leaf: Mapping[str, Any]) -> Any:
    if leaf.get("type") != "ByteLevel":
        return leaf
    return {
        "type": "ByteLevel",
        "add_prefix_space": bool(leaf.get("add_prefix_space")),
        "use_regex": bool(leaf.get("use_regex", True)),  # older files lack it: the library takes true
    }


def _without_ids(leaf: Mapping[str, Any]) -> dict[str, Any]:
    plain = {name: value for name, value in leaf.items() if name != "pad_id"}
    if isinstance(plain.get("special_tokens"), Mapping):
        plain["special_tokens"] = {name: t.get("tokens") for name, t in plain["special_tokens"].items()}
    return plain | {key: plain[key][0] for key in ("sep", "cls") if key in plain}


def _rows(folder: Path) -> int | None:
    path = folder / "config.json"
    return vocab_size_of(read_json_object(path), path=path) if path.is_file() else None


def _compare_rows(before: int | None, after: int | None) -> Kind:
    if before is None or after is None:
        unknown = [name for name, rows in (("base", before), ("model", after)) if rows is None]
        return Kind("rows", f"unknown: no config.json in {' and '.join(unknown)}")
    if before == after:
        return Kind("rows", f"identical: {before:,}")
    difference = [f"{before:,} in base", f"{after:,} in model"]
    return Kind("rows", "", [difference], f"rows differ ({before:,} and {after:,})")


def _compare_beside(base: Path, model: Path) -> Kind:
    """Compare what a tokenizer's folder holds beside the vocabulary: chat template, bos, eos, pad …"""
    before, after = _beside(base), _beside(model)
    kind = Kind("beside them", f"identical: chat_template, {', '.join(CHAT_FIELDS)}")
    for name in before:
        if before[name] != after[name]:
            values = (
                "" if name == "chat_template" else f": {before[name]!r} in base, {after[name]!r} in model"
            )
            kind.differences.append([f"{name} differs{values}"])
    return kind


def _beside(folder: Path) -> dict[str, Any]:
    settings = read_json_object(folder / "tokenizer_config.json", missing_ok=True)
    template = folder / "chat_template.jinja"
    found: dict[str, Any] = {"chat_template": settings.get("chat_template")}
    if template.is_file():
        found["chat_template"] = read_text(template)
    for name in CHAT_FIELDS:  # absent, null and false mean the same
        value = settings.get(name) or None
        found[name] = value.get("content") if isinstance(value, Mapping) else value
    return found


def _verdict(base: TokenizerJson, kinds: Sequence[Kind], beside: Kind) -> str:
    tokens, order, added, settings, size = (kind.verdict for kind in kinds)
    own = " (each folder keeps its own tokenizer_config.json)" if beside.differences else ""
    if tokens or order:
        what = tokens or f"the same {len(base.vocab):,} tokens, but {order}"
        return f"different vocabularies: {what}; each needs its own kept list"
    if added or settings:
        differ = "; ".join(filter(None, (added, settings, size)))
        return f"same base vocabulary ({_counts(base)}), {differ}; one kept list fits both"
    if size:
        return f"same tokenizer, {size}: one kept list and one tokenizer serve both{own}"
    return f"identical: one kept list and one tokenizer serve both{own}"


def _counts(tokenizer: TokenizerJson) -> str:
    merges = "" if tokenizer.family == UNIGRAM else f", {len(tokenizer.merges):,} merges"
    return f"{len(tokenizer.vocab):,} tokens{merges}"


def _edited_from(base: Path, model: Path) -> str:
    """Say so where one folder was made from the other: then verify_edit is the sharper question."""
    for source, edited in ((base, model), (model, base)):
        record = EditRecord.find(edited)
        if record and record.base_tokenizer_sha256 == sha256_file(source / "tokenizer.json"):
            return f"; {edited} was edited from {source}: check it with -t verify_edit"
    return ""


def _text(tokenizer: TokenizerJson, token_id: int) -> str:
    return repr(text_for_people(tokenizer.token_bytes[token_id]))


def _listed(what: str, cases: Iterable[str], *, shown: int = EXAMPLES) -> list[list[str]]:
    """Return [] for no case, else one line: how many, the first few, and how many more there are."""
    cases = list(cases)
    more = [f"{len(cases) - shown:,} more"] if len(cases) > shown else []
    return [[f"{len(cases):,} {what}: {cases[0]}", *cases[1:shown], *more]] if cases else []


def _ends(tokens: Sequence[str]) -> str:
    return ", ".join(tokens) if len(tokens) <= 4 else f"{tokens[0]} … {tokens[-1]}"


def _say(value: Any) -> str:
    """Return a setting on one line, a regular expression as it is written, without JSON's escapes."""
    if isinstance(value, Mapping) and value.keys() in ({"SpecialToken"}, {"Sequence"}):  # of a template
        return " ".join(
            f"{'' if kind == 'SpecialToken' else '$'}{part['id']}" for kind, part in value.items()
        )
    if isinstance(value, Mapping):
        named = [f"{name} {_say(inner)}" for name, inner in value.items() if name != "type"]
        return " ".join([str(value.get("type", "")), *named]).strip()
    if isinstance(value, list):
        return ", ".join(map(_say, value)) or "none"
    return value if isinstance(value, str) else json.dumps(value)


def _cut(text: str) -> str:
    line = repr(text)[1:-1].replace("\\\\", "\\") if "\n" in text or "\r" in text else text
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"
