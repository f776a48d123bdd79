"""multilingual-e5-small, a real encoder with 250,002 Unigram tokens: refused, since it writes no text."""

import contextlib
import io

import pytest

import model_edit
from vocabkit.errors import UserError

pytestmark = pytest.mark.real


@pytest.mark.parametrize("task", ["trimm_vocab", "extend_vocab", "export_gguf"])
def test_an_encoder_is_refused_in_one_line(e5_folder, tmp_path, task):
    out = tmp_path / ("out.gguf" if task == "export_gguf" else "out")
    with contextlib.redirect_stderr(io.StringIO()) as noise, pytest.raises(UserError) as caught:
        model_edit.main(["-m", str(e5_folder), "-b", str(e5_folder), "-t", task, "-o", str(out)])
    assert str(caught.value) == (
        f"{e5_folder}/config.json: model_type 'bert' with architectures ['BertModel'] does not write text; "
        "give a causal or an encoder-decoder language model"
    )
    assert noise.getvalue() == "" and list(tmp_path.iterdir()) == []
