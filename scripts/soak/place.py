"""A folder in which a real daemon runs with the stand-in worker of the tests, and what one can ask of it."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PROGRAM = ROOT / "target/release/delta-guard"
PATIENCE = 120.0
ENDS = {"proposed", "promoted", "declined", "rejected", "undecided", "observed", "no-anomaly", "refused", "failed"}


class Lost(Exception):
    """Something was lost, or did not happen in time."""


def wait_for(what, ready, patience=PATIENCE):
    deadline = time.monotonic() + patience
    while True:
        value = ready()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Lost(f"no {what} within {patience:.0f} s")
        time.sleep(0.02)


class Place:
    def __init__(self, more=""):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="soak-"))
        for name in ["train", "validation", "inbox", "state/cache"]:
            (self.root / name).mkdir(parents=True)
        (self.root / "model.safetensors").write_bytes(b"production weights")
        shutil.copy(ROOT / "tests/support/fake_worker.py", self.root / "worker")
        (self.root / "worker").chmod(0o755)
        (self.root / "guard.yaml").write_text(
            "instance: soak\n"
            "paths: {inbox: inbox, state: state, candidates: candidates}\n"
            "inbox: {settle: 20ms, scan_interval: 200ms, max_bytes: 1MiB}\n"
            "data: {train: {path: train}, validation: {path: validation}}\n"
            "model: {architecture: small-cnn, checkpoint: model.safetensors}\n"
            "worker: {command: worker, nice: 0}\n"
            "http: {listen: '127.0.0.1:0'}\n" + more
        )
        self.daemon = None

    def start(self, wait=True):
        address = self.root / "state/http.address"
        address.unlink(missing_ok=True)
        with open(self.root / "log", "ab") as log:
            command = [PROGRAM, "run", "--config", self.root / "guard.yaml"]
            self.daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, env={**os.environ, "FAKE_EPOCH_SECONDS": "0.02"})
        if wait:
            wait_for("readiness", lambda: self.get("/readyz")[0] == 200)

    def kill(self):
        self.daemon.send_signal(signal.SIGKILL)
        self.daemon.wait()

    def stop(self):
        self.daemon.send_signal(signal.SIGTERM)
        try:
            return self.daemon.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Lost("the daemon did not stop within 30 s of SIGTERM") from None

    def get(self, path):
        """Status and body; (0, "") while nobody answers."""
        try:
            address = (self.root / "state/http.address").read_text().strip()
            with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except (OSError, ValueError):
            return 0, ""

    def metric(self, name):
        for line in self.get("/metrics")[1].splitlines():
            if line.startswith(name + " "):
                return float(line.rsplit(" ", 1)[1])
        return None

    def resident(self):
        """Bytes of memory of the daemon at its peak."""
        for line in pathlib.Path(f"/proc/{self.daemon.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        return 0

    def ask(self, *arguments):
        return subprocess.run([PROGRAM, *arguments, "--config", self.root / "guard.yaml"], capture_output=True, text=True)

    def cases(self):
        done = self.ask("cases", "--json", "--limit", "1000000")
        if done.returncode:
            raise Lost(f"delta-guard cases: {done.stderr}")
        return {case["file"]: case for case in json.loads(done.stdout)}

    def drop(self, name, words):
        """As a careful submitter does: written under a hidden name, then renamed."""
        hidden = self.root / "inbox" / ".being-written"
        hidden.write_bytes(words if isinstance(words, bytes) else words.encode())
        os.rename(hidden, os.fsencode(self.root / "inbox") + b"/" + (name if isinstance(name, bytes) else name.encode()))

    def remove(self):
        shutil.rmtree(self.root, ignore_errors=True)
