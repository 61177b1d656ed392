"""What scripts/names.py and scripts/sizes.py share: the sources of the three crates, without tests and comments."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parent.parent
CRATES = {"contract": ROOT / "contract/src", "guard": ROOT / "src", "science": ROOT / "ml/src"}

# Comments, texts and characters: what may hold braces and names that mean nothing.
NOISE = re.compile(r'//[^\n]*|/\*.*?\*/|r(#*)".*?"\1|"(?:\\.|[^"\\])*"|\'(?:\\.|[^\\\'\n])\'', re.S)


def plain(text: str) -> str:
    """The code alone: comments and texts become blanks, line by line."""
    return NOISE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)


def without_tests(text: str) -> str:
    """Without the test module at the end."""
    return re.split(r"^#\[cfg\(test\)\]\n(?:#\[allow[^\n]*\n)?mod \w+ \{", text, maxsplit=1, flags=re.M)[0]


def sources(folder: pathlib.Path) -> dict:
    """Path → text of a crate's files that are no tests."""
    found = {}
    for path in sorted(folder.rglob("*.rs")):
        inside = path.relative_to(folder)
        declared = path.parent / "mod.rs" if (path.parent / "mod.rs").exists() else path.parent.with_suffix(".rs")
        only_tests = declared.exists() and re.search(rf"#\[cfg\(test\)\]\s*(?:pub(?:\([^)]*\))? )?mod {path.stem};", declared.read_text())
        if "tests" in inside.parts or path.name == "tests.rs" or only_tests:
            continue
        found[path] = without_tests(path.read_text())
    return found
