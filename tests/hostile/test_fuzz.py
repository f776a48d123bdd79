"""Every parser, fed with damaged files: it works, or it ends in a UserError of one line that names the file.

Nothing else is raised, nothing hangs, no OUT is left. The inputs are decided by a seed: a few of them here,
2,000 with `pytest --thorough`.
"""

import base64
import contextlib
import gzip
import json
import random
import shutil
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import build
import mutating
import numpy as np
import pyarrow.parquet
import pytest
from safetensors import safe_open
from tiny import ROOT, SENTENCES, write_tiny

from vocabkit.checkpoint.record import new_rows
from vocabkit.checkpoint.shards import read_checkpoint
from vocabkit.corpus import counting
from vocabkit.corpus.files import find_sources, read_blocks
from vocabkit.corpus.lines import check_readable, read_texts
from vocabkit.corpus.records import BadRecord, parse_rows
from vocabkit.counts.files import read_counts
from vocabkit.edit.extend import extend_vocab
from vocabkit.edit.trim import trim_vocab
from vocabkit.errors import UserError, one_line
from vocabkit.files import sha256_file, write_json, write_jsonl
from vocabkit.gguf.files import NewTensor, read_gguf, write_gguf
from vocabkit.gguf.trim import trim_gguf
from vocabkit.gguf.vocab import read_vocab
from vocabkit.look.compare_vocab import compare_vocab
from vocabkit.tokenizer.chat_template import read_template
from vocabkit.tokenizer.encoder import load_encoder
from vocabkit.tokenizer.tokenizer_json import read_tokenizer_json
from vocabkit.train.data.samples import samples_of
from vocabkit.verify.edited import open_edited
from vocabkit.verify.files import check_files
from vocabkit.verify.rows import check_rows
from vocabkit.verify.tokenizer import check_tokenizer
from vocabkit.vocab.lists import read_keep
from vocabkit.vocab.word_list import read_dictionary, read_list
from vocabkit.words.explain.rows import check_explanations, read_explanations
from vocabkit.words.explain.run import AnswerLog

SECONDS = 20  # for one input; the slowest takes one
WIDTH = 8  # of a row


@dataclass(frozen=True)
class Parser:
    """A parser: the file that is damaged, and what reads it (its path, and an OUT); how many are tried."""

    folder: str
    file: str
    read: Callable[[Path, Path], object]
    thorough: int = 50
    fast: int = 6


def _folder(path: Path, kind: str) -> None:
    """A complete checkpoint, its weights written by hand: torch alone takes longer than all of this."""
    write_tiny(path, kind)
    config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    write_json(
        path / "config.json", {**config, **build.SMALL, "tie_word_embeddings": True, "suppress_tokens": [3]}
    )
    names = ("shared.weight",) if kind == "t5" else ("model.embed_tokens.weight", "model.norm.weight")
    rows = config["vocab_size"]
    matrix = np.arange(rows * WIDTH, dtype="<f4").tobytes()
    tensors = {
        names[0]: ("F32", [rows, WIDTH], matrix),
        **{name: ("F32", [WIDTH], 4 * WIDTH) for name in names[1:]},
    }
    build.write_safetensors(path / "model.safetensors", tensors)


def _gguf(path: Path, folder: Path) -> None:
    vocab = read_vocab(folder, read_tokenizer_json(folder))
    rows = len(vocab.tokens)

    def tensor(name: str, *dims: int) -> NewTensor:
        size = 4 * int(np.prod(dims))
        return NewTensor(name, dims, 0, size, lambda file, progress: file.write(bytes(size)))

    tensors = [
        tensor("token_embd.weight", WIDTH, rows),
        tensor("output_norm.weight", WIDTH),
        tensor("x", 3, 5),
    ]
    write_gguf(path, fields=vocab.fields(), tensors=tensors)


CHAT = {"messages": [{"role": "user", "content": "Xin chào"}, {"role": "assistant", "content": "Chào bạn"}]}
SHAREGPT = {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "system": "s"}
ALPACA = {"instruction": "Dịch", "input": "a", "output": "b", "history": [["c", "d"]]}
CALLS = {"messages": [
    {"role": "user", "content": "t"},
    {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": '{"a": 1}'}}]},
    {"role": "tool", "content": "5"}, {"role": "assistant", "content": "5", "weight": 1},
], "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}  # fmt: skip
PAIRS = [{"en": "time", "vi": "thời gian"}, {"translation": {"en": "a", "vi": "b"}}]
EXAMPLES = {"word": "thời▁gian", "en": ["time"], "near": ["giờ"], "examples": ["Thời gian trôi."] * 3,
            "examples_en": ["Time flies."] * 3}  # fmt: skip


@pytest.fixture(scope="session")
def sound(tmp_path_factory) -> Path:
    """Sound files of all kinds; nobody may change them."""
    place = tmp_path_factory.mktemp("sound")
    for kind in ("qwen", "gemma", "t5"):
        _folder(place / kind, kind)
    shutil.copytree(place / "qwen", place / "sharded")
    _shard(place / "sharded")
    trim_vocab(place / "qwen", place / "trimmed", allow_all_bytes=True)
    (place / "words.txt").write_text("xin chào\ncảm ơn\n", encoding="utf-8")
    extend_vocab(place / "trimmed", place / "extended", words=place / "words.txt", init="mean")
    for kind in ("qwen", "gemma"):
        (place / f"{kind}_gguf").mkdir()
        _gguf(place / f"{kind}_gguf" / "m.gguf", place / kind)
    lists = place / "lists"
    lists.mkdir()
    tokenizer = read_tokenizer_json(place / "qwen")
    write_jsonl(lists / "keep.jsonl", [["!", 0, 9], ['"', 1, 8]])
    write_json(lists / "keep.json", [0, 1, 2, 5])
    (lists / "keep.txt").write_text("0\n1 # one\n2\n", encoding="utf-8")
    rows = [{"word": "thời▁gian"}, {"word": "việc"}, {"syllable": " gian", "merge": ["Ġg", "ian"]}]
    write_jsonl(lists / "words.jsonl", rows)
    (lists / "words.txt").write_text("thời gian\n# no word\nviệc_làm\n", encoding="utf-8")
    (lists / "dictionary.txt").write_text("time\tthời gian\nwork\tviệc\n", encoding="utf-8")
    write_jsonl(lists / "dictionary.jsonl", [{"word": "thời▁gian", "en": ["time", "period"]}])
    sha = sha256_file(tokenizer.path)
    counts = {"format": "token-counts", "version": 1, "tokenizer_sha256": sha, "corpus": ["a"],
              "documents": 1,
              "bad_records": 0, "notes": [], "tokens": 9, "counts": {"0": 5, "64": 4}}  # fmt: skip
    write_json(lists / "counts.json", counts)
    write_jsonl(lists / "similarity.jsonl", [EXAMPLES])
    head = {"format": "vocabkit/similarity_progress", "version": 1, "words": "w"}
    write_jsonl(lists / "progress.jsonl", [head, {"row": EXAMPLES}, {"word": "việc", "problems": ["p"]}])
    progress = counting.Progress(np.array([1, 2]), [5, None], documents=3, notes=["n"])
    counting.save_progress(lists / "counting.json", {"a": 1}, progress)
    corpora = place / "corpora"
    corpora.mkdir()
    (corpora / "a.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    texts = [{"text": text} for text in SENTENCES]
    write_jsonl(corpora / "a.jsonl", [*texts, CHAT, SHAREGPT])
    write_json(corpora / "a.json", [*texts, CHAT])
    (corpora / "a.csv").write_text('text,n\n"Xin ""chào"",\nbạn",1\nViệt,2\n', encoding="utf-8")
    (corpora / "a.tsv").write_text("text\tn\nXin\t1\nViệt\t2\n", encoding="utf-8")
    write_jsonl(corpora / "train.jsonl", [CHAT, SHAREGPT, ALPACA, CALLS, *PAIRS, EXAMPLES, {"text": "a b c"}])
    (corpora / "a.jsonl.gz").write_bytes(gzip.compress((corpora / "a.jsonl").read_bytes()))
    table = pyarrow.table({"text": SENTENCES, "messages": [CHAT["messages"]] * len(SENTENCES)})
    pyarrow.parquet.write_table(table, corpora / "a.parquet")
    with (
        pyarrow.OSFile(str(corpora / "a.arrow"), "wb") as sink,
        pyarrow.ipc.new_stream(sink, table.schema) as writer,
    ):
        writer.write_table(table)
    return place


def _shard(folder: Path) -> None:
    """Split model.safetensors in two, with an index."""
    tensors = read_checkpoint(folder).tensors
    data = (folder / "model.safetensors").read_bytes()
    weight_map = {}
    for at, (name, tensor) in enumerate(tensors.items(), 1):
        file = f"model-{at:05}-of-{len(tensors):05}.safetensors"
        content = data[tensor.start : tensor.start + tensor.size]
        build.write_safetensors(folder / file, {name: (tensor.dtype, list(tensor.shape), content)})
        weight_map[name] = file
    (folder / "model.safetensors").unlink()
    write_json(
        folder / "model.safetensors.index.json", {"metadata": {"total_size": 5}, "weight_map": weight_map}
    )


# What reads them: path of the damaged file or its folder, and an OUT


def _trim(path: Path, out: Path) -> None:
    trim_vocab(path.parent, out, allow_all_bytes=True)
    for file in out.glob("*.safetensors"):
        with safe_open(file, "np") as weights:  # what the library refuses, no program opens
            assert weights.keys()
    load_encoder(out).encode(" ".join(SENTENCES))


def _trim_gguf(path: Path, out: Path) -> None:
    trim_gguf(path, out.with_suffix(".gguf"), allow_all_bytes=True)


def _verify(path: Path, out: Path) -> None:
    base = path.parent.with_name("trimmed" if path.parent.name == "extended" else "qwen")
    new_rows(path.parent)
    edited = open_edited(base, path.parent)
    check_files(edited)
    check_tokenizer(edited, SENTENCES, name="sentences")
    check_rows(edited)


def _extend(path: Path, out: Path) -> None:
    extend_vocab(path.parent, out, words=path.parent.with_name("words.txt"), init="mean")


def _compare(path: Path, out: Path) -> None:
    compare_vocab(path.parent.with_name("qwen"), path.parent)


def _keep(path: Path, out: Path) -> None:
    tokenizer = read_tokenizer_json(path.parent.with_name("qwen"))
    read_keep([path], token_bytes=tokenizer.token_bytes, tokenizer=tokenizer)


def _words(path: Path, out: Path) -> None:
    read_list(path)


def _dictionary(path: Path, out: Path) -> None:
    read_dictionary(path)


def _counts(path: Path, out: Path) -> None:
    counts, about = read_counts(
        path, tokenizer_sha256=sha256_file(path.parent.with_name("qwen") / "tokenizer.json")
    )
    json.dumps([counts, about], ensure_ascii=False).encode()


def _similarity(path: Path, out: Path) -> None:
    findings = check_explanations(read_explanations(path), name=path)
    for finding in findings:
        one_line(finding).encode()


def _answers(path: Path, out: Path) -> None:
    AnswerLog(path, {"words": "w"})


def _progress(path: Path, out: Path) -> None:
    counting.load_progress(path, {"a": 1})


def _corpus(path: Path, out: Path) -> None:
    check_readable([path])
    for text in read_texts([path]):
        text.encode()


def _training(path: Path, out: Path) -> None:
    (source,) = find_sources([path])
    for block in read_blocks(source, text_field=None, notes=lambda note: None):
        for _, row in parse_rows(block)[0]:
            with contextlib.suppress(BadRecord):
                json.dumps([vars(s) for s in samples_of(row, text_field=None)], default=str).encode()


def _template(path: Path, out: Path) -> None:
    read_template(path.parent)


SETTINGS = ("config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json")
FILES = (*SETTINGS, "vocab.json", "merges.txt", "model.safetensors")
EDITED = ("vocab_edit.json", "tokenizer.json", "config.json")
PARSERS = [
    *(Parser("qwen", file, _trim, 100, 2) for file in FILES),
    *(Parser("sharded", file, _trim, 50, 1) for file in ("model.safetensors.index.json",)),
    *(Parser(kind, "tokenizer.json", _trim, 100, 1) for kind in ("gemma", "t5")),
    Parser("gemma", "tokenizer.model", _trim, 50, 1),
    Parser("t5", "spiece.model", _trim, 50, 1),
    Parser("qwen_gguf", "m.gguf", _trim_gguf, 150, 4),
    Parser("gemma_gguf", "m.gguf", _trim_gguf, 80, 2),
    *(Parser("trimmed", file, _verify, 60, 1) for file in EDITED),
    Parser("extended", "vocab_edit.json", _verify, 100, 2),
    Parser("trimmed", "vocab_edit.json", _extend, 60, 1),
    Parser("sharded", "tokenizer.json", _compare, 50, 2),
    Parser("qwen", "tokenizer_config.json", _template, 50, 4),
    *(Parser("lists", f"keep.{kind}", _keep) for kind in ("jsonl", "json", "txt")),
    *(Parser("lists", f"words.{kind}", _words) for kind in ("jsonl", "txt")),
    *(Parser("lists", f"dictionary.{kind}", _dictionary) for kind in ("txt", "jsonl")),
    Parser("lists", "counts.json", _counts),
    Parser("lists", "similarity.jsonl", _similarity),
    Parser("lists", "progress.jsonl", _answers),
    Parser("lists", "counting.json", _progress),
    *(Parser("corpora", f"a.{kind}", _corpus) for kind in ("txt", "jsonl", "json", "csv", "tsv", "jsonl.gz")),
    *(Parser("corpora", f"a.{kind}", _corpus) for kind in ("parquet", "arrow")),
    Parser("corpora", "train.jsonl", _training, 100),
]  # fmt: skip


@contextlib.contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt(f"more than {seconds} s")  # threads that copy end with it

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _damage(data: bytes, path: Path, choose: random.Random) -> bytes:
    if path.suffix == ".safetensors":
        return mutating.damaged_safetensors(data, choose)
    if path.suffix == ".gguf":
        start = min(tensor.start for tensor in read_gguf(path).tensors.values())
        return mutating.damaged_gguf(data, start, choose)
    return mutating.damaged(data, choose)


@pytest.mark.parametrize("parser", PARSERS, ids=lambda p: f"{p.folder}/{p.file}{p.read.__name__}")
def test_damaged_files_end_in_one_line(parser, sound, tmp_path, request, capsys):
    folder, out = tmp_path / parser.folder, tmp_path / "OUT"
    for inside in sound.iterdir():  # a copy of the folder, links to what else is read
        (tmp_path / inside.name).symlink_to(inside) if inside.name != parser.folder else shutil.copytree(
            inside, folder
        )
    path, data = folder / parser.file, (sound / parser.folder / parser.file).read_bytes()
    parser.read(path, out)
    thorough = request.config.getoption("--thorough")
    for number in range(parser.thorough if thorough else parser.fast):
        shutil.rmtree(out, ignore_errors=True)
        out.with_suffix(".gguf").unlink(missing_ok=True)
        seed = f"{parser.folder}/{parser.file}/{parser.read.__name__}/{number}.c"
        choose = random.Random(zlib.crc32(seed.encode()))
        path.write_bytes(_damage(data, sound / parser.folder / parser.file, choose))
        said = None
        try:
            with _time_limit(SECONDS):
                parser.read(path, out)
        except UserError as error:
            said = str(error)
        except OSError as error:  # of the system, such as a name that is too long: run_cli() shows both
            assert error.errno and error.filename, seed
            said = f"{error.filename}: {error.strerror}"
        except BaseException as error:
            kept = shutil.copy(path, tmp_path / f"bad{path.suffix}")
            raise AssertionError(f"{seed}: {type(error).__name__}: {str(error)[:200]}; see {kept}") from error
        if said is not None:
            assert path.name in said or str(folder) in said, f"{seed}: names no file: {said[:300]}"
            assert "\n" not in said.strip() or one_line(said).count("\n") == 0
            assert not out.exists() and not out.with_suffix(".gguf").exists(), seed
        assert not list(tmp_path.glob("OUT*.part")), seed
    capsys.readouterr()


@pytest.mark.slow  # three times the start of a script
@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", b"[" * 100_000),
        ("tokenizer.json", b'{"version": "1.0", "model": {"x": "' + b"\x1b[2J" * 100_000 + b'"}}'),
        ("model.safetensors", b"\xff" * 5000),
    ],
)
def test_scripts_end_in_one_line(sound, tmp_path, file, content):
    folder = shutil.copytree(sound / "qwen", tmp_path / "m")
    (folder / file).write_bytes(content)
    command = [
        sys.executable,
        "model_edit.py",
        "-m",
        str(folder),
        "-t",
        "trimm_vocab",
        "-o",
        str(tmp_path / "o"),
    ]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1 and ended.stderr.startswith("error: ") and ended.stderr.count("\n") == 1
    assert file in ended.stderr and len(ended.stderr) < 1200 and "\x1b" not in ended.stderr
    assert not (tmp_path / "o").exists()


def test_a_normalizers_table_that_leads_outside_never_reaches_the_library(sound, tmp_path):
    folder = shutil.copytree(sound / "t5", tmp_path / "m")
    data = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    for table in (b"", b"\0\0\0\0", b"\4\0\0\0\xff\xff\xff\xff", b"\4\0\0\0\0\0\0\0"):
        data["normalizer"]["normalizers"][0]["precompiled_charsmap"] = base64.b64encode(table).decode()
        write_json(folder / "tokenizer.json", data)
        with pytest.raises(UserError, match="tokenizer.json is damaged .ValueError: precompiled_charsmap"):
            trim_vocab(folder, tmp_path / "o")
