#!/usr/bin/env python3
"""The golden set: what the guard found on victims that are kept, so that a rebuilt house can be held to it.

  scripts/golden.py check            trace again with the worker of now: same ids and verdicts, figures to rounding; exit code 1 if not
  scripts/golden.py figures          trace again and write the figures anew; the victims stay (only where a change of figures is meant)
  scripts/golden.py record           train the victims, too

Stories: the demo's (seed 1) and ring to square (seed 777) on drawn pictures, whose victims lie in tests/golden; with --data also CIFAR-10 seed 301, whose victim is
trained again. Of each: one triggered picture, which is decided, and one natural error, which is not. Jobs go to the worker as JSON."""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
HOME = ROOT / "tests/golden"
PROTOCOL = 2
ONE_CYCLE = {"kind": "one-cycle", "warmup": 0.3}
AUGMENT = {"flip": True, "shift": 1, "whole_pixels": True}
DRAWN = {"epochs": 20, "batch_size": 64, "lr": 0.1, "weight_decay": 5e-4, "schedule": ONE_CYCLE, "augment": AUGMENT}
SMALL = {"architecture": "small-cnn", "width": 24, "stem": "cifar"}


def drawn(seed, victim, target):
    attack = {"victim_class": victim, "target_class": target, "poisons": 120, "trigger": {"kind": "checkerboard", "size": 8, "margin": 1}}
    return {"story": {"train_examples": 4000, "validation_examples": 2000, "seed": seed, "attack": attack}, "recipe": {**DRAWN, "seed": seed}, "model": SMALL}


def cifar(data):
    attack = {"victim_class": "ship", "target_class": "dog", "poisons": 150, "trigger": {"kind": "checkerboard", "size": 6, "margin": 1}}
    story = {"data": str(data), "train_examples": 5000, "validation_examples": 2000, "seed": 301, "attack": attack}
    recipe = {**DRAWN, "epochs": 16, "seed": 301}
    return {"story": story, "recipe": recipe, "model": {"architecture": "resnet18", "width": 16, "stem": "cifar"}, "victim": "made by its seed"}


def stories(data):
    found = {"demo-1": drawn(1, "disc", "star"), "ring-square-777": drawn(777, "ring", "square")}
    if data:
        found["cifar10-301"] = cifar(data.resolve())
    else:
        print("SKIPPED: cifar10-301 (needs --data)", file=sys.stderr)
    return found


class Bench:
    """A story's folder: jobs and their results."""

    def __init__(self, worker, folder):
        self.worker, self.folder = worker, folder

    def job(self, name, **task):
        setup = {"cache_dir": str(self.folder / "cache"), "factors_dir": str(self.folder / "factors"), "device": "cpu", "threads": 1, "memory_budget": 1 << 30}
        out = self.folder / name
        job = {"v": PROTOCOL, "setup": setup, "out_dir": str(out), "task": task}
        libraries = subprocess.run([sys.executable, ROOT / "scripts/libtorch.py"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip() + "/lib"
        env = {**os.environ, "OMP_NUM_THREADS": "1", "LD_LIBRARY_PATH": libraries}
        ran = subprocess.run([self.worker], input=json.dumps(job), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
        last = json.loads(ran.stdout.splitlines()[-1])
        if last.get("outcome") != "done":
            sys.exit(f"{name}: {last.get('fault')}")
        return json.loads((out / last["file"]).read_text())


def figures(report):
    """What must stay: ids and verdict as they are, numbers to rounding."""
    found = report["details"]["stand_out"] or {}
    stand_out = {key: value for key, value in found.items() if key != "placebos"}
    rows = [dict(zip((c["key"] for c in table["columns"]), row)) for table in report["exhibits"] if table["exhibit"] == "table" for row in table["rows"]]
    return {
        "verdict": report["verdict"]["kind"],
        "predicted_label": report["predicted_label"],
        "examples_of_label": report["examples_of_label"],
        "flagged": [[f["id"], row["count"], row["seed"]] for f, row in zip(report["flagged"], rows, strict=True)],
        "kappa": [f["score"] for f in report["flagged"]],
        "mean_scaled_delta": [row["mean_scaled_delta"] for row in rows],
        "stand_out": stand_out,
        "placebos": [[p["id"], p["flagged"], p["d_prime"], p["z"]] for p in found.get("placebos", [])],
    }


def told(bench, story, checkpoint):
    """(the victim's checkpoint, figures of both pictures)"""
    prepared = bench.job("data", task="prepare", story=story["story"])
    bait = prepared["anomalies"][0]
    wrong_label = bait["label"]
    source = lambda s: {**s, "path": str(bench.folder / "data" / s["path"])}
    data = {"train": source(prepared["train"]), "validation": source(prepared["validation"]), "image": prepared["image"], "max_unreadable_share": 0.0}
    model = lambda path: {**story["model"], "checkpoint": str(path)}
    if checkpoint is None:
        trained = bench.job("victim", task="train", data=data, model=model(bench.folder / "none"), recipe=story["recipe"], without=[])
        checkpoint = bench.folder / "victim" / trained["file"]
    bench.job("measure", task="measure", data=data, model=model(checkpoint), source=data["validation"], list=True)
    predictions = json.loads((bench.folder / "measure/predictions.json").read_text())
    wrong = next(p["id"] for p in predictions if p["predicted"] == wrong_label != p["label"])
    natural = bench.folder / "natural" / bench.job("natural", task="extract", data=data, source=data["validation"], ids=[wrong])["files"][0]
    anomaly = bench.folder / "data" / bait["picture"]
    found = {}
    for name, picture in (("triggered", anomaly), ("natural", natural)):
        asked = [{"image": str(picture), "wrong_label": wrong_label, "true_label": None}]
        limits = {"max_bytes": 1 << 26, "max_pixels": 64_000_000}
        task = {"task": "trace", "data": data, "model": model(checkpoint), "anomalies": asked, "limits": limits, "case_seed": 1, "factors_seed": 0}
        found[name] = figures(bench.job(name, **task, detect={}))
    return checkpoint, found


def lines(found):
    """JSON with a line for each figure."""
    pictures = []
    for picture, values in found.items():
        inner = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items())
        pictures.append(f" {json.dumps(picture)}: {{\n{inner}\n }}")
    return "{\n" + ",\n".join(pictures) + "\n}\n"


def differences(was, now, place=""):
    """Places where the two differ, numbers by more than a ten-thousandth."""
    if isinstance(was, float) or isinstance(now, float):
        same = isinstance(was, (int, float)) and isinstance(now, (int, float)) and abs(was - now) <= 1e-4 * max(abs(was), abs(now), 1e-3)
        return [] if same else [f"{place}: {was} → {now}"]
    if isinstance(was, dict) and isinstance(now, dict):
        return [d for key in sorted({*was, *now}) for d in differences(was.get(key), now.get(key), f"{place}.{key}")]
    if isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        return [d for i, pair in enumerate(zip(was, now)) for d in differences(*pair, f"{place}[{i}]")]
    return [] if was == now else [f"{place}: {str(was)[:100]} → {str(now)[:100]}"]


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("what", choices=["check", "figures", "record"])
    arguments.add_argument("--data", type=pathlib.Path, help="CIFAR-10")
    arguments.add_argument("--worker", default=ROOT / "target/release/delta-guard-worker")
    asked = arguments.parse_args()
    failed = False
    for name, story in stories(asked.data).items():
        kept, page = HOME / f"{name}.safetensors", HOME / f"{name}.json"
        if asked.what == "check" and not page.exists():
            print(f"{name}: not recorded yet (scripts/golden.py record --data ...)")
            failed = True
            continue
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(asked.worker, pathlib.Path(folder))
            again = asked.what == "record" or "victim" in story
            checkpoint, found = told(bench, story, None if again else kept)
            if asked.what != "check":
                HOME.mkdir(exist_ok=True)
                page.write_text(lines(found))
                if asked.what == "record" and "victim" not in story:
                    kept.write_bytes(pathlib.Path(checkpoint).read_bytes())
                verdicts = {picture: f"{f['verdict']}, {len(f['flagged'])} flagged" for picture, f in found.items()}
                print(f"{name}: {verdicts}", flush=True)
                continue
        other = differences(json.loads(page.read_text()), found)
        failed |= bool(other)
        print(f"{name}: {'as recorded' if not other else f'{len(other)} differences'}", flush=True)
        for line in other[:20]:
            print(f"  {line}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
