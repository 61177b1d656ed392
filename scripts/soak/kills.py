"""SIGKILL at random moments: every picture that was taken ends as it ends undisturbed, once."""

import json
import random
import time

from place import ENDS, Lost, Place, wait_for


def words(n):
    """What the stand-in worker is told: a mixture of ends."""
    return [
        f"label=dog\nflag=12\nn={n}\n",
        f"label=cat\nverdict=undecided\nn={n}\n",
        f"BROKEN\nn={n}\n",
        f"label=dog\nflag=15\ncorrect_after=90\nn={n}\n",
    ][n % 4]


def outcome(case):
    """What must not depend on interruptions."""
    return case["state"], case["reason"]


def all_ended(place, names):
    cases = place.cases()
    return cases if len(cases) >= len(names) and all(case["state"] in ENDS for case in cases.values()) else None


def run(kills, seed):
    rng = random.Random(seed)
    place, golden = Place(), Place()
    names, killed_at = [], []
    try:
        for n in range(kills):
            if n % 2 == 0:
                name = f"{len(names):06}.png"
                place.drop(name, words(len(names)))
                names.append(name)
            place.start(wait=False)
            # From before the journal is open to the middle of a retraining.
            moment = rng.uniform(0.0, 0.9)
            time.sleep(moment)
            if place.daemon.poll() is not None:
                raise Lost(f"the daemon ended by itself ({place.daemon.returncode}); log: {place.root}/log")
            place.kill()
            killed_at.append(moment)
            if n % 100 == 99:
                verified = place.ask("journal", "verify")
                if verified.returncode not in (0,) and "torn" not in verified.stdout + verified.stderr:
                    raise Lost(f"journal verify after {n + 1} kills: {verified.stdout}{verified.stderr}")
                print(f"  {n + 1} kills, {len(names)} pictures", flush=True)
        place.start()
        patience = 120 + 5.0 * len(names)
        cases = wait_for("end of all cases", lambda: all_ended(place, names), patience)
        if place.stop() != 0:
            raise Lost("the daemon did not stop with 0")
        verified = place.ask("journal", "verify")
        if verified.returncode:
            raise Lost(f"journal verify at the end: {verified.stdout}{verified.stderr}")

        sample = names[: min(len(names), 40)]
        for name in sample:
            golden.drop(name, words(int(name[:6])))
        golden.start()
        undisturbed = wait_for("end of the undisturbed run", lambda: all_ended(golden, sample), patience)
        golden.stop()
        # Of the others only every fourth differs.
        expected = {n % 4: outcome(undisturbed[f"{n:06}.png"]) for n in range(min(4, len(sample)))}
        lost = [name for name in names if name not in cases]
        other = {name: outcome(cases[name]) for name in names if name in cases and outcome(cases[name]) != expected[int(name[:6]) % 4]}
        twice = len(cases) - len(set(case["case"] for case in cases.values()))
        left = [entry.name for entry in (place.root / "inbox").iterdir()]
        candidates = [entry for entry in (place.root / "candidates").iterdir() if entry.is_dir() and not entry.name.startswith(".")]
        incomplete = [str(entry) for entry in candidates if not (entry / "MANIFEST.json").is_file()]
        for entry in candidates:
            json.loads((entry / "MANIFEST.json").read_text())
        if lost or other or twice or left or incomplete:
            raise Lost(f"lost {lost}, ended otherwise {other}, twice {twice}, left in the inbox {left}, incomplete candidates {incomplete}")
        return f"{kills} kills, {len(names)} pictures: lost 0, twice 0, ended otherwise 0, {len(candidates)} candidates, all whole"
    finally:
        for used in (place, golden):
            if used.daemon and used.daemon.poll() is None:
                used.kill()
        place.remove()
        golden.remove()
