#!/usr/bin/env python3
"""The layering check: who may know whom (ARCHITECTURE.md, "Invariants").

* The contract depends on plain data crates only, never on the guard or the science.
* The guard's dependency tree has no tch; its binary, where built, does not link libtorch.
* Modules of the guard and of the science use only those above them in src/lib.rs and ml/src/lib.rs.
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
faults = []


def tree(package: str) -> set:
    out = subprocess.run(["cargo", "tree", "--locked", "-p", package, "-e", "normal,build", "--prefix", "none"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {line.split()[0] for line in out.splitlines() if line.strip()}


guard, contract = tree("delta-guard"), tree("delta-guard-contract")
for crate in ("tch", "torch-sys", "delta-influence", "image"):
    if crate in guard:
        faults.append(f"delta-guard depends on {crate}")
science = tree("delta-influence")
if "delta-guard" in science:
    faults.append("delta-influence depends on delta-guard")
extra = {c for c in contract if c in ("delta-guard", "delta-influence", "tokio", "tch", "anyhow")}
if extra:
    faults.append(f"delta-guard-contract depends on {sorted(extra)}")

binary = ROOT / "target/release/delta-guard"
if binary.exists():
    linked = subprocess.run(["ldd", str(binary)], capture_output=True, text=True).stdout
    if "torch" in linked:
        faults.append("target/release/delta-guard links libtorch")
else:
    print("layering: target/release/delta-guard is not built, its libraries are not checked", file=sys.stderr)

# Where a room uses one that stands below it: (room, what it uses). Advised commands are made of the command line's own types, so that they can be typed.
EXCEPTIONS = {("report", "cli::advice"), ("inbox", "cli::advice")}


def tests_cut(text: str) -> str:
    """Without the test module at the end: tests may use everything."""
    return re.split(r"^#\[cfg\(test\)\]\n(?:#\[allow[^\n]*\n)?mod \w+ \{", text, flags=re.M)[0]


def rooms(source: str) -> None:
    """Modules use only those above them in the crate's lib.rs; those in one block do not use each other."""
    blocks = [re.findall(r"^pub mod (\w+);", block, re.M) for block in (ROOT / source / "lib.rs").read_text().split("\n\n")]
    blocks = [block for block in blocks if block]
    for place, block in enumerate(blocks):
        for module in block:
            below = {m for later in blocks[place + 1:] for m in later} | set(block) - {module}
            sources = [ROOT / source / f"{module}.rs", *(ROOT / source / module).rglob("*.rs")]
            for file in (s for s in sources if s.exists() and "tests" not in s.relative_to(ROOT / source).parts and s.name != "tests.rs"):
                for number, line in enumerate(tests_cut(file.read_text()).splitlines(), 1):
                    if line.lstrip().startswith("//"):
                        continue
                    for used, what in re.findall(r"\bcrate::(\w+)(?:::(\w+))?", line):
                        if used in below and (module, f"{used}::{what}") not in EXCEPTIONS:
                            faults.append(f"{file.relative_to(ROOT)}:{number}: `{module}` uses `{used}`, which stands beside or below it")


rooms("src")
rooms("ml/src")

for fault in faults:
    print(f"layering: {fault}", file=sys.stderr)
print("layering: ok" if not faults else f"layering: {len(faults)} faults")
sys.exit(bool(faults))
