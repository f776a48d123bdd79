"""--similarity and --check_similarity of build_vi_words.py: a language model explains words, rows are
checked.

Reads a list of words and perhaps a dictionary; writes OUT, and while it works OUT.part/progress.jsonl: a line
for each finished word. A run that was killed reads it and asks for the others only.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from vocabkit.errors import DAMAGE, UserError, one_line
from vocabkit.files import DATA, parse_json, sha256_file, write_jsonl
from vocabkit.outputs import Part, publication
from vocabkit.vocab.word_list import text_of
from vocabkit.words.explain.rows import check_explanations, read_explanations
from vocabkit.words.explain.writer import ATTEMPTS, Chat, Writer, in_parallel

if TYPE_CHECKING:
    from tokenizers import Tokenizer

WORDS, OUT = DATA / "vi_words_chosen.jsonl", DATA / "vi_words_similarity.jsonl"

PROGRESS_FORMAT = ("vocabkit/similarity_progress", 1)
REQUESTS = 4  # that a server gets at a time: what small ones do side by side
NEW_TOKENS = 1024  # of a local model's answer: twice what a row takes
SHOWN, WIDE = 20, 500  # words without a row that are listed with their reason; characters of each line


class AnswerLog:
    """OUT.part/progress.jsonl: which run it belongs to, then what Writer.write() returned for each word."""

    def __init__(self, path: Path, run: Mapping[str, Any]) -> None:
        self.path = path
        self.done: dict[str, dict[str, Any]] = {}  # word → what was returned
        name, version = PROGRESS_FORMAT
        self._head = {"format": name, "version": version, **run}
        self._size = self._read() if path.exists() else 0
        self._file: IO[bytes] | None = None

    def _read(self) -> int:
        head = self._head
        whole, newline, _ = self.path.read_bytes().rpartition(b"\n")
        lines = whole.decode("utf-8", errors="replace").split("\n")
        try:
            found, *items = map(parse_json, lines if newline else [])
            self.done = {(item.get("row") or item)["word"]: item for item in items}
        except DAMAGE:
            if not newline:
                return 0  # killed before the first line was whole
            raise UserError(
                f"{self.path} holds a line that is no progress; remove it and start again: rm {self.path}"
            ) from None
        if found != head:
            differs = [key for key in head if not isinstance(found, dict) or found.get(key) != head[key]]
            raise UserError(
                f"{self.path} belongs to another run ({', '.join(differs)} differs); finish that one, or "
                f"remove it and start again: rm {self.path}"
            )
        return len(whole) + 1

    def add(self, item: dict[str, Any]) -> None:
        """Save what was returned for a word."""
        items = [item] if self._size else [self._head, item]
        if self._file is None:
            self._file = self.path.open("r+b" if self._size else "wb")
            self._file.truncate(self._size)  # a line that a killed run did not finish
            self._file.seek(self._size)
        data = b"".join(json.dumps(each, ensure_ascii=False).encode() + b"\n" for each in items)
        self._file.write(data)
        self._file.flush()
        self._size += len(data)
        self.done[(item.get("row") or item)["word"]] = item

    def close(self) -> None:
        """Let the file go."""
        if self._file is not None:
            self._file.close()


def local_chat(folder: Path) -> Chat:
    """Return the model of a folder as a function of messages; it runs through transformers, one at a time."""
    from vocabkit.chat.backends import Sampling
    from vocabkit.chat.transformers_backend import TransformersBackend

    backend = TransformersBackend.open(str(folder))
    print(f"{folder}: {backend.describe()}", file=sys.stderr)

    def chat(messages: list[dict[str, str]], *, schema: object) -> str:
        prompt, limit = backend.encode(messages), backend.context
        room = NEW_TOKENS if limit is None else min(NEW_TOKENS, limit - len(prompt))
        if room < 1:
            raise UserError(
                f"{folder} reads {limit:,} tokens, the question has {len(prompt):,}; use a model that reads "
                "more"
            )
        # a seed: the same words give the same rows, whether the run was interrupted or not
        return backend.decode(list(backend.generate(prompt, Sampling(seed=0, max_new_tokens=room))))

    return chat


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this module to build_vi_words.py's."""
    add = parser.add_argument_group("explaining words, with a language model").add_argument
    add("--similarity", action="store_true", help="write a row for each word: English, near words, sentences")
    add(
        "--server", metavar="URL",
        help="ask an OpenAI-compatible server; -m says which tokens count (default: the model of -m writes)",
    )  # fmt: skip
    add("--model_name", metavar="NAME", help="the server's model (default: the only one it has)")
    add("--words", type=Path, metavar="FILE", help=f".jsonl or .txt of words (default: data/{WORDS.name})")
    add("--num_words", type=int, metavar="N", help="the first N of them (default: all)")
    add("--dictionary", type=Path, metavar="FILE", help="lines English TAB Vietnamese that the model is told")
    add("--timeout", type=float, default=600, metavar="SECONDS", help="of the server's answer (default: 600)")
    add("--check_similarity", type=Path, metavar="FILE", help="say what is wrong with such rows")


CHECKING = {"check_similarity", "model", "words", "num_words"}
WRITING = {"similarity", "model", "words", "num_words", "dictionary", "out"}
WITH_SERVER = {"server", "model_name", "timeout", "workers"}


def is_asked(args: argparse.Namespace, parser: argparse.ArgumentParser) -> bool:
    """Whether the command line is for this module; UserError if its options do not go together."""
    given = [name for name in vars(args) if getattr(args, name) not in (parser.get_default(name), [])]
    if args.check_similarity:
        mode, fits = "--check_similarity", CHECKING
    elif args.similarity:
        mode, fits = "--similarity", WRITING | (WITH_SERVER if args.server else set())
    else:
        for name in given:
            if name in (CHECKING | WRITING | WITH_SERVER) - {"model", "out", "workers"}:
                raise UserError(
                    f"--{name} is for explaining words; say so with --similarity, or leave it out"
                )
        return False
    for name in given:
        if name not in fits:
            option = "CORPUS" if name == "corpus" else f"--{name}"
            need = "give --server URL too, or " if args.similarity and name in WITH_SERVER else ""
            raise UserError(f"{option} does not go with {mode}; {need}leave it out")
    return True


def run(args: argparse.Namespace) -> int:
    """Check or write rows as the command line says; return the exit status."""
    from vocabkit.checkpoint.hub import local_folder
    from vocabkit.tokenizer.encoder import load_encoder
    from vocabkit.vocab.word_list import read_words

    for name in ("num_words", "timeout", "workers"):
        if (value := getattr(args, name)) is not None and value <= 0:
            raise UserError(f"--{name} is {value:g}, expected a positive number")
    model = local_folder(args.model) if args.model else None
    encoder = load_encoder(model) if model else None
    path = args.words or (WORDS if args.similarity or args.num_words else None)
    words = read_words(path, count=args.num_words) if path else None
    if words is None or args.check_similarity:
        return _check(args.check_similarity, words=words, encoder=encoder)
    return _write(args, model, encoder, [word.replace(" ", "▁") for word in words])


def _check(path: Path, *, words: list[str] | None, encoder: "Tokenizer | None") -> int:
    rows = read_explanations(path)
    findings = check_explanations(rows, words=words, encoder=encoder, name=path)
    for finding in findings:
        print(finding)
    print(f"{path}: {len(rows):,} rows, {len(findings):,} findings", end="")
    if words is not None:
        having = {text_of(str(row.get("word"))) for row in rows if isinstance(row, dict)}
        print(f"; {len(having & set(words)):,} of {len(words):,} words have a row", end="")
    print("" if encoder else "; en_one_token not checked, give a tokenizer: -m MODEL")
    return 1 if findings else 0


def _write(
    args: argparse.Namespace, model: Path | None, encoder: "Tokenizer | None", words: list[str]
) -> int:
    if model is None and not args.server:
        raise UserError("--similarity needs a language model; give a folder, -m MODEL, or --server URL")
    out = args.out or OUT
    with publication([out], resume=True) as part:
        failed, said = _write_rows(args, model, encoder, words, part=part)
    print(f"{out}: {said}" if said else f"no row is right, {out} is not written")
    if encoder is None:
        print("without en_one_token, which needs a tokenizer: -m MODEL", file=sys.stderr)
    if failed:
        print(
            f"no row for {len(failed):,} of {len(words):,} words, after {ATTEMPTS} answers each:",
            file=sys.stderr,
        )
    for item in failed[:SHOWN]:
        print("  " + one_line(f"{item['word']}: {'; '.join(item['problems'])}")[:WIDE], file=sys.stderr)
    if len(failed) > SHOWN:
        print("  and " + " ".join(item["word"] for item in failed[SHOWN:]), file=sys.stderr)
    return 1 if failed else 0


def _write_rows(
    args: argparse.Namespace,
    model: Path | None,
    encoder: "Tokenizer | None",
    words: list[str],
    *,
    part: Part,
) -> tuple[list[dict[str, Any]], str]:
    """Ask for rows and write them; return what was answered wrong, and what to say: "" if no row is right."""
    from tqdm import tqdm

    from vocabkit.vocab.word_list import read_dictionary
    from vocabkit.words.explain.server import ChatServer

    dictionary = read_dictionary(args.dictionary) if args.dictionary else None
    run = {
        "words_sha256": hashlib.sha256("\n".join(words).encode()).hexdigest(),
        "tokenizer_sha256": sha256_file(model / "tokenizer.json") if model else None,
    }
    log = AnswerLog(part.folder / "progress.jsonl", run)  # read before a model is loaded
    chat: Chat
    if args.server:
        chat = ChatServer(args.server, model_name=args.model_name, timeout=args.timeout)
    else:
        assert model is not None
        chat = local_chat(model)
    writer = Writer(chat, words=words, encoder=encoder, dictionary=dictionary)
    for item in log.done.values():
        if "row" in item and (problems := writer.take(item["row"])):
            raise UserError(f"{log.path} has a row that is wrong: {problems[0]}; rm {log.path}")
    todo = [word for word in words if word not in log.done]
    threads = (args.workers or REQUESTS) if args.server else 1
    with tqdm(
        total=len(words), initial=len(words) - len(todo), unit="word", leave=False, disable=None
    ) as bar:
        for item in in_parallel(writer.write, todo, threads=threads):
            log.add(item)
            bar.update()
    items = [log.done[word] for word in words]
    rows, failed = [i["row"] for i in items if "row" in i], [i for i in items if "row" not in i]
    log.close()
    if not rows:
        part.drop()
        return failed, ""
    write_jsonl(part.places[0], rows)
    return failed, f"{len(rows):,} rows"
