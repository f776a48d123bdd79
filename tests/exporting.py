"""Random tiny models of every family that is exported, as folders and as GGUF files, and files changed."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import build

from vocabkit.edit.extend import extend_vocab
from vocabkit.edit.trim import trim_vocab
from vocabkit.files import read_json, write_json
from vocabkit.gguf.export import export_gguf
from vocabkit.gguf.files import Field, number, read_gguf, unchanged, write_gguf
from vocabkit.text.unicode import nfc
from vocabkit.tokenizer.encoder import LLAMA3

LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 10_000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
}  # fmt: skip

# family and whether tied → settings; gemma2's scale must be what llama.cpp computes
FAMILIES = {
    ("qwen2", True): {},
    ("qwen2", False): {},
    ("qwen3", False): {"head_dim": 16},
    ("llama", False): {"rope_parameters": LLAMA3_ROPE},
    ("llama", True): {"attention_bias": True},
    ("gemma2", True): {"query_pre_attn_scalar": 8, "sliding_window": 16, "initializer_range": 0.1},
}

TEXTS = [nfc(text) for text in build.COVERED + build.FOREIGN]


def split_as_llama3(folder: Path) -> None:
    """Give the tiny tokenizer Llama 3's expression, by which llama.cpp knows that merges may be ignored."""
    data = read_json(folder / "tokenizer.json")
    data["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = LLAMA3
    write_json(folder / "tokenizer.json", data)


def make_exported(place: Path, family: str, *, tied: bool) -> Path:
    """A random model's folder "base", the folders "trimmed" and "extended" out of it, and a file of each."""
    changes = {"head_dim": None, **FAMILIES[family, tied]} if family != "gemma2" else FAMILIES[family, tied]
    if family in ("qwen2", "llama"):
        changes.pop("head_dim", None)
    base = build.make_checkpoint(place / "base", family, tied=tied, **changes)
    if family == "llama":
        split_as_llama3(base)
    trim_vocab(base, place / "trimmed")
    (place / "words.txt").write_text("xin chào\ncảm ơn\n", encoding="utf-8")
    extend_vocab(place / "trimmed", place / "extended", words=place / "words.txt", init="mean")
    for name in ("base", "trimmed", "extended"):
        export_gguf(place / name, place / f"{name}.gguf", outtype="f32")
    return place


def rewrite(
    path: Path, out: Path, fields: Mapping[str, Field | None], names: Iterable[str] | None = None
) -> Path:
    """Write a file again with some fields changed, None for one that goes, and these tensors only."""
    source = read_gguf(path)
    kept = {key: field for key, field in {**source.fields, **fields}.items() if field is not None}
    tensors = [unchanged(source.tensors[name]) for name in (source.tensors if names is None else names)]
    write_gguf(out, fields=kept, tensors=tensors, version=source.version, alignment=source.alignment)
    return out


def split_in_two(path: Path, out: Path) -> Path:
    """Write parts as llama-gguf-split makes them: the fields in the first, each with numbers of its own."""
    source = read_gguf(path)
    names = list(source.tensors)
    without = dict.fromkeys(source.fields.keys() - {"general.architecture"})
    for part, chosen in enumerate((names[:3], names[3:])):
        fields = {
            **(without if part else {}),
            "split.no": number(part, type=2),
            "split.count": number(2, type=2),
            "split.tensors.count": number(len(names), type=5),
        }
        rewrite(path, out.with_name(f"{out.name}-{part + 1:05}-of-00002.gguf"), fields, chosen)
    return out.with_name(f"{out.name}-00001-of-00002.gguf")
