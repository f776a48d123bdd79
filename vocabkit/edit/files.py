"""Every file of a checkpoint folder that is not weights: rewritten where it names tokens or ids, else copied.

Reads the source folder; writes into the target folder the tokenizer files (tokenizer.json, vocab.json,
merges.txt, added_tokens.json, tokenizer.model or its like), the settings (config.json,
generation_config.json, tokenizer_config.json and other JSON), and plain copies of licences and chat
templates.
"""

from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from vocabkit.errors import UserError
from vocabkit.files import copy_file, inside, read_json, read_json_object, read_text, write_json
from vocabkit.tokenizer import bpe, spm
from vocabkit.tokenizer.settings import (
    LEFT_OUT_NAMES,
    read_settings,
    renumber,
    replace_vocab_size,
    settings_files,
    without_lost_bans,
)
from vocabkit.tokenizer.tokenizer_json import TokenizerJson, dump_tokenizer_json
from vocabkit.vocab.plan import Plan, suppressed_ids

# What would contradict the new vocabulary, could run code, or is written anew; file names and suffixes.
LEFT_OUT_SUFFIXES = {
    ".bin", ".pth", ".pt", ".ckpt", ".gguf", ".onnx", ".h5", ".msgpack", ".ot", ".tflite", ".safetensors",
    ".pkl", ".tiktoken", ".py", ".jsonl", ".part", ".lock",
}  # fmt: skip

# Generation settings that generate() would take from config.json if there were no generation_config.json
GENERATION_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")


def write_files(
    source: Path,
    target: Path,
    *,
    tokenizer: TokenizerJson,
    plan: Plan,
    spm_models: Mapping[str, Any],
    rows: int,
    derived: Container[int] = (),
) -> list[str]:
    """Write all files but the weights; return the names of what was left out. rows: those of the source
    matrices. derived: ids in suppress_tokens that an earlier edit put there, and this one decides anew.
    """
    left_out = []
    new_entries = [token.entry() for token in plan.new_tokens]
    text = dump_tokenizer_json(tokenizer.trimmed(plan.new_to_old, new_entries, plan.merges))
    (target / "tokenizer.json").write_text(text, encoding="utf-8")
    settings = {path.name for path in settings_files(source)}
    for path in sorted(source.iterdir()):
        name = path.name
        if name == "tokenizer.json" or name.startswith("model.safetensors") or name.endswith(".safetensors"):
            continue  # written above, and by vocabkit.checkpoint
        if (
            path.is_dir()
            or name.startswith(".")
            or path.suffix in LEFT_OUT_SUFFIXES
            or name in LEFT_OUT_NAMES
        ):
            left_out.append(name + "/" if path.is_dir() else name)
        elif name.endswith(".index.json"):
            left_out.append(name)
        elif inside(path).name in ("vocab.json", "added_tokens.json"):
            _write_vocab(path, target / name, tokenizer, plan)
        elif name == "merges.txt":
            _write_merges(path, target / name, tokenizer, plan)
        elif name in spm_models:
            _write_spm(path, target / name, spm_models[name], tokenizer, plan)
        elif name in settings:
            _write_settings(path, target / name, tokenizer, plan, rows=rows, derived=derived)
        else:
            copy_file(path, target / name)
    _write_generation_config(source, target, plan)
    return [name for name in left_out if not name.startswith(".") and name not in LEFT_OUT_NAMES]


def _write_vocab(path: Path, target: Path, tokenizer: TokenizerJson, plan: Plan) -> None:
    old_vocab = read_json_object(path)
    new_vocab = {}
    known = tokenizer.vocab | tokenizer.added
    for token, old in old_vocab.items():
        if known.get(token) != old:
            raise UserError(
                f"{path}: {token!r} has id {old}, in tokenizer.json {known.get(token)}; the two files belong "
                "to different tokenizers: download both again"
            )
        if old in plan.old_to_new:
            new_vocab[token] = plan.old_to_new[old]
    if path.name == "vocab.json":
        if lost := [t for t, old in tokenizer.vocab.items() if t not in new_vocab and old in plan.old_to_new]:
            raise UserError(
                f"{path} lacks {lost[0]!r} of tokenizer.json; the two files belong to different tokenizers: "
                "download both again"
            )
    if path.name == "vocab.json" and plan.merges:  # the same as in tokenizer.json
        new_vocab = tokenizer.extended_vocab(plan.old_to_new, plan.merges)
    if path.name == "added_tokens.json":
        new_vocab |= {token.content: new for new, token in plan.new_ids.items()}
    write_json(target, new_vocab, indent=None)


def _write_merges(path: Path, target: Path, tokenizer: TokenizerJson, plan: Plan) -> None:
    """Filter merges.txt; only its first line may be a comment, later lines that begin with # are merges."""
    lines = read_text(path).split("\n")
    head = lines[:1] if lines[0].startswith("#version") else []
    body = [line for line in lines[len(head) :] if line]
    if [line.rstrip("\r") for line in body] != [" ".join(merge) for merge in tokenizer.merges]:
        raise UserError(
            f"{path} has {len(body):,} merges that differ from the {len(tokenizer.merges):,} of "
            "tokenizer.json; download both again"
        )
    kept = {tokenizer.tokens[old] for old in plan.new_to_old}
    lines = [*head, *(body[at].rstrip("\r") for at in bpe.filter_merges(tokenizer.merges, kept))]
    lines += [*(" ".join(merge) for merge in plan.merges), ""]
    target.write_text("\n".join(lines), encoding="utf-8")


def _write_spm(path: Path, target: Path, model: Any, tokenizer: TokenizerJson, plan: Plan) -> None:
    ids = spm.piece_tokens(model, path=path, vocab=tokenizer.piece_ids)
    positions = [at for at, token_id in enumerate(ids) if token_id in plan.old_to_new]
    new_pieces = [token.content.replace(" ", "▁") for token in plan.new_tokens]
    merged = [merge.token for merge in plan.new_merges]
    target.write_bytes(spm.select_pieces(model, positions, new_pieces, merged=merged))


def _write_settings(
    path: Path, target: Path, tokenizer: TokenizerJson, plan: Plan, *, rows: int, derived: Container[int]
) -> None:
    settings = without_lost_bans(read_settings(path, tokenizer, derived=derived), plan.old_to_new)
    new = replace_vocab_size(renumber(settings, plan.old_to_new, path=path), old=rows, new=plan.vocab_size)
    if isinstance(new, dict) and isinstance(new.get("added_tokens_decoder"), dict):
        entries = {str(at): token.entry() for at, token in plan.new_ids.items()}
        new["added_tokens_decoder"] = {**new["added_tokens_decoder"], **entries}
    if new == read_json(path):  # not settings: those lack the padding rows that the file may still list
        copy_file(path, target)
    else:
        write_json(target, new)


def _write_generation_config(source: Path, target: Path, plan: Plan) -> None:
    """Add the suppressed ids to generation_config.json, made from config.json where there is none."""
    path = target / "generation_config.json"
    if path.is_file():
        settings = read_json_object(path)
        # With this flag generate() would replace the file by what config.json says, and forget
        # suppress_tokens.
        settings.pop("_from_model_config", None)
    else:
        config = read_json_object(target / "config.json")
        settings = {name: config[name] for name in GENERATION_IDS if config.get(name) is not None}
    suppress = sorted({*(settings.get("suppress_tokens") or []), *suppressed_ids(plan.suppressed)})
    if suppress:
        settings["suppress_tokens"] = suppress
    write_json(path, settings)
