#!/usr/bin/env python3
"""What the daemon costs while nothing happens: time from its start to ready, and its memory after some idle seconds, beside what is asked of it.

    scripts/idle.py [target/release/delta-guard]
"""

import http.client
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time

STARTS = 10
IDLE_SECONDS = 5
ASKED_MS = 100
ASKED_MIB = 30
PATIENCE_SECONDS = 30

CONFIG = """\
paths: {inbox: inbox, state: state, candidates: candidates}
data: {train: {path: train}, validation: {path: validation}}
model: {architecture: small-cnn, checkpoint: model.safetensors}
worker: {command: worker}
http: {listen: '127.0.0.1:%d'}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def place(folder: pathlib.Path) -> tuple[pathlib.Path, int]:
    """Everything that a configuration must name; no worker ever runs."""
    for name in ("train", "validation"):
        (folder / name).mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "worker").write_text("#!/bin/sh\n")
    (folder / "worker").chmod(0o755)
    port = free_port()
    config = folder / "guard.yaml"
    config.write_text(CONFIG % port)
    return config, port


def start(program: str, idle: float) -> tuple[float, float]:
    """Milliseconds from exec to ready, and MiB of memory after a number of idle seconds."""
    with tempfile.TemporaryDirectory(prefix="delta-guard-idle-") as folder:
        config, port = place(pathlib.Path(folder))
        log = pathlib.Path(folder) / "log"
        with log.open("wb") as errors:
            began = time.perf_counter()
            daemon = subprocess.Popen([program, "run", "--config", str(config)], stdout=subprocess.DEVNULL, stderr=errors)
        try:
            while not is_ready(port):
                if daemon.poll() is not None or time.perf_counter() - began > PATIENCE_SECONDS:
                    sys.exit(f"the daemon did not become ready:\n{log.read_text()}")
                time.sleep(0.0005)
            ready = time.perf_counter() - began
            time.sleep(idle)
            status = pathlib.Path(f"/proc/{daemon.pid}/status").read_text()
            (kib,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")]
            return 1000 * ready, int(kib) / 1024
        finally:
            daemon.terminate()
            daemon.wait()


def main() -> None:
    program = sys.argv[1] if len(sys.argv) > 1 else "target/release/delta-guard"
    starts = [start(program, 0)[0] for _ in range(STARTS - 1)]
    last, memory = start(program, IDLE_SECONDS)
    starts.append(last)
    median = statistics.median(starts)
    print(f"start to ready  {median:6.1f} ms   median of {len(starts)}, {min(starts):.1f} to {max(starts):.1f}; asked: less than {ASKED_MS} ms")
    print(f"idle memory     {memory:6.1f} MiB  VmRSS after {IDLE_SECONDS} s; asked: less than {ASKED_MIB} MiB")


if __name__ == "__main__":
    main()
