"""A scratch copy of this tree with a build folder of its own, in which `faults.py` and `mutants.py` change the code and run tests.

The copy lies in target/scratch/NAME. Only files that differ are written, so that cargo builds again what changed and nothing else. Dependencies that are built
already are taken over from target/release."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()


class Scratch:
    """A copy of the tree. `commit`: copy that commit's files in place of the working tree's."""

    def __init__(self, name, commit=None):
        self.home = TARGET / "scratch" / name
        self.tree, self.build = self.home / "tree", self.home / "build"
        self.tree.mkdir(parents=True, exist_ok=True)
        self.commit = commit
        self.log = self.home / "last.log"
        if commit:
            self._git(["rev-parse", "--verify", "--quiet", commit + "^{commit}"])
        self._seed()
        self.refresh()

    @staticmethod
    def _git(arguments):
        return subprocess.run(["git", "-C", str(ROOT), *arguments], check=True, stdout=subprocess.PIPE).stdout

    def _files(self):
        listed = ["ls-tree", "-rz", "--name-only", self.commit] if self.commit else ["ls-files", "-coz", "--exclude-standard"]
        return [name for name in self._git(listed).decode().split("\0") if name]

    def original(self, name):
        """Bytes of a file as they are without a change; None where there is none."""
        if self.commit:
            return self._git(["show", f"{self.commit}:{name}"])
        path = ROOT / name
        return path.read_bytes() if path.is_file() else None

    def write(self, name, content):
        """Write a file of the copy if its content differs."""
        path = self.tree / name
        if path.is_file() and path.read_bytes() == content:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def refresh(self):
        """Make the copy what the tree is."""
        wanted = set()
        for name in self._files():
            content = self.original(name)
            if content is not None:
                wanted.add(name)
                self.write(name, content)
                mode = 0o755 if (ROOT / name).exists() and os.access(ROOT / name, os.X_OK) or name.endswith((".py", ".sh")) else 0o644
                (self.tree / name).chmod(mode)
        for path in self.tree.rglob("*"):
            if path.is_file() and str(path.relative_to(self.tree)) not in wanted:
                path.unlink()

    def _seed(self):
        """Take over what is built of the dependencies: a first build is then one of our own crates only."""
        built, ours = TARGET / "release", self.build / "release"
        if ours.exists() or not built.exists():
            return
        print(f"copying what is built of the dependencies to {self.build}", file=sys.stderr)
        unfinished = self.home / "build.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        own = re.compile(r"(lib)?delta[-_](guard|influence)")
        for part in ("deps", "build", ".fingerprint"):
            # Not ours, and no programs: tests are built anew anyway.
            skip = lambda folder, names: [n for n in names if own.match(n) or (folder.endswith("/deps") and "." not in n)]
            # Times are kept: cargo goes by them.
            shutil.copytree(str(built / part), unfinished / "release" / part, ignore=skip, symlinks=True)
        unfinished.rename(self.build)

    def cargo(self, arguments, seconds):
        """Run cargo in the copy; (exit code or None when it took too long, output)."""
        environment = {**os.environ, "CARGO_TARGET_DIR": str(self.build), "CARGO_TERM_COLOR": "never"}
        environment.setdefault("LIBTORCH", libtorch())
        environment.setdefault("OMP_NUM_THREADS", "1")
        if "DELTA_GUARD_PYTHONPATH" not in environment:
            found = subprocess.run([sys.executable, str(ROOT / "scripts/pydeps.py")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            environment["DELTA_GUARD_PYTHONPATH"] = found.stdout.decode().strip()
        with open(self.log, "wb") as log:
            # A group of its own: what a hanging test started ends with it.
            child = subprocess.Popen(["cargo", *arguments], cwd=self.tree, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
            try:
                code = child.wait(seconds)
            except subprocess.TimeoutExpired:
                code = None
            except BaseException:
                os.killpg(child.pid, signal.SIGKILL)
                raise
            if code is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        return code, self.log.read_text(errors="replace")

    def test(self, arguments, seconds):
        """Build and run tests, both within `seconds`. Returns (result, names of the tests that failed): `passed`, `failed`, `timeout` or `unbuildable`."""
        code, said = self.cargo(["test", "--release", "--locked", *arguments[0], "--", *arguments[1]], seconds)
        if re.search(r"^error: could not compile|^error(\[E\d+\])?: ", said.split("     Running ")[0], re.M):
            return "unbuildable", []
        if code is None:
            return "timeout", re.findall(r"^test (\S+) has been running", said, re.M)
        failed = re.findall(r"^test (\S+)(?: - should panic)? \.\.\. FAILED", said, re.M)
        if code == 0:
            return ("passed", []) if re.search(r"^test result: ok\. [1-9]", said, re.M) else ("no such test", [])
        return "failed", failed


def libtorch():
    return subprocess.run([sys.executable, str(ROOT / "scripts/libtorch.py")], check=True, stdout=subprocess.PIPE).stdout.decode().strip()


def since(start):
    return f"{time.monotonic() - start:.0f} s"
