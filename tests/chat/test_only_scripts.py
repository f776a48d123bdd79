"""--only_scripts: the promise of trimming kept by masking, in folders and GGUF files; model_chat.py."""

import os
import re
import subprocess
import sys

import pytest
from tiny import ROOT

from vocabkit.chat.only_scripts import forbidden_ids, read_scripts, tokenizer_of
from vocabkit.chat.transformers_backend import generate
from vocabkit.errors import UserError
from vocabkit.gguf.export import export_gguf
from vocabkit.models.load import load_model, load_tokenizer
from vocabkit.text.unicode import first_foreign
from vocabkit.text.utf8 import tail_of

DEMO = ROOT / "data" / "demo"
INTO_CHINESE = "Translate following sentence into Chinese: tôi tên là An"
LATIN = read_scripts(["Latin"])


def test_scripts_by_name():
    assert read_scripts(["Latin", "greek"]) == {"Common", "Inherited", "Latin", "Greek"}
    with pytest.raises(UserError, match="--only_scripts Klingon: no script of Unicode"):
        read_scripts(["Klingon"])


@pytest.mark.parametrize("kind", ["qwen", "gemma"])
def test_no_row_of_tokens_spells_a_foreign_character(tiny, kind):
    """Whatever allowed tokens stand one after another: no pair of them makes one."""
    tokenizer = tiny(kind).tokenizer
    forbidden = set(forbidden_ids(tokenizer, LATIN))
    kept = [data for i, data in tokenizer.token_bytes.items() if i not in forbidden]
    added = set(tokenizer.added.values())
    assert not forbidden & added and forbidden
    starts = {data[:3] for data in kept}
    for data in kept:
        if data.decode("utf-8", "ignore").startswith("<"):
            continue
        for start in starts:
            joined = (tail_of(data) + start).decode("utf-8", "ignore")
            assert first_foreign(joined, LATIN) is None, (data, start)


def test_a_model_that_wants_chinese_writes_none():
    model, tokenizer = load_model(DEMO), load_tokenizer(DEMO)
    never = forbidden_ids(tokenizer_of(DEMO), LATIN)
    asked = [{"role": "user", "content": INTO_CHINESE}]
    plain = tokenizer.decode(list(generate(model, tokenizer, asked, greedy=True)))
    assert first_foreign(plain) == "Han"
    for options in ({"greedy": True}, {"temperature": 1.0, "seed": 1}):
        masked = tokenizer.decode(list(generate(model, tokenizer, asked, never=never, **options)))
        assert masked and first_foreign(masked) is None


def chat(*argv):
    environment = {**os.environ, "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "model_chat.py", *map(str, argv)],
        cwd=ROOT, env=environment, capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    return done.returncode, re.sub(r"\n\S+: timespent .*", "", done.stdout), done.stderr


def test_model_chat_avoids_and_masks():
    code, out, err = chat(
        DEMO, "--prompt", INTO_CHINESE, "--greedy", "--only_scripts", "Latin", "--avoid", "name is"
    )
    assert code == 0, err
    assert "Bot: " in out and "name is" not in out.split("Bot: ")[1]
    assert first_foreign(out) is None
    assert re.search(r"[\d,]+ tokens that could write another script are never chosen", err)


@pytest.fixture(scope="module")
def demo_file(tmp_path_factory):
    pytest.importorskip("llama_cpp", reason="no llama-cpp-python: pip install llama-cpp-python")
    return export_gguf(DEMO, tmp_path_factory.mktemp("gguf") / "demo.gguf", outtype="f32")


def test_a_gguf_answers_as_the_folder_does(demo_file):
    questions = [INTO_CHINESE, "Translate following sentence into English: tôi tên là An", "Xin chào!"]
    prompts = [part for question in questions for part in ("--prompt", question)]
    (code, by_torch, _), (file_code, by_llama, err) = (
        chat(m, *prompts, "--greedy") for m in (DEMO, demo_file)
    )
    assert code == file_code == 0, err
    assert by_torch.strip() == by_llama.strip()


def test_a_gguf_is_masked_and_avoids_too(demo_file):
    code, out, err = chat(
        demo_file, "--prompt", INTO_CHINESE, "--greedy", "--only_scripts", "Latin", "--avoid", "name is"
    )
    assert code == 0, err
    said = out.split("Bot: ")[1]
    assert said.strip() and "name is" not in said and first_foreign(said) is None
    code, both, err = chat(DEMO, demo_file, "--prompt", INTO_CHINESE, "--temperature", "0.7", "--seed", "3")
    assert code == 0 and both.count("Bot: ") == 2, err


def test_llama_backend_by_itself(demo_file, monkeypatch):
    import threading

    from vocabkit.chat.avoid import Avoider
    from vocabkit.chat.llama_backend import LlamaModel

    model = LlamaModel(demo_file, exact=True)
    ids = model.prompt_ids([{"role": "user", "content": "Xin chào!"}])
    plain = list(model.generate(ids, greedy=True, max_new_tokens=12))
    assert model.decode(plain) == "".join(model.to_text(plain))
    nothing = list(
        model.generate(ids, greedy=True, max_new_tokens=12, avoider=lambda: Avoider(["zzz"], model.decode))
    )
    assert nothing == plain
    phrase = model.decode(plain)[2:6]
    avoided = list(
        model.generate(ids, greedy=True, max_new_tokens=12, avoider=lambda: Avoider([phrase], model.decode))
    )
    assert phrase not in model.decode(avoided)
    stop = threading.Event()
    stop.set()
    assert list(model.generate(ids, stop=stop)) == []
    with pytest.raises(UserError, match="the prompt is empty"):
        list(model.generate([]))
    one, two = (list(model.generate(ids, temperature=2.0, seed=4, max_new_tokens=8)) for _ in range(2))
    assert one == two
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(UserError, match="pip install llama-cpp-python"):
        LlamaModel(demo_file)


def test_a_gguf_that_is_missing():
    code, _, err = chat("none.gguf")
    assert code == 1 and err.strip() == "error: none.gguf is missing; give a GGUF file or a folder"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /sys of Linux")
def test_a_thread_for_each_core_not_for_each_hardware_thread(tmp_path):
    from vocabkit.chat.llama_backend import cores

    processors = os.sched_getaffinity(0)
    assert 1 <= cores() <= len(processors)
    assert cores(tmp_path) == len(processors), "nothing is known: each is a core"
    for at in processors:
        (tmp_path / f"cpu{at}" / "topology").mkdir(parents=True)
        (tmp_path / f"cpu{at}" / "topology" / "thread_siblings_list").write_text("0-63\n", encoding="ascii")
    assert cores(tmp_path) == 1
