#!/usr/bin/env python3
"""What a verdict is worth on confident networks: the table "Confident networks" of docs/lab/diary.md.

Poisons drawn pictures, trains a victim, multiplies its last layer (the predictions stay, the probabilities go to 0 and 1), and traces one
triggered picture in float32 and in float64: true positives, false positives, d', z, largest kinship, or what the worker says instead.
Drives the worker by its JSON jobs; what a folder already holds is not made again, so another worker can be tried on the same victims.

    python3 scripts/confident.py OUT [--worker FILE] [--story NAME] [--scale N]... [--precision f32|f64]...
"""

import argparse
import json
import struct
import subprocess
import sys
from pathlib import Path

# Of the jobs: a worker of another version refuses them.
PROTOCOL = 2
SCHEDULE = {"kind": "one-cycle", "warmup": 0.3}
# The recipe of config/evaluate/demo.yaml; `augment` is the story's.
RECIPE = {"epochs": 20, "batch_size": 64, "lr": 0.1, "weight_decay": 5e-4, "schedule": SCHEDULE}
DEMO = {"flip": True, "shift": 1, "whole_pixels": True}
PAPER = {"flip": True, "shift": 4, "whole_pixels": False}
# Name: seed, victim class, target class, augmentation.
STORIES = {
    "demo": (1, "disc", "star", DEMO),
    "ring-square": (777, "ring", "square", DEMO),
    "paper-augment": (777, "disc", "star", PAPER),
}


def work(worker, out, state, task):
    """Runs a job; its result, or the fault's first sentence as a string."""
    setup = {"cache_dir": str(state / "cache"), "factors_dir": str(out / "factors"), "device": "cpu", "threads": 0, "memory_budget": 1 << 30}
    job = {"v": PROTOCOL, "setup": setup, "out_dir": str(out), "task": task}
    ran = subprocess.run([worker], input=json.dumps(job), stdout=subprocess.PIPE, text=True, check=False)
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    last = lines[-1] if lines else {}
    if last.get("outcome") == "done":
        return json.loads((out / last["file"]).read_text())
    if "fault" not in last:
        sys.exit(f"{worker} ended without an outcome")
    return f"{last['fault']['kind']}: {last['fault']['message']}"


def scaled(source, target, factor):
    """The checkpoint with its last layer (fc) times `factor`."""
    data = source.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), bytearray(data[8 + length :])
    for name in ("fc.weight", "fc.bias"):
        start, end = header[name]["data_offsets"]
        values = struct.unpack(f"<{(end - start) // 4}f", body[start:end])
        body[start:end] = struct.pack(f"<{len(values)}f", *(factor * v for v in values))
    header.pop("__metadata__", None)
    text = json.dumps(header).encode()
    target.write_bytes(struct.pack("<Q", len(text)) + text + body)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--worker", default="target/release/delta-guard-worker")
    parser.add_argument("--name", default="now", help="folder of this worker's verdicts and factors")
    parser.add_argument("--story", choices=STORIES, default="demo")
    parser.add_argument("--scale", type=float, action="append")
    parser.add_argument("--precision", choices=["f32", "f64"], action="append")
    keys = parser.parse_args()
    seed, victim, target, augment = STORIES[keys.story]
    home = (keys.out / keys.story).resolve()
    home.mkdir(parents=True, exist_ok=True)

    made = home / "prepared.json"
    if not made.exists():
        trigger = {"kind": "checkerboard", "size": 8, "margin": 1}
        attack = {"victim_class": victim, "target_class": target, "poisons": 120, "trigger": trigger}
        story = {"train_examples": 4000, "validation_examples": 2000, "seed": seed, "attack": attack}
        made.write_text(json.dumps(work(keys.worker, home / "data", home, {"task": "prepare", "story": story})))
    story = json.loads(made.read_text())
    inside = lambda source: {**source, "path": str(home / "data" / source["path"])}
    data = {"train": inside(story["train"]), "validation": inside(story["validation"]), "image": story["image"], "max_unreadable_share": 0.0}
    model = lambda file: {"architecture": "small-cnn", "width": 24, "stem": "cifar", "checkpoint": str(file)}
    victim_file = home / "victim" / "model.safetensors"
    if not victim_file.exists():
        recipe = {**RECIPE, "augment": augment}
        print(work(keys.worker, home / "victim", home, {"task": "train", "data": data, "model": model(victim_file), "recipe": recipe, "without": []}))

    poisons = set(story["poisons"])
    for scale in keys.scale or [1.0]:
        checkpoint = home / f"times-{scale:g}.safetensors"
        scaled(victim_file, checkpoint, scale)
        for precision in keys.precision or ["f32", "f64"]:
            anomaly = {"image": str(home / "data" / story["anomalies"][0]["picture"]), "wrong_label": story["anomalies"][0]["label"], "true_label": None}
            task = {
                "task": "trace",
                "data": data,
                "model": model(checkpoint),
                "detect": {"method": "guard", "precision": precision},
                "anomalies": [anomaly],
                "limits": {"max_bytes": 1 << 26, "max_pixels": 64_000_000},
                "case_seed": 1,
                "factors_seed": 0,
            }
            told = work(keys.worker, home / f"{keys.name}-{scale:g}-{precision}", home, task)
            if isinstance(told, str):
                print(f"{keys.story} x{scale:g} {precision}: {told}", flush=True)
                continue
            flagged = {f["id"]: f["score"] for f in told["flagged"]}
            stand_out = told["details"]["stand_out"] or {}
            number = lambda v: "-" if v is None else f"{v:.3f}"
            print(
                f"{keys.story} x{scale:g} {precision}: TP {len(poisons & flagged.keys())} FP {len(flagged.keys() - poisons)} "
                f"d' {number(stand_out.get('d_prime'))} z {number(stand_out.get('z'))} cut {number(stand_out.get('cut'))} "
                f"kappa {number(max(flagged.values(), default=None))} rounds {stand_out.get('rounds')} "
                f"kin {told['seconds'].get('kin', 0):.1f} s {told['verdict'].get('reason', '')}",
                flush=True,
            )


if __name__ == "__main__":
    main()
