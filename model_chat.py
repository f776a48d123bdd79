"""Chat with one model, or ask two models the same questions.

Reads ordinary Hugging Face folders or GGUF files and nothing of ours; questions come from the terminal, a
pipe or --prompt. Writes the conversation to stdout, everything else to stderr.

    python3 model_chat.py Qwen2.5-1.5B-Instruct__trimm_vocab
    python3 model_chat.py Qwen2.5-1.5B-Instruct Qwen2.5-1.5B-Instruct__trimm_vocab --greedy
    python3 model_chat.py qwen2.5-7b-instruct-q4_k_m__trimm_vocab.gguf
    python3 model_chat.py Qwen2.5-1.5B-Instruct --avoid "a tapestry of" --only_scripts Latin
    python3 model_chat.py data/demo --prompt "Translate following sentence into Chinese: tôi tên là An"
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from vocabkit.errors import run_cli


def build_parser() -> argparse.ArgumentParser:
    examples = (__doc__ or "").split("\n\n")[2]
    parser = argparse.ArgumentParser(
        description=f"Chat with one model, or ask two models the same questions.\n\n{examples}",
        epilog="Options that are not given come from the model's generation_config.json.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="folder with config.json, tokenizer.json and weights, or a GGUF file")
    add("model2", metavar="MODEL2", nargs="?", help="second model, asked the same questions")
    add("--prompt", action="append", metavar="TEXT", help="ask this and leave; may be repeated")
    add("--system", metavar="TEXT", help="system text, put before the conversation")
    add("--temperature", type=_number(0, 100), help="0 is greedy, 1 the model's own probabilities")
    add(
        "--top_p", type=_number(0, 1), help="sample from the likeliest tokens that add up to this probability"
    )
    add("--top_k", type=_number(0, 10**6, int), help="sample from this many likeliest tokens; 0: from all")
    add("--repetition_penalty", type=_number(0.01, 100), help="above 1: avoid tokens that were used; 1: off")
    add("--max_new_tokens", type=_number(1, 10**6, int), default=512, metavar="N",
        help="longest answer in tokens (default: %(default)s, about a page)")  # fmt: skip
    add("--greedy", action="store_true", help="always take the likeliest token")
    add("--seed", type=int, help="make sampling repeatable: set before each answer (default: a new one)")
    add("--dtype", choices=["float32", "bfloat16", "float16"],
        help="number type (default: the checkpoint's own; float32 if small and on a CPU)")  # fmt: skip
    add("--avoid", action="append", default=[], metavar="TEXT",
        help="a phrase that no answer may hold; may be repeated")  # fmt: skip
    add("--avoid_file", type=Path, metavar="FILE", help="such phrases, one a line")
    add("--avoid_ignore_case", action="store_true", help="whatever their case")
    add("--only_scripts", nargs="+", metavar="SCRIPT",
        help="write these scripts only, such as Latin: trimming's promise, by masking tokens")  # fmt: skip
    add(
        "--no_color",
        action="store_true",
        help="no colours (default: colours on a terminal, none if NO_COLOR)",
    )
    return parser


def _number(low: float, high: float, kind: type = float) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not between {low} and {high}")
        return value

    return number


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    # Vietnamese must come through whatever the locale says.
    sys.stdin.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    from vocabkit.chat.avoid import read_phrases
    from vocabkit.chat.backends import Sampling
    from vocabkit.chat.conversation import HELP, Screen, clean, note, talk
    from vocabkit.chat.only_scripts import read_scripts
    from vocabkit.chat.open import check_path, open_conversation

    paths = [args.model, args.model2] if args.model2 else [args.model]
    for path in paths:
        check_path(path)
    sampling = Sampling(
        temperature=0.0 if args.greedy else args.temperature,
        top_p=args.top_p,
        top_k=args.top_k,
        repetition_penalty=args.repetition_penalty,
        seed=args.seed,
        max_new_tokens=args.max_new_tokens,
    )
    wishes = {
        "dtype": args.dtype,
        "system": clean(args.system) if args.system else None,
        "scripts": read_scripts(args.only_scripts) if args.only_scripts else None,
        "phrases": read_phrases(args.avoid, args.avoid_file),
        "ignore_case": args.avoid_ignore_case,
    }
    conversations = [open_conversation(path, sampling, **wishes) for path in paths]
    if not args.prompt and sys.stdin.isatty():
        note(HELP)
    colour = sys.stdout.isatty() and not args.no_color and not os.environ.get("NO_COLOR")
    talk(conversations, Screen(colour=colour), args.prompt)
    return 0


if __name__ == "__main__":
    run_cli(main)
