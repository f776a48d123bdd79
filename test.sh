#!/usr/bin/env bash
# Lint, types and tests on all cores: ./test.sh [fast] [pytest's arguments], such as ./test.sh fast tests/words -k curve
#
# fast: without the tests that are slow or need real tokenizers; some three minutes on two cores.
# Makes .venv and installs requirements.txt and requirements-dev.txt there on the first run. Tests that need real
# tokenizers and models take them from $VOCABKIT_ASSETS and say why they are skipped where it is missing.
set -euo pipefail
cd "$(dirname "$0")"
./.ci/install requirements.txt requirements-dev.txt
./.ci/llama
bin=.venv/bin

# The oldest transformers that must open what we write lives in a folder of its own, beside the current one.
export VOCABKIT_OLD_TRANSFORMERS=${VOCABKIT_OLD_TRANSFORMERS:-$PWD/.cache/transformers-4.45}
if [ ! -e "$VOCABKIT_OLD_TRANSFORMERS/transformers/__init__.py" ]; then
    $bin/python -m pip install --quiet --disable-pip-version-check --no-deps --target "$VOCABKIT_OLD_TRANSFORMERS" \
        transformers==4.45.2 tokenizers==0.20.3 huggingface_hub==0.26.5 requests==2.32.3 urllib3==2.2.3 \
        charset-normalizer==3.4.0 certifi==2024.8.30
fi

$bin/ruff format --check .
$bin/ruff check .
$bin/mypy
marks=()
if [ "${1:-}" = fast ]; then
    shift
    marks=(-m "not slow and not assets")
fi
# A file's tests share what they make, so they stay in one process; its torch gets one core.
OMP_NUM_THREADS=1 $bin/python -m pytest --numprocesses auto --dist loadfile "${marks[@]}" "$@"
