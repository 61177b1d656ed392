#!/usr/bin/env python3
"""Mutation testing of what decides: does a test notice when one operator, one returned value, one match arm is another?

cargo-mutants lists the mutants; this script draws a sample by seed, plants each in a scratch copy of a *commit*, and runs the tests of its package, quickest first,
until one fails. Results go to docs/mutants.csv, one line each, as soon as they are known: a run that is stopped goes on where it was.

  scripts/mutants.py                       go on with docs/mutants.csv, or begin: 100 mutants, seed 1, of the last commit
  scripts/mutants.py --number 200          the same sample and 100 more
  scripts/mutants.py --survivors           run again what no test noticed, on the tree as it is now, and say what still survives
  scripts/mutants.py --summary             figures of docs/mutants.csv

Results: caught (a test failed), timeout (the tests did not end: noticed, too), missed, unviable (does not compile)."""

import argparse
import collections
import csv
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import time

from scratch import ROOT, TARGET, Scratch, since

VERSION = "27.1.0"
STATE = ROOT / "docs/mutants.csv"  # or as --state says
COLUMNS = ["commit", "seed", "mutant", "replacement", "result", "by", "seconds"]
ROOMS = ["ml/src/influence", "ml/src/jobs", "ml/src/unlearn", "ml/src/certify", "ml/src/detect", "ml/src/attack"]
ROOMS += ["src/case", "src/policy", "src/engine", "src/publish", "src/journal"]
# Test programs that are run first, in this order; then what else there is. `real` takes longest.
FIRST = {"ml": ["story", "unlearn", "model"], ".": ["core", "outside", "cli"]}
LAST = "real"
SECONDS = 900  # building and testing: a mutant that takes longer hangs


def cargo_mutants():
    """The program, installed once below target/."""
    program = TARGET / "tools/bin/cargo-mutants"
    have = program.exists() and subprocess.run([program, "mutants", "--version"], stdout=subprocess.PIPE).stdout.decode()
    if not have or VERSION not in have:
        command = ["cargo", "install", "cargo-mutants", "--version", VERSION, "--locked", "--root", str(TARGET / "tools"), "--jobs", "1"]
        subprocess.run(command, check=True, env={**os.environ, "CARGO_TARGET_DIR": str(TARGET / "tools/build")})
        shutil.rmtree(TARGET / "tools/build", ignore_errors=True)
    return program


def listed(scratch):
    """All mutants of the rooms, in a fixed order."""
    command = [cargo_mutants(), "mutants", "--workspace", "--list", "--json"]
    for room in ROOMS:
        command += ["-f", f"{room}/**"]
    found = json.loads(subprocess.run(command, check=True, cwd=scratch.tree, stdout=subprocess.PIPE).stdout)
    return sorted(found, key=lambda m: (m["file"], m["span"]["start"]["line"], m["span"]["start"]["column"], m["name"]))


def changed(text, mutant):
    """The file's text with the mutant. Spans count lines and characters from 1 and end before their end."""
    lines = text.split("\n")
    at = lambda place: sum(len(line) + 1 for line in lines[: place["line"] - 1]) + place["column"] - 1
    start, end = at(mutant["span"]["start"]), at(mutant["span"]["end"])
    return text[:start] + mutant["replacement"] + text[end:]


def steps(scratch, path):
    """(cargo's arguments, arguments of the test program) for a mutant in this file, quickest first."""
    home, package = ("ml", "delta-influence") if path.startswith("ml/") else (".", "delta-guard")
    module = pathlib.Path(path).parts[2 if home == "ml" else 1].removesuffix(".rs")
    programs = sorted(p.stem for p in (scratch.tree / home / "tests").glob("*.rs"))
    order = [p for p in FIRST[home] if p in programs] + [p for p in programs if p not in FIRST[home] and p != LAST]
    order += [LAST] if LAST in programs else []
    own = ["-p", package]
    yield [*own, "--lib"], [f"{module}::"]
    if home == "ml":
        yield [*own, "--test", order[0]], []
    yield [*own, "--lib"], []
    for program in order[1 if home == "ml" else 0 :]:
        yield [*own, "--test", program], []


# Tests that fail without a mutant, too: they notice nothing.
SKIP = []


def judge(scratch, path):
    """(result, what noticed it) with the tree as it stands."""
    for cargo, program in steps(scratch, path):
        arguments = cargo, program + [word for name in SKIP for word in ("--skip", name)]
        result, failed = scratch.test(arguments, SECONDS)
        program = arguments[0][-1].removeprefix("--")
        if result == "unbuildable":
            return "unviable", ""
        if result == "timeout":
            return "timeout", f"{program} {' '.join(failed[:1])}".strip()
        if result == "failed":
            return "caught", f"{program} {' '.join(failed[:1])}".strip()
    return "missed", ""


def try_one(scratch, mutant):
    path, start = mutant["file"], time.monotonic()
    text = scratch.original(path)
    scratch.write(path, changed(text.decode(), mutant).encode())
    try:
        result, by = judge(scratch, path)
    finally:
        scratch.write(path, text)
    print(f"{result:8} {mutant['name']} → {mutant['replacement']!r} ({by or 'no test'}, {since(start)})", flush=True)
    return result, by, round(time.monotonic() - start)


def read():
    if not STATE.exists():
        return []
    with open(STATE, newline="") as file:
        return list(csv.DictReader(file))


def write(rows):
    new = STATE.with_suffix(".tmp")
    with open(new, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    new.replace(STATE)


def summary(rows):
    counts = collections.Counter(row["result"] for row in rows)
    viable = len(rows) - counts["unviable"]
    noticed = counts["caught"] + counts["timeout"]
    print(f"{len(rows)} mutants: " + ", ".join(f"{n} {result}" for result, n in sorted(counts.items())))
    if viable:
        print(f"noticed: {noticed} of {viable} that compile, {100 * noticed / viable:.1f} %")
    for row in rows:
        if row["result"] == "missed":
            print(f"missed: {row['mutant']} → {row['replacement']!r}")


def worker(scratch):
    """The guard's last test needs it."""
    code, _ = scratch.cargo(["build", "--release", "--locked", "-p", "delta-influence", "--bin", "delta-guard-worker"], 3600)
    if code != 0:
        sys.exit(f"the worker cannot be built: {scratch.log}")


def baseline(scratch):
    """Without a mutant all tests must pass."""
    print("without a mutant, all tests must pass", file=sys.stderr)
    for path in ("ml/src/lib.rs", "src/lib.rs"):
        result, by = judge(scratch, path)
        if result != "missed":
            sys.exit(f"without a mutant: {result}, {by} (see {scratch.log}). Mend it, or leave it out with --skip")


def survivors(rows):
    """Plant again what was missed, in the tree as it is now. A line that has moved is found by its text."""
    scratch = Scratch("mutants-now")
    worker(scratch)
    now = collections.defaultdict(list)
    for mutant in listed(scratch):
        now[without_place(mutant["name"]), mutant["replacement"]].append(mutant)
    left = 0
    for row in [row for row in rows if row["result"] == "missed"]:
        candidates = now.get((without_place(row["mutant"]), row["replacement"]), [])
        line = int(row["mutant"].split(":")[1])
        mutant = min(candidates, key=lambda m: abs(m["span"]["start"]["line"] - line), default=None)
        if mutant is None:
            print(f"gone     {row['mutant']}: the code is another now")
            continue
        left += try_one(scratch, mutant)[0] == "missed"
    print(f"{left} still survive")


def without_place(name):
    """The mutant's name without line and column."""
    file, _, _, what = name.split(":", 3)
    return file + ":" + what


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--number", type=int, default=100, help="size of the sample (default 100)")
    arguments.add_argument("--seed", type=int, help="seed of the sample (default: that of docs/mutants.csv, or 1)")
    arguments.add_argument("--commit", help="whose code (default: that of docs/mutants.csv, or the last one)")
    arguments.add_argument("--survivors", action="store_true")
    arguments.add_argument("--summary", action="store_true")
    arguments.add_argument("--no-baseline", action="store_true", help="do not run all tests first")
    arguments.add_argument("--skip", action="append", default=[], metavar="TEST", help="a test that fails without a mutant; may be given several times")
    arguments.add_argument("--state", type=pathlib.Path, help="keep results here in place of docs/mutants.csv")
    asked = arguments.parse_args()
    global STATE
    SKIP.extend(asked.skip)
    STATE = asked.state.resolve() if asked.state else STATE
    rows = read()
    if asked.summary:
        return summary(rows)
    os.nice(10)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # one core: the others stay yours
    if asked.survivors:
        return survivors(rows)
    begun = rows[-1] if rows else {"commit": "HEAD", "seed": 1}
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short=12", asked.commit or begun["commit"]], check=True, stdout=subprocess.PIPE).stdout.decode().strip()
    seed = int(begun["seed"] if asked.seed is None else asked.seed)
    scratch = Scratch("mutants", commit)
    everything = listed(scratch)
    order = list(everything)
    random.Random(seed).shuffle(order)
    sample = order[: asked.number]
    done = {(row["mutant"], row["replacement"]) for row in rows if row["commit"] == commit}
    todo = [m for m in sample if (m["name"], m["replacement"]) not in done]
    print(f"{len(everything)} mutants at {commit}; sample of {len(sample)} by seed {seed}; {len(todo)} to do", flush=True)
    if todo:
        worker(scratch)
        if not asked.no_baseline:
            baseline(scratch)
    for mutant in todo:
        result, by, seconds = try_one(scratch, mutant)
        rows = read()  # somebody may have taken lines away in the meantime
        row = [commit, seed, mutant["name"], mutant["replacement"], result, by, seconds]
        rows.append(dict(zip(COLUMNS, row)))
        write(rows)
    summary(read())


if __name__ == "__main__":
    main()
