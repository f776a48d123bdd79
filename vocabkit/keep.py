"""Counts and text rules → kept lists; kept lists → the ids that a person wants to keep.

Reads lists: folders of tokens_kept__*.jsonl, .jsonl files of rows [token, token_id, count], .txt and .json
files of ids. Writes folders of lists with a summary.json. A list says what is wanted; which other tokens BPE
needs to make those (the closure) is decided later, from the tokenizer.
"""

import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from vocabkit import text as rules
from vocabkit.bpe import Merge, parse_merge
from vocabkit.errors import UserError
from vocabkit.files import read_json, read_json_object, write_json
from vocabkit.text import CATEGORIES, DEFAULT_SCRIPTS

FORMAT, VERSION = "vocab-lists", 1
MIN_COUNT, SURE_COUNT = 1000, 20_000
# English and code live in ASCII, and a crawl of web pages holds little code: ASCII stays from a tenth of
# MIN_COUNT. data/README.md measures what that saves.
ASCII_SHARE = 10
EAST_ASIAN = frozenset({"Han", "Hiragana", "Katakana", "Hangul", "Bopomofo", "Yi"})

ADDED = "added token"
BYTE = "single byte"
EAST_ASIAN_FORM = "East Asian punctuation or full-width form"
FOREIGN_PIECE = "piece of foreign characters only"
EMOJI_PIECE = "piece of an emoji"
OWN_PREFIX = "first bytes of allowed characters only"
RARE_PIECE, COUNTED_PIECE = "rare piece of a character", "counted piece of a character"
SURE, RARE = "counted for sure", "rare"


@dataclass(frozen=True)
class Decision:
    """What becomes of one token, and the first rule that said so; text as in text_for_people()."""

    id: int
    text: str
    count: int
    keep: bool
    reason: str
    category: str


@dataclass(frozen=True)
class KeepList:
    """The wanted ids, the paths read, the SHA-256 of their content, the fingerprint of their tokenizer."""

    ids: frozenset[int]
    sources: tuple[str, ...]
    sha256: str
    fingerprint: str | None


def text_for_people(token_bytes: bytes) -> str:
    """Return a token's text; bytes that are no whole character are written <0xE1>.

    >>> text_for_people(" tiếng".encode()), text_for_people(b" ti\\xe1\\xba")
    (' tiếng', ' ti<0xE1><0xBA>')
    """
    escaped = token_bytes.decode("utf-8", "surrogateescape")
    if escaped.isprintable():  # surrogates are not: the common case needs no look at each character
        return escaped
    return "".join(
        f"<0x{ord(char) - 0xDC00:02X}>" if "\udc80" <= char <= "\udcff" else char for char in escaped
    )


def fingerprint(vocab: Mapping[str, int], merges: Iterable[Merge | list[str] | str]) -> str:
    """Return a SHA-256 that tells tokenizers apart: of the tokens, their ids and the merges in order.

    Give vocab without the added tokens: Qwen1.5, 2, 2.5 and 3 then share one fingerprint, and one list.
    Merges may be "a b" strings or pairs.

    >>> table = {"a": 0, "b": 1, "ab": 2}
    >>> fingerprint(table, ["a b"]) == fingerprint(table, [["a", "b"]])
    True
    """
    content = [sorted(vocab.items(), key=lambda item: item[1]), [parse_merge(merge) for merge in merges]]
    return hashlib.sha256(json.dumps(content).encode("ascii")).hexdigest()


@cache
def _vietnamese_pieces() -> frozenset[str]:
    """The beginnings and ends of Vietnamese syllables that hold a letter outside ASCII ("tiế", "iểu")."""
    syllables = rules.vietnamese_syllables()
    pieces = {syllable[:size] for syllable in syllables for size in range(1, len(syllable) + 1)}
    pieces |= {syllable[at:] for syllable in syllables for at in range(len(syllable))}
    return frozenset(piece for piece in pieces if not piece.isascii())


@cache
def _shared_symbol(char: str, scripts: frozenset[str]) -> bool:
    """Whether a character is no foreign-language Latin letter and is used with an allowed script.

    Script_Extensions says so: the danda is a Common character, but one of Indic texts only.
    """
    import regex

    extensions = "".join(rf"\p{{Script_Extensions={name}}}" for name in sorted(scripts))
    return char.isascii() or (
        rules.script_of(char) != "Latin" and regex.match(f"[{extensions}]", char) is not None
    )


def _foreign_reason(token_bytes: bytes, *, broken: bool, scripts: frozenset[str]) -> str | None:
    """Why a token belongs to other scripts whatever its count, None if it does not."""
    text = text_for_people(token_bytes)  # bytes without a character are ASCII in it, which is never foreign
    script = rules.first_foreign(text, scripts)
    if script:
        return f"script {script}"
    wide = any(unicodedata.east_asian_width(char) in "WF" and not rules.is_emoji(char) for char in text)
    if wide and not scripts & EAST_ASIAN:
        return EAST_ASIAN_FORM
    return FOREIGN_PIECE if broken and not rules.can_be_allowed(token_bytes, scripts) else None


def _used_reason(
    text: str, *, count: int, category: str, min_count: int, scripts: frozenset[str]
) -> str | None:
    """Which of the last rules keeps a token of whole allowed characters that is not counted for sure."""
    word = text.strip()
    if category == "vietnamese" or rules.is_vietnamese_syllable(word):
        return "Vietnamese syllable"
    if category == "emoji":
        return "emoji"
    if category == "english" and count > 0:
        return "English word in use"
    if text.isascii():
        if len(text) <= 2:
            return "ASCII of 2 characters or less"
        return "ASCII" if count >= min_count / ASCII_SHARE else None
    if count < min_count:
        return None
    if len(word) <= 1:
        return "single character"
    if word.lower() in _vietnamese_pieces():
        return "piece of a Vietnamese syllable"
    return "symbols" if all(_shared_symbol(char, scripts) for char in text) else None


def _decide(
    token_bytes: bytes, *, count: int | None, scripts: frozenset[str], min_count: int, sure_count: int
) -> tuple[bool, str, str]:
    """(keep, reason, category) of a token that is not added; count None: by the text alone."""
    try:
        text: str | None = token_bytes.decode("utf-8")
    except UnicodeDecodeError:
        text = None
    category = rules.category_of(text)
    if len(token_bytes) == 1:
        return True, BYTE, category
    foreign = _foreign_reason(token_bytes, broken=text is None, scripts=scripts)
    if foreign:
        return False, foreign, category
    if count is None:
        return True, "allowed scripts", category
    if text is None:
        if rules.is_emoji_piece(token_bytes):
            return True, EMOJI_PIECE, category
        # Trimmed models may not generate the first bytes that foreign characters share: these tokens are
        # then the only way to write a symbol that is no token itself (E2 88 for signs of mathematics).
        if token_bytes == rules.tail_of(token_bytes) and token_bytes not in rules.foreign_prefixes(scripts):
            return True, OWN_PREFIX, category
        counted = count >= min_count
        return counted, COUNTED_PIECE if counted else RARE_PIECE, category
    if count >= sure_count:
        return True, SURE, category
    used = _used_reason(text, count=count, category=category, min_count=min_count, scripts=scripts)
    return used is not None, used or RARE, category


def choose_tokens(
    tokens: Iterable[tuple[int, bytes, bool]],
    counts: Mapping[int, int] | None,
    *,
    scripts: frozenset[str] = DEFAULT_SCRIPTS,
    min_count: int = MIN_COUNT,
    sure_count: int = SURE_COUNT,
) -> list[Decision]:
    """Decide for each (id, bytes, is an added token) whether to keep it; the first rule that fits counts.

    counts None: the text decides alone, every token that is not foreign stays. An id that counts does not
    hold was never seen. data/README.md lists the rules in words. Raises UserError for an unknown script.
    """
    unknown = sorted(scripts - rules.script_names())
    if unknown:
        raise UserError(
            f"{unknown[0]!r} is no Unicode script; give names such as Latin, Greek, Cyrillic "
            f"(known: {', '.join(sorted(rules.script_names()))})"
        )
    decisions = []
    for token_id, token_bytes, added in tokens:
        count = None if counts is None else counts.get(token_id, 0)
        keep, reason, category = (
            (True, ADDED, "others")
            if added
            else _decide(
                token_bytes, count=count, scripts=scripts, min_count=min_count, sure_count=sure_count
            )
        )
        text = text_for_people(token_bytes)
        decisions.append(Decision(token_id, text, count or 0, keep, reason, category))
    return decisions


def write_lists(
    folder: Path, decisions: Sequence[Decision], *, made_from: Mapping[str, Any]
) -> dict[str, Any]:
    """Write tokens_kept__* and tokens_removed__*.jsonl and summary.json into an empty or new folder.

    Rows are [token, token_id, count], most counted first. Added tokens are in no list: they always stay, and
    tokenizers that share one fingerprint differ in them. made_from goes into the summary, which is returned:
    give "fingerprint", thresholds, and the SHA-256 of the counts. Raises UserError if the folder holds
    anything.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise UserError(f"{folder} is not empty; give a new folder, or remove this one: rm -r {folder}")
    listed = sorted((d for d in decisions if d.reason != ADDED), key=lambda d: (-d.count, d.id))
    numbers: dict[str, dict[str, int]] = {}
    for state, keep in (("kept", True), ("removed", False)):
        for category in CATEGORIES:
            rows = [d for d in listed if d.keep == keep and d.category == category]
            lines = [json.dumps([d.text, d.id, d.count], ensure_ascii=False) + "\n" for d in rows]
            path = folder / f"tokens_{state}__{category}.jsonl"
            path.write_text("".join(lines), encoding="utf-8", newline="\n")
            numbers.setdefault(category, {})[state] = len(rows)
    reasons = Counter((d.keep, d.reason) for d in listed)
    summary = {
        "format": FORMAT,
        "version": VERSION,
        **made_from,
        "tokens_kept": sum(number["kept"] for number in numbers.values()),
        "tokens_removed": sum(number["removed"] for number in numbers.values()),
        "categories": numbers,
        "kept_because": {reason: n for (keep, reason), n in reasons.most_common() if keep},
        "removed_because": {reason: n for (keep, reason), n in reasons.most_common() if not keep},
    }
    write_json(folder / "summary.json", summary)
    return summary


def find_bundled(wanted: str, data_dir: Path) -> Path | None:
    """Return the folder of lists below data_dir whose summary.json has this fingerprint, None if none has."""
    for path in sorted(data_dir.glob("*/summary.json")):
        summary = read_json_object(path)
        if (summary.get("format"), summary.get("version")) == (FORMAT, VERSION):
            if summary.get("fingerprint") == wanted:
                return path.parent
    return None


def read_keep(
    paths: Sequence[Path], *, token_bytes: Mapping[int, bytes], expected_fingerprint: str | None = None
) -> KeepList:
    """Return the ids that lists of any of the four kinds name together.

    token_bytes: of every token of the tokenizer that the ids are for. Each row's token is compared with it,
    and a folder's fingerprint with expected_fingerprint, so that a list of another tokenizer is refused.
    Lists that write bytes without a character as U+FFFD are compared that way. Raises UserError with file and
    line.
    """
    ids: set[int] = set()
    digest = hashlib.sha256()
    found: str | None = None
    for path in paths:
        if path.is_dir():
            stated = _stated_fingerprint(path)
            if expected_fingerprint and stated and stated != expected_fingerprint:
                raise UserError(
                    f"{path / 'summary.json'}: made for the tokenizer {stated[:12]}…, this one is "
                    f"{expected_fingerprint[:12]}…; make a list for it with build_vocab.py"
                )
            found = found or stated
        for file in _files_of(path):
            content = _read_text(file)
            digest.update(content.encode("utf-8"))
            for where, token_id, row_text in _entries(file, content):
                if token_id not in token_bytes:
                    raise UserError(
                        f"{where}: no token has id {token_id}, ids end at {max(token_bytes, default=-1)}: "
                        "a kept list of another tokenizer; make one with build_vocab.py"
                    )
                if row_text is not None:
                    _compare(where, row_text, token_id=token_id, token_bytes=token_bytes[token_id])
                ids.add(token_id)
    if not ids:
        raise UserError(
            f"{', '.join(map(str, paths)) or 'no path'}: no id to keep; give a list that has some"
        )
    return KeepList(frozenset(ids), tuple(map(str, paths)), digest.hexdigest(), found)


def _stated_fingerprint(folder: Path) -> str | None:
    """The fingerprint in a folder's summary.json; None without that file, as in lists of other programs."""
    path = folder / "summary.json"
    stated = read_json_object(path).get("fingerprint") if path.exists() else None
    return str(stated) if stated is not None else None


def _files_of(path: Path) -> list[Path]:
    if not path.exists():
        raise UserError(
            f"{path} is missing; give a folder of tokens_kept__*.jsonl, or a .jsonl, .txt, .json file"
        )
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("tokens_kept__*.jsonl"))
    if not files:
        raise UserError(f"{path} holds no tokens_kept__*.jsonl; give a folder that build_vocab.py wrote")
    return files


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8 text; save the file as UTF-8") from None


def _entries(path: Path, content: str) -> Iterator[tuple[str, int, str | None]]:
    """Yield (file:line, id, token text or None) of a list; UserError for a line that is none."""
    if path.suffix == ".json":
        values = read_json(path)
        if not isinstance(values, list) or not all(_is_id(value) for value in values):
            raise UserError(f"{path} is no list of token ids; give JSON such as [0, 1, 2]")
        yield from ((str(path), value, None) for value in values)
        return
    if path.suffix not in (".jsonl", ".txt"):
        raise UserError(
            f"{path} has the ending {path.suffix!r}; lists are folders, .jsonl, .txt or .json files"
        )
    # Not splitlines(): a token may hold U+2028 or another character that it takes for the end of a line.
    lines = ((f"{path}:{number}", line) for number, line in enumerate(content.split("\n"), 1))
    if path.suffix == ".jsonl":
        for where, line in lines:
            if line and not line.isspace():
                row_text, token_id = _parse_row(where, line)
                yield where, token_id, row_text
        return
    for where, line in lines:
        line = line.partition("#")[0].strip()
        if line and not (line.isascii() and line.isdigit()):
            raise UserError(f"{where}: {line!r} is no token id; write one number per line")
        if line:
            yield where, int(line), None


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _parse_row(where: str, line: str) -> tuple[str, int]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not JSON ({error.msg}); mend or remove the line") from None
    if not (isinstance(row, list) and len(row) == 3 and isinstance(row[0], str) and _is_id(row[1])):
        raise UserError(
            f'{where}: {line.strip()[:80]!r} is no row ["token", token_id, count]; mend or remove it'
        )
    return row[0], row[1]


def _compare(where: str, row_text: str, *, token_id: int, token_bytes: bytes) -> None:
    exact = text_for_people(token_bytes)
    if row_text != exact and row_text != token_bytes.decode("utf-8", "replace"):
        raise UserError(
            f"{where}: token {token_id} is {row_text!r} in the list and {exact!r} in the tokenizer: "
            "a kept list of another tokenizer; make one with build_vocab.py"
        )
