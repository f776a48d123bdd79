"""Token counts → a folder of lists that trimm_vocab takes, with summary.json and report.html; lists → ids.

Reads the tokenizer files of a folder, and lists: folders of tokens_kept__*.jsonl, .jsonl files of rows
[token, token_id, count], .txt and .json files of ids. Writes the folder of lists, whole or not at all.
"""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vocabkit.errors import UserError, reading
from vocabkit.files import (
    DATA,
    read_json,
    read_json_object,
    read_jsonl,
    read_text,
    text_lines,
    write_json,
    write_jsonl,
)
from vocabkit.outputs import as_published
from vocabkit.text.languages import CATEGORIES
from vocabkit.text.unicode import DEFAULT_SCRIPTS
from vocabkit.tokenizer.bpe import text_for_people
from vocabkit.tokenizer.settings import read_spm_models, required_ids
from vocabkit.tokenizer.tokenizer_json import TokenizerJson
from vocabkit.vocab.leaves import parts_of, shrink
from vocabkit.vocab.plan import Plan, make_plan
from vocabkit.vocab.report import PART_OF_KEPT, write_html_report
from vocabkit.vocab.rules import ADDED, ASCII_SHARE, MIN_COUNT, SURE_COUNT, Decision, decide


def build_lists(
    model: Path,
    tokenizer: TokenizerJson,
    counts: Mapping[int, int],
    folder: Path,
    *,
    made_from: Mapping[str, Any],
    command: str,
    scripts: frozenset[str] = DEFAULT_SCRIPTS,
    min_count: int = MIN_COUNT,
    sure_count: int = SURE_COUNT,
    target_size: int | None = None,
) -> dict[str, Any]:
    """Decide about every token of a model's tokenizer, write the lists into a new folder, return the summary.

    made_from goes into the summary. target_size: tokens that trimming with these lists leaves, added tokens
    and bytes included. Raises UserError for a target that cannot be met.
    """
    decisions = decide(
        tokenizer.token_bytes,
        counts,
        added=set(tokenizer.added.values()),
        scripts=scripts,
        min_count=min_count,
        sure_count=sure_count,
    )
    spm_models = read_spm_models(model)
    required = required_ids(model, tokenizer, spm_models)

    def plan_of(wanted: set[int]) -> Plan:
        return make_plan(
            tokenizer, wanted, required_ids=required, spm_models=spm_models.values(), scripts=scripts
        )

    closed = set(plan_of({decision.id for decision in decisions if decision.keep}).new_to_old)
    if target_size is not None:
        always = set(plan_of(set()).new_to_old)
        parts = parts_of(tokenizer, closed, spm_models.values())
        closed = shrink(closed, target_size, parts=parts, counts=counts, always=always)
        decisions = [_shrunk(decision, closed) for decision in decisions]
    total = sum(counts.values())
    folder.mkdir()
    summary = write_lists(
        folder,
        decisions,
        made_from={
            "fingerprint": tokenizer.fingerprint(),
            **made_from,
            "counted_tokens": total,
            "min_count": min_count,
            "sure_count": sure_count,
            "ascii_count": min_count / ASCII_SHARE,
            "scripts": sorted(scripts),
            **({"target_size": target_size} if target_size is not None else {}),
            "tokens_with_closure": len(closed),
            "covered_share": sum(counts.get(token_id, 0) for token_id in closed) / total if total else 1.0,
        },
    )
    write_html_report(
        folder / "report.html",
        decisions=decisions,
        closed=closed,
        summary=summary,
        title=folder.name,
        command=command,
    )
    return summary


def _shrunk(decision: Decision, closed: set[int]) -> Decision:
    """The decision after leaves were taken away: what is left is listed, parts of other tokens too, so that
    the lists say all that the target counts.
    """
    if decision.keep and decision.id not in closed:
        return dataclasses.replace(decision, keep=False, reason="beyond the target size")
    if not decision.keep and decision.id in closed:
        return dataclasses.replace(decision, keep=True, reason=PART_OF_KEPT)
    return decision


FORMAT, VERSION = "vocab-lists", 1


def write_lists(
    folder: Path, decisions: Sequence[Decision], *, made_from: Mapping[str, Any]
) -> dict[str, Any]:
    """Write tokens_kept__* and tokens_removed__*.jsonl and summary.json into a folder.

    Rows are [token, token_id, count], most counted first. Added tokens are in no list: they always stay, and
    tokenizers that share one fingerprint differ in them. made_from goes into the summary, which is returned:
    give "fingerprint", thresholds, and the SHA-256 of the counts.
    """
    listed = sorted((d for d in decisions if d.reason != ADDED), key=lambda d: (-d.count, d.id))
    rows: dict[tuple[str, str], list[tuple[str, int, int]]] = {
        (category, state): [] for state in ("kept", "removed") for category in CATEGORIES
    }
    for d in listed:
        rows[d.category, "kept" if d.keep else "removed"].append((d.text, d.id, d.count))
    numbers: dict[str, dict[str, int]] = {}
    for (category, state), some in rows.items():
        write_jsonl(folder / f"tokens_{state}__{category}.jsonl", some)
        numbers.setdefault(category, {})[state] = len(some)
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


def find_bundled(tokenizer: TokenizerJson, data_dir: Path) -> Path | None:
    """Return the folder of lists below data_dir that was made for this tokenizer, None if none was."""
    for path in sorted(data_dir.glob("*/summary.json")):
        summary = read_json_object(path)
        if (summary.get("format"), summary.get("version")) == (FORMAT, VERSION):
            if tokenizer.has_fingerprint(summary.get("fingerprint", "")):
                return path.parent
    return None


def read_keep(
    paths: Sequence[Path], *, token_bytes: Mapping[int, bytes], tokenizer: TokenizerJson | None = None
) -> tuple[set[int], str]:
    """Return the ids that lists of any of the four kinds name together, and the SHA-256 of the lists.

    token_bytes: of every token of the tokenizer that the ids are for. Each row's token is compared with it,
    and a folder's fingerprint with that of tokenizer, so that a list of another one is refused.
    Lists that write bytes without a character as U+FFFD are compared that way. Raises UserError with file and
    line.
    """
    ids: set[int] = set()
    digest = hashlib.sha256()
    for path in paths:
        if path.is_dir():
            stated = _stated_fingerprint(path)
            if tokenizer and stated and not tokenizer.has_fingerprint(stated):
                raise UserError(
                    f"{path / 'summary.json'}: made for the tokenizer {stated[:12]}…, this one is "
                    f"{tokenizer.fingerprint()[:12]}…; make a list for it with build_vocab.py"
                )
        for file in _files_of(path):
            digest.update(read_text(file, again="save the file as UTF-8").encode("utf-8"))
            for where, token_id, row_text in _entries(file):
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
    return ids, digest.hexdigest()


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


def _entries(path: Path) -> Iterator[tuple[str, int, str | None]]:
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
    if path.suffix == ".jsonl":
        for where, row in read_jsonl(path):
            row_text, token_id = _checked_row(where, row)
            yield where, token_id, row_text
        return
    for where, line in text_lines(path):
        line = line.partition("#")[0].strip()
        if line and not (line.isascii() and line.isdigit()):
            raise UserError(f"{where}: {line!r} is no token id; write one number per line")
        if line:
            with reading(where, again="write one number per line"):
                token_id = int(line)
            yield where, token_id, None


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _checked_row(where: str, row: Any) -> tuple[str, int]:
    if not (isinstance(row, list) and len(row) == 3 and isinstance(row[0], str) and _is_id(row[1])):
        raise UserError(f'{where}: {str(row)[:80]} is no row ["token", token_id, count]; mend or remove it')
    return row[0], row[1]


def _compare(where: str, row_text: str, *, token_id: int, token_bytes: bytes) -> None:
    exact = text_for_people(token_bytes)
    if row_text != exact and row_text != token_bytes.decode("utf-8", "replace"):
        raise UserError(
            f"{where}: token {token_id} is {row_text!r} in the list and {exact!r} in the tokenizer: "
            "a kept list of another tokenizer; make one with build_vocab.py"
        )


def wanted_ids(tokenizer: TokenizerJson, keep_paths: Sequence[Path]) -> tuple[set[int], dict[str, Any]]:
    """Return the ids to keep and where they come from: lists given, the bundled list that fits, or rules."""
    paths, how = list(keep_paths), "given"
    if not paths:
        bundled = find_bundled(tokenizer, DATA)
        paths, how = ([bundled], "bundled") if bundled else ([], "rules")
    if paths:
        ids, sha256 = read_keep(paths, token_bytes=tokenizer.token_bytes, tokenizer=tokenizer)
        names = [f"data/{path.name}" if how == "bundled" else as_published(path) for path in paths]
        return ids, {"how": how, "source": ", ".join(names), "sha256": sha256}
    decisions = decide(tokenizer.token_bytes, None, added=set(tokenizer.added.values()))
    ids = {decision.id for decision in decisions if decision.keep}
    scripts = ", ".join(sorted(DEFAULT_SCRIPTS))
    source = f"the text rules alone (no list fits this tokenizer): scripts {scripts} and emoji"
    return ids, {"how": how, "source": source, "sha256": None}
