#!/usr/bin/env python3
"""The layering check: who may know whom (ARCHITECTURE.md, "Invariants").

* The contract depends on plain data crates only, never on the guard or the science.
* The guard's dependency tree has no tch; its binary, where built, does not link libtorch.
* Modules of the science use only those above them in ml/src/lib.rs.
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

order = re.findall(r"^pub mod (\w+);", (ROOT / "ml/src/lib.rs").read_text(), re.M)
for place, module in enumerate(order):
    below = set(order[place + 1:])
    sources = [ROOT / f"ml/src/{module}.rs", *(ROOT / f"ml/src/{module}").rglob("*.rs")]
    for source in (s for s in sources if s.exists()):
        for number, line in enumerate(source.read_text().splitlines(), 1):
            for used in re.findall(r"\bcrate::(\w+)", line):
                if used in below:
                    faults.append(f"{source.relative_to(ROOT)}:{number}: `{module}` uses `{used}`, which stands below it")

for fault in faults:
    print(f"layering: {fault}", file=sys.stderr)
print("layering: ok" if not faults else f"layering: {len(faults)} faults")
sys.exit(bool(faults))
