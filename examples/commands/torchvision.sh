#!/bin/bash
# The owner's trainer for `unlearn: {method: command}`, in the shape of torchvision's reference script (references/classification/train.py):
# the retained pictures as an image folder of links, the same options as production was trained with, and the last checkpoint as safetensors.
#
#   unlearn:
#     method: command
#     command: [examples/commands/torchvision.sh, --model, resnet50, --epochs, "90", --lr, "0.5", --lr-scheduler, cosineannealinglr, --label-smoothing, "0.1"]
#
# TRAIN names the script, VALIDATION the folder of validation pictures, PYTHON the interpreter that has torch, torchvision and safetensors,
# KEY the weights in its checkpoint (model, or model_ema with --model-ema). Set them here, or in front: command: [env, TRAIN=/opt/train.py, …/torchvision.sh, …]
set -euo pipefail
TRAIN=${TRAIN:-/opt/vision/references/classification/train.py}
VALIDATION=${VALIDATION:-/srv/models/animals/validation}
PYTHON=${PYTHON:-python3}
export KEY=${KEY:-model}

# The folder is made anew each time: what is excluded may have changed since the last repair.
data=$DELTA_GUARD_FOLDER/data
rm -rf "$data"
mkdir -p "$data"
ln -s "$VALIDATION" "$data/val"
"$PYTHON" - "$data/train" <<'PYTHON'
import csv, os, pathlib, sys

with open(os.environ["DELTA_GUARD_RETAINED"], newline="", encoding="utf-8") as file:
    for row in csv.DictReader(file):
        link = pathlib.Path(sys.argv[1], row["id"])  # CLASS/FILE
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(row["path"])
PYTHON

# The script saves after each epoch, and goes on there.
resume=()
if [ -e "$DELTA_GUARD_RESUME/checkpoint.pth" ]; then
    resume=(--resume "$DELTA_GUARD_RESUME/checkpoint.pth")
fi
epochs=90 before=
for argument in "$@"; do
    [ "$before" = --epochs ] && epochs=$argument
    before=$argument
done
device=${DELTA_GUARD_DEVICE%%:*}
torchrun --nproc_per_node=1 "$TRAIN" --data-path "$data" --output-dir "$DELTA_GUARD_RESUME" --device "$device" "${resume[@]}" "$@" |
    awk -v epochs="$epochs" '
        { print; fflush() }
        match($0, /^Epoch: \[[0-9]+\]/) {
            epoch = substr($0, 9, RLENGTH - 9)
            if (epoch < epochs) printf "progress %.4f epoch %d of %d\n", epoch / epochs, epoch + 1, epochs
            fflush()
        }'

# Its checkpoints are pickles of our own; delta-guard reads safetensors.
"$PYTHON" - <<'PYTHON'
import os, torch
from safetensors.torch import save_file

saved = torch.load(os.path.join(os.environ["DELTA_GUARD_RESUME"], "checkpoint.pth"), map_location="cpu", weights_only=False)
output = os.environ["DELTA_GUARD_OUTPUT"]
save_file(saved[os.environ["KEY"]], output + ".part")
os.replace(output + ".part", output)
PYTHON
