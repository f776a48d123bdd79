"""Fixtures of the tests of training data."""

import pytest
from tiny import ROOT
from transformers import AutoTokenizer


@pytest.fixture
def tokenizer():
    return AutoTokenizer.from_pretrained(ROOT / "data" / "demo")
