#!/usr/bin/env python3
"""Soak: breaks a real daemon in three ways and prints what came of it. Exit code 1 when anything was lost.

kills    SIGKILL at random moments, picture after picture
hostile  an inbox full of what is no picture
mails    mail servers that are dead, slow, refuse or lie

The worker is the tests' stand-in: it computes nothing. `--short` is for every day (some minutes), without it for a release (hours).
"""

import argparse
import sys
import time

import hostile
import kills
import mails
from place import PROGRAM, Lost


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="500 kills and one round of hostile files, instead of 10,000 and 20")
    parser.add_argument("--kills", type=int, help="another number of kills")
    parser.add_argument("--seed", type=int, default=1, help="of the moments (default 1)")
    parser.add_argument("part", nargs="*", help="kills, hostile, mails (default: all)")
    chosen = parser.parse_args()
    if not PROGRAM.is_file():
        sys.exit(f"{PROGRAM} is not there: make build")
    parts = {
        "kills": lambda: kills.run(chosen.kills or (500 if chosen.short else 10_000), chosen.seed),
        "hostile": lambda: hostile.run(1 if chosen.short else 20),
        "mails": mails.run,
    }
    if unknown := set(chosen.part) - set(parts):
        parser.error(f"no such part: {', '.join(sorted(unknown))} (there are {', '.join(parts)})")
    failed = False
    for name in chosen.part or parts:
        start = time.monotonic()
        try:
            said = parts[name]()
            print(f"{name}: ok: {said} ({time.monotonic() - start:.0f} s)", flush=True)
        except Lost as error:
            failed = True
            print(f"{name}: FAILED: {error}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
