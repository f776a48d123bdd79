"""Tiny tokenizer folders, and what many tests ask of a folder (fixtures: conftest.py; checkpoints: build.py).

Tiny folders are trained here on a few sentences, with the same files as the real ones but no weights:
byte-level BPE like Qwen's and like Llama-3's, SentencePiece BPE like Gemma's (tokenizer.json and
tokenizer.model), Unigram like T5's (tokenizer.json and spiece.model). build.py makes whole checkpoints.
"""

import base64
import dataclasses
import functools
import io
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from vocabkit.checkpoint.record import EditRecord
from vocabkit.edit.files import write_files
from vocabkit.files import sha256_file, write_json
from vocabkit.tokenizer import spm
from vocabkit.tokenizer.encoder import load_encoder
from vocabkit.tokenizer.settings import read_spm_models, required_ids
from vocabkit.tokenizer.tokenizer_json import UNIGRAM, TokenizerJson, read_tokenizer_json
from vocabkit.vocab.plan import Plan, make_plan

ROOT = Path(__file__).resolve().parent.parent

ASSETS = Path(os.environ.get("VOCABKIT_ASSETS", ROOT.parent / "shared" / "assets"))
OLD_PACKAGES = ROOT / ".cache" / "old-4.45"  # .ci/old puts them there
OLD_TRAINING = ROOT / ".cache" / "old-5.0"


SENTENCES = [
    "Xin chào, hôm nay trời đẹp quá, chúng ta đi chơi nhé!",
    "Thời gian trôi nhanh; việc nhỏ cũng cần nhiều người hợp sức.",
    "Tiếng Việt giàu thanh điệu: ma, má, mà, mả, mã, mạ.",
    "The quick brown fox jumps over 13 lazy dogs, and nobody minds.",
    "We'll see what the weather is like tomorrow (maybe rain).",
    "def add(a, b):\n    return a + b  # two numbers",
    "今天天气很好，我们一起去公园散步吧。",
    "天气不好的时候，我们在家里看书。",
]

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

TINY_KINDS = ("qwen", "llama3", "gemma", "t5")

REAL_NAMES = (
    "qwen2.5-instruct",
    "qwen3",
    "llama-3.2-instruct",
    "gemma-2-it",
    "t5-v1_1",
    "SYNTHETIC-mt5-like-32k",
)


@dataclasses.dataclass(frozen=True)
class Folder:
    """A tokenizer folder as our code reads it, and the same one as the tokenizers library runs it."""

    path: Path
    tokenizer: TokenizerJson
    spm_models: dict[str, Any]

    @functools.cached_property
    def encoder(self) -> Tokenizer:
        return load_encoder(self.path)

    @functools.cached_property
    def required(self) -> set[int]:
        return required_ids(self.path, self.tokenizer, self.spm_models)

    @property
    def rows(self) -> int:
        """What config.json calls vocab_size."""
        return json.loads((self.path / "config.json").read_text(encoding="utf-8"))["vocab_size"]

    def encode(self, text: str) -> list[int]:
        return self.encoder.encode(text, add_special_tokens=False).ids

    def plan(self, ids: Iterable[int], **changes: Any) -> Plan:
        return make_plan(
            self.tokenizer,
            ids,
            required_ids=self.required,
            spm_models=self.spm_models.values(),
            **changes,
        )

    def without_closure(self, ids: Iterable[int]) -> list[int]:
        """Return new_to_old as most other tools choose it: what was used, bytes and special tokens."""
        return sorted({*ids, *self.tokenizer.byte_ids(), *self.tokenizer.referenced_ids(), *self.required})


@dataclasses.dataclass(frozen=True)
class Trimmed:
    """A folder trimmed out of another one by our code."""

    base: Folder
    plan: Plan
    out: Folder

    def covers(self, ids: Iterable[int]) -> bool:
        return self.plan.old_to_new.keys() >= set(ids)

    def map(self, ids: Iterable[int]) -> list[int]:
        return [self.plan.old_to_new[token_id] for token_id in ids]


def open_folder(path: Path) -> Folder:
    return Folder(path, read_tokenizer_json(path), read_spm_models(path))


def trim_files(base: Folder, target: Path, plan: Plan) -> Trimmed:
    """Write every file of base but weights, trimmed by plan, into a new folder."""
    target.mkdir(parents=True)
    write_files(
        base.path,
        target,
        tokenizer=base.tokenizer,
        plan=plan,
        spm_models=base.spm_models,
        rows=base.rows,
    )
    return Trimmed(base, plan, open_folder(target))


def trimmed_encoder(base: Folder, new_to_old: list[int]) -> Tokenizer:
    """The trimmed tokenizer.json alone, run by the tokenizers library."""
    return Tokenizer.from_str(json.dumps(base.tokenizer.trimmed(new_to_old)))


# The theorem of vocabkit/tokenizer/bpe.py and tokenizer/unigram.py


def check_theorem(
    base: Folder, new_to_old: list[int], texts: list[str], *, new: Tokenizer | None = None
) -> int:
    """Assert that trimming changes no covered text, nor what any text decodes to; return how many are
    covered.

    Of texts that are not covered, Unigram reads removed characters as <unk>: they need not decode as before.
    new: the trimmed tokenizer, where it is more than tokenizer.json.
    """
    old_to_new = {old: new_id for new_id, old in enumerate(new_to_old)}
    new = new or trimmed_encoder(base, new_to_old)
    before, after = ([e.ids for e in encoder.encode_batch(texts)] for encoder in (base.encoder, new))
    covered = 0
    for text, a, b in zip(texts, before, after, strict=True):
        is_covered = old_to_new.keys() >= set(a)
        covered += is_covered
        if is_covered:
            assert b == [old_to_new[token_id] for token_id in a], text
        if is_covered or base.tokenizer.family != UNIGRAM:
            decoded = base.encoder.decode(a, skip_special_tokens=False)
            assert new.decode(b, skip_special_tokens=False) == decoded, text
    return covered


def draw_covered(data: Any, folder: Folder) -> tuple[set[int], list[str]]:
    """Draw ids to keep and texts of a tiny folder; every other text uses none but these ids."""
    wanted = data.draw(st.sets(st.sampled_from(sorted(folder.tokenizer.tokens)), max_size=60))
    words = st.sampled_from([word for text in SENTENCES for word in text.split(" ")])
    text = st.lists(st.one_of(st.text(max_size=8), words), max_size=8).map(" ".join)
    texts = data.draw(st.lists(text, min_size=1, max_size=6))
    return wanted.union(*map(folder.encode, texts[::2])), texts


def draw_text(data: Any, documents: list[str]) -> str:
    """Draw random Unicode mixed with real lines."""
    lines = st.sampled_from(documents).map(lambda document: document[:80])
    return "".join(data.draw(st.lists(st.one_of(st.text(max_size=12), lines), max_size=5)))


def edit_record(base: Path, new_to_old: list[int | None], **changes: Any) -> EditRecord:
    """A vocab_edit.json that maps ids to those of a base; the other fields hold what is possible."""
    given: dict[str, Any] = {
        "task": "trimm_vocab", "base_model": str(base), "base_vocab_size": 512, "base_n_tokens": 500,
        "base_tokenizer_sha256": sha256_file(base / "tokenizer.json"), "n_tokens": len(new_to_old),
        "vocab_size": len(new_to_old), "pad_rows": None, "suppressed": {}, "made_by": "a test",
    }  # fmt: skip
    return EditRecord(new_to_old=new_to_old, **{**given, **changes})


def edit_json(path: Path, **changes: Any) -> None:
    """Set fields of a JSON object in a file, making the file where there is none."""
    value = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write_json(path, {**value, **changes})


# Tiny folders


def _qwen_like() -> tuple[str, dict[str, Any]]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=420, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(SENTENCES * 3, trainer)
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens([AddedToken(" thời gian", normalized=True)])
    settings = {
        "tokenizer_class": "Qwen2Tokenizer",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "chat_template": CHAT_TEMPLATE,
        "add_prefix_space": False,
    }
    return tokenizer.to_str(), settings


def _llama3_like() -> tuple[str, dict[str, Any]]:
    """ignore_merges, words that no merge makes, several merges for one token, merges written as "a b"."""
    data = json.loads(_qwen_like()[0])
    data["normalizer"] = None
    data["added_tokens"] = []
    model = data["model"]
    model["ignore_merges"] = True
    words = [
        pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(w)[0][0] for w in (" việc", "xyz")
    ]
    for word in words:
        assert word not in model["vocab"]
        model["vocab"][word] = len(model["vocab"])
    model["merges"] = [
        f"{token[:cut]} {token[cut:]}"  # every way to cut a token in two is a merge, as in Llama-3
        for token, _ in sorted(model["vocab"].items(), key=lambda item: item[1])
        if token not in words
        for cut in range(1, len(token))
        if token[:cut] in model["vocab"] and token[cut:] in model["vocab"]
    ]
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.add_special_tokens(["<|begin|>", "<|end|>"])
    begin = tokenizer.token_to_id("<|begin|>")
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single="<|begin|> $A",
                pair="<|begin|> $A <|begin|>:1 $B:1",
                special_tokens=[("<|begin|>", begin)],
            ),
        ]
    )
    data = json.loads(tokenizer.to_str())
    data["model"]["merges"] = model["merges"]
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|begin|>",
        "eos_token": "<|end|>",
    }
    return json.dumps(data, ensure_ascii=False), settings


def train_spm(model_type: str, **options: Any) -> Any:
    """Train SentencePiece on SENTENCES and return its ModelProto."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 3),
        model_writer=out,
        model_type=model_type,
        character_coverage=1.0,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
        **options,
    )
    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(out.getvalue())
    return model


def _gemma_like() -> tuple[str, dict[str, Any], bytes]:
    """BPE with byte fallback: the merges are all cuts of a piece in two, by score, as converters make them.

    <0x09> is a tab in tokenizer.json alone, as in Gemma-2.
    """
    model = train_spm(
        "bpe", vocab_size=420, byte_fallback=True, normalization_rule_name="identity", add_dummy_prefix=False,
        remove_extra_whitespaces=False, pad_id=0, eos_id=1, bos_id=2, unk_id=3, eos_piece="<eos>",
        bos_piece="<bos>", user_defined_symbols=["<turn>", "</turn>"],
    )  # fmt: skip
    names = ["\t" if piece.piece == "<0x09>" else piece.piece for piece in model.pieces]
    vocab = {name: token_id for token_id, name in enumerate(names)}
    normal = sorted((p for p in model.pieces if p.type == 1), key=lambda p: -p.score)
    merges = [
        (piece.piece[:cut], piece.piece[cut:])
        for piece in normal
        for cut in range(1, len(piece.piece))
        if piece.piece[:cut] in vocab and piece.piece[cut:] in vocab
    ]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens(["<pad>", "<eos>", "<bos>", "<unk>", "<turn>", "</turn>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos>:1 $B:1", special_tokens=[("<bos>", 2)]
    )
    settings = {
        "tokenizer_class": "GemmaTokenizer", "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>",
        "unk_token": "<unk>",
    }  # fmt: skip
    return tokenizer.to_str(), settings, model.SerializeToString()


def _t5_like() -> tuple[str, dict[str, Any], bytes]:
    """Unigram with SentencePiece's own normalizer table; the sentinels come last, as in T5."""
    model = train_spm(
        "unigram",
        vocab_size=200,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        normalization_rule_name="nmt_nfkc",
    )
    tokenizer = Tokenizer(models.Unigram([(p.piece, p.score) for p in model.pieces], unk_id=2))
    table = base64.b64encode(model.normalizer_spec.precompiled_charsmap).decode("ascii")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>", "<extra_id_1>", "<extra_id_0>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    data = json.loads(tokenizer.to_str())
    data["normalizer"] = {
        "type": "Sequence",
        "normalizers": [
            {"type": "Precompiled", "precompiled_charsmap": table},
            {"type": "Strip", "strip_left": False, "strip_right": True},
            {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"},
        ],
    }
    settings = {
        "tokenizer_class": "T5Tokenizer", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>",
        "extra_ids": 2,
    }  # fmt: skip
    return json.dumps(data, ensure_ascii=False), settings, model.SerializeToString()


def write_tiny(folder: Path, kind: str) -> None:
    """Write a complete tiny folder without weights: tokenizer files, config.json, generation_config.json."""
    folder.mkdir(parents=True)
    maker = {"qwen": _qwen_like, "llama3": _llama3_like, "gemma": _gemma_like, "t5": _t5_like}[kind]
    text, named, *spm_bytes = maker()
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    data = json.loads(text)
    ids = Tokenizer.from_str(text).get_vocab(with_added_tokens=True)
    named["added_tokens_decoder"] = {
        str(token["id"]): {name: value for name, value in token.items() if name != "id"}
        for token in data["added_tokens"]
    }
    write_json(folder / "tokenizer_config.json", named)
    for content in spm_bytes:
        (folder / ("spiece.model" if kind == "t5" else "tokenizer.model")).write_bytes(content)
    if kind == "qwen":
        write_json(folder / "vocab.json", data["model"]["vocab"])
        lines = ["#version: 0.2", *(" ".join(merge) for merge in data["model"]["merges"]), ""]
        (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")
    special = {
        f"{name}_id": ids[named[name]] for name in ("bos_token", "eos_token", "pad_token") if name in named
    }
    model_type = {"qwen": "qwen2", "llama3": "llama", "gemma": "gemma2", "t5": "t5"}[kind]
    rows = (len(ids) // 64 + 2) * 64  # more rows than tokens, as nearly all real models have
    write_json(folder / "config.json", {"model_type": model_type, "vocab_size": rows, **special})
    write_json(folder / "generation_config.json", {**special, "do_sample": True})


def replay(text: str, performed: list[tuple[str, str]]) -> list[str]:
    """Perform merges on a text, each at the first place where it fits."""
    parts = list(text)
    for left, right in performed:
        at = next(i for i in range(len(parts) - 1) if (parts[i], parts[i + 1]) == (left, right))
        parts[at : at + 2] = [left + right]
    return parts


def model_of(pieces: list[tuple[str, float, int]], *, model_type: int = spm.BPE):
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto()
    for piece, score, kind in pieces:
        model.pieces.add(piece=piece, score=score, type=kind)
    model.trainer_spec.model_type = model_type
    model.trainer_spec.unk_id, model.trainer_spec.bos_id, model.trainer_spec.eos_id = 0, -1, -1
    model.trainer_spec.pad_id = -1
    model.trainer_spec.vocab_size = len(pieces)
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = False
    model.normalizer_spec.remove_extra_whitespaces = False
    return model
