"""vocabkit/look/compare_vocab.py: its answers about tiny tokenizers changed in one place, and about the
real ones.
"""

import copy
import functools
import json
from pathlib import Path

import pytest
from tiny import ASSETS, edit_record
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from vocabkit.errors import UserError
from vocabkit.look.compare_vocab import compare_vocab, settings_of
from vocabkit.tokenizer.tokenizer_json import read_tokenizer_json

TOKENIZERS = ASSETS / "tokenizers"
TEXTS = ["Thời gian trôi nhanh quá, người Việt Nam!", "The time of the day, the way of the world."] * 4


@pytest.fixture(scope="module")
def plain() -> dict:
    """tokenizer.json of a byte-level BPE made like Qwen's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_special_tokens(["<|end|>"])
    return json.loads(tokenizer.to_str())


@pytest.fixture
def compare(tmp_path, plain, capsys):
    """Return a function: change tokenizer.json of the model, compare with the base; → (identical, output)."""

    def run(change=lambda data: None, *, rows=(320, 320), settings=({}, {})) -> tuple[bool, str]:
        data = copy.deepcopy(plain)
        change(data)
        for name, value, count, extra in zip(("b", "m"), (plain, data), rows, settings, strict=True):
            (tmp_path / name).mkdir()
            write(tmp_path / name / "tokenizer.json", value)
            write(tmp_path / name / "tokenizer_config.json", extra)
            if count is not None:
                write(tmp_path / name / "config.json", {"vocab_size": count})
        identical = compare_vocab(tmp_path / "b", tmp_path / "m")
        return identical, capsys.readouterr().out

    return run


@functools.cache
def read_real(folder: Path):
    """Read a real tokenizer.json, a second of work, once for all tests (links to it too)."""
    path = folder / "tokenizer.json"
    return read_real(path.resolve().parent) if path.is_symlink() else read_tokenizer_json(folder)


def write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def verdict(output: str) -> str:
    return output.rstrip("\n").rpartition("\n")[2]


def test_identical(compare):
    identical, output = compare()
    assert identical
    assert verdict(output) == "identical: one kept list and one tokenizer serve both"


def test_other_rows_are_the_same_tokenizer(compare):
    identical, output = compare(rows=(320, 384))
    assert not identical
    assert verdict(output).startswith("same tokenizer, rows differ (320 and 384): one kept list and one tok")


@pytest.mark.parametrize("rows", [(None, 320), (320, None), (None, None)])
def test_rows_unknown_without_a_config(compare, rows):
    identical, output = compare(rows=rows)
    assert identical
    assert "rows unknown (no config.json)" in output


def test_added_token(compare):
    def add(data):
        data["added_tokens"].append(data["added_tokens"][0] | {"id": 301, "content": "<think>"})

    identical, output = compare(add)
    assert not identical
    assert "1 only in model: <think> 301" in output
    assert verdict(output) == (
        "same base vocabulary (300 tokens, 44 merges), added tokens differ: 1 only in model (<think>); one "
        "kept list fits both"
    )


def test_added_token_at_another_id_and_with_another_flag(compare):
    def change(data):
        end = data["added_tokens"][0]
        data["added_tokens"] = [{**end, "content": "<|more|>"}, {**end, "id": 301, "normalized": True}]

    _, output = compare(change)
    assert "1 at other ids: <|end|> 300 → 301" in output
    assert "1 other flags: <|end|> (normalized False → True)" in output


def test_merges_in_another_order(compare):
    def swap(data):
        data["model"]["merges"][3], data["model"]["merges"][4] = (
            data["model"]["merges"][4],
            data["model"]["merges"][3],
        )

    identical, output = compare(swap)
    assert not identical
    assert "44 in both, in another order" in output and "number 4 of these is" in output
    assert verdict(output).startswith(
        "different vocabularies: the same 300 tokens, but 44 merges are in both"
    )


def test_swapped_ids_are_a_difference(compare):
    def swap(data):
        vocab = data["model"]["vocab"]
        vocab["Ġ"], vocab["!"] = vocab["!"], vocab["Ġ"]

    _, output = compare(swap)
    assert "298 at the same ids" in output and "2 at other ids" in output
    assert "each needs its own kept list" in verdict(output)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data.update(normalizer={"type": "NFKC"}), "normalizer in model: NFKC"),
        (lambda data: data["model"].update(ignore_merges=True), "ignore_merges in model: true"),
        (lambda data: data["pre_tokenizer"].update(use_regex=False), "use_regex false"),
        (lambda data: data.update(decoder=None), "decoder in model: none"),
        (
            lambda data: data.update(truncation={"max_length": 8, "strategy": "LongestFirst", "stride": 0}),
            "truncation in model: max_length 8",
        ),
        (
            lambda data: data.update(
                post_processor={
                    "type": "TemplateProcessing",
                    "single": [
                        {"Sequence": {"id": "A", "type_id": 0}},
                        {"SpecialToken": {"id": "<|end|>", "type_id": 0}},
                    ],
                    "pair": [],
                    "special_tokens": {"<|end|>": {"id": "<|end|>", "ids": [300], "tokens": ["<|end|>"]}},
                }
            ),
            "post_processor in model: TemplateProcessing single $A, <|end|>",
        ),
    ],
)
def test_settings_that_change_ids(compare, change, said):
    identical, output = compare(change)
    assert not identical
    assert said in output
    assert "settings differ: " in verdict(output) and "one kept list fits both" in verdict(output)


def test_spellings_of_the_same_behaviour_are_equal(compare):
    def respell(data):
        data["normalizer"] = {"type": "Sequence", "normalizers": [data["normalizer"]]}
        data["pre_tokenizer"]["trim_offsets"] = not data["pre_tokenizer"]["trim_offsets"]
        data["post_processor"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False}
        data["model"].pop("ignore_merges", None)
        data["model"]["merges"] = [" ".join(merge) for merge in data["model"]["merges"]]

    assert compare(respell)[0]


def test_template_tokens_are_compared_by_token_not_by_id(tmp_path, plain):
    found = []
    for name, new_id in (("a", 300), ("b", 301)):
        data = copy.deepcopy(plain)
        end = data["added_tokens"][0]
        data["added_tokens"] = [{**end, "content": "<|more|>"}] * (new_id - 300) + [{**end, "id": new_id}]
        data["post_processor"] = {
            "type": "BertProcessing",
            "sep": ["<|end|>", new_id],
            "cls": ["<|end|>", new_id],
        }
        data["padding"] = {"pad_id": new_id, "pad_token": "<|end|>"}
        (tmp_path / name).mkdir()
        write(tmp_path / name / "tokenizer.json", data)
        found.append(settings_of(read_tokenizer_json(tmp_path / name)))
    assert found[0] == found[1]


def test_what_lies_beside_the_vocabulary(compare):
    same = {"eos_token": "<|end|>", "chat_template": "a"}
    identical, output = compare(settings=(same, same | {"eos_token": {"content": "x"}, "chat_template": "b"}))
    assert identical
    assert "chat_template differs" in output
    assert "eos_token differs: '<|end|>' in base, 'x' in model" in output
    assert "(each folder keeps its own tokenizer_config.json)" in verdict(output)


def test_chat_template_file_goes_first(compare, tmp_path, capsys):
    compare(settings=({"chat_template": "a"}, {"chat_template": "b"}))
    (tmp_path / "m" / "chat_template.jinja").write_text("a", encoding="utf-8")
    assert compare_vocab(tmp_path / "b", tmp_path / "m")
    assert "chat_template differs" not in capsys.readouterr().out


def unigram(folder: Path, *, score: float = -2.0) -> Path:
    tokenizer = Tokenizer(
        models.Unigram([("<unk>", 0.0), ("▁", -1.0), ("▁the", score), ("e", -3.0)], 0, False)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <unk>", special_tokens=[("<unk>", 0)])
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_unigram_scores(tmp_path, capsys):
    one = unigram(tmp_path / "one")
    assert compare_vocab(one, unigram(tmp_path / "two"))
    assert not compare_vocab(one, unigram(tmp_path / "three", score=-2.5))
    output = capsys.readouterr().out
    assert "1 other scores: ' the' -2.0 → -2.5" in output
    assert verdict(output).startswith("different vocabularies: the same 4 tokens, but other scores")


def test_two_families_are_compared_by_bytes(compare, tmp_path, capsys):
    compare()
    assert not compare_vocab(tmp_path / "b", unigram(tmp_path / "u"))
    output = capsys.readouterr().out
    assert "' the'" in output.partition("only in base")[0]
    assert "scores        none in base" in output


def test_edited_folder_is_recognized(compare, tmp_path, capsys):
    compare(rows=(320, 384))
    edit_record(tmp_path / "b", [None]).write(tmp_path / "m")
    compare_vocab(tmp_path / "b", tmp_path / "m")
    assert verdict(capsys.readouterr().out).endswith("check it with -t verify_edit")


def test_missing_tokenizer(tmp_path):
    with pytest.raises(UserError, match="tokenizer.json is missing"):
        compare_vocab(tmp_path, tmp_path)


def test_config_without_vocab_size(compare, tmp_path):
    compare()
    write(tmp_path / "m" / "config.json", {})
    with pytest.raises(UserError, match="no vocab_size"):
        compare_vocab(tmp_path / "b", tmp_path / "m")


@pytest.mark.assets
@pytest.mark.skipif(not TOKENIZERS.is_dir(), reason=f"needs the real tokenizers in {TOKENIZERS}")
class TestReal:
    @pytest.fixture(autouse=True)
    def read_each_file_once(self, monkeypatch):
        monkeypatch.setattr("vocabkit.look.compare_vocab.read_tokenizer_json", read_real)

    def test_qwen_2_and_25_share_a_base(self, capsys):
        assert not compare_vocab(TOKENIZERS / "qwen2-instruct", TOKENIZERS / "qwen2.5-instruct")
        output = capsys.readouterr().out
        assert "<|file_sep|> 151664" in output and "<tool_call> 151657" in output
        assert verdict(output) == (
            "same base vocabulary (151,643 tokens, 151,387 merges), added tokens differ: 19 only in model "
            "(<|object_ref_start|> … <|file_sep|>); one kept list fits both"
        )

    def test_qwen_25_and_3_share_a_base(self, capsys):
        assert not compare_vocab(TOKENIZERS / "qwen2.5-instruct", TOKENIZERS / "qwen3")
        assert verdict(capsys.readouterr().out) == (
            "same base vocabulary (151,643 tokens, 151,387 merges), added tokens differ: 4 only in model "
            "(<tool_response>, </tool_response>, <think>, </think>); one kept list fits both"
        )

    def test_sizes_of_qwen_25_differ_in_rows_only(self, tmp_path, capsys):
        source = TOKENIZERS / "qwen2.5-instruct"
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (tmp_path / name).symlink_to(source / name)
        write(tmp_path / "config.json", {"vocab_size": 152_064})
        assert not compare_vocab(source, tmp_path)
        assert verdict(capsys.readouterr().out) == (
            "same tokenizer, rows differ (151,936 and 152,064): one kept list and one tokenizer serve both"
        )

    def test_llama_is_another_vocabulary(self, capsys):
        assert not compare_vocab(TOKENIZERS / "qwen3", TOKENIZERS / "llama-3.2-instruct")
        output = capsys.readouterr().out
        assert r"\p{N}{1,3}" in output and "ignore_merges in model: true" in output
        assert verdict(output).startswith(
            "different vocabularies: 109,566 tokens are in both (410 at the same"
        )
