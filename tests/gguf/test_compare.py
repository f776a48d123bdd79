"""An exported file beside its folder: what the tensors hold decides, and what differs is never written."""

import dataclasses
import shutil

import build
import numpy as np
import pytest
from exporting import split_as_llama3
from safetensors.numpy import load_file, save_file

from vocabkit.errors import UserError
from vocabkit.files import read_json, write_json
from vocabkit.gguf import export
from vocabkit.gguf.export import export_gguf
from vocabkit.gguf.files import read_gguf
from vocabkit.gguf.model import load_llama
from vocabkit.gguf.vocab import CHAT_TEMPLATE
from vocabkit.vocab.overlaps import overlaps

HEAD, EMBED = "lm_head.weight", "model.embed_tokens.weight"


def says_tied(base, out, head) -> None:
    """A copy of an untied folder whose config.json says that it is tied, with this head."""
    shutil.copytree(base, out)
    write_json(out / "config.json", read_json(out / "config.json") | {"tie_word_embeddings": True})
    tensors = load_file(out / "model.safetensors")
    tensors[HEAD] = head(tensors)
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})


def test_two_matrices_are_exported_whatever_config_says_of_tying(tmp_path):
    """As a merged LoRA leaves them."""
    base = build.make_checkpoint(tmp_path / "base", "qwen2", tied=False)
    says_tied(base, tmp_path / "two", lambda tensors: tensors[HEAD])
    says_tied(base, tmp_path / "one", lambda tensors: tensors[EMBED].copy())
    for name in ("two", "one"):
        export_gguf(tmp_path / name, tmp_path / f"{name}.gguf", outtype="f32")
    two, one = (read_gguf(tmp_path / f"{name}.gguf") for name in ("two", "one"))
    assert "output.weight" not in one.tensors  # llama.cpp takes the embeddings
    tensor = two.tensors["output.weight"]
    data = np.fromfile(two.path, np.float32, tensor.size // 4, offset=tensor.start)
    head = load_file(base / "model.safetensors")[HEAD]
    assert np.array_equal(data.reshape(tensor.rows, -1), head[: tensor.rows])


def refuses(monkeypatch, tmp_path, name: str, change) -> None:
    """Nothing is written when a function of the export makes something else than it should."""
    base, own = build.make_checkpoint(tmp_path / "base", "llama", tied=False), getattr(export, name)
    split_as_llama3(base)
    monkeypatch.setattr(export, name, lambda *args, **how: change(own, *args, **how))
    with pytest.raises(UserError, match=r"out.gguf was not written: llama.cpp would not run it"):
        export_gguf(base, tmp_path / "out.gguf", outtype="f32")
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def flipped(own, out, **how) -> None:
    """A file with one wrong bit."""
    own(out, **how)
    data = bytearray(out.read_bytes())
    data[next(reversed(read_gguf(out).tensors.values())).start] ^= 1
    out.write_bytes(data)


def without_last(own, out, *, tensors, **how) -> None:
    own(out, tensors=tensors[:-1], **how)


@pytest.mark.parametrize(
    ("change", "said"), [(flipped, "differs from the folder's"), (without_last, "tensor is gone")]
)
def test_every_byte_of_every_tensor_is_compared(monkeypatch, tmp_path, capsys, change, said):
    refuses(monkeypatch, tmp_path, "write_gguf", change)
    assert said in capsys.readouterr().out


def test_texts_are_compared_by_llama_cpp(monkeypatch, tmp_path, capsys):
    pytest.importorskip("llama_cpp", reason="no llama-cpp-python: pip install llama-cpp-python")

    def without_merges(own, *args):
        vocab = own(*args)
        return dataclasses.replace(vocab, merges=vocab.merges[:1])

    refuses(monkeypatch, tmp_path, "read_vocab", without_merges)
    assert "in llama.cpp" in capsys.readouterr().out


def test_logits_are_compared_by_llama_cpp(monkeypatch, tmp_path, capsys):
    """With the rows of q and k as transformers has them every tensor and every id would be as it should."""
    pytest.importorskip("llama_cpp", reason="no llama-cpp-python: pip install llama-cpp-python")
    refuses(monkeypatch, tmp_path, "interleave", lambda own, rows, heads: rows)
    assert "logits differ by" in capsys.readouterr().out


def with_added(tmp_path, **flags):
    base = build.make_checkpoint(tmp_path / "base", "qwen2")
    data = read_json(base / "tokenizer.json")
    last = data["added_tokens"][-1]
    data["added_tokens"].append({**last, "id": last["id"] + 1, "content": "UBND", "special": False, **flags})
    write_json(base / "tokenizer.json", data)
    return base


@pytest.mark.parametrize("flag", ["single_word", "lstrip", "rstrip"])
def test_what_a_gguf_cannot_say_of_an_added_token_is_said(tmp_path, capsys, flag):
    export_gguf(with_added(tmp_path, **{flag: True}), tmp_path / "out.gguf")
    said = capsys.readouterr().out
    assert "llama.cpp cuts 1 texts otherwise than" in said and "'UBND'" in said and flag in said


def test_nothing_is_said_of_a_plain_added_token(tmp_path, capsys):
    export_gguf(with_added(tmp_path), tmp_path / "out.gguf")
    assert "otherwise" not in capsys.readouterr().out


def test_overlapping_added_tokens_are_named():
    assert overlaps([" trở thành", " thành lập", " lập trình viên", " thành"]) == [
        " trở thành lập",
        " thành lập trình viên",
    ]
    assert overlaps([" a b", " a b", " c", "<|x|>", "<|y|>", "xx"]) == []
    assert sorted(overlaps(["ab", "ba"])) == ["aba", "bab"]


def test_a_template_that_llama_cpp_python_cannot_compile_stays_in_the_file(tmp_path):
    pytest.importorskip("llama_cpp")
    base = build.make_checkpoint(tmp_path / "base", "qwen2")
    (base / "chat_template.jinja").write_text("{% note %}{{ messages[0].content }}", encoding="utf-8")
    made = tmp_path / "m.gguf"
    export_gguf(base, made)
    assert read_gguf(made).fields[CHAT_TEMPLATE].value() == "{% note %}{{ messages[0].content }}"
    assert not any(CHAT_TEMPLATE in key for key in load_llama(made, vocab_only=True).metadata)
