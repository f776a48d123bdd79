"""A tiny chat model with a byte-level tokenizer, changes to its JSON files, and model_chat.py run at once."""

import contextlib
import io
import json
import sys
from pathlib import Path

import pytest
import torch
import transformers
from tiny import ROOT
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

import model_chat
from vocabkit.chat.backends import Sampling
from vocabkit.errors import run_cli

GREEDY = Sampling(temperature=0.0)

DEMO = ROOT / "data" / "demo"

INTO_CHINESE = "Translate following sentence into Chinese: tôi tên là An"

TIME_LINE = r"{}: timespent \d+\.\d\d seconds, \d+ tokens, \d+\.\d tokens/s"

TEXTS = [
    "Xin chào, tôi tên là Lý Quốc Dân.",
    "Thời gian trôi nhanh quá!",
    "The quick brown fox  jumps over 13 dogs.",
] * 3

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


def byte_level_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Like Qwen2.5: byte-level BPE, NFC, chat template, added words with and without a space."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=320,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        ),
    )
    tokenizer.add_tokens([" thời gian", "café"])
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")
    fast.chat_template = TEMPLATE
    return fast


def spm_bpe_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Like Llama-2: ▁ for spaces, byte fallback, one space in front of the text that decoding takes away."""
    letters = sorted(set("".join(TEXTS)) - {" ", "Q", "x"})  # Q and x need their byte tokens
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256)), "▁", *letters, "▁t", "▁th", "qu"]
    tokens += ["▁▁", "th"]
    merges = [("▁", "t"), ("▁t", "h"), ("t", "h"), ("q", "u"), ("▁", "▁")]
    vocab = {token: n for n, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", bos_token="<s>", unk_token="<unk>"
    )


def unigram_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Like T5: Unigram, Metaspace, no bytes; </s> after every text."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    tokenizer.train_from_iterator(
        TEXTS,
        trainers.UnigramTrainer(
            vocab_size=90, show_progress=False, special_tokens=special, unk_token="<unk>"
        ),
    )
    from tokenizers.processors import TemplateProcessing

    tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )


MAKERS = {"byte_level": byte_level_tokenizer, "spm_bpe": spm_bpe_tokenizer, "unigram": unigram_tokenizer}

TINY = {name: make() for name, make in MAKERS.items()}


def save_qwen2(folder: Path, *, tied: bool = True, seed: int = 0, **changes: object) -> Path:
    """Write a tiny random Qwen2 chat checkpoint with the byte-level tokenizer; changes go into its config."""
    torch.manual_seed(seed)
    end = TINY["byte_level"].eos_token_id
    config = transformers.Qwen2Config(
        **{**SIZES, "vocab_size": 384, "num_key_value_heads": 2, "tie_word_embeddings": tied, **changes},
        eos_token_id=end,
        bos_token_id=None,
        initializer_range=0.3,  # large enough that greedy answers are not one token for ever
    )
    transformers.Qwen2ForCausalLM(config).save_pretrained(folder)
    TINY["byte_level"].save_pretrained(folder)
    rewrite(folder / "generation_config.json", suppress_tokens=list(range(len(TINY["byte_level"]), 384)))
    return folder


def rewrite(path: Path, **changes: object) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**data, **changes}), encoding="utf-8")


def chat(*argv: object, stdin: str = "") -> tuple[int, str, str]:
    """Run model_chat.py in this process: its exit status, its stdout, its stderr."""
    out, err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.setattr("vocabkit.chat.llama_backend.cores", lambda: 1)  # more only wait for each other
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8"))
        with contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
            run_cli(lambda: model_chat.main([str(arg) for arg in argv]))
    out.flush()
    return ended.value.code, out.buffer.getvalue().decode(), err.getvalue()


# Vocabulary tensors


def config(name: str, **values: object):
    if not hasattr(transformers, name):
        pytest.skip(f"transformers {transformers.__version__} has no {name}")
    return getattr(transformers, name)(**values)


def save_t5(folder: Path) -> Path:
    torch.manual_seed(0)
    config = transformers.T5Config(
        vocab_size=96, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0
    )
    transformers.T5ForConditionalGeneration(config).save_pretrained(folder)
    TINY["unigram"].save_pretrained(folder)
    return folder
