#!/usr/bin/env python3
"""Train an edited checkpoint in stages: new rows alone, a few low layers, the whole model.

Reads a Hugging Face folder and texts or chats; writes a new folder that is as ordinary as the one it read.
While it runs, and after a kill, OUT.part holds checkpoints: the same command goes on from the last one. Every
flag of transformers.TrainingArguments works too (--learning_rate, --max_steps, --report_to tensorboard …).

    python3 finetune_qwen.py --model_name_or_path ../Qwen2.5-1.5B-Instruct__extend_vocab \\
        --data_path vi.jsonl en.jsonl:0.5 --output_dir ../stage1
    python3 finetune_qwen.py --model_name_or_path ../stage1 --data_path corpus/ --output_dir ../stage2 \\
        --train_rows all --finetune_layers "0 1 2"
    python3 finetune_qwen.py --model_name_or_path ../stage2 --data_path chats.jsonl --output_dir ../stage3 \\
        --train_rows all --finetune_layers all --lora_rank 64
    accelerate launch finetune_qwen.py …                     # the same on several GPUs
"""

import argparse
import logging
import sys
from pathlib import Path

from vocabkit.errors import check_installed, run_cli
from vocabkit.train.options import PACKING, StageOptions
from vocabkit.train.processes import one_voice

# Beyond requirements.txt: before transformers 5, --warmup_steps can be no share of all steps.
NEEDS = ("transformers>=5.0", "tokenizers>=0.22", "huggingface_hub>=1.3")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script's own flags; main() gives the others to TrainingArguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--model_name_or_path", required=True, help="checkpoint folder, or a hub id (downloaded first)")
    add(
        "--data_path", nargs="+", required=True, metavar="PATH[:WEIGHT]",
        help="files, folders, hf:NAME; WEIGHT 2 reads a source twice, 0.5 half of it",
    )  # fmt: skip
    add("--output_dir", type=Path, required=True, help="new folder; must not exist")
    add = parser.add_argument_group("what is trained").add_argument
    add(
        "--train_rows", choices=("new", "all", "none"), default="new",
        help="rows of embeddings and head: those of new words (the others keep every bit), all, none "
        "(default: %(default)s)",
    )  # fmt: skip
    add(
        "--finetune_layers", default="none", metavar='"0 1 2"|all|none',
        help="decoder layers to train, the lowest is 0; all: and the norms around (default: %(default)s)",
    )  # fmt: skip
    add("--lora_rank", type=int, metavar="R", help="train LoRA of rank R in the layers, not their weights")
    add("--lora_alpha", type=int, metavar="A", help="scale of LoRA (default: 2 R)")
    add("--no_merge_lora", action="store_true", help="write OUT/adapter, leave the layers as they were")
    add("--no_clamp_norms", action="store_true", help="let norms of new rows leave the old range")
    add("--objective", choices=("lm", "distill", "both"), default="lm",
        help="next token; the frozen model on the old tokens as teacher; both (default: lm)")  # fmt: skip
    add = parser.add_argument_group("data").add_argument
    add(
        "--model_max_length",
        type=int,
        default=1024,
        metavar="N",
        help="tokens of a row (default: %(default)s)",
    )
    add("--packing", choices=PACKING, default="best_fit",
        help="how texts share a row (default: %(default)s: whole ones, fewest gaps)")  # fmt: skip
    add("--cross_document", action="store_true", help="let texts of one row see each other (similar)")
    add(
        "--stage_mix",
        nargs="+",
        metavar="KIND=SHARE",
        help="shares of the tokens: bilingual, vietnamese, english, instruction",
    )
    add("--text_field", metavar="NAME", help="field of the text (default: text, messages or conversations)")
    add("--eval_path", nargs="+", metavar="PATH", help="texts that bits per byte are measured on")
    add("--eval_share", type=float, default=0.02, metavar="SHARE",
        help="share of the data for that if no --eval_path is given (default: %(default)s)")  # fmt: skip
    add("--cache_dir", type=Path, help="where tokenized data is kept for the next run (default: OUT.part)")
    add = parser.add_argument_group("memory").add_argument
    add("--dtype", choices=("float32", "bfloat16"),
        help="of the weights while training (default: bfloat16 on a GPU, float32 on a CPU)")  # fmt: skip
    add(
        "--attn_implementation", metavar="NAME",
        help="eager, sdpa, flex_attention, flash_attention_2, kernels-community/NAME (downloaded); documents "
        "of a row stay apart in all, flash needs no mask for it (default: transformers' choice, mostly sdpa)",
    )  # fmt: skip
    add("--optim_in_backward", action="store_true",
        help="step each weight as soon as its gradient is there and drop that: needs no gradient memory, but "
        "--gradient_accumulation_steps 1 and no clipping")  # fmt: skip
    add("--ignore_memory", action="store_true", help="start even if it looks as if it would not fit")
    return parser


def read_options(argv: list[str] | None = None) -> StageOptions:
    """Return what a command line asks for; UserError for flags that contradict each other."""
    args, others = build_parser().parse_known_args(argv)
    return StageOptions(**vars(args), others=others)


def main(argv: list[str] | None = None) -> int:
    """Train as the flags say; return the exit status."""
    check_installed(NEEDS)
    with one_voice():
        options = read_options(argv)
        for name in ("torchao", "torch.utils._pytree"):  # about kernels of GPUs that are not there
            logging.getLogger(name).setLevel(logging.ERROR)
        from vocabkit.outputs import command_line
        from vocabkit.train.run import finetune

        finetune(options, made_by=command_line("finetune_qwen.py", sys.argv[1:] if argv is None else argv))
    return 0


if __name__ == "__main__":
    run_cli(main)
