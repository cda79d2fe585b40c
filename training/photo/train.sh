#!/bin/sh
# Trains the photo codec: training/photo/train.sh DATASET [RUN] [more options of attar train]
# DATASET is a folder of photographs, with those to validate on below DATASET/val. Run it again to go on.
set -eu
here=$(cd "$(dirname "$0")/../.." && pwd)
dataset=${1:?a folder of photographs}
run=${2:-run-photo}
[ $# -ge 2 ] && shift 2 || shift 1
if [ -f "$run/checkpoints/last.npz" ]; then
    exec attar train --run-dir "$run" --resume --verbosity 2 "$@"
fi
exec attar train --model "$here/models/photo.json" --dataset "$dataset" --run-dir "$run" \
    --crop 256 --flip --batch-size 8 --loss mse --epochs 80 --steps-per-epoch 500 \
    --optimizer soap --learning-rate 2e-3 --warmup 200 --schedule wsd --average 0.999 --clip-norm 1 --patience 0 \
    --verbosity 2 "$@"
