"""Words that are to become tokens: read from a file, checked against a tokenizer. Writes nothing.

A .jsonl file has rows with "word": "thời▁gian" (▁ is the space inside; other fields are ignored) and may have
others with "syllable", which are left to new_syllables.py; a .txt file one word per line; both may be
compressed (.xz, .gz, .bz2). Their order is that in which the words were picked. The token of a word is its
text with a space before it, " thời gian": so it stands in running text.
"""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vocabkit.errors import UserError
from vocabkit.files import open_text
from vocabkit.new_syllables import is_syllable_row
from vocabkit.plan import NewToken
from vocabkit.text import nfc
from vocabkit.tokenizer_json import TokenizerJson

CONTROL_SHAPE = re.compile(r"<\|.*\|>|<.*>|\[.*\]")  # llama.cpp takes <|…|> for a control token and hides it
SHOWN = 3  # words that an error spells out; the others are counted
PROBES = ("{}", "Có{}", "Có{} và", "Có{}, và", "Có{}.", "({})", "Có{}\nMột", "Có{}{}", "Có 1{}?")


def read_words(path: Path, *, count: int | None = None) -> list[str]:
    """Return the first count words of a file (all of them if None), as text in NFC with spaces inside.

    Raises UserError for a file of another shape, what is no word, a word that is there twice (in any Unicode
    form), or fewer words than count.
    """
    words: dict[str, int] = {}
    read_line = _reader(path)
    with open_text(path) as file:
        try:
            for number, line in enumerate(file, 1):
                if not line.strip() or is_syllable_row(found := read_line(line, number)):
                    continue
                word = _checked(found, where=f"{path}:{number}")
                if word in words:
                    raise UserError(
                        f"{path}:{number} has {word!r}, as line {words[word]} does; remove one of the two"
                    )
                words[word] = number
        except UnicodeDecodeError:
            raise UserError(f"{path} is not UTF-8 text; convert it with iconv") from None
    if not words and count != 0:
        raise UserError(f'{path} holds no word; give rows such as {{"word": "thời▁gian"}}')
    if count is not None and count > len(words):
        raise UserError(f"--num_words is {count:,}, {path} has {len(words):,} words; give at most as many")
    return list(words)[:count]


def _reader(path: Path) -> Callable[[str, int], object]:
    if ".txt" in path.suffixes:
        return lambda line, number: line.strip()
    if ".jsonl" not in path.suffixes:
        raise UserError(f"{path} is neither .jsonl nor .txt, which is how a file of words must be named")

    def read_row(line: str, number: int) -> object:
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}:{number} is not JSON: {error.msg}; mend or remove the line") from None
        return row if is_syllable_row(row) or not isinstance(row, dict) else row.get("word")

    return read_row


def _checked(word: object, *, where: str) -> str:
    if not isinstance(word, str):
        raise UserError(f'{where} has no "word" string; give rows such as {{"word": "thời▁gian"}}')
    text = nfc(word).replace("▁", " ")
    if not all(text.split(" ")) or not text.isprintable():
        raise UserError(
            f"{where} has the word {word!r}, expected syllables with one ▁ between two, such as 'thời▁gian'"
        )
    if CONTROL_SHAPE.fullmatch(text):
        raise UserError(f"{where} has the word {word!r}, which looks like a control token; remove it")
    return text


def make_tokens(words: Sequence[str], tokenizer: TokenizerJson, encoder: Any) -> list[NewToken]:
    """Return the tokens of words, checked to do no harm to a tokenizer.

    encoder: the same tokenizer as the tokenizers library runs it. Raises UserError for words that already are
    one token, that are part of a special token, or that the normalizer changes.
    """
    contents = [f" {word}" for word in words]
    ids = [found.ids for found in encoder.encode_batch(contents, add_special_tokens=False)]
    _refuse(
        [repr(text) for text, found in zip(contents, ids, strict=True) if len(found) == 1],
        f"{{}} already one token of {tokenizer.path}; remove from the words what needs no token",
    )
    special = [entry["content"] for entry in tokenizer.data["added_tokens"] if _is_control(entry)]
    joined = "\n".join(special)
    _refuse(
        [f"{word!r} ({next(t for t in special if word in t)!r})" for word in words if word in joined],
        f"{{}} part of a special token of {tokenizer.path}; remove what would cut special tokens",
    )
    if encoder.normalizer is not None:
        normal = [encoder.normalizer.normalize_str(text).replace("▁", " ") for text in contents]
        _refuse(
            [f"{old!r} (to {new!r})" for old, new in zip(contents, normal, strict=True) if old != new],
            f"{{}} changed by the normalizer of {tokenizer.path}, so the text could not be given back; "
            "this kind of tokenizer cannot be extended",
        )
    return [NewToken(content, normalized=tokenizer.has_nfc) for content in contents]


def _is_control(entry: dict[str, Any]) -> bool:
    return bool(entry["special"] or CONTROL_SHAPE.fullmatch(entry["content"]))


def _refuse(words: list[str], message: str) -> None:
    """Raise UserError if there are such words, the first few spelled out."""
    if words:
        more = f" and {len(words) - SHOWN:,} more" if len(words) > SHOWN else ""
        are = "are" if len(words) > 1 else "is"
        raise UserError(message.format(f"{', '.join(words[:SHOWN])}{more} {are}"))


def check_extended(
    tokens: Sequence[NewToken], *, path: Path, before: Any, after: Any, spm_model: bytes | None
) -> None:
    """Raise UserError if an extended tokenizer does not read its new words as one token and give texts back.

    before, after: the old and the extended tokenizer as the tokenizers library runs them; spm_model: the
    extended tokenizer.model beside it, which must cut these texts alike. Some kinds of tokenizer put a space
    after every added token (T5's Metaspace, Llama-2's first tokenizer.json), and then "thời gian," would come
    back as "thời gian ,": there a new word is not exact, and the folder is refused. One difference is known
    and left: where two spaces stand before a word, the sentencepiece library takes Gemma's piece of two
    spaces first and spells the word; tokenizer.json and llama.cpp take the word. Both give the text back.
    """
    texts = [probe.replace("{}", token.content) for token in tokens for probe in PROBES]
    old, new = ([e.ids for e in t.encode_batch(texts, add_special_tokens=False)] for t in (before, after))
    for text, old_ids, new_ids, token in zip(
        texts, old, new, (token for token in tokens for _ in PROBES), strict=True
    ):
        then, now = (
            tokenizer.decode(ids, skip_special_tokens=False)
            for tokenizer, ids in ((before, old_ids), (after, new_ids))
        )
        if then != now:
            raise UserError(
                f"{path}: with {token.content!r} as a token, {text!r} would be given back as {now!r}, now as "
                f"{then!r}: this kind of tokenizer puts spaces beside added tokens, so it cannot be extended"
            )
        if text == token.content and new_ids != [after.token_to_id(text)]:
            raise UserError(f"{path}: {text!r} does not become one token; remove the word")
    if spm_model is None:
        return
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_proto=spm_model)
    texts += [token.content[1:] for token in tokens]
    new += [e.ids for e in after.encode_batch(texts[len(new) :], add_special_tokens=False)]
    for text, ids, found in zip(texts, new, processor.encode(texts), strict=True):
        if ids != found:
            raise UserError(
                f"{path} and the SentencePiece model beside it would cut {text!r} differently "
                f"({len(ids)} and {len(found)} tokens); this kind of tokenizer cannot be extended"
            )
