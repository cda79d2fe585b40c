#!/usr/bin/env bash
# How the shipped bundle `digits` was made: the seed's model.json unchanged, latent 50, MNIST, two stages, one export.
#
#   training/digits/train.sh MNIST_FOLDER [RUNS_FOLDER]
#
# MNIST_FOLDER holds the four IDX files of MNIST (gzipped or not). Killed, it goes on where it was when started again.
# About 45 minutes on one idle core. The second stage lowers the price of a bit and shifts the digits by up to a pixel:
# without the shifts, the first stage had begun to know its 55,000 training digits by heart.
set -euo pipefail
data=${1:?the folder with the IDX files of MNIST}
runs=${2:-runs}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
common=(--model "$here/models/model.json" --dataset "$data" --latent-dims 50 --loss ssim-l1 --alpha 0.75
  --batch-size 128 --schedule cosine --average 0.999 --patience 0)

stage() { # RUN OPTIONS...: train a run, or go on with it
  local run=$1
  shift
  if [ -f "$run/checkpoints/last.npz" ]; then
    attar train --resume --run-dir "$run" --verbosity 2
  else
    attar train "${common[@]}" "$@" --run-dir "$run" --verbosity 2 --force
  fi
}

stage "$runs/digits-1" --lmbda 0.006 --learning-rate 1.5e-3 --epochs 36 --seed 0
stage "$runs/digits-2" --lmbda 0.002 --learning-rate 1e-3 --epochs 30 --seed 1 --shift 1 \
  --load-from-ckpt-path "$runs/digits-1/checkpoints/best.npz"
best=$runs/digits-2/checkpoints/best.npz
attar validate --ckpt-path "$best" --split test
attar export --ckpt-path "$best" --mode bundle --save-path "$here/src/attar/models/digits.attarmodel" --force \
  --name digits --model-version 1 --licence Apache-2.0 \
  --description "Handwritten digits, 28x28 gray; the seed's model.json, trained on MNIST"
