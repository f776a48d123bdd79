"""Token counts → a folder of lists that trimm_vocab takes, with summary.json and report.html.

Reads the tokenizer files of a folder; writes the folder of lists, whole or not at all.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vocabkit import keep, leaves
from vocabkit.files import new_directory
from vocabkit.plan import Plan, make_plan
from vocabkit.report_html import PART_OF_KEPT, write_html_report
from vocabkit.text import DEFAULT_SCRIPTS
from vocabkit.tokenizer_files import read_spm_models, required_ids
from vocabkit.tokenizer_json import TokenizerJson


def build_lists(
    model: Path,
    tokenizer: TokenizerJson,
    counts: Mapping[int, int],
    out: Path,
    *,
    made_from: Mapping[str, Any],
    command: str,
    scripts: frozenset[str] = DEFAULT_SCRIPTS,
    min_count: int = keep.MIN_COUNT,
    sure_count: int = keep.SURE_COUNT,
    target_size: int | None = None,
) -> dict[str, Any]:
    """Decide about every token of a folder's tokenizer and write the lists; return the summary.

    made_from goes into the summary. target_size: tokens that trimming with these lists leaves, added tokens
    and bytes included. Raises UserError for a target that cannot be met, and if OUT exists.
    """
    added = set(tokenizer.added.values())
    rows = ((token_id, data, token_id in added) for token_id, data in tokenizer.token_bytes.items())
    decisions = keep.choose_tokens(rows, counts, scripts=scripts, min_count=min_count, sure_count=sure_count)
    spm_models = read_spm_models(model)
    required = required_ids(model, tokenizer, spm_models)

    def plan_of(wanted: set[int]) -> Plan:
        return make_plan(
            tokenizer, wanted, required_ids=required, spm_models=spm_models.values(), scripts=scripts
        )

    closed = set(plan_of({decision.id for decision in decisions if decision.keep}).new_to_old)
    if target_size is not None:
        always = set(plan_of(set()).new_to_old)
        parts = leaves.parts_of(tokenizer, closed, spm_models.values())
        closed = leaves.shrink(closed, target_size, parts=parts, counts=counts, always=always)
        decisions = [_shrunk(decision, closed) for decision in decisions]
    total = sum(counts.values())
    with new_directory(out) as part:
        summary = keep.write_lists(
            part,
            decisions,
            made_from={
                "fingerprint": keep.fingerprint(tokenizer.vocab, tokenizer.merges),
                **made_from,
                "counted_tokens": total,
                "min_count": min_count,
                "sure_count": sure_count,
                "ascii_count": min_count / keep.ASCII_SHARE,
                "scripts": sorted(scripts),
                **({"target_size": target_size} if target_size is not None else {}),
                "tokens_with_closure": len(closed),
                "covered_share": sum(counts.get(token_id, 0) for token_id in closed) / total
                if total
                else 1.0,
            },
        )
        title = out.name
        write_html_report(
            part / "report.html",
            decisions=decisions,
            closed=closed,
            summary=summary,
            title=title,
            command=command,
        )
    return summary


def _shrunk(decision: keep.Decision, closed: set[int]) -> keep.Decision:
    """The decision after leaves were taken away: what is left is listed, parts of other tokens too, so that
    the lists say all that the target counts.
    """
    if decision.keep and decision.id not in closed:
        return dataclasses.replace(decision, keep=False, reason="beyond the target size")
    if not decision.keep and decision.id in closed:
        return dataclasses.replace(decision, keep=True, reason=PART_OF_KEPT)
    return decision
