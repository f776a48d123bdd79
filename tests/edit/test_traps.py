"""The ten traps of vocabulary surgery, each on real tokenizers: what other tools lose, and that we do not."""

import json
import os
import shutil
import subprocess
import sys
import unicodedata

import pytest
from tiny import OLD_PACKAGES, REAL_NAMES, ROOT, edit_json, edit_record, open_folder, trim_files
from tokenizers import Tokenizer

from vocabkit.errors import UserError
from vocabkit.files import write_json
from vocabkit.text import unicode
from vocabkit.text.utf8 import can_be_allowed
from vocabkit.tokenizer import bpe, spm
from vocabkit.tokenizer.chat_template import CONVERSATION
from vocabkit.verify.edited import Edited
from vocabkit.verify.tokenizer import check_tokenizer
from vocabkit.vocab.plan import suppressed_ids
from vocabkit.vocab.rules import decide

pytestmark = pytest.mark.assets
BYTE_NAMES = ["qwen2.5-instruct", "qwen3", "llama-3.2-instruct", "gemma-2-it"]
NOT_IN_VOCABULARY = "中国的名字, Привет, สวัสดี, \x00\x7f, 😀, naïve ﬁ, \u0301"


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


# 1 ignore_merges


def test_1_llama_words_without_merges_stay_whole(real, real_trimmed):
    """588 tokens of Llama-3 are made by ignore_merges alone, among them the commonest words of Vietnamese."""
    base = real("llama-3.2-instruct")
    ranks = bpe.rank_merges(base.tokenizer.merges)
    vocab = base.tokenizer.vocab
    made = {left + right for token in vocab for left, right in bpe.derivation(token, ranks.get)[-1:]}
    unmade = {token for token in vocab if len(token) > 1} - made
    assert len(unmade) == 588
    words = [" việc", " nhiều", " Việt", " hợp"]
    assert {bpe.byte_level_token(word.encode()) for word in words} <= unmade

    trimmed = real_trimmed("llama-3.2-instruct")
    assert trimmed.out.tokenizer.data["model"]["ignore_merges"] is True
    for word in words:
        (old,) = base.encode(word)
        assert trimmed.out.encode(word) == trimmed.map([old])
    # The check can fail: without the flag each of these words falls apart
    data = trimmed.out.tokenizer.data
    forgetful = Tokenizer.from_str(json.dumps({**data, "model": {**data["model"], "ignore_merges": False}}))
    assert all(len(forgetful.encode(word, add_special_tokens=False).ids) > 1 for word in words)


def test_1_llama_tokens_have_several_merges(real, real_trimmed):
    merges = real("llama-3.2-instruct").tokenizer.merges
    assert len(merges) == 280_147
    assert len({left + right for left, right in merges}) < 128_000
    kept = real_trimmed("llama-3.2-instruct").out.tokenizer.merges
    assert len(kept) > len({left + right for left, right in kept})  # all rules of a kept token, not one


# 2 two forms of merges


@pytest.mark.parametrize(
    "name, form",
    [("qwen2.5-instruct", str), ("qwen3", list), ("llama-3.2-instruct", str), ("gemma-2-it", str)],
)
def test_2_merges_are_written_in_the_form_they_were_read(real_trimmed, name, form):
    trimmed = real_trimmed(name)
    for folder in (trimmed.base, trimmed.out):
        assert {type(merge) for merge in folder.tokenizer.data["model"]["merges"]} == {form}


def test_2_lines_of_merges_txt_that_begin_with_a_hash_are_merges(real_trimmed):
    trimmed = real_trimmed("qwen2.5-instruct")
    before, after = (
        (folder.path / "merges.txt").read_text(encoding="utf-8").split("\n")
        for folder in (trimmed.base, trimmed.out)
    )
    hashes = [line for line in before if line.startswith("#") and not line.startswith("#version")]
    assert (
        sum(line.startswith("#") for line in before) == len(hashes) + before[0].startswith("#version") == 96
    )
    kept = {trimmed.base.tokenizer.tokens[old] for old in trimmed.plan.new_to_old}
    wanted = [line for line in hashes if kept >= {*line.split(" "), line.replace(" ", "")}]
    assert (
        wanted
        and [line for line in after[after[0].startswith("#version") :] if line.startswith("#")] == wanted
    )
    assert before[0].startswith("#version") == after[0].startswith("#version")


# 3 tokens ≠ rows


@pytest.mark.parametrize("rows", [151_936, 152_064])
def test_3_rows_come_from_config_and_tokens_from_the_tokenizer(real, tmp_path, rows):
    """Qwen2.5 has 151,665 tokens; its matrices have 151,936 rows, from 7B up 152,064."""
    source = tmp_path / "source"
    source.mkdir()
    for path in real("qwen2.5-instruct").path.iterdir():
        shutil.copyfile(path, source / path.name)
    (source / "config.json").unlink()
    write_json(
        source / "config.json", {**read(real("qwen2.5-instruct").path / "config.json"), "vocab_size": rows}
    )
    base = real("qwen2.5-instruct")
    assert len(base.tokenizer.tokens) == 151_665 == max(base.tokenizer.tokens) + 1
    copied = type(base)(source, base.tokenizer, base.spm_models)
    trimmed = trim_files(copied, tmp_path / "out", copied.plan([]))
    assert read(trimmed.out.path / "config.json")["vocab_size"] == trimmed.plan.vocab_size
    assert trimmed.plan.n_tokens < trimmed.plan.vocab_size < trimmed.plan.n_tokens + 64


# 4 ids in many places


def test_4_every_id_of_a_folder_is_renumbered(real, tmp_path):
    """One folder with every file and field that can hold an id: after trimming each names the same token."""
    source = tmp_path / "source"
    shutil.copytree(real("qwen2.5-instruct").path, source, copy_function=shutil.copyfile)
    source.chmod(0o755)
    tokens = real("qwen2.5-instruct").tokenizer.tokens
    end, start, stop, pad = (
        next(i for i, token in tokens.items() if token == name)
        for name in ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|fim_pad|>")
    )
    # Tokens that no rule keeps: only the settings speak for them
    some = [100_000 + 7 * step for step in range(24)]
    edit_json(
        source / "config.json",
        pad_token_id=pad, decoder_start_token_id=some[0], image_token_index=some[1],
        text_config={"bos_token_id": end, "eos_token_id": [stop, some[2]], "vocab_size": 151_936},
        audio_config={"audio_token_id": some[3], "hidden_size": some[4]},
    )  # fmt: skip
    edit_json(
        source / "generation_config.json",
        eos_token_id=[stop, end], forced_bos_token_id=some[5], forced_eos_token_id=[some[6], stop],
        forced_decoder_ids=[[1, some[7]], [2, None]], suppress_tokens=[some[8], some[9]],
        begin_suppress_tokens=[some[10]], bad_words_ids=[[some[11]], [some[12], some[13]]],
        sequence_bias=[[[some[14]], -4.0]], force_words_ids=[[[some[15]]]], lang_to_id={"<|vi|>": some[16]},
    )  # fmt: skip
    write_json(source / "added_tokens.json", real("qwen2.5-instruct").tokenizer.added)
    write_json(source / "special_tokens_map.json", {"eos_token": "<|im_end|>"})
    write_json(
        source / "preprocessor_config.json", {"image_token_id": some[17], "size": {"height": some[18]}}
    )
    data = read(source / "tokenizer.json")
    data["padding"] = {
        "strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_id": pad,
        "pad_type_id": 0, "pad_token": "<|fim_pad|>",
    }  # fmt: skip
    template = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            "<|im_start|>": {"id": "<|im_start|>", "ids": [start], "tokens": ["<|im_start|>"]}
        },
    }
    data["post_processor"] = {"type": "Sequence", "processors": [data["post_processor"], template]}
    write_json(source / "tokenizer.json", data, indent=None)

    base = open_folder(source)
    trimmed = trim_files(base, tmp_path / "out", base.plan([]))
    out, new = trimmed.out, trimmed.plan.old_to_new
    named = [*some[:4], *some[5:8], some[15], some[17]]
    # 4 and 18 are no ids: fields of other names. What is only forbidden or listed asks for no token.
    assert all(i in new for i in named) and not new.keys() & {some[4], *some[8:15], some[16], some[18]}

    config = read(out.path / "config.json")
    assert config["pad_token_id"] == new[pad] and config["decoder_start_token_id"] == new[some[0]]
    assert config["image_token_index"] == new[some[1]]
    assert config["text_config"] == {
        "bos_token_id": new[end], "eos_token_id": [new[stop], new[some[2]]],
        "vocab_size": trimmed.plan.vocab_size,
    }  # fmt: skip
    assert config["audio_config"] == {"audio_token_id": new[some[3]], "hidden_size": some[4]}
    generation = read(out.path / "generation_config.json")
    assert generation["eos_token_id"] == [new[stop], new[end]]
    assert generation["forced_bos_token_id"] == new[some[5]]
    assert generation["forced_eos_token_id"] == [new[some[6]], new[stop]]
    assert generation["forced_decoder_ids"] == [[1, new[some[7]]], [2, None]]
    assert generation["suppress_tokens"] == suppressed_ids(trimmed.plan.suppressed)
    assert not generation.keys() & {"begin_suppress_tokens", "bad_words_ids", "sequence_bias", "lang_to_id"}
    assert generation["force_words_ids"] == [[[new[some[15]]]]]
    assert read(out.path / "preprocessor_config.json") == {
        "image_token_id": new[some[17]], "size": {"height": some[18]},
    }  # fmt: skip
    assert read(out.path / "added_tokens.json") == {t: new[i] for t, i in base.tokenizer.added.items()}
    decoder = read(out.path / "tokenizer_config.json")["added_tokens_decoder"]
    assert {int(key): entry["content"] for key, entry in decoder.items()} == {
        new[i]: token for token, i in base.tokenizer.added.items()
    }
    assert read(out.path / "vocab.json") == {
        tokens[old]: at for old, at in new.items() if tokens[old] in base.tokenizer.vocab
    }
    assert out.tokenizer.data["padding"]["pad_id"] == new[pad]
    assert out.tokenizer.data["post_processor"]["processors"][1]["special_tokens"]["<|im_start|>"]["ids"] == [
        new[start]
    ]
    assert Tokenizer.from_file(str(out.tokenizer.path)).encode("a").ids[0] == new[start]

    edit_json(source / "generation_config.json", forced_eos_token_id=151_900)  # a row, but no token
    with pytest.raises(UserError, match="forced_eos_token_id is 151900, but none of the 151,665 tokens"):
        _ = open_folder(source).required


# 5 bytes


@pytest.mark.parametrize("name", BYTE_NAMES)
def test_5_all_bytes_stay_so_that_any_text_can_be_read(real_trimmed, name):
    trimmed = real_trimmed(name)
    ids = trimmed.out.tokenizer.byte_ids()
    assert {trimmed.out.tokenizer.token_bytes[i] for i in ids} == {bytes([byte]) for byte in range(256)}
    before, after = trimmed.base.encode(NOT_IN_VOCABULARY), trimmed.out.encode(NOT_IN_VOCABULARY)
    assert not trimmed.covers(before)
    assert trimmed.out.encoder.decode(after) == trimmed.base.encoder.decode(before)


def test_5_gemma_writes_byte_9_as_a_tab(real_trimmed):
    trimmed = real_trimmed("gemma-2-it")
    for folder in (trimmed.base, trimmed.out):
        assert "<0x09>" not in folder.tokenizer.vocab
        assert folder.tokenizer.vocab["\t"] in folder.tokenizer.byte_ids()
        assert folder.encoder.decode(folder.encode("a\tb")) == "a\tb"
    assert trimmed.out.encode("a\tb") == trimmed.map(trimmed.base.encode("a\tb"))


# 6 two tokenizer files


@pytest.mark.parametrize("name", ["gemma-2-it", "t5-v1_1", "SYNTHETIC-mt5-like-32k"])
def test_6_tokenizer_json_and_the_sentencepiece_file_are_both_trimmed(real_trimmed, home_texts, name):
    import sentencepiece

    trimmed = real_trimmed(name)
    ((file_name, model),) = trimmed.out.spm_models.items()
    pieces = [piece.piece for piece in model.pieces]
    own = [trimmed.out.tokenizer.tokens[i] for i in range(len(pieces))]
    assert ["\t" if name == "gemma-2-it" and piece == "<0x09>" else piece for piece in pieces] == own
    assert len(pieces) < len(trimmed.base.spm_models[file_name].pieces)
    assert model.trainer_spec.vocab_size == len(pieces)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(trimmed.out.path / file_name))
    lines = [line.strip() for line in home_texts if line.strip()]
    same = sum(processor.encode(line) == trimmed.out.encode(line) for line in lines)
    old = sentencepiece.SentencePieceProcessor(model_file=str(trimmed.base.path / file_name))
    assert same == sum(old.encode(line) == trimmed.base.encode(line) for line in lines) > 0.95 * len(lines)
    assert spm.normal_scores(trimmed.base.spm_models[file_name]).items() >= spm.normal_scores(model).items()


# 7 tokens that are no text


def test_7_tokens_are_judged_by_their_bytes(real):
    """1,448 Qwen tokens are not valid UTF-8 alone; shown with U+FFFD, most of them look like each other."""
    tokenizer = real("qwen2.5-instruct").tokenizer
    broken = {}
    for token_id, data in tokenizer.token_bytes.items():
        try:
            data.decode("utf-8")
        except UnicodeDecodeError:
            broken[token_id] = data
    assert len(broken) == 1448
    assert len({data.decode("utf-8", errors="replace") for data in broken.values()}) < 200
    kept = {broken[decision.id] for decision in decide(broken, None) if decision.keep}
    removed = set(broken.values()) - kept
    assert b"\xe1\xba" in kept and b"\xf0\x9f\x98" in kept  # ấ ề …, 😀 …
    assert b"\xe4\xb8" in removed and b"\xe5\x8c" in removed  # 中 …
    assert all(can_be_allowed(data) for data in kept if len(data) > 1)


# 8 tokens that nothing produces


def test_8_unreachable_tokens_are_counted(real):
    """1,909 Qwen tokens never come out: their text is not NFC, or the splitting regex cuts it."""
    base = real("qwen2.5-instruct")
    record = edit_record(base.path, list(base.tokenizer.tokens))
    edited = Edited(base.path, base.path, record, base.tokenizer, base.tokenizer)
    check = check_tokenizer(edited, ["Xin chào"])
    assert check.findings == []
    assert check.numbers["unreachable"] == 1909
    assert check.numbers["fragments"] == 1448


def test_8_unreachable_tokens_may_go(real):
    """Nothing forces them to stay: decomposed " và" is a token that NFC never lets through."""
    base = real("qwen2.5-instruct")
    word = unicodedata.normalize("NFD", " và")
    unreachable = base.tokenizer.vocab[bpe.byte_level_token(word.encode())]
    assert base.encode(word) == base.encode(" và") != [unreachable]
    assert unreachable not in base.plan(base.encode(word)).old_to_new


# 9 forms of Vietnamese


def test_9_vietnamese_in_three_forms(real_trimmed, assets):
    """The declaration of human rights comes in mixed form on every line: neither composed nor decomposed."""
    raw = (assets / "corpora" / "udhr" / "vie.txt").read_text(encoding="utf-8").splitlines()
    forms = {form: [unicodedata.normalize(form, line) for line in raw] for form in ("NFC", "NFD")}
    assert all(a != b != c for a, b, c in zip(forms["NFC"], raw, forms["NFD"], strict=True))
    assert [unicode.nfc(line) for line in raw] == [unicode.nfc(line) for line in forms["NFD"]] == forms["NFC"]
    for name in REAL_NAMES:
        trimmed = real_trimmed(name)
        for lines in (raw, *forms.values()):
            for line in lines:
                before, after = trimmed.base.encode(line), trimmed.out.encode(line)
                if trimmed.covers(before):
                    assert after == trimmed.map(before)
                if name in BYTE_NAMES:
                    assert trimmed.out.encoder.decode(after) == trimmed.base.encoder.decode(before)


def test_9_who_normalizes(real_trimmed):
    composed, decomposed = (
        unicodedata.normalize(form, "Tiếng Việt có thanh điệu") for form in ("NFC", "NFD")
    )
    for name, normalizes in (
        ("qwen2.5-instruct", True),
        ("llama-3.2-instruct", False),
        ("gemma-2-it", False),
    ):
        out = real_trimmed(name).out
        assert (out.encode(decomposed) == out.encode(composed)) == normalizes
    # Fast T5 tokenizers lose tone marks of decomposed text, so every text is composed first
    mt5 = real_trimmed("SYNTHETIC-mt5-like-32k").base
    assert unicode.nfc(mt5.encoder.decode(mt5.encode(composed))) == composed
    assert unicode.nfc(mt5.encoder.decode(mt5.encode(decomposed))) != composed
    assert mt5.encode(unicode.nfc(decomposed)) == mt5.encode(composed)


# 10 transformers, new and old

LOAD = """
import json, sys
import transformers
request = json.load(sys.stdin)
PLAIN = {"clean_up_tokenization_spaces": False}
answer = {"version": transformers.__version__, "folders": {}}
for folder in request["folders"]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    found = {"ids": [tokenizer(text)["input_ids"] for text in request["texts"]]}
    found["own_text"] = [tokenizer.decode(ids, skip_special_tokens=True, **PLAIN) for ids in found["ids"]]
    found["special"] = [tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.bos_token_id]
    if tokenizer.chat_template:
        how = {"add_generation_prompt": True, "date_string": "26 Jul 2024"}
        chat = request["conversation"]
        found["chat"] = tokenizer.apply_chat_template(chat, tokenize=False, **how)
        found["chat_ids"] = tokenizer.apply_chat_template(chat, tokenize=True, return_dict=False, **how)
    answer["folders"][folder] = found
print(json.dumps(answer))
"""
NAMES = ["qwen2.5-instruct", "llama-3.2-instruct", "gemma-2-it", "t5-v1_1", "SYNTHETIC-mt5-like-32k"]


def load_in_transformers(trimmed_folders, texts, *, python_path: str | None):
    """Load trimmed folders with AutoTokenizer in another process and compare all ids; return the version."""
    request = {
        "folders": [str(t.out.path) for t in trimmed_folders],
        "texts": texts,
        "conversation": CONVERSATION,
    }
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if python_path:
        environment["PYTHONPATH"] = python_path
    process = subprocess.run(
        [sys.executable, "-c", LOAD],
        input=json.dumps(request),
        capture_output=True,
        encoding="utf-8",
        env=environment,
        timeout=240,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    answer = json.loads(process.stdout)
    for trimmed in trimmed_folders:
        found, base = answer["folders"][str(trimmed.out.path)], trimmed.base
        for given, ids, own in zip(texts, found["ids"], found["own_text"], strict=True):
            before = base.encoder.encode(given).ids
            assert trimmed.covers(before), (trimmed.out.path.name, given)
            assert ids == trimmed.map(before), (trimmed.out.path.name, given)
            assert own.strip() == base.encoder.decode(before, skip_special_tokens=True).strip()
        settings = read(base.path / "tokenizer_config.json")
        for kind, token_id in zip(("eos_token", "pad_token", "bos_token"), found["special"], strict=True):
            token = settings.get(kind)
            token = token["content"] if isinstance(token, dict) else token
            if token and kind in settings:
                assert token_id == trimmed.plan.old_to_new[base.tokenizer.added[token]], kind
        assert ("chat" in found) == bool(settings.get("chat_template"))
        if "chat" in found:
            assert "Hãy dịch câu này" in found["chat"]
            old = base.encoder.encode(found["chat"], add_special_tokens=False).ids
            assert found["chat_ids"] == trimmed.map(old)
    return answer["version"]


@pytest.fixture(scope="module")
def covered_texts(home_texts) -> list[str]:
    """Lines whose tokens all were kept, whatever the tokenizer: they are what the lists were made from."""
    return [line.strip("\n") for line in home_texts[1:] if line.isprintable() or line[:-1].isprintable()][
        ::60
    ]


def test_10_trimmed_folders_load_in_the_installed_transformers(real_trimmed, covered_texts):
    trimmed = [real_trimmed(name) for name in NAMES]
    texts = [t for t in covered_texts if all(f.covers(f.base.encoder.encode(t).ids) for f in trimmed)]
    assert len(texts) > 10
    load_in_transformers(trimmed, texts, python_path=None)


@pytest.mark.skipif(not OLD_PACKAGES.is_dir(), reason=f"no {OLD_PACKAGES}: run .ci/old")
def test_10_trimmed_folders_load_in_transformers_4_45(real_trimmed, covered_texts):
    trimmed = [real_trimmed(name) for name in NAMES]
    texts = [t for t in covered_texts if all(f.covers(f.base.encoder.encode(t).ids) for f in trimmed)]
    version = load_in_transformers(trimmed, texts, python_path=str(OLD_PACKAGES))
    assert version.startswith("4.")


def test_10_no_code_of_ours_is_needed(real_trimmed):
    """Nothing but the formats that the base has: no Python file, no auto_map, no class name of ours."""
    for name in NAMES:
        trimmed = real_trimmed(name)
        names = {path.name for path in trimmed.out.path.iterdir()}
        assert names <= {path.name for path in trimmed.base.path.iterdir()} | {"generation_config.json"}
        before, after = (read(f.path / "tokenizer_config.json") for f in (trimmed.base, trimmed.out))
        assert before.get("tokenizer_class") == after.get("tokenizer_class")
        assert before.keys() == after.keys() and ROOT.name not in json.dumps(after.get("auto_map"))
