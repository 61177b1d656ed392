"""A hostile inbox: beside each thing that is no picture, a good picture must still be answered, and nothing outside the inbox may be touched."""

import os
import pathlib
import shutil
import socket
import tempfile

from place import ENDS, Lost, Place, wait_for

GOOD = "label=cat\nverdict=undecided\n"


def things(inbox, outside):
    """Name and maker of each; a maker that the system does not allow is told and passed over."""
    path = lambda name: os.fsencode(inbox) + b"/" + (name if isinstance(name, bytes) else name.encode())

    def write(name, data):
        with open(path(name), "wb") as file:
            file.write(data)

    def sparse(name, size):
        with open(path(name), "wb") as file:
            file.truncate(size)

    def unix_socket(name):
        listener = socket.socket(socket.AF_UNIX)
        here = os.getcwd()
        os.chdir(inbox)
        try:
            listener.bind(name)
        finally:
            os.chdir(here)
        listener.close()

    def folder(name, depth):
        os.makedirs(path(name + "/x" * depth))
        write(name + "/inside.png", b"label=dog\n")

    def with_sidecar(name, sidecar, picture=GOOD.encode() + b"s\n"):
        write(name + ".json", sidecar)
        write(name + ".png", picture + name.encode())

    yield "a link to a file outside", lambda: os.symlink(outside, path("link.png"))
    yield "a link to itself", lambda: os.symlink("loop.png", path("loop.png"))
    yield "a link to nothing", lambda: os.symlink("/nonexistent/x", path("dangling.png"))
    yield "a link to a folder", lambda: os.symlink("/", path("root.png"))
    yield "a hard link to a file outside", lambda: os.link(outside, path("hard.png"))
    yield "a FIFO", lambda: os.mkfifo(path("fifo.png"))
    yield "a socket", lambda: unix_socket("socket.png")
    yield "a device", lambda: os.mknod(path("zero.png"), 0o20666, os.makedev(1, 5))
    yield "a folder", lambda: folder("folder.png", 0)
    yield "a deep folder", lambda: folder("deep.png", 60)
    yield "an empty file", lambda: write("empty.png", b"")
    yield "a sparse terabyte", lambda: sparse("sparse.png", 1 << 40)
    yield "one byte too many", lambda: sparse("large.png", (1 << 20) + 1)
    yield "a name that is not UTF-8", lambda: write(b"\xff\xfe\x80.png", b"label=cat\nverdict=undecided\n1\n")
    yield "a name with a new line", lambda: write("a\nb.png", b"label=cat\nverdict=undecided\n2\n")
    yield "a name with terminal codes", lambda: write("\x1b[2J\x1b]0;x\x07.png", b"label=cat\nverdict=undecided\n3\n")
    yield "a name with markup", lambda: write("<img src=x onerror=alert(1)>.png", b"label=cat\nverdict=undecided\n4\n")
    yield "a name read from right to left", lambda: write("\u202egnp.exe.png", b"label=cat\nverdict=undecided\n5\n")
    yield "a name of 255 bytes", lambda: write("x" * 251 + ".png", b"label=cat\nverdict=undecided\n6\n")
    yield "a name that begins with a dash", lambda: write("--config=x.png", b"label=cat\nverdict=undecided\n7\n")
    yield "a name with a mail header", lambda: write("x\r\nBcc: a@b.png", b"label=cat\nverdict=undecided\n8\n")
    yield "no picture at all", lambda: write("notes.txt", b"hello")
    yield "a picture that cannot be decoded", lambda: write("broken.png", b"BROKEN")
    yield "a sidecar of a long label", lambda: with_sidecar("long", b'{"true_label": "' + b"\x7f" * 65000 + b'"}')
    yield "a sidecar that is too large", lambda: with_sidecar("huge", b'{"note": "' + b"x" * (4 << 20) + b'"}')
    yield "a sidecar with a key twice", lambda: with_sidecar("twice", b'{"true_label": "cat", "true_label": "dog"}')
    yield "a sidecar that is deep", lambda: with_sidecar("nested", b"[" * 100_000)
    yield "a sidecar that is not UTF-8", lambda: with_sidecar("bytes", b'{"note": "\xff\xfe"}')
    yield "a sidecar that is no JSON", lambda: with_sidecar("text", b"true_label: cat")
    yield "a sidecar that is a FIFO", lambda: (os.mkfifo(path("pipe.json")), write("pipe.png", b"label=cat\nverdict=undecided\n9\n"))
    yield "a sidecar that is a link", lambda: (os.symlink(outside, path("aside.json")), write("aside.png", b"label=cat\nverdict=undecided\n10\n"))
    yield "a worker that dies", lambda: write("crash.png", b"label=dog\nonce=trace\n")
    yield "a worker that says it is no picture", lambda: write("fault.png", b"label=dog\nfault=trace:submission\n")


def run(rounds):
    outside = pathlib.Path(tempfile.mkdtemp(prefix="soak-outside-")) / "secret.png"
    outside.write_bytes(b"label=dog\nflag=3\nsecret\n")
    place = Place()
    tried, passed_over, dropped = 0, [], 0
    try:
        place.start()
        for n in range(rounds):
            for what, make in things(place.root / "inbox", outside):
                try:
                    make()
                except OSError as error:
                    if n == 0:
                        passed_over.append(f"{what} ({error.strerror})")
                tried += 1
                name = f"good-{n}-{tried}.png"
                place.drop(name, f"{GOOD}{n}-{tried}\n")
                dropped += 1
                if place.daemon.poll() is not None:
                    raise Lost(f"{what} ended the daemon ({place.daemon.returncode})")
            good = lambda: [case for case in place.cases().values() if case["file"].startswith("good-") and case["state"] in ENDS]
            wait_for("answers to all good pictures", lambda: len(good()) == dropped, 300)
            if place.get("/readyz")[0] != 200:
                raise Lost(f"not ready: {place.get('/readyz')[1]}")
            # What is refused for good is cleared away by its owner, so that the next round can make it again.
            for entry in os.scandir(os.fsencode(place.root / "inbox")):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path)
                else:
                    os.unlink(entry.path)
        if outside.read_bytes() != b"label=dog\nflag=3\nsecret\n":
            raise Lost("a file outside the inbox was changed")
        if any("secret" in case["file"] for case in place.cases().values()):
            raise Lost("a file outside the inbox was read")
        memory = place.resident()
        if memory > 200 << 20:
            raise Lost(f"the daemon needed {memory >> 20} MiB")
        if place.stop() != 0:
            raise Lost("the daemon did not stop with 0")
        skipped = f"; not possible here: {', '.join(passed_over)}" if passed_over else ""
        return f"{tried} hostile things, {dropped} good pictures beside them: all answered, at most {memory >> 20} MiB{skipped}"
    finally:
        if place.daemon and place.daemon.poll() is None:
            place.kill()
        place.remove()
