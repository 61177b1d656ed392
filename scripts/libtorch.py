#!/usr/bin/env python3
"""Set up the CPU libtorch that tch 0.24 links against, and print its folder.

    scripts/libtorch.py            set up if missing, then print the folder (for LIBTORCH)
    scripts/libtorch.py --check    re-verify the files of an existing set-up

What it does, once per user (some 500 MB under $XDG_CACHE_HOME/delta-guard):
  * downloads three wheels from PyPI, each pinned by size and SHA-256;
  * takes from them libtorch_cpu.so and what it needs, and the C++ headers;
  * makes an empty libtorch.so that needs libtorch_cpu.so (the wheel's own one would pull CUDA in),
    so that the worker binary finds this stub on a CPU host and the real libtorch on a GPU host.

Where LIBTORCH is set already, that folder is used as it is. Only the Python standard library, and pip where
it is there (it knows of the site's package index); without pip the index is asked directly.
"""

import fcntl
import hashlib
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile

TORCH = "2.11.0"

# name, version, pip's platform options, file name, bytes, SHA-256, {member in the wheel: place in the folder}
WHEELS = [
    (
        "torch",
        TORCH,
        ["--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--platform", "manylinux_2_28_x86_64"],
        "torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl",
        530604548,
        "7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a",
        {
            "torch/lib/libtorch_cpu.so": "lib/libtorch_cpu.so",
            "torch/lib/libc10.so": "lib/libc10.so",
            "torch/lib/libgomp.so.1": "lib/libgomp.so.1",
            "torch/include/": "include/",
        },
    ),
    (
        "nvidia-cuda-runtime",
        "13.0.96",
        ["--python-version", "3.11", "--platform", "manylinux2014_x86_64"],
        "nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        2243632,
        "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
        {"nvidia/cu13/lib/libcudart.so.13": "lib/libcudart.so.13"},
    ),
    (
        "nvidia-cuda-cupti",
        "13.0.85",
        ["--python-version", "3.11", "--platform", "manylinux_2_25_x86_64"],
        "nvidia_cuda_cupti-13.0.85-py3-none-manylinux_2_25_x86_64.whl",
        10715597,
        "4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8",
        {"nvidia/cu13/lib/libcupti.so.13": "lib/libcupti.so.13"},
    ),
]


def fail(what: str, help_: str) -> "None":
    sys.exit(f"error: {what}\n  help: {help_}")


def digest(path: pathlib.Path) -> str:
    h = hashlib.sha256()
    with path.open("rb") as f:
        while block := f.read(1 << 20):
            h.update(block)
    return h.hexdigest()


def download(name, version, options, filename, into: pathlib.Path) -> pathlib.Path:
    """Fetch one wheel with pip, or from the index's JSON where there is no pip."""
    path = into / filename
    pip = [sys.executable, "-m", "pip"]
    if subprocess.run([*pip, "--version"], capture_output=True).returncode == 0:
        cmd = [*pip, "download", "--quiet", "--no-deps", "--only-binary=:all:", *options, "-d", str(into), f"{name}=={version}"]
        if subprocess.run(cmd, stdout=sys.stderr).returncode == 0 and path.exists():
            return path
        print(f"pip could not fetch {name}; asking the index directly", file=sys.stderr)
    index = f"https://pypi.org/pypi/{name}/{version}/json"
    try:
        with urllib.request.urlopen(index, timeout=60) as answer:
            files = json.load(answer)["urls"]
        url = next(f["url"] for f in files if f["filename"] == filename)
        with urllib.request.urlopen(url, timeout=60) as answer, path.open("wb") as out:
            shutil.copyfileobj(answer, out, 1 << 20)
    except Exception as error:  # whatever went wrong, the remedy is the same
        fail(f"cannot download {filename}: {error}", "check the network, or set LIBTORCH to a folder of libtorch 2.11.0")
    return path


def unpack(wheel: pathlib.Path, members: dict, into: pathlib.Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            for source, target in members.items():
                if entry.is_dir() or not (entry.filename == source or (source.endswith("/") and entry.filename.startswith(source))):
                    continue
                place = into / (target + entry.filename[len(source):])
                place.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as src, place.open("wb") as out:
                    shutil.copyfileobj(src, out, 1 << 20)


def stub(into: pathlib.Path) -> None:
    """The empty libtorch.so, and the linker's name of libgomp."""
    lib = into / "lib"
    compiler = os.environ.get("CC", "cc")
    empty = lib / "empty.c"
    empty.write_text("")
    try:
        subprocess.run(
            [compiler, "-shared", "-o", str(lib / "libtorch.so"), str(empty), f"-L{lib}", "-Wl,--no-as-needed", "-ltorch_cpu", "-lc10",
             "-Wl,--allow-shlib-undefined", "-Wl,-rpath,$ORIGIN", "-Wl,-soname,libtorch.so"],
            check=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        fail(f"cannot make libtorch.so with {compiler}: {error}", "install a C++ compiler (Debian: apt-get install build-essential)")
    finally:
        empty.unlink()
    (lib / "libgomp.so").symlink_to("libgomp.so.1")


def files_of(folder: pathlib.Path) -> dict:
    return {p.name: p.stat().st_size for p in sorted((folder / "lib").iterdir())}


def set_up(folder: pathlib.Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(folder.parent).free < 2 << 30:
        fail(f"less than 2 GiB free under {folder.parent}", "free some space, or point XDG_CACHE_HOME elsewhere")
    work = pathlib.Path(tempfile.mkdtemp(prefix=".libtorch-", dir=folder.parent))
    try:
        for name, version, options, filename, size, sha256, members in WHEELS:
            print(f"downloading {name} {version} ({size / 1e6:.0f} MB)", file=sys.stderr)
            wheel = download(name, version, options, filename, work)
            if wheel.stat().st_size != size or digest(wheel) != sha256:
                fail(f"{filename} is not the file it should be (size or SHA-256 differ)", "try again; if it stays, the index serves another file: do not use it")
            unpack(wheel, members, work / "out")
            wheel.unlink()
        stub(work / "out")
        (work / "out" / "build-version").write_text(TORCH + "\n")
        (work / "out" / "SETUP.json").write_text(json.dumps({"torch": TORCH, "files": files_of(work / "out")}, indent=1))
        os.rename(work / "out", folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def complete(folder: pathlib.Path) -> bool:
    try:
        return json.loads((folder / "SETUP.json").read_text())["files"] == files_of(folder)
    except (OSError, ValueError, KeyError):
        return False


def main() -> None:
    if os.environ.get("LIBTORCH"):
        print(os.environ["LIBTORCH"])
        return
    if sys.platform != "linux" or platform.machine() != "x86_64":
        fail(f"no pinned libtorch for {sys.platform} {platform.machine()}", f"set LIBTORCH to a folder of libtorch {TORCH}")
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    folder = cache / "delta-guard" / f"libtorch-{TORCH}-cpu-x86_64"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / ".libtorch.lock").open("w") as lock:  # two builds at once: the second waits
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete(folder):
            if "--check" in sys.argv[1:]:
                fail(f"{folder} is missing or incomplete", "run scripts/libtorch.py")
            shutil.rmtree(folder, ignore_errors=True)
            set_up(folder)
    print(folder)


main()
