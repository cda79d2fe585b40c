#!/usr/bin/env bash
# How the shipped bundle `digits` was made: the seed's model.json unchanged, MNIST, one run, one export.
#
#   training/digits/train.sh MNIST_FOLDER [RUN_FOLDER]
#
# MNIST_FOLDER holds the four IDX files of MNIST (gzipped or not). Killed, it goes on where it was when started again.
set -euo pipefail
data=${1:?the folder with the IDX files of MNIST}
run=${2:-runs/digits}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

recipe=(--model "$here/models/model.json" --dataset "$data" --latent-dims 50
  --loss ssim-l1 --alpha 0.75 --lmbda 0.006
  --epochs 36 --batch-size 128 --learning-rate 1.5e-3 --schedule cosine --average 0.999 --patience 0 --seed 0)
if [ -f "$run/checkpoints/last.npz" ]; then
  attar train --resume --run-dir "$run" --verbosity 2
else
  attar train "${recipe[@]}" --run-dir "$run" --verbosity 2 --force
fi
attar validate --ckpt-path "$run/checkpoints/best.npz" --split test
attar export --ckpt-path "$run/checkpoints/best.npz" --mode bundle --save-path "$here/src/attar/models/digits.attarmodel" --force \
  --name digits --model-version 1 --licence Apache-2.0 \
  --description "Handwritten digits, 28x28 gray; the seed's model.json, trained on MNIST"
