#!/usr/bin/env bash
# Lint, types and tests: ./test.sh [pytest's arguments]
#
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
$bin/python -m pytest "$@"
