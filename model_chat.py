"""Chat with one model, or ask two models the same questions.

Reads ordinary Hugging Face folders and nothing of ours; questions come from the terminal, a pipe or
--prompt. Writes the conversation to stdout, everything else to stderr.

    python3 model_chat.py Qwen2.5-1.5B-Instruct__trimm_vocab
    python3 model_chat.py Qwen2.5-1.5B-Instruct Qwen2.5-1.5B-Instruct__trimm_vocab --greedy
    python3 model_chat.py data/demo --prompt "Translate following sentence into Chinese: tôi tên là An"
"""

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial

from vocabkit.errors import run_cli


def build_parser() -> argparse.ArgumentParser:
    examples = (__doc__ or "").split("\n\n")[2]
    parser = argparse.ArgumentParser(
        description=f"Chat with one model, or ask two models the same questions.\n\n{examples}",
        epilog="Options that are not given come from the model's generation_config.json.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("model", metavar="MODEL", help="folder with config.json, tokenizer.json and weights")
    add("model2", metavar="MODEL2", nargs="?", help="second folder, asked the same questions")
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
    from vocabkit.chat import HELP, Conversation, Screen, clean, model_folder, note, talk

    paths = [args.model, args.model2] if args.model2 else [args.model]
    for path in paths:
        model_folder(path)
    from vocabkit import model as vk
    from vocabkit.generate import generate

    vk.silence()
    conversations = []
    for path in paths:
        note(f"loading {path}")
        tokenizer = vk.load_tokenizer(path)
        model = vk.load_model(path, dtype=args.dtype)
        note(f"{path}: {vk.describe(model)}")
        if not vk.has_chat_template(tokenizer):
            alone = (
                "each question is answered alone"
                if model.config.is_encoder_decoder
                else "it continues the text"
            )
            note(f"{path}: no chat template, so {alone}")
        options = {
            name: getattr(args, name)
            for name in ("greedy", "temperature", "top_p", "top_k", "repetition_penalty", "seed")
        }
        conversations.append(
            Conversation(
                name=path,
                encode=partial(vk.prompt_ids, model, tokenizer),
                generate=partial(generate, model, tokenizer, **options),
                to_text=partial(vk.stream_text, tokenizer=tokenizer, skip_special_tokens=True),
                max_new_tokens=args.max_new_tokens,
                context=vk.context_length(model),
                system=clean(args.system) if args.system else None,
            )
        )
    if not args.prompt and sys.stdin.isatty():
        note(HELP)
    colour = sys.stdout.isatty() and not args.no_color and not os.environ.get("NO_COLOR")
    talk(conversations, Screen(colour=colour), args.prompt)
    return 0


if __name__ == "__main__":
    run_cli(main)
