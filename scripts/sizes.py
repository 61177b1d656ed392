#!/usr/bin/env python3
"""How large files and functions are, over the three crates without tests: median file, files over 500 lines, functions over 60.

    scripts/sizes.py            the figures, and the functions over 60 lines
    scripts/sizes.py ml/src     of one folder
    scripts/sizes.py --check    exit code 1 where a bound is passed (part of `make lint`)
"""

import pathlib
import re
import statistics
import sys

from rust import CRATES, ROOT, plain, sources

FILE, FUNCTION, MEDIAN, MOST = 500, 60, 150, 20


def functions(text: str):
    """(name, first line, lines) of each function, from `fn` to its closing brace."""
    code = plain(text)
    for found in re.finditer(r"\bfn (\w+)", code):
        depth, place = 0, found.end()
        # The body's brace comes after parameters and result; a declaration without a body ends with a semicolon.
        while place < len(code):
            char = code[place]
            if char in "([":
                depth += 1
            elif char in ")]":
                depth -= 1
            elif depth == 0 and char in "{;":
                break
            place += 1
        if place == len(code) or code[place] == ";":
            continue
        depth = 0
        for end in range(place, len(code)):
            depth += {"{": 1, "}": -1}.get(code[end], 0)
            if depth == 0:
                break
        first = code.count("\n", 0, found.start()) + 1
        yield found[1], first, code.count("\n", found.start(), end) + 1


def main() -> int:
    only = [ROOT / name for name in sys.argv[1:] if not name.startswith("--")]
    files, long = {}, []
    for folder in CRATES.values():
        for path, text in sources(folder).items():
            if only and not any(path.is_relative_to(o) for o in only):
                continue
            files[path.relative_to(ROOT)] = len(path.read_text().splitlines())
            long += [(lines, path.relative_to(ROOT), first, name) for name, first, lines in functions(text) if lines > FUNCTION]
    median = statistics.median(files.values())
    large = [path for path, lines in files.items() if lines > FILE]
    print(f"{len(files)} files, median {median:g} lines, {len(large)} over {FILE}, {len(long)} functions over {FUNCTION} lines")
    for path in large:
        print(f"  {path}: {files[path]} lines")
    for lines, path, first, name in sorted(long, reverse=True):
        print(f"  {path}:{first}: `{name}` has {lines} lines")
    passed = bool(large) or len(long) > MOST or median > MEDIAN
    return int("--check" in sys.argv and passed)


if __name__ == "__main__":
    sys.exit(main())
