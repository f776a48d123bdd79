"""verify_edit of two GGUF files: holds for a trimmed one, and finds every kind of change."""

import sys

import pytest
from exporting import rewrite

from vocabkit.errors import UserError
from vocabkit.gguf.files import STRING, UINT32, array, number, read_gguf, string
from vocabkit.gguf.model import open_gguf
from vocabkit.gguf.trim import trim_gguf
from vocabkit.gguf.verify import check_gguf, verify_gguf
from vocabkit.gguf.vocab import GGML


def test_verify_edit_holds_and_finds_what_was_broken(trimmed_file, tmp_path):
    place, family, out = trimmed_file
    assert verify_gguf(place / "base.gguf", out)
    source = read_gguf(out)
    broken = tmp_path / "broken.gguf"
    data = bytearray(out.read_bytes())
    tensor = source.tensors["token_embd.weight"]
    data[tensor.start + 5] ^= 1
    broken.write_bytes(data)
    findings = [f for c in check_gguf(open_gguf(place / "base.gguf"), open_gguf(broken)) for f in c.findings]
    assert findings == ["token_embd.weight row differs: 0"]
    data[tensor.start + 5] ^= 1
    other = source.tensors["output_norm.weight"]
    data[other.start] ^= 1
    broken.write_bytes(data)
    assert not verify_gguf(place / "base.gguf", broken)


def test_each_changed_field_is_found(trimmed_file, tmp_path):
    place, _, out = trimmed_file
    source = read_gguf(out)
    tokens = source.fields[GGML + "tokens"].value()
    tokens[40], tokens[41] = tokens[41], tokens[40]
    changes = {
        GGML + "tokens": array(tokens, items=STRING),
        GGML + "eos_token_id": number(3, type=UINT32),
        "general.name": string("another"),
    }
    for key, field in changes.items():
        broken = tmp_path / f"{key}.gguf"
        rewrite(out, broken, {key: field})
        check = check_gguf(open_gguf(place / "base.gguf"), open_gguf(broken))[0]
        assert check.findings, key


def test_a_file_that_was_not_trimmed(small):
    with pytest.raises(UserError, match="was not made by -t trimm_vocab"):
        verify_gguf(small / "base.gguf", small / "base.gguf")


def test_without_llama_cpp_the_other_checks_are_made(small, tmp_path, monkeypatch, capsys):
    trim_gguf(small / "base.gguf", tmp_path / "out.gguf")
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    assert verify_gguf(small / "base.gguf", tmp_path / "out.gguf")
    assert "pip install llama-cpp-python" in capsys.readouterr().out
