#!/usr/bin/env python3
"""Python's safetensors and numpy for the test that reads our checkpoints with them: installed once into the user's cache, its folder printed.
Where they cannot be had (no pip, no network) nothing is printed, and the test says that it is skipped."""

import os
import pathlib
import subprocess
import sys

cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
folder = cache / "delta-guard" / f"python{sys.version_info.major}.{sys.version_info.minor}"
if not (folder / "safetensors").is_dir() or not (folder / "numpy").is_dir():
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), "--upgrade", "safetensors==0.6.2", "numpy<3"]
    done = subprocess.run(command, stdout=sys.stderr)
    if done.returncode != 0:
        print("Python's safetensors could not be installed; its test will be skipped", file=sys.stderr)
        sys.exit(0)
print(folder)
