"""tokenizer.json: read and check it, and write it again with some of its tokens.

The format is that of huggingface/tokenizers, version "1.0". Only what is understood completely is accepted:
an unknown field or kind of tokenizer is an error that names it, never a half-right result.
"""

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from json.encoder import encode_basestring  # type: ignore[attr-defined]
from pathlib import Path
from typing import Any

from vocabkit.errors import UserError, reading
from vocabkit.files import read_json_object
from vocabkit.tokenizer import bpe, unigram
from vocabkit.tokenizer.bpe import text_for_people
from vocabkit.tokenizer.charsmap import check_charsmap

BYTE_LEVEL_BPE = "byte-level BPE"
BYTE_FALLBACK_BPE = "SentencePiece-style BPE with byte fallback"
UNIGRAM = "Unigram"

TOP_FIELDS = {
    "version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor",
    "decoder", "model",
}  # fmt: skip
BPE_FIELDS = {
    "type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
    "byte_fallback", "ignore_merges", "vocab", "merges",
}  # fmt: skip
UNIGRAM_FIELDS = {"type", "unk_id", "vocab", "byte_fallback"}


@dataclass(frozen=True)
class TokenizerJson:
    """A checked tokenizer.json.

    vocab: the model's own tokens with their ids; added: the added tokens (special or not) with theirs, some
    of which are in vocab as well; merges: in rank order, empty for Unigram; family: one of the three
    constants above.
    """

    path: Path
    data: dict[str, Any]
    family: str
    vocab: dict[str, int]
    added: dict[str, int]
    merges: list[bpe.Merge]

    @functools.cached_property
    def tokens(self) -> dict[int, str]:
        """Token id → token as stored, of the model's own and the added tokens, in the order of the ids."""
        by_id = {token_id: token for token, token_id in (self.vocab | self.added).items()}
        return dict(sorted(by_id.items()))

    @functools.cached_property
    def token_bytes(self) -> dict[int, bytes]:
        """Token id → the bytes it stands for. An added token stands for its content."""
        own = bpe.byte_level_bytes if self.family == BYTE_LEVEL_BPE else bpe.sentencepiece_bytes
        added = set(self.added.values())
        return {
            token_id: token.encode() if token_id in added else own(token)
            for token_id, token in self.tokens.items()
        }

    @functools.cached_property
    def piece_ids(self) -> dict[str, int]:
        """Token as a SentencePiece file writes it → id: a space inside an added token is ▁ there."""
        return {token.replace(" ", "▁"): token_id for token, token_id in self.added.items()} | self.vocab

    @property
    def has_nfc(self) -> bool:
        """Whether text is composed (NFC) before tokens are looked for."""
        return any(part["type"] == "NFC" for part in leaves(self.data.get("normalizer")))

    def byte_ids(self) -> set[int]:
        """Return the ids of the tokens that stand for one byte; with all 256, any text can be spelled."""
        if self.family == BYTE_LEVEL_BPE:
            return {self.vocab[char] for char in bpe.CHAR_TO_BYTE if char in self.vocab}
        names = [f"<0x{byte:02X}>" for byte in range(256)]
        if self.family == BYTE_FALLBACK_BPE:  # Gemma-2 spells <0x09> as a literal tab
            names = [
                name if name in self.vocab else chr(byte) for byte, name in enumerate(names[:128])
            ] + names[128:]
        return {self.vocab[name] for name in names if name in self.vocab}

    def referenced_ids(self) -> set[int]:
        """Return the ids that the file itself names outside the vocabulary: added, unknown, post-processor,
        padding.

        Also ▁, the space, of tokenizers that spell by bytes what is no token: they make it a space again
        before they join bytes, so a ▁ of bytes would stay. For Unigram also a token of the lowest score,
        which sets the cost of unknown characters.
        """
        model = self.data["model"]
        ids = set(self.added.values()) | {token_id for _, token_id in self._pointers()}
        if (self.family == BYTE_FALLBACK_BPE or model.get("byte_fallback")) and "▁" in self.vocab:
            ids.add(self.vocab["▁"])
        if isinstance(model.get("unk_token"), str):
            ids.add(self._id_of(model["unk_token"], "model.unk_token"))
        if self.family == UNIGRAM:
            ids.add(unigram.lowest_score(model["vocab"]))
            if model.get("unk_id") is not None:
                ids.add(model["unk_id"])
        return ids

    def _id_of(self, token: str, where: str) -> int:
        token_id = self.added.get(token, self.vocab.get(token))
        if token_id is None:
            raise UserError(
                f"{self.path}: {where} is {token!r}, which is no token of the file; download it again"
            )
        return token_id

    def _pointers(self) -> Iterator[tuple[str, int]]:
        """Yield where each id of padding and post_processor stands, and the id."""
        padding = self.data.get("padding")
        if padding:
            yield "padding.pad_id", padding["pad_id"]
        for processor in leaves(self.data.get("post_processor")):
            for name, special in processor.get("special_tokens", {}).items():
                for token_id in special["ids"]:
                    yield f"post_processor.special_tokens.{name}", token_id
            for key in ("sep", "cls"):
                if key in processor:
                    yield f"post_processor.{key}", processor[key][1]

    def fingerprint(self) -> str:
        """Return a SHA-256 that tells tokenizers apart: of the tokens, their ids and the merges in order.

        Without the added tokens: so Qwen1.5, 2, 2.5 and 3 share one fingerprint, and one list.
        """
        return self._fingerprint(self.vocab)

    def _fingerprint(self, vocab: Mapping[str, int]) -> str:
        content = [sorted(vocab.items(), key=lambda item: item[1]), self.merges]
        return hashlib.sha256(json.dumps(content).encode("ascii")).hexdigest()

    def has_fingerprint(self, wanted: str) -> bool:
        """Whether a list with this fingerprint was made for these tokens and merges, in any kind of file.

        A GGUF does not say which added tokens stand in the vocabulary as well. SmolLM2's all do, Qwen's none;
        those that follow the whole vocabulary were added later.
        """
        highest = max(self.vocab.values(), default=-1)
        inside = {token: at for token, at in self.added.items() if at < highest}
        own = {token: at for token, at in self.vocab.items() if token not in self.added}
        vocabs = (self.vocab, own, own | inside, self.vocab | self.added)
        return any(self._fingerprint(vocab) == wanted for vocab in vocabs)

    def before(self, first: int) -> "TokenizerJson":
        """Return the tokenizer as it was before the tokens from the id first on were added."""
        data: dict[str, Any] = {
            **self.data,
            "added_tokens": [entry for entry in self.data["added_tokens"] if entry["id"] < first],
        }
        vocab = {token: token_id for token, token_id in self.vocab.items() if token_id < first}
        merges = self.merges
        if len(vocab) < len(self.vocab) and self.family != UNIGRAM:
            stay = bpe.filter_merges(self.merges, vocab.keys())
            merges = [self.merges[at] for at in stay]
            model = self.data["model"]
            data["model"] = {**model, "vocab": vocab, "merges": [model["merges"][at] for at in stay]}
        added = {entry["content"]: entry["id"] for entry in data["added_tokens"]}
        return replace(self, data=data, vocab=vocab, added=added, merges=merges)

    def trimmed(
        self,
        new_to_old: Sequence[int],
        new_tokens: Sequence[Mapping[str, Any]] = (),
        new_merges: Sequence[bpe.Merge] = (),
    ) -> dict[str, Any]:
        """Return the file's data with only these tokens, each at its position in new_to_old as its new id.

        new_merges: merges of BPE after all old ones; what they make follows the old tokens. new_tokens:
        entries of added tokens, without ids, that follow these. Merges stay in their old order and in the
        form in which they were written. Raises UserError for an id that is named outside the
        vocabulary and does not stay.
        """
        old_to_new = {old: new for new, old in enumerate(new_to_old)}
        data = json.loads(
            json.dumps({**self.data, "model": {**self.data["model"], "vocab": None, "merges": None}})
        )
        model, source = data["model"], self.data["model"]
        for name, token_id in [
            *self._pointers(),
            *((f"added token {t!r}", i) for t, i in self.added.items()),
        ]:
            if token_id not in old_to_new:
                raise UserError(
                    f"{self.path}: {name} names id {token_id}, which is not kept; keep this token"
                )
        if self.family == UNIGRAM:
            del model["merges"]
            model["vocab"] = [source["vocab"][old] for old in new_to_old if old < len(source["vocab"])]
            if source.get("unk_id") is not None:
                model["unk_id"] = old_to_new[source["unk_id"]]
        else:
            kept = [(token, old_to_new[old]) for token, old in self.vocab.items() if old in old_to_new]
            model["vocab"] = dict(sorted(kept, key=lambda item: item[1]))
            model["merges"] = [
                source["merges"][at] for at in bpe.filter_merges(self.merges, model["vocab"].keys())
            ]
            if new_merges:
                model["vocab"] = self.extended_vocab(old_to_new, new_merges)
                is_text = bool(source["merges"]) and isinstance(source["merges"][0], str)
                model["merges"] += [" ".join(merge) if is_text else list(merge) for merge in new_merges]
        for added in data["added_tokens"]:
            added["id"] = old_to_new[added["id"]]
        first = len(new_to_old) + len(new_merges)
        data["added_tokens"] += [{"id": at, **t} for at, t in enumerate(new_tokens, first)]
        if data.get("padding"):
            data["padding"]["pad_id"] = old_to_new[data["padding"]["pad_id"]]
        for processor in leaves(data.get("post_processor")):
            for special in processor.get("special_tokens", {}).values():
                special["ids"] = [old_to_new[old] for old in special["ids"]]
            for key in ("sep", "cls"):
                if key in processor:
                    processor[key][1] = old_to_new[processor[key][1]]
        return data

    def extended_vocab(
        self, old_to_new: Mapping[int, int], new_merges: Sequence[bpe.Merge]
    ) -> dict[str, int]:
        """Return BPE's own vocabulary with what new merges make: ids that follow those of all old tokens.

        Old added tokens are in it too, as Gemma has them. The tokenizers library numbers an added token that
        is not in the vocabulary by itself, from the vocabulary's size on, whatever the file says; with new
        ids after the old added tokens' (Qwen's stand between 151,643 and 151,664), these would move.
        """
        ids = {
            token: old_to_new[old] for token, old in (self.vocab | self.added).items() if old in old_to_new
        }
        made = {left + right: at for at, (left, right) in enumerate(new_merges, len(old_to_new))}
        return dict(sorted(ids.items(), key=lambda item: item[1])) | made


def leaves(component: Mapping[str, Any] | None) -> list[Any]:
    """Return a component of tokenizer.json, or the members of a Sequence of them, at any depth."""
    if not component:
        return []
    for members in ("normalizers", "pretokenizers", "processors", "decoders"):
        if members in component:
            return [leaf for member in component[members] for leaf in leaves(member)]
    return [component]


def read_tokenizer_json(folder: Path) -> TokenizerJson:
    """Read and check FOLDER/tokenizer.json; UserError if it is missing, broken or of an unsupported kind."""
    path = folder / "tokenizer.json"
    if not folder.is_dir():
        raise UserError(
            f"{folder} is not a folder; give the folder of a Hugging Face checkpoint, or a hub id"
        )
    if not path.is_file():
        raise UserError(
            f'{path} is missing; make it first: python3 -c "from transformers import AutoTokenizer as A; '
            f"A.from_pretrained('{folder}').save_pretrained('{folder}')\""
        )
    data = read_json_object(path)
    with reading(path):
        return _checked(path, data)


def _refuse(path: Path, what: str, *, found: object, expected: str) -> UserError:
    return UserError(
        f"{path}: {what} is {found!r}, expected {expected}; this kind of tokenizer is not supported"
    )


def _checked(path: Path, data: dict[str, Any]) -> TokenizerJson:
    model = data["model"]
    if data.get("version") != "1.0":
        raise _refuse(path, "version", found=data.get("version"), expected="'1.0'")
    _check_fields(path, "", data, TOP_FIELDS)
    kind = model.get("type") or ("BPE" if "merges" in model else None)  # GPT-2's oldest files have no type
    merges: list[bpe.Merge] = []
    if kind == "BPE":
        _check_fields(path, "model.", model, BPE_FIELDS)
        if model.get("dropout"):
            raise _refuse(path, "model.dropout", found=model["dropout"], expected="null (encoding is random)")
        for field in ("continuing_subword_prefix", "end_of_word_suffix"):
            if model.get(field):
                raise _refuse(path, f"model.{field}", found=model[field], expected="none")
        parts = [*leaves(data.get("pre_tokenizer")), *leaves(data.get("normalizer"))]
        if any(part["type"] == "ByteLevel" for part in parts):
            family = BYTE_LEVEL_BPE
        elif model.get("byte_fallback"):
            family = BYTE_FALLBACK_BPE
        else:
            raise _refuse(
                path, "model.byte_fallback", found=False, expected="true, or a ByteLevel pre_tokenizer"
            )
        vocab = dict(model["vocab"])
        merges = [bpe.parse_merge(merge) for merge in model["merges"]]
    elif kind == "Unigram":
        _check_fields(path, "model.", model, UNIGRAM_FIELDS)
        family = UNIGRAM
        vocab = {token: token_id for token_id, (token, _score) in enumerate(model["vocab"])}
        if len(vocab) != len(model["vocab"]):
            raise _refuse(
                path, "number of different tokens", found=len(vocab), expected=str(len(model["vocab"]))
            )
    else:
        raise _refuse(path, "model.type", found=kind, expected="'BPE' or 'Unigram'")
    for processor in leaves(data.get("post_processor")):
        if processor["type"] not in (
            "ByteLevel",
            "TemplateProcessing",
            "BertProcessing",
            "RobertaProcessing",
        ):
            raise _refuse(
                path, "post_processor", found=processor["type"], expected="ByteLevel or TemplateProcessing"
            )
    for part in leaves(data.get("normalizer")):
        if part["type"] == "Precompiled":
            check_charsmap(part["precompiled_charsmap"])
    added = {token["content"]: token["id"] for token in data["added_tokens"]}
    tokenizer = TokenizerJson(path, data, family, vocab, added, merges)
    _check_ids(tokenizer)
    return tokenizer


def _check_fields(path: Path, where: str, found: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(found) - known)
    if unknown:
        raise _refuse(path, f"{where}{unknown[0]}", found=found[unknown[0]], expected="no such field")


def _check_ids(tokenizer: TokenizerJson) -> None:
    """Raise UserError where two tokens share an id, an id is negative, or a merge names what is no token."""
    path, vocab, added = tokenizer.path, tokenizer.vocab, tokenizer.added
    both = vocab | added
    if others := [token for token, token_id in both.items() if type(token_id) is not int]:
        raise UserError(
            f"{path}: {others[0]!r} has the id {both[others[0]]!r}, expected a whole number; download the "
            "file again"
        )
    for token in vocab.keys() & added.keys():
        if vocab[token] != added[token]:
            raise UserError(
                f"{path}: {token!r} has ids {vocab[token]} and {added[token]}; download the file again"
            )
    if len(tokenizer.tokens) != len(both):
        raise UserError(
            f"{path}: {len(both)} tokens share {len(tokenizer.tokens)} ids; download the file again"
        )
    if min(tokenizer.tokens) < 0:
        raise UserError(
            f"{path}: id {min(tokenizer.tokens)} is negative, expected 0 or more; download the file again"
        )
    for left, right in tokenizer.merges:
        if left not in vocab or right not in vocab or left + right not in vocab:
            lost = next(part for part in (left, right, left + right) if part not in vocab)
            raise UserError(
                f"{path}: merge {left!r} {right!r} needs {lost!r}, no token; download the file again"
            )
    for token_id in tokenizer.referenced_ids():
        if token_id not in tokenizer.tokens:
            raise UserError(
                f"{path}: id {token_id} is named but belongs to no token; download the file again"
            )
    _ = tokenizer.token_bytes  # a token outside the byte alphabet raises KeyError here
    _check_numbering(tokenizer)


def _check_numbering(tokenizer: TokenizerJson) -> None:
    """Raise UserError where the tokenizers library gives an added token another id than the file says."""
    entries = tokenizer.data["added_tokens"]
    for entry, found in zip(entries, library_ids(tokenizer.vocab, entries), strict=True):
        if entry["id"] != found:
            raise UserError(
                f"{tokenizer.path}: the added token {entry['content']!r} has id {entry['id']:,}, but every "
                f"program that reads the file makes it {found:,}; give it this id here and in "
                "tokenizer_config.json, or fill the ids before it"
            )


def library_ids(vocab: Mapping[str, int], added: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the ids that the tokenizers library gives added tokens, whatever the file says.

    What the vocabulary has keeps its id. The others are numbered in turn, from the size of the vocabulary on.
    Source: AddedVocabulary::add_tokens of huggingface/tokenizers.

    >>> library_ids({"a": 0, "<s>": 1}, [{"content": "<s>"}, {"content": "<x>"}, {"content": "<y>"}])
    [1, 2, 3]
    """
    given: dict[str, int] = {}
    free = len(vocab)
    for entry in added:
        content = entry["content"]
        if content not in given:
            given[content] = vocab.get(content, free)
            free += content not in vocab
    return [given[entry["content"]] for entry in added]


def dump_tokenizer_json(data: Mapping[str, Any]) -> str:
    """Return the text of a tokenizer.json with one token or merge per line, so that people can diff it.

    The standard encoder is fast only without indentation, and slow on the long lists with it.
    """
    model = {
        name: f"\0{name}" if name in ("vocab", "merges") else value for name, value in data["model"].items()
    }
    text = json.dumps({**data, "model": model}, ensure_ascii=False, indent=2)
    vocab = data["model"]["vocab"]
    if isinstance(vocab, dict):
        rows = [f"{encode_basestring(token)}: {token_id}" for token, token_id in vocab.items()]
    else:
        rows = [json.dumps(row, ensure_ascii=False) for row in vocab]
    text = _fill(text, "vocab", _block(rows, "{}" if isinstance(vocab, dict) else "[]"))
    if "merges" in model:
        rows = [json.dumps(merge, ensure_ascii=False) for merge in data["model"]["merges"]]
        text = _fill(text, "merges", _block(rows, "[]"))
    return text + "\n"


def _fill(text: str, name: str, block: str) -> str:
    """Put block where the model's field has its placeholder; no other text stands at this indentation."""
    start = f'\n    "{name}": '
    return text.replace(start + json.dumps(f"\0{name}"), start + block, 1)


def _block(rows: list[str], brackets: str) -> str:
    if not rows:
        return brackets
    return brackets[0] + "\n      " + ",\n      ".join(rows) + "\n    " + brackets[1]


def stored_text(token: str, tokenizer: TokenizerJson) -> str:
    """Return the text of a token as it is stored, for people."""
    try:
        own = bpe.byte_level_bytes if tokenizer.family == BYTE_LEVEL_BPE else bpe.sentencepiece_bytes
        return text_for_people(own(token))
    except KeyError:  # not of this tokenizer's alphabet at all
        return token
