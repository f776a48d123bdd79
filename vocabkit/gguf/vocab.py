"""The tokenizer of a checkpoint folder as the `tokenizer.ggml.*` fields of a GGUF file.

Reads tokenizer.json, tokenizer.model where there is one, and the config files that name special tokens;
writes nothing. llama.cpp has two of our three families:

    "gpt2"   byte-level BPE: tokens as stored, merges as "a b", and `pre`, the name of the expression that
             splits text first
    "llama"  SentencePiece BPE: pieces with ▁ for the space, merged by score instead of by rank

An added token is looked for in the text as it is written, so its spaces stay spaces. One that is not special
must be USER_DEFINED: llama.cpp prints nothing for CONTROL. Formats: the specification gguf.md of
ggml-org/ggml, and what llama-vocab.cpp of llama.cpp reads.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as default
from pathlib import Path
from typing import Any

from vocabkit.checkpoint.record import EditRecord
from vocabkit.errors import UserError
from vocabkit.files import read_json_object
from vocabkit.gguf.files import Field, field
from vocabkit.gguf.pre import PRE, pre_name
from vocabkit.tokenizer import spm
from vocabkit.tokenizer.bpe import byte_fallback_value, rank_merges
from vocabkit.tokenizer.chat_template import read_template
from vocabkit.tokenizer.encoder import load_encoder
from vocabkit.tokenizer.settings import own_bans, read_spm_models, required_ids
from vocabkit.tokenizer.tokenizer_json import BYTE_LEVEL_BPE, UNIGRAM, TokenizerJson, leaves
from vocabkit.vocab.overlaps import overlaps
from vocabkit.vocab.plan import FOREIGN, derive_bans, suppressed_ids

GGML = "tokenizer.ggml."
SUPPRESS = GGML + "suppress_tokens"

CHAT_TEMPLATE = "tokenizer.chat_template"

# enum llama_token_type, with the numbers that SentencePiece has
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

ADDED_SCORE = -1000.0  # of a token that is never merged to: it is found in the text before merging begins
# llama.cpp takes a vocabulary of these sizes for CodeLlama's and Granite's; one more token avoids it.
TAKEN_SIZES = {32016, 49152}
# What ends a turn, in the order in which chat models are looked through.
TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>")


@dataclass
class GgufVocab:
    """tokens, types, scores: one for each row. merges: "a b". ids: "bos" → id.

    cut_otherwise: texts in which llama.cpp finds other added tokens than the folder's tokenizer.
    add_bos, add_eos: whether a text gets the token at its beginning, its end. suppressed: never generated.
    """

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    scores: list[float] = default(default_factory=list)
    merges: list[str] = default(default_factory=list)
    ids: dict[str, int] = default(default_factory=dict)
    add_bos: bool = False
    add_eos: bool = False
    add_space_prefix: bool = False
    chat_template: str | None = None
    suppressed: list[int] = default(default_factory=list)
    cut_otherwise: list[str] = default(default_factory=list)

    def fields(self) -> dict[str, Field]:
        """Return the fields of a file that hold this vocabulary."""
        values = {
            GGML + "model": self.model,
            GGML + "pre": self.pre,
            GGML + "tokens": self.tokens,
            GGML + "token_type": self.types,
            GGML + "scores": self.scores,
            GGML + "merges": self.merges,
            **{f"{GGML}{kind}_token_id": token_id for kind, token_id in self.ids.items()},
            GGML + "add_bos_token": self.add_bos,
            GGML + "add_eos_token": self.add_eos,
            GGML + "add_space_prefix": self.add_space_prefix,
            SUPPRESS: self.suppressed,
            CHAT_TEMPLATE: self.chat_template,
        }
        return {key: field(value) for key, value in values.items() if value not in ([], "", None)}


def read_vocab(folder: Path, tokenizer: TokenizerJson) -> GgufVocab:
    """Return the tokenizer of a folder for GGUF, one token for each id and none for padding rows.

    Raises UserError for a kind of tokenizer that llama.cpp cannot run.
    """
    check_kind(tokenizer)
    count = max(tokenizer.tokens) + 1
    vocab = GgufVocab("", "", [f"[PAD{at}]" for at in range(count)], [UNUSED] * count)
    if tokenizer.family == BYTE_LEVEL_BPE:
        _byte_level(vocab, tokenizer)
    else:
        _sentencepiece(vocab, tokenizer, read_spm_models(folder))
    for entry in tokenizer.data["added_tokens"]:
        _add(vocab, entry, tokenizer)
    conditional = [entry["content"] for entry in tokenizer.data["added_tokens"] if _is_conditional(entry)]
    vocab.cut_otherwise = [*conditional, *overlaps(tokenizer.added)]
    if count in TAKEN_SIZES:
        vocab.tokens.append(f"[PAD{count}]")
        vocab.types.append(UNUSED)
        vocab.scores += [ADDED_SCORE] if vocab.scores else []
    _special_ids(vocab, folder, tokenizer)
    frame = load_encoder(folder).encode("").ids  # what is put around a text
    vocab.add_bos = bool(frame) and frame[0] == vocab.ids.get("bos")
    vocab.add_eos = bool(frame) and frame[-1] == vocab.ids.get("eos") and len(frame) > vocab.add_bos
    vocab.chat_template = read_template(folder)
    vocab.suppressed = _suppressed(folder, tokenizer, count=len(vocab.tokens))
    return vocab


def check_kind(tokenizer: TokenizerJson) -> None:
    """Raise UserError for a kind of tokenizer that llama.cpp cannot run."""
    if tokenizer.family == UNIGRAM:
        raise UserError(
            f"{tokenizer.path} is a Unigram tokenizer, expected BPE; encoder-decoder models such as T5 are "
            "not exported: run this one with transformers"
        )
    if tokenizer.family == BYTE_LEVEL_BPE and pre_name(tokenizer.data) is None:
        raise UserError(
            f"{tokenizer.path} splits text in a way that llama.cpp does not know exactly (of its names: "
            f"{', '.join(PRE.values())}); this tokenizer cannot be exported, run the model with transformers "
            "or vLLM"
        )


def _byte_level(vocab: GgufVocab, tokenizer: TokenizerJson) -> None:
    vocab.model, vocab.pre = "gpt2", pre_name(tokenizer.data) or ""
    for token, token_id in tokenizer.vocab.items():
        vocab.tokens[token_id], vocab.types[token_id] = token, NORMAL
    vocab.merges = [f"{left} {right}" for left, right in tokenizer.merges]


def _sentencepiece(vocab: GgufVocab, tokenizer: TokenizerJson, models: Mapping[str, Any]) -> None:
    """Take pieces, types and scores of tokenizer.model; without one, scores from the ranks of the merges."""
    vocab.model, vocab.pre = "llama", "default"
    vocab.scores = [ADDED_SCORE] * len(vocab.tokens)
    vocab.add_space_prefix = _begins_with_space(tokenizer)
    for name, model in models.items():
        if model.trainer_spec.model_type == spm.BPE:
            places = spm.piece_tokens(model, path=tokenizer.path.parent / name, vocab=tokenizer.piece_ids)
            for token_id, piece in zip(places, model.pieces, strict=True):
                text = piece.piece.replace("▁", " ") if piece.type == USER_DEFINED else piece.piece
                vocab.tokens[token_id], vocab.types[token_id] = text, piece.type
                vocab.scores[token_id] = piece.score
            return
    best: dict[str, int] = {}
    for (left, right), rank in rank_merges(tokenizer.merges).items():
        best[left + right] = min(rank, best.get(left + right, rank))
    unknown = tokenizer.data["model"].get("unk_token")
    for token, token_id in tokenizer.vocab.items():
        kind = BYTE if byte_fallback_value(token) is not None else NORMAL
        vocab.tokens[token_id], vocab.types[token_id] = token, UNKNOWN if token == unknown else kind
        vocab.scores[token_id] = float(-best.get(token, len(tokenizer.merges)))


def _begins_with_space(tokenizer: TokenizerJson) -> bool:
    parts = [*leaves(tokenizer.data.get("normalizer")), *leaves(tokenizer.data.get("pre_tokenizer"))]
    return any(part["type"] == "Prepend" or part.get("prepend_scheme", "never") != "never" for part in parts)


def _add(vocab: GgufVocab, entry: Mapping[str, Any], tokenizer: TokenizerJson) -> None:
    """Put an added token in. What looks like a control token is one, marked as special or not: llama.cpp
    makes it one in any case, with a warning.
    """
    content, token_id = entry["content"], entry["id"]
    if vocab.types[token_id] == UNKNOWN:
        return
    looks_special = content.startswith("<|") and content.endswith("|>")
    control = entry["special"] or looks_special
    vocab.types[token_id] = CONTROL if control else USER_DEFINED
    vocab.tokens[token_id] = content if control else content.replace("▁", " ")
    if vocab.scores:
        vocab.scores[token_id] = ADDED_SCORE


CONDITIONS = ("single_word", "lstrip", "rstrip")  # what tokenizer.json can say of an added token, GGUF not


def _is_conditional(entry: Mapping[str, Any]) -> bool:
    return any(entry.get(name) for name in CONDITIONS)


def _special_ids(vocab: GgufVocab, folder: Path, tokenizer: TokenizerJson) -> None:
    """Fill vocab.ids: from tokenizer_config.json, which names tokens, then the configs, which name ids."""
    named = read_json_object(folder / "tokenizer_config.json", missing_ok=True)
    config = read_json_object(folder / "config.json", missing_ok=True)
    settings = [
        config,
        config.get("text_config") or {},
        read_json_object(folder / "generation_config.json", missing_ok=True),
    ]
    for kind, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown")):
        token = named.get(f"{kind}_token")
        token = token.get("content") if isinstance(token, dict) else token
        found = tokenizer.added.get(token, tokenizer.vocab.get(token)) if token else None
        for part in settings:
            value = part.get(f"{kind}_token_id")
            value = value[0] if isinstance(value, list) and value else value
            if found is None and isinstance(value, int) and 0 <= value < len(vocab.tokens):
                found = value
        if found is not None:
            vocab.ids[key] = found
    if (unknown := tokenizer.data["model"].get("unk_token")) and "unknown" not in vocab.ids:
        vocab.ids["unknown"] = tokenizer.vocab[unknown]
    ends = [tokenizer.added[token] for token in TURN_ENDS if token in tokenizer.added]
    if ends or "eos" in vocab.ids:
        vocab.ids["eot"] = ends[0] if ends else vocab.ids["eos"]


def _suppressed(folder: Path, tokenizer: TokenizerJson, *, count: int) -> list[int]:
    """Ids that are not to be generated: what generation_config.json bans of its own, without padding rows,
    which have no token here; and of a trimmed folder what keeps scripts out now.
    """
    listed = read_json_object(folder / "generation_config.json", missing_ok=True).get("suppress_tokens") or []
    record = EditRecord.find(folder)
    derived = set(suppressed_ids(record.suppressed)) if record else set()
    own = own_bans(listed, tokenizer.tokens, set(tokenizer.added.values()), derived=derived)
    padding = [token_id for token_id in listed if token_id < count and token_id not in tokenizer.tokens]
    foreign: list[int] = []
    if record and FOREIGN in record.suppressed:
        required = required_ids(folder, tokenizer, read_spm_models(folder))
        foreign = derive_bans(tokenizer, required_ids=required).ids
    return sorted({*own, *padding, *foreign})
