#!/usr/bin/env bash
# Stage 2: all rows and the lowest layers, so that what reads the new words fits them. 20 s for the demo.
#
#   ./finetune_qwen__2_low_layers.sh MODEL__extend_vocab__1_embeddings_massage [DATA [OUT]] [-- FLAGS]
#   MODEL=… DATA="vi.jsonl:2 en.jsonl" OUT=… LAYERS="0 1" PYTHON=… ./finetune_qwen__2_low_layers.sh
#
# OUT is MODEL with __2_low_layers for __1_embeddings_massage unless given, beside MODEL.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
flags=(); for ((i = 1; i <= $#; i++)); do if [ "${!i}" = -- ]; then flags=("${@:i+1}"); set -- "${@:1:i-1}"; break; fi; done
model=${1:-${MODEL:-$here/out/demo__extend_vocab__1_embeddings_massage}}
data=${2:-${DATA:-$here/data/demo/train_texts.jsonl}}
out=${3:-${OUT:-$(x=${model%/}; echo "${x%__1_embeddings_massage}__2_low_layers")}}

# finetune_layers: the layers that turn tokens into words lie low; two of them fit beside both tables in 24 GB
# learning_rate: old rows move now, and must not forget
${PYTHON:-python3} "$here/finetune_qwen.py" \
    --model_name_or_path "$model" --data_path $data --output_dir "$out" \
    --train_rows all --finetune_layers "${LAYERS:-0 1}" \
    --learning_rate 5e-5 --num_train_epochs 1 "${flags[@]}"
