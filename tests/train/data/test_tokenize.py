"""vocabkit/train/data/tokenize.py: what is read, learned and refused, the cache, weights and shares."""

import gzip
import io
import json
import lzma
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from training import EN, MARKED, TURNS, UNMARKED, VI
from transformers import AutoTokenizer, ByT5Tokenizer

from vocabkit.errors import UserError
from vocabkit.files import read_json, write_json
from vocabkit.train.data.chat_mask import IGNORED
from vocabkit.train.data.samples import KINDS
from vocabkit.train.data.tokenize import ABOUT, ROWS, hold_out, load_dataset, print_sample, split_weight


def put(path: Path, rows: list) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def load(paths, tokenizer, **changes):
    notes: list[str] = []
    paths = [paths] if isinstance(paths, str) else paths
    rows = load_dataset(paths, tokenizer, **{"max_length": 128, "notes": notes.append, **changes})
    return rows, "\n".join(notes)


# Texts


def test_every_token_of_a_text_is_predicted_from_one_before_it(tmp_path, tokenizer):
    rows, _ = load(put(tmp_path / "a.jsonl", [{"text": VI}]), tokenizer)
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    body = tokenizer(VI)["input_ids"]
    assert rows[0]["input_ids"] == [end, *body, end]
    assert rows[0]["labels"] == [IGNORED, *body, end]
    assert rows[0]["num_bytes"] == len(VI.encode())


def test_a_text_begins_with_the_start_token_of_tokenizers_that_have_one(tiny, tmp_path):
    gemma = AutoTokenizer.from_pretrained(tiny("gemma").path)
    rows, _ = load(put(tmp_path / "a.jsonl", [{"text": EN}]), gemma)
    ids = rows[0]["input_ids"]
    assert (ids[0], ids[-1]) == (gemma.bos_token_id, gemma.eos_token_id)
    assert gemma.bos_token_id not in ids[1:]


def test_every_format_and_form_gives_the_same_rows(tmp_path, tokenizer):
    texts = [VI, unicodedata.normalize("NFD", VI), EN]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    files = {
        "a.jsonl": lines,
        "a.jsonl.xz": lzma.compress(lines),
        "a.jsonl.gz": gzip.compress(lines),
        "a.jsonl.zst": zstandard.ZstdCompressor().compress(lines),
        "a.json": json.dumps([{"text": text} for text in texts]).encode(),
        "a.csv": ("text\n" + "".join(f'"{text}"\n' for text in texts)).encode(),
    }
    sink = io.BytesIO()
    pq.write_table(pa.table({"id": [1, 2, 3], "text": texts}), sink)
    files["a.parquet"] = sink.getvalue()
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        rows, _ = load(str(tmp_path / name), tokenizer)
        assert [tokenizer.decode(ids[1:-1]) for ids in rows["input_ids"]] == [VI, VI, EN], name
        assert [KINDS[kind] for kind in rows["kind"]] == ["vietnamese", "vietnamese", "english"]


def test_a_text_file_becomes_documents_about_as_long_as_the_context(tmp_path, tokenizer):
    path = tmp_path / "a.txt"
    path.write_text(f"{VI}\n" * 100, encoding="utf-8")
    rows, _ = load(str(path), tokenizer, max_length=64)
    assert "".join(tokenizer.decode(ids[1:-1]) for ids in rows["input_ids"]) == f"{VI}\n" * 100
    assert len(rows) > 20


def test_text_field_names_another_column(tmp_path, tokenizer):
    path = put(tmp_path / "a.jsonl", [{"text": "no", "body": EN}])
    (tmp_path / "a.csv").write_text(f'id,body\n1,"{EN}"\n', encoding="utf-8")
    (tmp_path / "a.txt").write_text(EN, encoding="utf-8")
    for given in (path, tmp_path / "a.csv", tmp_path / "a.txt"):
        rows, _ = load(str(given), tokenizer, text_field="body")
        assert tokenizer.decode(rows[0]["input_ids"][1:-1]) == EN


def test_pairs_of_a_parquet_file(tmp_path, tokenizer):
    pq.write_table(pa.table({"id": [1], "en": [EN], "vi": [VI]}), tmp_path / "a.parquet")
    rows, _ = load(str(tmp_path / "a.parquet"), tokenizer)
    assert tokenizer.decode(rows[0]["input_ids"][1:-1]) == f"{EN}\n{VI}"


def test_an_all_zero_mask_never_becomes_training(tmp_path, tokenizer):
    tokenizer.chat_template = UNMARKED
    with pytest.raises(
        UserError, match="no row can be learned from, 1 are bad; .*a.jsonl:1: .*marks no token"
    ):
        load(put(tmp_path / "a.jsonl", [{"messages": TURNS}]), tokenizer)


def test_no_template(tmp_path, tokenizer):
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="has no chat template, the data holds conversations"):
        load(put(tmp_path / "a.jsonl", [{"messages": TURNS}]), tokenizer)


# Bad data


def test_all_conversations_longer_than_the_context(tmp_path, tokenizer):
    path = put(tmp_path / "a.jsonl", [{"messages": TURNS}] * 2)
    with pytest.raises(UserError, match="all 2 conversations are longer than the context of 9 tokens; raise"):
        load(path, tokenizer, max_length=9)
    rows, notes = load(
        put(tmp_path / "b.jsonl", [{"messages": TURNS}, {"text": VI}]), tokenizer, max_length=9
    )
    assert len(rows) == 1 and "1 conversations are longer than the context of 9 tokens" in notes


def test_no_assistant_turn_anywhere(tmp_path, tokenizer):
    with pytest.raises(UserError, match="none of 2 conversations has an assistant turn"):
        load(put(tmp_path / "a.jsonl", [{"messages": TURNS[:1]}] * 2), tokenizer)


def test_nothing_at_all(tmp_path, tokenizer):
    (tmp_path / "a.jsonl").write_text("\n", encoding="utf-8")
    with pytest.raises(UserError, match="no row can be learned from, 0 are bad; the first: no rows at all"):
        load(str(tmp_path / "a.jsonl"), tokenizer)


def test_bad_rows_are_reported_with_their_place(tmp_path, tokenizer):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "good"}\nnot json\n{"text": 3}\n{"messages": []}\n\xff\n')
    rows, notes = load(str(path), tokenizer)
    assert len(rows) == 1
    assert f"{path}: 4 rows cannot be used, 1 can" in notes
    for number, reason in ((2, "not JSON"), (3, "a number"), (4, "empty"), (5, "not UTF-8")):
        assert any(f"{path}:{number}: " in line and reason in line for line in notes.split("\n")), notes


def test_tokenizers_that_cannot_be_used(tiny, tmp_path):
    path = put(tmp_path / "a.jsonl", [{"text": "a"}])
    endless = AutoTokenizer.from_pretrained(tiny("gemma").path)
    endless.eos_token = None
    with pytest.raises(UserError, match="has no eos_token; name one in its tokenizer_config.json"):
        load(path, endless)
    with pytest.raises(UserError, match="has no tokenizer.json, which training needs"):
        load(path, ByT5Tokenizer())


# The cache


def folders(cache: Path) -> dict[str, int]:
    return {path.name: (path / ROWS).stat().st_mtime_ns for path in cache.iterdir()}


def test_the_cache_is_by_content(tmp_path, tokenizer):
    path, cache = (
        put(tmp_path / "a.jsonl", [{"text": VI}, {"text": 3}, {"messages": TURNS}]),
        tmp_path / "deep" / "c",
    )
    first, notes = load(path, tokenizer, cache_dir=cache)
    made = folders(cache)
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(Path(path).read_bytes())
    again, notes_again = load(str(copy), tokenizer, cache_dir=cache)
    assert folders(cache) == made and len(made) == 1, "another name, the same content"
    assert again[:] == first[:]
    assert "1 rows cannot be used" in notes and "1 rows cannot be used" in notes_again
    assert load(path, tokenizer)[0][:] == first[:], "without a cache"

    copy.write_text('{"text": "other"}\n', encoding="utf-8")
    load(str(copy), tokenizer, cache_dir=cache)
    tokenizer.chat_template = MARKED
    load(path, tokenizer, cache_dir=cache)
    load(path, tokenizer, cache_dir=cache, max_length=100)
    assert len(folders(cache)) == 4 and made.items() <= folders(cache).items()


def test_a_cache_of_something_else_is_refused(tmp_path, tokenizer):
    path, cache = put(tmp_path / "a.jsonl", [{"text": VI}]), tmp_path / "c"
    load(path, tokenizer, cache_dir=cache)
    about = next(cache.iterdir()) / ABOUT
    write_json(about, {**read_json(about), "source_sha256": "0"})
    with pytest.raises(UserError, match="was made from other data than its name says; remove it: rm -r"):
        load(path, tokenizer, cache_dir=cache)
    write_json(about, {**read_json(about), "version": 0})
    with pytest.raises(UserError, match="expected 'vocabkit-tokenized' version 2"):
        load(path, tokenizer, cache_dir=cache)


def test_a_failed_run_leaves_no_half_cache(tmp_path, tokenizer):
    tokenizer.chat_template = None
    with pytest.raises(UserError):
        load(
            put(tmp_path / "a.jsonl", [{"text": VI}, {"messages": TURNS}]),
            tokenizer,
            cache_dir=tmp_path / "c",
        )
    assert list((tmp_path / "c").iterdir()) == []


# Weights and shares


def test_weights(tmp_path, tokenizer):
    one = put(tmp_path / "one.jsonl", [{"text": f"Number {n}."} for n in range(10)])
    two = put(tmp_path / "two.jsonl", [{"text": VI}])
    rows, _ = load([f"{one}:0.5", f"{two}:2"], tokenizer, seed=3)
    assert rows["source"][:] == [0] * 5 + [1] * 2
    same, _ = load([f"{one}:0.5", f"{two}:2"], tokenizer, seed=3)
    other, _ = load([f"{one}:0.5", f"{two}:2"], tokenizer, seed=4)
    assert same["input_ids"][:] == rows["input_ids"][:] != other["input_ids"][:]
    more, _ = load(f"{one}:2.5", tokenizer)
    assert len(more) == 25 and len({tuple(ids) for ids in more["input_ids"]}) == 10
    with pytest.raises(UserError, match="the weight is 0, expected a number above 0"):
        load(f"{one}:0", tokenizer)
    with pytest.raises(UserError, match="a weight of 0.01 leaves none of 10 rows"):
        load(f"{one}:0.01", tokenizer)


def test_a_file_may_be_called_like_a_weight(tmp_path):
    path = tmp_path / "a.jsonl:2"
    path.touch()
    assert split_weight(str(path)) == (str(path), 1.0)


def test_stage_mix(tmp_path, tokenizer):
    rows = [{"text": f"{VI} {n}"} for n in range(40)] + [{"text": f"{EN} {n}"} for n in range(300)]
    path = put(tmp_path / "a.jsonl", [*rows, {"messages": TURNS}])
    mixed, notes = load(path, tokenizer, stage_mix={"vietnamese": 1, "english": 2})
    assert "--stage_mix does not name instruction: left out" in notes
    tokens = dict.fromkeys(KINDS, 0)
    for row in mixed:
        tokens[KINDS[row["kind"]]] += len(row["input_ids"])
    assert tokens["english"] / tokens["vietnamese"] == pytest.approx(2, rel=0.05)
    assert sum(kind == KINDS.index("vietnamese") for kind in mixed["kind"]) == 40, (
        "the scarce kind is used whole"
    )
    assert len({tuple(ids) for ids in mixed["input_ids"]}) == len(mixed), "no row is repeated"
    with pytest.raises(
        UserError, match="asks for bilingual data, the data is vietnamese, english, instruction"
    ):
        load(path, tokenizer, stage_mix={"bilingual": 1})
    with pytest.raises(UserError, match="--stage_mix french=1: expected bilingual, vietnamese"):
        load(path, tokenizer, stage_mix={"french": 1})


def test_held_out_rows_are_never_learned(tmp_path, tokenizer):
    rows, _ = load(put(tmp_path / "a.jsonl", [{"text": f"Number {n}."} for n in range(60)]) + ":2", tokenizer)
    train, held = hold_out(rows, 0.3)
    sides = [{tuple(ids) for ids in side["input_ids"]} for side in (train, held)]
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 60
    assert len(train) + len(held) == 120 and 15 < len(held) < 60
    assert hold_out(rows, 0.3)[1][:] == held[:] != hold_out(rows, 0.3, seed=1)[1][:]
    train, held = hold_out(rows, 0.001)
    assert len(held) == 2, "one document, twice in the data, is the least"
    with pytest.raises(
        UserError, match="1 different document is too little to hold a share of 0.5 out of it"
    ):
        hold_out(rows.select([0]), 0.5)


# The sample


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_sample_shows_what_is_learned(tmp_path, tokenizer):
    rows, _ = load(put(tmp_path / "a.jsonl", [{"messages": TURNS[:2]}, {"text": "b"}]), tokenizer)
    plain, colours = io.StringIO(), Terminal()
    print_sample(rows, tokenizer, file=plain)
    prompt = "<|im_start|>user\nXin chào<|im_end|>\n<|im_start|>assistant\n"
    assert plain.getvalue() == f"{prompt}⟦Chào bạn 😀!<|im_end|>⟧\n\n"
    print_sample(rows, tokenizer, file=colours)
    grey, green, off = "\033[90m", "\033[32m", "\033[0m"
    assert colours.getvalue() == f"{grey}{prompt}{off}{green}Chào bạn 😀!<|im_end|>{off}{grey}\n{off}\n"
