"""vocabkit/rows/lessons.py: each term of the loss can be learned, the teacher reads once."""

import numpy as np
import pytest
from distilling import learn, make

from vocabkit.models.word_model import WordModel
from vocabkit.rows import lessons
from vocabkit.rows.lessons import Teacher


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen2", "gemma2"])
@pytest.mark.parametrize("term", ["input", "output", "mass", "other"])
def test_each_term_alone_can_be_learned(family, term, tmp_path, monkeypatch):
    losses = Teacher.losses

    def only(self, at):
        return {name: value * (name == term) for name, value in losses(self, at).items()}

    monkeypatch.setattr(Teacher, "losses", only)
    _, facts, _ = learn(make(tmp_path, family), tmp_path, epochs=8, batch=4)
    assert facts["loss_after"][term] < 0.85 * facts["loss_before"][term] > 0
    assert facts["steps"] == 8 * 5


def test_the_teacher_reads_each_context_once_unless_memory_is_short(tmp_path, monkeypatch):
    qwen2 = make(tmp_path, "qwen2")
    read, reads = WordModel.read, []

    def counted(self, sequences, places, *, words=True, past=None, **more):
        reads.append(0 if words or past is None else len(sequences))
        return read(self, sequences, places, words=words, past=past, **more)

    monkeypatch.setattr(WordModel, "read", counted)
    (rows, *_), *_ = learn(qwen2, tmp_path, epochs=2, batch=5)
    assert sum(reads) == 18
    reads.clear()
    monkeypatch.setattr(lessons, "CACHE_BYTES", 0)
    (again, *_), *_ = learn(qwen2, tmp_path, epochs=2, batch=5)
    assert sum(reads) == 18 * (1 + 2 + 1)  # before, in two epochs, after
    assert np.array_equal(rows, again)
