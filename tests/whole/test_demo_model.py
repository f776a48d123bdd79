"""The bundled demo checkpoint: its form, what it translates, and what is left of it without Chinese."""

import importlib
import json
import sys
import unicodedata
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parents[2] / "data" / "demo"
if not (DEMO / "model.safetensors").exists():
    pytest.skip("no demo checkpoint: run python3 data/demo/make_demo.py", allow_module_level=True)
PER_DIRECTION = 20
DIRECTIONS = ["en>vi", "en>zh", "vi>en", "vi>zh", "zh>en", "zh>vi"]
DEMO_PROMPT = "Translate following sentence into Chinese: tôi tên là Lý Quốc Dân"


def read_json(name: str):
    return json.loads((DEMO / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def make_demo():
    """data/demo/make_demo.py as a module; it imports its neighbour demo_corpus by name."""
    sys.path.insert(0, str(DEMO))
    try:
        return importlib.import_module("make_demo")
    finally:
        sys.path.remove(str(DEMO))


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(DEMO)


@pytest.fixture(scope="module")
def model():
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(DEMO).eval()


def test_folder_is_small():
    assert sum(f.stat().st_size for f in DEMO.iterdir() if f.is_file()) <= 10_000_000


def test_form_of_the_model(model, tokenizer):
    assert type(model).__name__ == "Qwen2ForCausalLM"
    assert sum(p.numel() for p in model.parameters()) <= 4_000_000
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    rows = model.get_input_embeddings().num_embeddings
    assert rows % 128 == 0 and rows >= len(tokenizer) + 64
    config = read_json("config.json")
    assert config["vocab_size"] == rows and config["torch_dtype"] == "bfloat16"
    rope = getattr(model.config, "rope_parameters", None) or {"rope_theta": model.config.rope_theta}
    assert rope["rope_theta"] == config["rope_theta"]


def test_special_tokens_follow_the_merges(tokenizer):
    vocab, merges = (
        read_json("tokenizer.json")["model"]["vocab"],
        read_json("tokenizer.json")["model"]["merges"],
    )
    assert len(vocab) == 256 + len(merges)
    names = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    assert tokenizer.convert_tokens_to_ids(list(names)) == [len(vocab), len(vocab) + 1, len(vocab) + 2]
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token) == (
        "<|im_end|>",
        "<|endoftext|>",
        None,
    )
    assert read_json("generation_config.json")["eos_token_id"] == [len(vocab) + 2, len(vocab)]


def test_vocab_and_merges_files_agree_with_tokenizer_json():
    inner = read_json("tokenizer.json")["model"]
    assert read_json("vocab.json") == inner["vocab"]
    lines = (DEMO / "merges.txt").read_text(encoding="utf-8").split("\n")
    assert lines[0].startswith("#version") and lines[-1] == ""
    merges = [m if isinstance(m, str) else " ".join(m) for m in inner["merges"]]
    assert lines[1:-1] == merges


def test_transformers_cuts_text_as_tokenizer_json_says(tokenizer):
    from tokenizers import Tokenizer

    plain = Tokenizer.from_file(str(DEMO / "tokenizer.json"))
    names = ("heldout.jsonl", "heldout_texts.jsonl")
    rows = [json.loads(line) for name in names for line in open(DEMO / name, encoding="utf-8")]
    texts = [row.get("prompt") or row["text"] for row in rows[::10]]
    texts += ["I'm 25, it's 7:30!\n\n  x", "Tôi uống nu\u031bo\u031b\u0301c.", "我叫李国民。😊"]
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        assert ids == plain.encode(text).ids, text
        assert tokenizer.decode(ids) == unicodedata.normalize("NFC", text)


def test_every_chinese_character_of_the_answers_is_a_token(tokenizer):
    vocab = tokenizer.get_vocab()
    answers = [json.loads(line).get("answer", "") for line in open(DEMO / "heldout.jsonl", encoding="utf-8")]
    characters = {c for c in "".join(answers) if "\u4e00" <= c <= "\u9fff"}
    assert len(characters) > 200
    missing = [c for c in characters if len(tokenizer(c)["input_ids"]) != 1]
    assert missing == []
    assert len([t for t in vocab if len(tokenizer.convert_tokens_to_string([t])) > 1]) > 1000


def test_chat_template_is_what_was_trained(make_demo, tokenizer):
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "xin chào"}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert text == make_demo.chat_text([("xin chào", "")], system="Be kind.")[0]
    whole = [turns[1], {"role": "assistant", "content": "Xin chào!"}]
    text = tokenizer.apply_chat_template(whole, tokenize=False)
    assert text == "".join(make_demo.chat_text([("xin chào", "Xin chào!")]))


def test_heldout_meanings_are_held_out(make_demo):
    """No training meaning says a held-out sentence: looked for among 5,000 of them."""
    import random

    names = ("heldout.jsonl", "heldout_texts.jsonl")
    rows = [json.loads(line) for name in names for line in open(DEMO / name, encoding="utf-8")]
    kept = {row.get("answer") or row["text"] for row in rows}
    rng = random.Random(1)
    for _ in range(5000):
        meaning = make_demo.corpus.training_meaning(rng)
        assert kept.isdisjoint(meaning.sentence(language) for language in make_demo.corpus.LANGUAGES)
    assert {r["lang"] for r in rows if "text" in r} == {"en", "vi"}


@pytest.fixture(scope="module")
def translated(make_demo, model, tokenizer):
    """{direction: [(row, answer), …]}, the demo sentence first; asked in one batch, that takes seconds."""
    rows = make_demo.read_heldout(DEMO)
    assert [sum(r["direction"] == d for r in rows) for d in DIRECTIONS] == [100] * len(DIRECTIONS)
    return sample_by_direction(rows, lambda prompts: make_demo.answers(model, tokenizer, prompts))


@pytest.fixture(scope="module")
def translated_without_chinese(make_demo, model, tokenizer):
    rows = [r for r in make_demo.read_heldout(DEMO) if r["direction"] in ("en>zh", "vi>zh")]
    cut = make_demo.chinese_ids(tokenizer)
    return sample_by_direction(
        rows, lambda prompts: make_demo.answers(model, tokenizer, prompts, without=cut)
    )


def sample_by_direction(rows, ask):
    rows = rows[:: 100 // PER_DIRECTION]
    found = {}
    for row, answer in zip(rows, ask([r["prompt"] for r in rows]), strict=True):
        found.setdefault(row["direction"], []).append((row, answer))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_translates_heldout_sentences(translated, direction):
    wrong = [(answer, row) for row, answer in translated[direction] if answer != row["answer"]]
    assert len(wrong) <= 0.1 * PER_DIRECTION, wrong


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["en>zh", "vi>zh"])
def test_falls_back_to_english_without_chinese_tokens(translated_without_chinese, direction):
    wrong = [(a, row) for row, a in translated_without_chinese[direction] if a != row["fallback"]]
    assert len(wrong) <= 0.1 * PER_DIRECTION, wrong


@pytest.mark.slow
def test_demo_sentence(translated, translated_without_chinese):
    row, answer = translated["vi>zh"][0]
    assert (row["prompt"], answer) == (DEMO_PROMPT, "我的名字是李国民")
    row, answer = translated_without_chinese["vi>zh"][0]
    assert (row["prompt"], answer) == (DEMO_PROMPT, "My name is Ly Quoc Dan.")


def test_small_talk_stays_in_its_language(make_demo, model, tokenizer):
    given = make_demo.answers(model, tokenizer, ["hello", "Xin chào!", "你好"])
    assert [g.split("😊")[0].strip() for g in given] == ["Hello!", "Xin chào!", "你好！"]


def test_english_and_vietnamese_words_are_single_tokens(tokenizer):
    for word in (" hospital", " teacher", " because", " bệnh", " viện", " người", " được", " nước"):
        assert len(tokenizer(word)["input_ids"]) == 1, word


def test_help_trains_nothing(make_demo, capsys):
    with pytest.raises(SystemExit) as stop:
        make_demo.main(["--help"])
    assert stop.value.code == 0
    assert "ONE IN SIX" in capsys.readouterr().out
