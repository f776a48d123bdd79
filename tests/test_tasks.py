"""vocabkit/tasks.py: where a task writes when -o is not given (what tasks do is tested in their packages)."""

from pathlib import Path

from vocabkit.tasks import default_out


def test_default_out_stands_beside_the_model(tmp_path, monkeypatch):
    (tmp_path / "m__trimm_vocab").mkdir()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("m__trimm_vocab")
    assert default_out("m__trimm_vocab/", task="extend_vocab") == Path("m__extend_vocab")
    assert default_out("link", task="extend_vocab") == Path("m__extend_vocab")
    assert default_out(f"{tmp_path}/m__trimm_vocab", task="trimm_vocab").parent == tmp_path
    monkeypatch.chdir(tmp_path / "m__trimm_vocab")
    assert default_out(".", task="extend_vocab") == tmp_path / "m__extend_vocab"
    assert default_out("../m__trimm_vocab", task="extend_vocab") == Path("../m__extend_vocab")
