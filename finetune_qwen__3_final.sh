#!/usr/bin/env bash
# Stage 3: the whole model, LoRA in every layer beside rows trained in place: a 7B in 24 GB. 30 s for the demo.
#
#   ./finetune_qwen__3_final.sh MODEL__extend_vocab__2_low_layers [DATA [OUT]] [-- FLAGS]
#   MODEL=… DATA="chats.jsonl vi.jsonl:2 en.jsonl" OUT=… PYTHON=… ./finetune_qwen__3_final.sh
#   LORA_RANK= ./finetune_qwen__3_final.sh … -- --optim_in_backward     # full finetuning: a 7B in 40 GB
#
# OUT is MODEL with __3_final for __2_low_layers unless given, beside MODEL.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
flags=(); for ((i = 1; i <= $#; i++)); do if [ "${!i}" = -- ]; then flags=("${@:i+1}"); set -- "${@:1:i-1}"; break; fi; done
model=${1:-${MODEL:-$here/out/demo__extend_vocab__2_low_layers}}
data=${2:-${DATA:-$here/data/demo/train_chats.jsonl $here/data/demo/train_texts.jsonl}}
out=${3:-${OUT:-$(x=${model%/}; echo "${x%__2_low_layers}__3_final")}}

rank=${LORA_RANK-64}
# lora_rank: 64 holds a new language's syntax; 8 to 16 are enough for style alone
# learning_rate: small, because old rows are trained in place beside LoRA
${PYTHON:-python3} "$here/finetune_qwen.py" \
    --model_name_or_path "$model" --data_path $data --output_dir "$out" \
    --train_rows all --finetune_layers all ${rank:+--lora_rank "$rank"} \
    --learning_rate 5e-5 --num_train_epochs 1 "${flags[@]}"
