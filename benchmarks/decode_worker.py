#!/usr/bin/env python3
"""One process of benchmarks/decode.py: load one model, let it answer, print what that took as JSON.

With --mask or --avoid every answer is followed by a plain one of the same model, so that what they cost is
measured within one process. MODEL is a folder or a GGUF; `bandwidth` instead measures memory. One thread is
timed by its processor time, which other programs on the machine do not lengthen; more by the clock.

    python3 benchmarks/decode_worker.py MODEL --tokens 32 --answers 3 --avoid
    python3 benchmarks/decode_worker.py bandwidth
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run from anywhere, without installation

from vocabkit.chat.avoid import Avoider  # noqa: E402
from vocabkit.chat.backends import Backend, Sampling  # noqa: E402
from vocabkit.chat.only_scripts import forbidden_ids, read_scripts, tokenizer_of  # noqa: E402
from vocabkit.errors import run_cli  # noqa: E402
from vocabkit.text.unicode import foreign_script  # noqa: E402

PROMPT_TOKENS = 32
OPENINGS = ("a tapestry of", "a testament to", "in the realm of", "the power of", "it is important to",
            "at the heart of", "a journey through", "unlock the secrets of", "navigate the world of",
            "delve into")  # fmt: skip
ENDINGS = ("human emotion", "resilience", "innovation", "the modern age", "hope and despair", "our time",
           "connection", "discovery", "the unknown", "possibility", "tradition", "light and shadow", "wonder",
           "the digital era", "growth", "memory", "love and loss", "culture", "creativity",
           "excellence")  # fmt: skip
PHRASES = [" ".join(pair) for pair in product(OPENINGS, ENDINGS)]  # 200
MATRIX = (65_536, 4096)  # float32: 1 GiB, more than any cache


Clock = Callable[[], float]


class WatchedAvoider(Avoider):
    """Notes when each token comes, and the seconds spent on looking for phrases."""

    def __init__(self, decode: Callable[[Sequence[int]], str], clock: Clock) -> None:
        super().__init__(PHRASES, decode)
        self.clock = clock
        self.times: list[float] = []
        self.seconds = 0.0
        self.hits = 0

    def add(self, token_id: int) -> int | None:
        start = self.clock()
        self.times.append(start)
        went_back = super().add(token_id)
        self.seconds += self.clock() - start
        self.hits += went_back is not None
        return went_back

    def take(self) -> list[int]:
        start = self.clock()
        ready = super().take()
        self.seconds += self.clock() - start
        return ready


@dataclass
class Answers:
    """What several answers of one kind took."""

    clock: Clock
    first: list[float] = field(default_factory=list)  # seconds to the first token shown, each
    intervals: list[float] = field(default_factory=list)  # seconds from token to token, all
    ids: list[list[int]] = field(default_factory=list)
    avoiders: list[WatchedAvoider] = field(default_factory=list)

    def add(self, generate: Callable[..., Iterator[int]], avoider: WatchedAvoider | None) -> None:
        """Let the model answer once."""
        start, times, ids = self.clock(), [], []
        for token_id in generate(avoider=avoider):
            times.append(self.clock())
            ids.append(token_id)
        self.first.append(times[0] - start)
        if avoider is not None:  # ids are held back and then shown together: these are when they were made
            times = avoider.times
            self.avoiders.append(avoider)
        self.intervals += [late - early for early, late in zip(times, times[1:], strict=False)]
        self.ids.append(ids)


@dataclass
class Opened:
    """A loaded model: how it answers, its tokenizer for plain text, and what a token has to read."""

    backend: Backend
    encode: Callable[[str], list[int]]
    kind: str
    bytes_read: int


def open_folder(path: Path, threads: int) -> Opened:
    """Load a folder with transformers, in the number type that model_chat.py chooses."""
    import torch

    from vocabkit.chat.transformers_backend import TransformersBackend

    torch.set_num_threads(threads)
    backend = TransformersBackend.open(str(path))
    model = backend.model
    read = sum(parameter.nbytes for parameter in model.parameters())  # a tied matrix counts once
    if not model.config.tie_word_embeddings:
        read -= model.get_input_embeddings().weight.nbytes
    return Opened(
        backend,
        encode=partial(backend.tokenizer.encode, add_special_tokens=False),
        kind=str(model.dtype).removeprefix("torch."),
        bytes_read=read,
    )


def open_gguf(path: Path, threads: int) -> Opened:
    """Load a GGUF with llama.cpp, as model_chat.py does."""
    from vocabkit.chat.llama_backend import LlamaBackend
    from vocabkit.gguf.files import read_gguf

    class Afresh(LlamaBackend):
        """Reads every prompt again, which llama.cpp would remember from the last answer."""

        def generate(self, *args: Any, **options: Any) -> Iterator[int]:
            self.llama.reset()
            return super().generate(*args, **options)

    backend = Afresh(str(path), threads=threads)
    tensors = read_gguf(path).tensors
    looked_up = "token_embd.weight" if "output.weight" in tensors else ""
    return Opened(
        backend,
        encode=lambda words: backend.llama.tokenize(words.encode(), add_bos=False, special=False),
        kind=path.name.split(".")[-2],
        bytes_read=sum(tensor.size for name, tensor in tensors.items() if name != looked_up),
    )


def bandwidth(clock: Clock, *, threads: int, runs: int = 10) -> dict[str, Any]:
    """Bytes of memory read in a second by a matrix times a vector, the work that a token is."""
    import torch

    torch.set_num_threads(threads)
    matrix, vector = torch.ones(MATRIX), torch.ones(MATRIX[1])
    seconds = []
    for _ in range(runs):
        start = clock()
        torch.mv(matrix, vector)
        seconds.append(clock() - start)
    return {"bandwidth": matrix.nbytes / min(seconds)}


def foreign_share(texts: Sequence[str]) -> float:
    """Return which part of the characters a model trimmed to English and Vietnamese cannot write."""
    written = "".join(texts)
    return sum(foreign_script(char) is not None for char in written) / max(len(written), 1)


def avoid_seconds(opened: Opened, words: str, clock: Clock) -> float:
    """Seconds a token that looking for PHRASES takes in English text, which often begins one of them."""
    avoider = WatchedAvoider(opened.backend.decode, clock)
    ids = opened.encode(words)[:2000]
    for token_id in ids:
        avoider.add(token_id)
        avoider.take()
    return avoider.seconds / len(ids)


def answer(opened: Opened, args: argparse.Namespace, *, words: str, clock: Clock) -> dict[str, Any]:
    """Let the model answer args.answers times, plain answers in turn where there is something to compare."""
    prompt = opened.encode(words)[:PROMPT_TOKENS]
    backend = opened.backend
    sampling = Sampling(
        temperature=1.0, top_p=1.0, top_k=40, repetition_penalty=1.0, seed=0, max_new_tokens=args.tokens
    )
    never = forbidden_ids(tokenizer_of(args.model), read_scripts(["Latin"])) if args.mask else []
    measured, plain = Answers(clock), Answers(clock)
    list(backend.generate(prompt, replace(sampling, max_new_tokens=2)))  # warm caches
    for seed in range(args.answers):
        generate = partial(backend.generate, prompt, replace(sampling, seed=seed))
        avoider = WatchedAvoider(backend.decode, clock) if args.avoid else None
        in_turn = [partial(measured.add, partial(generate, never=never), avoider)]
        if args.mask or args.avoid:
            in_turn.append(partial(plain.add, generate, None))
        for one in in_turn if seed % 2 else reversed(in_turn):
            one()
    result: dict[str, Any] = {
        "kind": opened.kind,
        "bytes_read": opened.bytes_read,
        "seconds_per_token": median(measured.intervals),
        "seconds_to_first": min(measured.first),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,  # Linux counts in KiB
        "foreign": foreign_share(list(map(backend.decode, measured.ids))),
        "tokens": sum(map(len, measured.ids)),
    }
    if plain.ids:
        result["cost"] = median(measured.intervals) / median(plain.intervals) - 1
    if args.avoid:
        seconds = sum(avoider.seconds for avoider in measured.avoiders)
        result["avoid_share"] = seconds / sum(measured.intervals)
        result["avoid_share_english"] = avoid_seconds(opened, words, clock) / median(plain.intervals)
        result["hits"] = sum(avoider.hits for avoider in measured.avoiders)
    return result


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this script's command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="a folder, a GGUF, or the word bandwidth")
    parser.add_argument("--tokens", type=int, default=32, help="of an answer (default: 32)")
    parser.add_argument("--answers", type=int, default=3, help="of each kind (default: 3)")
    parser.add_argument("--threads", type=int, default=1, help="of the computation (default: 1)")
    parser.add_argument("--mask", action="store_true", help="as --only_scripts Latin")
    parser.add_argument("--avoid", action="store_true", help="as --avoid with 200 phrases")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Measure; return the exit status."""
    args = build_parser().parse_args(argv)
    clock = time.process_time if args.threads == 1 else time.perf_counter
    if args.model == Path("bandwidth"):
        result = bandwidth(clock, threads=args.threads)
    else:
        opened = (open_gguf if args.model.suffix == ".gguf" else open_folder)(args.model, args.threads)
        words = (ROOT / "README.md").read_text(encoding="utf-8")
        result = answer(opened, args, words=words, clock=clock)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    run_cli(main)
