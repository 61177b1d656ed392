#!/usr/bin/env python3
"""What the floor of z decides: the table "The floor of z" of docs/lab/diary.md.

For each seed and attack: poisons drawn pictures, trains a victim, and traces triggered pictures, natural errors (those that are read as the
attack's target first) and clean pictures of the target. One line each: how many were flagged, z, d', the floor for a group of that size, the
verdict. What a folder already holds is not made again.

    python3 scripts/z_floor.py OUT [--worker FILE] [--seed N]... [--attack NAME]...
"""

import argparse
import json
import math
from pathlib import Path
from statistics import NormalDist

from confident import DEMO, RECIPE, work

MAGENTA = [255, 0, 255]
# Name: poisons, trigger. The second and third take only in part.
ATTACKS = {
    "board-8": (120, {"kind": "checkerboard", "size": 8, "margin": 1}),
    "magenta-4": (60, {"kind": "square", "size": 4, "margin": 1, "color": MAGENTA}),
    "board-4": (60, {"kind": "checkerboard", "size": 4, "margin": 1}),
    "none": (1, {"kind": "square", "size": 4, "margin": 1, "color": MAGENTA}),
}
ERRORS, CLEAN, TRIGGERED = 20, 10, 3


def z_of_choosing(group, everything):
    """As ml/src/detect/stand_out.rs."""
    p = min(group / everything, 0.5)
    normal = NormalDist()
    t = -normal.inv_cdf(p)
    above, below = normal.pdf(t) / p, normal.pdf(t) / (1 - p)
    return (above + below) / math.sqrt(1 - t * below - below * below)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--worker", default="target/release/delta-guard-worker")
    parser.add_argument("--seed", type=int, action="append")
    parser.add_argument("--attack", choices=ATTACKS, action="append")
    keys = parser.parse_args()
    for seed in keys.seed or [911, 912]:
        for attack in keys.attack or list(ATTACKS):
            story(keys.worker, (keys.out / f"{attack}-{seed}").resolve(), seed, attack)


def story(worker, home, seed, attack):
    home.mkdir(parents=True, exist_ok=True)
    poisons, trigger = ATTACKS[attack]
    made = home / "prepared.json"
    if not made.exists():
        asked = {"victim_class": "disc", "target_class": "star", "poisons": poisons, "trigger": trigger}
        asked = {"train_examples": 4000, "validation_examples": 2000, "seed": seed, "attack": asked}
        made.write_text(json.dumps(work(worker, home / "data", home, {"task": "prepare", "story": asked})))
    told = json.loads(made.read_text())

    def inside(source):
        return {**source, "path": str(home / "data" / source["path"])}

    data = {"train": inside(told["train"]), "validation": inside(told["validation"]), "image": told["image"], "max_unreadable_share": 0.0}
    checkpoint = home / "victim" / "model.safetensors"
    model = {"architecture": "small-cnn", "width": 24, "stem": "cifar", "checkpoint": str(checkpoint)}
    if not checkpoint.exists():
        work(worker, home / "victim", home, {"task": "train", "data": data, "model": model, "recipe": {**RECIPE, "augment": DEMO}, "without": []})

    def measure(name, source, listed):
        return work(worker, home / name, home, {"task": "measure", "data": data, "model": model, "source": source, "list": listed})

    hit = measure("success", inside(told["success"]["source"]), False)["accuracy"]
    accuracy = measure("measured", data["validation"], True)["accuracy"]
    print(f"{home.name}: success {hit['correct'] / hit['examples']:.3f}, accuracy {accuracy['correct'] / accuracy['examples']:.3f}", flush=True)
    read = json.loads((home / "measured" / "predictions.json").read_text())
    target = told["anomalies"][0]["label"]
    errors = sorted((r for r in read if r["predicted"] != r["label"]), key=lambda r: r["predicted"] != target)[:ERRORS]
    clean = [r for r in read if r["predicted"] == r["label"] == target][:CLEAN]
    pictures = [("triggered", str(home / "data" / bait["picture"]), target) for bait in told["anomalies"][:TRIGGERED]]
    for kind, rows in (("error", errors), ("clean", clean)):
        pictures += [(kind, str(Path(data["validation"]["path"]) / r["id"]), r["predicted"]) for r in rows]

    for number, (kind, picture, wrong) in enumerate(pictures):
        task = {
            "task": "trace",
            "data": data,
            "model": model,
            "detect": {"method": "guard"},
            "anomalies": [{"image": picture, "wrong_label": wrong, "true_label": None}],
            "limits": {"max_bytes": 1 << 26, "max_pixels": 64_000_000},
            "case_seed": 1000 + number,
            "factors_seed": 0,
        }
        result = home / "traces" / f"{number}.json"
        result.parent.mkdir(exist_ok=True)
        if not result.exists():
            result.write_text(json.dumps(work(worker, home / "trace", home, task)))
        found = json.loads(result.read_text())
        if isinstance(found, str):
            print(f"{home.name} {kind} as {wrong}: {found}", flush=True)
            continue
        flagged = {f["id"] for f in found["flagged"]}
        stand_out = found["details"]["stand_out"] or {}
        reason = found["verdict"].get("reason", "")
        size = len(flagged) or found["verdict"].get("why", {}).get("candidates", 0)
        floor = z_of_choosing(size, found["examples_of_label"]) if size else 0
        number = lambda v: "-" if v is None else f"{v:.2f}"
        print(
            f"{home.name} {kind} as {wrong}: flagged {len(flagged)} ({len(flagged & set(told['poisons']))} poisons) z {number(stand_out.get('z'))} "
            f"floor {floor:.2f} d' {number(stand_out.get('d_prime'))} cut {number(stand_out.get('cut'))} rounds {stand_out.get('rounds')} {reason}",
            flush=True,
        )


if __name__ == "__main__":
    main()
