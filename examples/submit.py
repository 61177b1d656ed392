#!/usr/bin/env python3
"""Hand a wrong prediction to delta-guard from a serving process: a sidecar, then the picture, each written whole.

    examples/submit.py INBOX PICTURE TRUE_LABEL
"""

import json
import os
import pathlib
import shutil
import sys
import tempfile


def place(inbox: pathlib.Path, name: str, write) -> None:
    """Write under a hidden name, which the guard leaves alone, then rename: the guard sees a whole file or none."""
    handle, hidden = tempfile.mkstemp(prefix=".submit-", dir=inbox)
    with os.fdopen(handle, "wb") as file:
        write(file)
        # Temporary files are their owner's alone; the guard reads by the group that the inbox hands on.
        os.fchmod(file.fileno(), 0o640)
        file.flush()
        os.fsync(file.fileno())
    os.rename(hidden, inbox / name)


def main() -> None:
    inbox, picture, label = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
    sidecar = json.dumps({"true_label": label, "source": "examples/submit.py"}).encode()
    place(inbox, picture.stem + ".json", lambda file: file.write(sidecar))
    with picture.open("rb") as source:
        place(inbox, picture.name, lambda file: shutil.copyfileobj(source, file))
    print(f"handed in {picture.name}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main()
