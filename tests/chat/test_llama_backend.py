"""A GGUF answers in model_chat.py as the folder does that it was made from."""

import os
import re
import sys
import threading

import pytest
from chatting import DEMO, GREEDY, INTO_CHINESE, TIME_LINE, chat

from vocabkit.chat.llama_backend import LlamaBackend, cores
from vocabkit.errors import UserError
from vocabkit.text.unicode import first_foreign


def test_a_gguf_answers_as_the_folder_does(demo_file):
    questions = [INTO_CHINESE, "Translate following sentence into English: tôi tên là An", "Xin chào!"]
    prompts = [part for question in questions for part in ("--prompt", question)]
    (code, by_torch, _), (file_code, by_llama, err) = (
        chat(m, *prompts, "--greedy") for m in (DEMO, demo_file)
    )
    assert code == file_code == 0, err
    by_torch, by_llama = (re.sub("\n" + TIME_LINE.format(r"\S+"), "", said) for said in (by_torch, by_llama))
    assert by_torch.strip() == by_llama.strip() and by_torch.count("Bot: ") == 3


def test_a_gguf_is_masked_and_avoids_too(demo_file):
    code, out, err = chat(
        demo_file, "--prompt", INTO_CHINESE, "--greedy", "--only_scripts", "Latin", "--avoid", "name is"
    )
    assert code == 0, err
    said = out.split("Bot: ")[1]
    assert said.strip() and "name is" not in said and first_foreign(said) is None
    code, both, err = chat(DEMO, demo_file, "--prompt", INTO_CHINESE, "--temperature", "0.7", "--seed", "3")
    assert code == 0 and both.count("Bot: ") == 2, err


def test_a_stopped_file_says_nothing(demo_llama):
    stop = threading.Event()
    stop.set()
    assert list(demo_llama.generate([5, 6], GREEDY, stop=stop)) == []


def test_without_llama_cpp(demo_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(UserError, match="pip install llama-cpp-python"):
        LlamaBackend(str(demo_file))


def test_a_gguf_that_is_missing():
    code, _, err = chat("none.gguf")
    assert code == 1 and err.strip() == "error: none.gguf is missing; give a GGUF file or a folder"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /sys of Linux")
def test_a_thread_for_each_core_not_for_each_hardware_thread(tmp_path):
    processors = os.sched_getaffinity(0)
    assert 1 <= cores() <= len(processors)
    assert cores(tmp_path) == len(processors), "nothing is known: each is a core"
    for at in processors:
        (tmp_path / f"cpu{at}" / "topology").mkdir(parents=True)
        (tmp_path / f"cpu{at}" / "topology" / "thread_siblings_list").write_text("0-63\n", encoding="ascii")
    assert cores(tmp_path) == 1
