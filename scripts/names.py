#!/usr/bin/env python3
"""One meaning per name: types that are defined twice in the workspace, and public things that only tests use.

A name that is meant to stand twice is listed here, with the reason. Part of `make lint`.
"""

import collections
import re
import sys

from rust import CRATES, ROOT, plain, sources

# Private types of one file are that file's business; these are seen from other files.
TYPE = re.compile(r"^pub(?:\((?:crate|super)\))? (struct|enum|trait|union|type) (\w+)", re.M)
ITEM = re.compile(r"^ *pub(?:\([^)]*\))? (?:async |const |unsafe )*(struct|enum|fn|trait|const|type) (\w+)", re.M)

# Name → why it stands twice.
TWICE = {
    "Keys": "every method's settings file has one: that is the form of a plug-in",
    "Common": "the trait, and for each kind of method the keys that answer it",
    "Note": "what a room writes into the journal, always named through its room (`entry::mail::Note`)",
    "Damping": "the same thing, as configured and as computed with",
    "Unlearning": "the same thing, as configured and as handed to an unlearner",
    "Change": "what a query changes, as configured; what an attack does to a picture; what a record does to a case: each stays in its room",
    "Candidate": "a checkpoint that may be promoted; in the science, an example that may be flagged",
    "Case": "the guard's case, and the same case laid out for a trace",
    "Message": "a line of a worker; what is told to a person",
}

# A command of the command line is named as what one types.
COMMANDS = "src/cli/"

# Public, and used by tests alone: why.
ONLY_TESTS = {
    "pending_messages": "what waits for a person is an answer of the ledger; the guard itself asks for it by recipient",
    "silence": "how a test sees that a long scan lives",
    "scores_and_self_influence": "the joint form for one batch, held against the specification; a fold does the same over many",
    "KnownLab": "stands in for the laboratory where a test knows the answers",
    "thinned": "for scatters of detectors to come",
}

# Files that are there to be read and tested against.
SPECIFICATION = {"ml/src/ekfac/spec.rs"}


def definitions() -> dict:
    found = collections.defaultdict(list)
    for folder in CRATES.values():
        for path, text in sources(folder).items():
            for match in TYPE.finditer(plain(text)):
                found[match[2]].append(str(path.relative_to(ROOT)))
    return found


def twice() -> list:
    faults = []
    for name, places in sorted(definitions().items()):
        others = [place for place in places if not place.startswith(COMMANDS)]
        if len(others) > 1 and name not in TWICE:
            faults.append(f"`{name}` is defined in {' and '.join(others)}: give one of them its own name, or say in scripts/names.py why it stands twice")
    known = definitions()
    faults += [f"`{name}` stands in the list TWICE of scripts/names.py, but is defined once" for name in TWICE if len(known[name]) < 2]
    return faults


def only_tests() -> list:
    faults = []
    # Attributes name functions in texts, so what is used is looked for in the text, and what is defined in the code.
    raw = {name: sources(folder) for name, folder in CRATES.items()}
    texts = {name: {path: plain(text) for path, text in crate.items()} for name, crate in raw.items()}
    users = {"contract": ["contract", "guard", "science"], "guard": ["guard"], "science": ["science"]}
    beside = "\n".join(plain(path.read_text()) for folder in ("ml/benches", "examples") for path in (ROOT / folder).rglob("*.rs"))
    words = {name: collections.Counter(word for text in crate.values() for word in re.findall(r"\w+", re.sub(r"pub use [^;]*;|//[^\n]*", "", text))) for name, crate in raw.items()}
    aside = set(re.findall(r"\w+", beside))
    for crate, files in texts.items():
        for path, text in files.items():
            if str(path.relative_to(ROOT)) in SPECIFICATION:
                continue
            for match in ITEM.finditer(text):
                if text[: match.start()].rstrip().endswith("#[cfg(test)]"):
                    continue
                kind, name = match[1], match[2]
                used = sum(words[user][name] for user in users[crate])
                own = 1 if kind in ("fn", "const") else len(re.findall(rf"(?:struct|enum|trait|type) {name}\b|impl(?:<[^>]*>)? (?:[\w:]+(?:<[^>]*>)? for )?{name}\b", text))
                if used <= own and name not in aside and name not in ONLY_TESTS:
                    faults.append(f"{path.relative_to(ROOT)}: `{name}` is used by tests alone, or by nobody: make it theirs, or remove it")
    return faults


if __name__ == "__main__":
    found = twice() + only_tests()
    for fault in found:
        print(f"names: {fault}", file=sys.stderr)
    print("names: ok" if not found else f"names: {len(found)} faults")
    sys.exit(bool(found))
