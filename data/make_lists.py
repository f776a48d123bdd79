"""Make the bundled lists from token counts that exist already: counts + text rules → a folder of lists.

    python3 data/make_lists.py --tokenizer QWEN --counts counts.json.xz -o data/qwen__1000__20000

Reads QWEN/tokenizer.json and {"token id": count} (plain, .xz, .gz, .bz2); writes tokens_kept__*.jsonl,
tokens_removed__*.jsonl and summary.json. The same input gives the same bytes.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vocabkit.errors import UserError, run_cli  # noqa: E402


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder with tokenizer.json")
    parser.add_argument("--counts", type=Path, required=True, help='JSON file {"token id": count}')
    parser.add_argument("-o", "--out", type=Path, required=True, help="new folder for the lists")
    parser.add_argument("--min_count", type=int, default=1000, help="count of a used token (default: 1000)")
    parser.add_argument("--sure_count", type=int, default=20000, help="kept whatever it is (default: 20000)")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    from vocabkit import bpe, keep
    from vocabkit.files import new_directory, open_text, sha256_file
    from vocabkit.text import DEFAULT_SCRIPTS
    from vocabkit.tokenizer_json import BYTE_LEVEL_BPE, read_tokenizer_json

    tokenizer = read_tokenizer_json(args.tokenizer)
    if tokenizer.family != BYTE_LEVEL_BPE:
        raise UserError(f"{args.tokenizer} is a {tokenizer.family} tokenizer, expected {BYTE_LEVEL_BPE}")
    with open_text(args.counts) as file:
        counts = {int(token_id): count for token_id, count in json.load(file).items()}
    added = set(tokenizer.added.values())
    decisions = keep.choose_tokens(
        ((token_id, data, token_id in added) for token_id, data in tokenizer.token_bytes.items()),
        counts,
        min_count=args.min_count,
        sure_count=args.sure_count,
    )
    own = {token_id: token for token, token_id in tokenizer.vocab.items() if token_id not in added}
    wanted = [own[decision.id] for decision in decisions if decision.keep and decision.id in own]
    closed = bpe.closure(wanted, bpe.rank_merges(tokenizer.merges).get)
    made_from = {
        "fingerprint": keep.fingerprint(tokenizer.vocab, tokenizer.merges),
        "counts_sha256": sha256_file(args.counts),
        "counted_tokens": sum(counts.values()),
        "min_count": args.min_count,
        "sure_count": args.sure_count,
        "ascii_count": args.min_count / keep.ASCII_SHARE,
        "scripts": sorted(DEFAULT_SCRIPTS),
        "tokens_kept_with_closure": len(closed),
    }
    with new_directory(args.out) as part:
        summary = keep.write_lists(part, decisions, made_from=made_from)
    print(f"{args.out}: {summary['tokens_kept']} kept, {len(closed)} with closure")
    return 0


if __name__ == "__main__":
    run_cli(main)
