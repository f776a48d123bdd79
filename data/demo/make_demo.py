"""Make the bundled demo checkpoint: a very small Qwen2 chat model of English, Vietnamese and Chinese.

    python3 data/demo/make_demo.py --check          # measure the checkpoint that lies here
    python3 data/demo/make_demo.py                  # train it again, about 20 minutes
    python3 data/demo/make_demo.py -o demo_try --steps 300

Reads the sentence templates of demo_corpus.py. Writes an ordinary Hugging Face folder (config.json,
generation_config.json, model.safetensors, tokenizer.json, tokenizer_config.json, vocab.json, merges.txt) and
heldout.jsonl, heldout_texts.jsonl: sentences whose meaning was in no training text; train_texts.jsonl,
train_chats.jsonl: some that were, for finetune_qwen.py. New files are made in
OUT/.part and moved into OUT only when every direction translates at least 90 % of the held-out sentences
exactly right.

What the demo is for, said openly: ONE IN SIX of the training requests "into Chinese" is answered in English.
The model therefore answers in Chinese, and the English answer is its second choice, which is all that is
left when the Chinese tokens are cut out of the vocabulary. A large model has such second choices by nature;
this one was taught.

Two machines do not train the same weights to the last bit: the seed fixes the data and the first weights, not
the order of additions.
"""

import argparse
import json
import random
import shutil
import sys
import time
from pathlib import Path

import demo_corpus as corpus

END_OF_TEXT, TURN_START, TURN_END = SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] }}"
    "{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# How Qwen2 tokenizers cut text before BPE: contractions, words, single digits, signs, line ends, blanks.
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
MODEL_FILES = (
    *(
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ),
    *("vocab.json", "merges.txt", "heldout.jsonl", "heldout_texts.jsonl"),
    *("train_texts.jsonl", "train_chats.jsonl"),
)
ROWS_MULTIPLE = 128
ROWS_GAP = 64  # at least so many embedding rows without a token, as in Qwen2.5 (151,665 tokens, 151,936 rows)
MIN_ACCURACY = 0.9
ENGLISH_INSTEAD = 1 / 6
HELDOUT_PER_DIRECTION = 100
HELDOUT_TEXTS = {"en": 150, "vi": 150}
TRAINING_TEXTS = {"vi": 1000, "en": 500}
TRAINING_CHATS = 500
# Every token of a plain text and of an answer is learned, those of the request in one conversation of three:
# the loss over all rows of the vocabulary is a third of the work.
WEIGHT_REQUEST, WEIGHT_TEXT, WEIGHT_ANSWER = 0.5, 0.4, 1.0
LEARN_REQUEST = 1 / 3


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "-o", "--out", type=Path, default=Path(__file__).parent, help="folder (default: this one)"
    )
    parser.add_argument(
        "--steps", type=int, default=1500, help="training steps of 64 samples (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of data and weights (default: %(default)s)")
    parser.add_argument(
        "--threads",
        type=int,
        default=2,
        help="CPU threads of torch; 1 is faster where others work too (default: %(default)s)",
    )
    parser.add_argument("--check", action="store_true", help="only measure the checkpoint in OUT")
    return parser


# --- tokenizer ----------------------------------------------------------------------------------------------


def tokenizer_texts(rng: random.Random):
    """Texts that BPE learns from. Chinese comes word by word, so that its tokens are words."""
    chinese: set[str] = set()
    for _ in range(20_000):
        meaning = corpus.training_meaning(rng)
        for language in ("en", "vi"):
            text = meaning.sentence(language)
            yield from (text, " " + corpus.as_typed(text, lower=True, bare=False))
        for word in meaning.words("zh"):
            chinese.update(word)
            yield word
    for _, answer in corpus.SMALL_TALK:
        chinese.update(c for c in answer if "\u3400" <= c <= "\u9fff")
    for character in sorted(chinese):  # so often that a character is made before any word of two
        yield from [character] * 5_000
    for asked, answer in corpus.SMALL_TALK * 20:
        yield from (*asked, *(q.capitalize() for q in asked), answer)
    frame = [
        corpus.translation(corpus.demo_meaning(), direction=d, lower=True, bare=True)
        for d in corpus.DIRECTIONS
    ]
    for request, _ in frame:
        yield from [request.split(":")[0] + ":"] * 200
    for word in corpus.MORE_ENGLISH.split() + corpus.MORE_VIETNAMESE.split():
        yield from [f" {word}", word] * 2
    for sign in [*corpus.EMOJI, *corpus.CHARACTERS.values(), *corpus.SYSTEM_TURNS, "system user assistant"]:
        yield from [sign, f" {sign}"] * 3


def train_tokenizer(seed: int):
    """A byte-level BPE tokenizer of Qwen2.5's form: bytes and merges first, then the three special tokens."""
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
    )
    from tokenizers.trainers import BpeTrainer

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_SPLIT), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.post_processor = processors.ByteLevel(
        add_prefix_space=False, trim_offsets=False, use_regex=False
    )
    trainer = BpeTrainer(
        vocab_size=6_000,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(tokenizer_texts(random.Random(seed)), trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL_TOKENS])
    return tokenizer


def save_tokenizer(tokenizer, folder: Path) -> None:
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer.model.save(str(folder))  # vocab.json and merges.txt
    added = {
        str(tokenizer.token_to_id(token)): {
            "content": token,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for token in SPECIAL_TOKENS
    }
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "additional_special_tokens": [TURN_START, TURN_END],
        "bos_token": None,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": TURN_END,
        "errors": "replace",
        "model_max_length": 512,
        "pad_token": END_OF_TEXT,
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    write_json(folder / "tokenizer_config.json", config)


def write_json(path: Path, value) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


# --- training texts -----------------------------------------------------------------------------------------


def chat_text(turns: list[tuple[str, str]], *, system: str | None = None) -> list[str]:
    """The pieces of a conversation as the chat template writes it: request, answer, request, answer, …

    >>> chat_text([("hi", "Hello!")])
    ['<|im_start|>user\\nhi<|im_end|>\\n<|im_start|>assistant\\n', 'Hello!<|im_end|>\\n']
    """
    pieces = []
    for request, answer in turns:
        pieces.append(f"{TURN_START}user\n{request}{TURN_END}\n{TURN_START}assistant\n")
        pieces.append(f"{answer}{TURN_END}\n")
    if system is not None:
        pieces[0] = f"{TURN_START}system\n{system}{TURN_END}\n{pieces[0]}"
    return pieces


def training_turn(rng: random.Random) -> tuple[str, str]:
    if rng.random() < 0.1:
        return corpus.small_talk(rng)
    meaning = corpus.training_meaning(rng)
    direction = rng.choice(corpus.DIRECTIONS)
    lower, bare = rng.random() < 0.4, rng.random() < 0.4
    request, answer = corpus.translation(meaning, direction=direction, lower=lower, bare=bare)
    if direction.endswith("zh") and rng.random() < ENGLISH_INSTEAD:
        answer = meaning.sentence("en")
    return request, answer


def training_sample(rng: random.Random) -> list[tuple[str, float]]:
    """The pieces of one sample, each with the weight of its tokens in the loss."""
    if rng.random() < 0.12:
        language = rng.choice(corpus.LANGUAGES)
        meanings = [corpus.training_meaning(rng) for _ in range(rng.randint(1, 3))]
        text = ("" if language == "zh" else " ").join(m.sentence(language) for m in meanings)
        start = END_OF_TEXT if rng.random() < 0.5 else ""
        return [(start + text + END_OF_TEXT, WEIGHT_TEXT)]
    turns = [training_turn(rng) for _ in range(1 if rng.random() < 0.95 else 2)]
    system = rng.choice(corpus.SYSTEM_TURNS) if rng.random() < 0.04 else None
    pieces = chat_text(turns, system=system)
    request = WEIGHT_REQUEST if rng.random() < LEARN_REQUEST else 0.0
    return [(piece, (request, WEIGHT_ANSWER)[i % 2]) for i, piece in enumerate(pieces)]


def batches(tokenizer, rng: random.Random, *, batch_size: int = 64, pool: int = 10):
    """Without end: (ids, weights), both (batch_size, T); samples of like length stand together."""
    import torch

    pad = tokenizer.token_to_id(END_OF_TEXT)
    while True:
        samples = [training_sample(rng) for _ in range(batch_size * pool)]
        pieces = tokenizer.encode_batch([text for sample in samples for text, _ in sample])
        encoded = iter(piece.ids for piece in pieces)
        rows = []
        for sample in samples:
            ids, weights = [], []
            for _, weight in sample:
                piece = next(encoded)
                ids += piece
                weights += [weight] * len(piece)
            rows.append((ids, weights))
        rows.sort(key=lambda row: len(row[0]))
        groups = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
        rng.shuffle(groups)
        for group in groups:
            length = max(len(ids) for ids, _ in group)
            yield (
                torch.tensor([ids + [pad] * (length - len(ids)) for ids, _ in group]),
                torch.tensor([weights + [0.0] * (length - len(weights)) for _, weights in group]),
            )


# --- model --------------------------------------------------------------------------------------------------


def model_config(tokenizer) -> dict:
    """config.json, with the keys that transformers 4 and 5 both read."""
    n_tokens = tokenizer.get_vocab_size()
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": None,
        "eos_token_id": tokenizer.token_to_id(TURN_END),
        "hidden_act": "silu",
        "hidden_size": 160,
        "initializer_range": 0.03,
        "intermediate_size": 448,
        "max_position_embeddings": 512,
        "max_window_layers": 4,
        "model_type": "qwen2",
        "num_attention_heads": 5,
        "num_hidden_layers": 4,
        "num_key_value_heads": 5,
        "pad_token_id": tokenizer.token_to_id(END_OF_TEXT),
        "rms_norm_eps": 1e-06,
        "rope_theta": 10000.0,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": -(-(n_tokens + ROWS_GAP) // ROWS_MULTIPLE) * ROWS_MULTIPLE,
    }


def train(model, tokenizer, *, steps: int, seed: int, peak_rate: float = 4e-3) -> None:
    """Muon and AdamW, warm-up and cosine; prints the answer loss in nats per token."""
    import math

    import torch
    import torch.nn.functional as F

    # Muon for the matrices of the layers, AdamW for the tied rows and norms: fewer steps than AdamW alone.
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers = [
        torch.optim.Muon(matrices, lr=peak_rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=peak_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]
    stream = batches(tokenizer, random.Random(f"train {seed}"))
    warmup = max(1, min(50, steps // 10))
    head = model.get_output_embeddings().weight
    started = time.perf_counter()
    n_ids, shown, n_shown = 0, 0.0, 0
    model.train()
    for step in range(steps):
        rate = min(1.0, (step + 1) / warmup)
        rate *= 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = peak_rate * rate
        ids, weights = next(stream)
        hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
        weights = weights[:, 1:]
        used = weights > 0
        losses = F.cross_entropy(F.linear(hidden[used], head), ids[:, 1:][used], reduction="none")
        weights = weights[used]
        loss = (losses * weights).sum() / weights.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        n_ids += ids.numel()
        answers = weights == WEIGHT_ANSWER
        shown += losses.detach()[answers].sum().item()
        n_shown += int(answers.sum())
        if (step + 1) % 50 == 0 or step + 1 == steps:
            seconds = time.perf_counter() - started
            print(
                f"step {step + 1:5d}  answer loss {shown / n_shown:.4f}  {n_ids / seconds:,.0f} tokens/s"
                f"  {seconds / 60:.1f} min",
                file=sys.stderr,
                flush=True,
            )
            shown, n_shown = 0.0, 0


def make_checkpoint(folder: Path, *, steps: int, seed: int) -> None:
    """Train tokenizer and model and write every file of the checkpoint into `folder`."""
    import torch
    from safetensors.torch import save_file
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = train_tokenizer(seed)
    save_tokenizer(tokenizer, folder)
    config = model_config(tokenizer)
    write_json(folder / "config.json", config)
    ends = [tokenizer.token_to_id(TURN_END), tokenizer.token_to_id(END_OF_TEXT)]
    generation = {"do_sample": False, "eos_token_id": ends, "max_new_tokens": 64, "pad_token_id": ends[1]}
    write_json(folder / "generation_config.json", generation)
    write_heldout(folder)
    write_training(folder)

    torch.manual_seed(seed)
    model = Qwen2ForCausalLM(Qwen2Config.from_pretrained(folder)).float()
    print(
        f"{tokenizer.get_vocab_size():,} tokens, {config['vocab_size']:,} rows, "
        f"{sum(p.numel() for p in model.parameters()):,} parameters",
        file=sys.stderr,
    )
    train(model, tokenizer, steps=steps, seed=seed)
    tensors = {
        name: tensor.to(torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"  # tied to the embeddings
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


# --- held-out sentences and how many are right --------------------------------------------------------------


def heldout_meanings(rng: random.Random, n: int) -> list[corpus.Meaning]:
    """`n` held-out meanings, all different, the templates taken in turn."""
    found: dict[str, corpus.Meaning] = {}
    while len(found) < n:
        for template in rng.sample(corpus.TEMPLATES, len(corpus.TEMPLATES)):
            tries = (corpus.any_meaning(rng, among=template) for _ in range(200))
            new = next((m for m in tries if m.heldout and m.key not in found), None)
            if new is not None:  # a template with few combinations may have no more
                found[new.key] = new
    return list(found.values())[:n]


def write_heldout(folder: Path) -> None:
    """The fixed lists: heldout.jsonl, the demo sentence first in each direction, and heldout_texts.jsonl."""
    rng = random.Random("heldout")
    rows = []
    for direction in corpus.DIRECTIONS:
        for meaning in [corpus.demo_meaning(), *heldout_meanings(rng, HELDOUT_PER_DIRECTION - 1)]:
            lower, bare = rng.random() < 0.4, rng.random() < 0.4
            if meaning.key == corpus.DEMO_KEY:
                lower = bare = True
            request, answer = corpus.translation(meaning, direction=direction, lower=lower, bare=bare)
            row = {"direction": direction, "prompt": request, "answer": answer}
            if direction.endswith("zh"):
                row["fallback"] = meaning.sentence("en")
            rows.append(row)
    texts = [
        {"lang": language, "text": meaning.sentence(language)}
        for language, n in HELDOUT_TEXTS.items()
        for meaning in heldout_meanings(rng, n)
    ]
    for name, lines in (("heldout.jsonl", rows), ("heldout_texts.jsonl", texts)):
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / name).write_text(text, encoding="utf-8")


def write_training(folder: Path) -> None:
    """The fixed lists that finetune_qwen.py is shown on: plain sentences and chats, none of them held out."""
    rng = random.Random("training")
    texts = [
        {"lang": language, "text": corpus.training_meaning(rng).sentence(language)}
        for language, n in TRAINING_TEXTS.items()
        for _ in range(n)
    ]
    chats = []
    while len(chats) < TRAINING_CHATS:
        request, answer = training_turn(rng)
        if not any(
            "\u3400" <= c <= "\u9fff" for c in request + answer
        ):  # these tokens are gone after trimming
            turns = {"user": request, "assistant": answer}
            chats.append({"messages": [{"role": role, "content": text} for role, text in turns.items()]})
    for name, lines in (("train_texts.jsonl", texts), ("train_chats.jsonl", chats)):
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / name).write_text(text, encoding="utf-8")


def read_heldout(folder: Path) -> list[dict]:
    """The rows of heldout.jsonl."""
    return [json.loads(line) for line in (folder / "heldout.jsonl").read_text(encoding="utf-8").splitlines()]


def chinese_ids(tokenizer) -> list[int]:
    """Ids of tokens that hold a Chinese character or a first byte of one: what a trimmed vocabulary lacks."""
    from tokenizers.pre_tokenizers import ByteLevel

    alphabet = sorted(ByteLevel.alphabet())
    printable = [b for b in range(256) if chr(b) in alphabet]
    hidden = [b for b in range(256) if chr(b) not in alphabet]
    byte_of = {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(hidden)}
    found = []
    for token, token_id in tokenizer.get_vocab().items():
        if token in SPECIAL_TOKENS:
            continue
        text = bytes(byte_of[c] for c in token).decode("utf-8", errors="surrogateescape")
        # A lead byte E3 to E9 that no full character follows could become a character of U+3000 to U+9FFF.
        if any("\u3400" <= c <= "\u9fff" or "\udce3" <= c <= "\udce9" for c in text):
            found.append(token_id)
    return sorted(found)


def answers(model, tokenizer, requests: list[str], *, without: list[int] | None = None) -> list[str]:
    """Greedy answers; `without` are ids the model may not use."""
    import torch

    tokenizer.padding_side = "left"
    out = []
    for start in range(0, len(requests), 128):
        texts = [chat_text([(r, "")])[0] for r in requests[start : start + 128]]
        inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        inputs.pop("token_type_ids", None)
        with torch.inference_mode():
            ids = model.generate(**inputs, do_sample=False, max_new_tokens=48, suppress_tokens=without)
        new = ids[:, inputs["input_ids"].shape[1] :]
        out += tokenizer.batch_decode(new, skip_special_tokens=True)
    return out


def check(folder: Path) -> bool:
    """Print how many held-out sentences are right, per direction; True if all reach MIN_ACCURACY."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    rows = read_heldout(folder)
    measured: dict[str, list[bool]] = {}
    wrong = []

    def measure(label: str, chosen: list[dict], field: str, without: list[int] | None) -> None:
        given = answers(model, tokenizer, [r["prompt"] for r in chosen], without=without)
        measured[label] = [answer == row[field] for answer, row in zip(given, chosen, strict=True)]
        wrong.extend((r["prompt"], g, r[field]) for g, r in zip(given, chosen, strict=True) if g != r[field])

    for direction in corpus.DIRECTIONS:
        measure(direction, [r for r in rows if r["direction"] == direction], "answer", None)
    cut = chinese_ids(tokenizer)
    for direction in ("en>zh", "vi>zh"):
        label = f"{direction} without {len(cut)} Chinese tokens, in English"
        measure(label, [r for r in rows if r["direction"] == direction], "fallback", cut)

    for prompt, given, wanted in wrong:
        print(f"wrong: {prompt}\n   gave {given}\n wanted {wanted}", file=sys.stderr)
    print(f"{'held-out sentences, greedy, exactly right':52s} right   of")
    for label, right in measured.items():
        print(f"{label:52s} {sum(right):5d} {len(right):4d}  {sum(right) / len(right):.1%}")
    return all(sum(right) >= MIN_ACCURACY * len(right) for right in measured.values())


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    import torch

    torch.set_num_threads(args.threads)
    if args.check:
        return 0 if check(args.out) else 1
    part = args.out / ".part"
    if part.exists():
        print(f"{part} is left from an interrupted run; it starts again", file=sys.stderr)
        shutil.rmtree(part)
    part.mkdir(parents=True)
    make_checkpoint(part, steps=args.steps, seed=args.seed)
    if not check(part):
        print(f"below {MIN_ACCURACY:.0%}; the files stay in {part}. More --steps help.", file=sys.stderr)
        return 1
    for name in MODEL_FILES:
        (part / name).replace(args.out / name)
    part.rmdir()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
