#!/usr/bin/env python3
"""The report's first screen for each end of a case, as docs/report-*.png: pages made by the report's own test, drawn by headless Chromium.

Needs Debian's packages chromium and fonts-dejavu-core. `--all DIR` also draws narrow, dark and printed pages there, to be looked at.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
STATES = {"proposed": "repaired", "rejected": "rejected", "undecided": "undecided", "held": "held"}
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--hide-scrollbars"]


def chromium(arguments):
    with tempfile.TemporaryDirectory() as profile:
        try:
            done = subprocess.run(["chromium", *FLAGS, f"--user-data-dir={profile}", *arguments], capture_output=True, text=True)
        except FileNotFoundError:
            sys.exit("chromium is not installed: apt-get install chromium fonts-dejavu-core")
        if done.returncode:
            sys.exit(f"chromium failed:\n{done.stderr}")


def shoot(page, picture, width, height, *flags):
    chromium([f"--screenshot={picture}", f"--window-size={width},{height}", *flags, page.as_uri()])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", type=pathlib.Path, metavar="DIR")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pages = pathlib.Path(folder)
        cargo = os.environ.get("CARGO", "cargo")
        command = [cargo, "test", "--release", "--locked", "-p", "delta-guard", "--lib", "the_first_screen_answers"]
        subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "REPORT_OUT": folder})
        for state, name in STATES.items():
            page = pages / f"{state}.html"
            shoot(page, ROOT / "docs" / f"report-{name}.png", 1080, 860)
            if chosen.all:
                chosen.all.mkdir(parents=True, exist_ok=True)
                shoot(page, chosen.all.absolute() / f"{name}-wide.png", 1280, 3000)
                shoot(page, chosen.all.absolute() / f"{name}-dark.png", 1080, 2400, "--blink-settings=preferredColorScheme=0")
                shoot(page, chosen.all.absolute() / f"{name}-narrow.png", 400, 3600)
                chromium([f"--print-to-pdf={chosen.all.absolute() / name}.pdf", "--no-pdf-header-footer", page.as_uri()])
    print("docs/report-" + ", docs/report-".join(f"{name}.png" for name in STATES.values()))


if __name__ == "__main__":
    main()
