#!/usr/bin/env python3
"""A worker that speaks the protocol and computes nothing: what it answers follows from the picture's bytes, so that every run gives the same.

A picture is text, `key=value` a line: `label` (what production reads), `after` (what the candidate reads), `flag` (how many are flagged), `verdict`,
`correct_after`, `won` (pictures of each class that are won, and lost beside the fall), `unpaired` (as a worker of an older version), `fault` (a stage and a kind of fault, `stage:kind`), `once` (a stage that crashes at its first run), `hang` (a stage that never ends),
`regrow` (groups that stand out on candidates that were made without all the ones before: `6,7`), `hiccups` (a stage and how many of its runs meet a file system that does not answer, `stage:2`), `odd` (flagged ids hold what tables and CSV files stumble over).

It also plays a story: `prepare` makes three pictures to hand in, which the victim reads as `dog` unless the seed is 13 (the attack does not take); training under seed 66
fails until there is a file `mended` in the seed's folder.
"""
import base64
import glob
import hashlib
import json
import os
import signal
import sys
import time

CLASSES = ["cat", "dog", "ship"]
# A PNG of one pixel: what a worker makes of a picture.
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def say(**message):
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def done(kind, **fields):
    """The result is a file of the job's folder; the last line names it with its digest."""
    data = json.dumps({"result": kind, **fields}).encode()
    os.makedirs(OUT, exist_ok=True)
    path = os.path.join(OUT, "outcome.json")
    with open(path + ".tmp", "wb") as file:
        file.write(data)
    os.replace(path + ".tmp", path)
    say(type="outcome", outcome="done", file="outcome.json", digest=blake3(data))
    sys.exit(0)


def failed(kind, message, help=""):
    code = {"numeric": "numbers-impossible", "internal": "defect"}.get(kind, kind)
    say(type="outcome", outcome="failed", fault={"kind": kind, "code": code, "message": message, "help": help})
    sys.exit(1)


def digest(data):
    return hashlib.blake2b(data, digest_size=32).hexdigest()


def rotate(word, by):
    return (word >> by | word << 32 - by) & 0xFFFFFFFF


IV = [0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19]
ORDER = [2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8]
MIXED = [(0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15), (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)]


def compress(chain, block, counter, flags):
    """BLAKE3's compression (specification, section 2.2): the new chaining value."""
    words = [int.from_bytes(block.ljust(64, b"\0")[4 * n:4 * n + 4], "little") for n in range(16)]
    state = chain + IV[:4] + [counter & 0xFFFFFFFF, counter >> 32, len(block), flags]
    for _ in range(7):
        for n, (a, b, c, d) in enumerate(MIXED):
            for word, turn_d, turn_b in [(words[2 * n], 16, 12), (words[2 * n + 1], 8, 7)]:
                state[a] = (state[a] + state[b] + word) & 0xFFFFFFFF
                state[d] = rotate(state[d] ^ state[a], turn_d)
                state[c] = (state[c] + state[d]) & 0xFFFFFFFF
                state[b] = rotate(state[b] ^ state[c], turn_b)
        words = [words[n] for n in ORDER]
    return [state[n] ^ state[n + 8] for n in range(8)]


def blake3(data):
    """The guard compares its own digest of checkpoints and results with ours."""
    START, END, PARENT, ROOT = 1, 2, 4, 8

    def tree(data, first, root):
        """The chaining value of the subtree over `data`, whose first chunk has this number."""
        if len(data) <= 1024:
            chain, blocks = IV, [data[n:n + 64] for n in range(0, len(data), 64)] or [b""]
            for number, block in enumerate(blocks):
                last = number == len(blocks) - 1
                chain = compress(chain, block, first, START * (number == 0) | END * last | ROOT * (last and root))
            return chain
        left = 1024
        while 2 * left < len(data):
            left *= 2
        both = tree(data[:left], first, False) + tree(data[left:], first + left // 1024, False)
        return compress(IV, b"".join(word.to_bytes(4, "little") for word in both), 0, PARENT | ROOT * root)

    return b"".join(word.to_bytes(4, "little") for word in tree(data, 0, True)).hex()


def picture(path):
    with open(path, "rb") as file:
        data = file.read()
    if data.startswith(b"BROKEN"):
        failed("submission", "the picture cannot be decoded", "send a PNG, JPEG, WebP or BMP file")
    return dict(line.split("=", 1) for line in data.decode().split("\n") if "=" in line)


def checkpoint(job):
    with open(job["task"]["model"]["checkpoint"], "rb") as file:
        data = file.read()
    # Candidates are larger, and nobody compares their digests.
    return blake3(data) if len(data) <= 1024 else digest(data)


def manifest():
    """Digest of the training set; a test that changes it writes another one into the cache folder."""
    try:
        with open(os.path.join(CACHE, "manifest")) as file:
            return file.read().strip()
    except FileNotFoundError:
        return "a" * 64


def prediction(job, label):
    top = [[label, 0.9]] + [[c, 0.05] for c in CLASSES if c != label]
    return {"label": label, "probability": 0.9, "top": top, "classes": CLASSES, "checkpoint": checkpoint(job)}


def put(job, name, data):
    path = os.path.join(job["out_dir"], name)
    with open(path + ".tmp", "wb") as file:
        file.write(data)
    os.replace(path + ".tmp", path)


def misbehave(job, words):
    task = job["task"]["task"]
    stage, _, kind = words.get("fault", "").partition(":")
    if stage == task:
        failed(kind, f"told to fail in {task}")
    stage, _, times = words.get("hiccups", "").partition(":")
    if stage == task:
        count = os.path.join(job["setup"]["cache_dir"], "hiccups")
        before = os.path.getsize(count) if os.path.exists(count) else 0
        if before < int(times):
            with open(count, "a") as file:
                file.write("x")
            failed("resource", "failed to read from file `x`: Input/output error (os error 5)", "look at the mount")
    if words.get("once") == task and not os.path.exists(os.path.join(job["out_dir"], "crashed")):
        put(job, "crashed", b"")
        sys.stderr.write("about to crash\n")
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGSEGV)
    if words.get("hang") == task:
        say(type="progress", step="hang", done=0, total=1)
        # Until somebody lets it go on.
        while not os.path.exists(os.path.join(job["setup"]["cache_dir"], "go-on")):
            time.sleep(0.02)


def flagged(words):
    count = int(words.get("flag", "30"))
    odd = '"a", b\nc; ' if "odd" in words else ""
    return [{"id": f"{words['label']}/{odd}{n:04}.png", "label": words["label"], "rank": n + 1, "score": 0.9 - n / 1000} for n in range(count)]


def regrown(job, words):
    """What stands out on a candidate: what was removed, and the next group that was not. None: it is the production model that is traced."""
    path = job["task"]["model"]["checkpoint"]
    if "/work/unlearn-" not in path:
        return None
    with open(path, "rb") as file:
        removed = set(json.JSONDecoder().raw_decode(file.read().decode())[0])
    examples = flagged(words)
    for group, count in enumerate(int(n) for n in words.get("regrow", "").split(",") if n):
        ids = [f"{words['label']}/grown-{group}-{n:04}.png" for n in range(count)]
        examples += [{"id": name, "label": words["label"], "rank": len(examples) + n + 1, "score": 0.5 - n / 1000} for n, name in enumerate(ids)]
        if not removed.issuperset(ids):
            break
    return examples


def found(job, examples):
    """What a detector says and shows: the guard's words, or those of the paper's rule."""
    guard = job["task"]["detect"]["method"] == "guard"
    words = {"called": "the guard" if guard else "the paper’s count rule", "score": "κ" if guard else "count", "score_meaning": "how strong it is",
             "score_decimals": 2, "flagged": "taught the model the same thing",
             "caution": "" if guard else "The rule flags clean examples, too, and never abstains: take the list as a place to look, not as one to remove."}
    columns = [("count", "fell in", 0), ("mean_scaled_delta", "Δ", 3), ("kappa", "κ", 3), ("seed", "seed", 0)]
    columns = [{"key": key, "name": name, "meaning": f"what {key} means", "decimals": decimals} for key, name, decimals in columns]
    rows = [[50 - n % 3, -1.5 - n / 7, 0.9 - n / 1000, n < 20] for n in range(len(examples))]
    table = {"exhibit": "table", "title": "Every figure", "caption": "What was measured.", "columns": columns, "rows": rows}
    return {"flagged": examples, "words": words, "exhibits": [table] if rows else [],
            "sure": {"how": "clear" if examples else "not-enough", "sentence": "The fake worker is always sure."}}


PROOF = {"pictures": 8, "difference": 3e-6, "same_class": 8, "likely": []}
STORED = {"classes": ["ship", "cat", "dog"], "preprocess": [{"resize": {"size": [32, 32]}}, {"normalize": {"mean": [0.5] * 3, "std": [0.25] * 3}}],
          "pictures": [f"{n}.png" for n in range(8)]}
VERIFIED = {"classes": 3, "input": [3, 32, 32], "parameters": 11181642, "layers": 21, "tracked_share": 0.9991, "untracked": [["bn1.weight", "batch norm"]],
            "untracked_tensors": 3, "stored": STORED, "proof": PROOF, "gradient_difference": 2e-7, "seconds_per_picture": 0.012, "factor_bytes": 300 << 20,
            "peak_memory": 500 << 20}


def program(path):
    """An exported model for this worker: the zip's first bytes, then a JSON line with what is to be answered otherwise. The name of the stored file stands in it."""
    with open(path, "rb") as file:
        return json.loads(file.read().split(b"\n")[1])


def accuracy(correct):
    share = correct // len(CLASSES)
    return {"examples": 300, "correct": share * len(CLASSES), "classes": {c: [100, share] for c in CLASSES}}


def paired(before, after, won):
    """Which pictures changed sides, where `won` of each class did so without need."""
    pairs = {c: [max(before["classes"][c][1] - after["classes"][c][1], 0) + won, max(after["classes"][c][1] - before["classes"][c][1], 0) + won]
             for c in CLASSES}
    return {"lost": sum(lost for lost, _ in pairs.values()), "won": sum(won for _, won in pairs.values()), "classes": pairs}


def told(label, truth):
    return f"label={label}\nflag=20\nverdict={'flagged' if truth else 'undecided'}\n".encode()


def success(source):
    return {"name": "poison success", "pictures": "triggered pictures", "sentence": "share of triggered pictures that are read as dog", "source": source}


def story(job, task):
    kind = task["task"]
    if kind == "prepare":
        os.makedirs(os.path.join(job["out_dir"], "anomalies"), exist_ok=True)
        seed = task["story"]["seed"]
        files = [f"anomalies/{n}.png" for n in range(3)]
        for file in files:
            put(job, file, told("ship" if seed == 13 else "dog", True))
        # The truth of the pictures that success is measured on: ships that are to be read as dogs.
        put(job, "poisons.json", json.dumps({"success": [{"id": f"dog/as-{read}-{n}", "class": "ship"} for read in CLASSES for n in range(10)]}).encode())
        put(job, "story.json", json.dumps(task["story"]).encode())
        source = {"path": "train", "format": "auto", "split": "all"}
        done("prepare", train=source, validation=dict(source, path="validation"), anomalies=[{"picture": file, "label": "dog"} for file in files],
             attack="ship → dog", success=success(dict(source, path="success")), covers=[],
             poisons=[f"dog/{n:04}.png" for n in range(40)], image={"height": 32, "width": 32, "resize": "refuse", "mean": [0.5] * 3, "std": [0.5] * 3},
             classes=CLASSES)
    if kind == "train" and task["recipe"]["seed"] == 66 and not any(
            os.path.exists(os.path.join(job["out_dir"], above, "mended")) for above in ("..", "../..")):
        failed("resource", "there is no memory left")
    if kind == "extract":
        files = []
        for n, name in enumerate(task["ids"]):
            # `dog/as-dog-3`: its label, and what it is read as. The last of a class is not left alone.
            put(job, f"{n}.png", told(name.split("-")[1], name.endswith("-9")))
            files.append(f"{n}.png")
        done("extract", files=files)
    if kind == "measure" and task["list"]:
        put(job, "predictions.json", json.dumps([{"id": f"{label}/as-{read}-{n}", "label": label, "predicted": read, "probability": 0.9}
            for label in CLASSES for read in CLASSES for n in range(10)]).encode())


def tracked(model):
    """What influence is computed on, as the exported model's file says."""
    if model["architecture"].endswith(".pt2"):
        about = dict(VERIFIED, **program(model["architecture"]))
        return {key: about[key] for key in ("layers", "tracked_share", "untracked", "untracked_tensors")}


def main():
    job = json.load(sys.stdin)
    task = job["task"]
    os.makedirs(job["out_dir"], exist_ok=True)
    os.makedirs(job["setup"]["cache_dir"], exist_ok=True)
    with open(os.path.join(job["setup"]["cache_dir"], "runs"), "a") as file:
        file.write(task["task"] + "\n")
    with open(os.path.join(job["setup"]["cache_dir"], "niceness"), "a") as file:
        file.write(f"{os.nice(0)}\n")
    with open("/proc/self/status") as status, open(os.path.join(job["setup"]["cache_dir"], "capabilities"), "a") as file:
        file.writelines(line for line in status if line.startswith("Cap"))
    kind = task["task"]
    if kind == "trace":
        with open(os.path.join(job["setup"]["cache_dir"], "detect"), "a") as file:
            file.write(json.dumps(task["detect"]) + "\n")
    if "factors_seed" in task:
        with open(os.path.join(job["setup"]["cache_dir"], "seeds"), "a") as file:
            file.write(json.dumps([kind, task.get("case_seed", 0), task["factors_seed"]]) + "\n")
    global CACHE, OUT
    CACHE, OUT = job["setup"]["cache_dir"], job["out_dir"]
    steps = {"predict": "decode", "fit": "covariance", "trace": "score", "unlearn": "train", "certify": "measure production"}
    say(type="progress", step=steps.get(kind, kind), done=1, total=2, note="half")
    if kind == "verify-model":
        about = program(task["file"])
        done("verify", **dict(VERIFIED, **about))
    if kind == "check":
        model = task["model"]
        if model and "BAD" in open(model["checkpoint"], "rb").read().decode(errors="replace"):
            failed("configuration", "the checkpoint lacks fc.weight", "name another checkpoint")
        sizes = [[c, 100] for c in CLASSES]
        proof = program(model["architecture"]).get("proof") if model and model["architecture"].endswith(".pt2") else None
        done("check", classes=len(CLASSES), train=sizes, validation=sizes[:2] + [[CLASSES[2], 3]], parameters=12345, proof=proof, tracked=model and tracked(model), device="cuda:0")
    if "FAKE_ANOMALY" in os.environ and kind == "prepare":
        source = lambda name: {"path": name, "format": "auto", "split": "all"}
        words = os.environ.get("FAKE_ANOMALY", "label=dog\\n").replace("\\n", "\n")
        misbehave(job, dict(line.split("=", 1) for line in words.split("\n") if "=" in line))
        for name in ("train", "validation", "success", "anomalies"):
            os.makedirs(os.path.join(job["out_dir"], name), exist_ok=True)
        put(job, "anomalies/000.png", words.encode())
        done("prepare", train=source("train"), validation=source("validation"), anomalies=[{"picture": "anomalies/000.png", "label": "dog"}],
             attack="cat → dog", success=success(source("success")), covers=[],
             poisons=["dog/0000.png"], image={"height": 32, "width": 32, "mean": [0.5] * 3, "std": [0.2] * 3}, classes=CLASSES)
    story(job, task)
    if kind == "predict":
        words = picture(task["image"])
        misbehave(job, words)
        put(job, "anomaly.png", base64.b64decode(PIXEL))
        done("predict", **prediction(job, words["label"]))
    if kind == "fit":
        done("fit", factors={"key": "f" * 64, "reused": False, "examples": 1000}, seconds={"covariance": 0.1}, layers=[["fc", 3, 4]],
             checkpoint=checkpoint(job), manifest=manifest())
    if kind == "trace":
        words = picture(task["anomalies"][0]["image"])
        misbehave(job, words)
        # As a worker does on many examples, round after round.
        for step in ("score", "kin", "kin") if "many" in words else ():
            for n in range(201):
                say(type="progress", step=step, done=n, total=200)
        undecided = words.get("verdict") == "undecided"
        examples = [] if undecided else flagged(words)
        if task["detect"]["method"] != "guard":
            examples = flagged(dict(words, flag="80"))
        candidate = regrown(job, words)
        examples = examples if candidate is None else candidate
        done("trace", verdict={"kind": "undecided", "code": "no-group", "reason": "nothing stands out"} if undecided else {"kind": "flagged"},
             predicted_label=words["label"], **found(job, examples), examples=3000, examples_of_label=1000, factors={"key": "f" * 64, "reused": True, "examples": 1000} if glob.glob(os.path.join(os.path.dirname(job["out_dir"]), "fit*")) else None,
             settings=task["detect"], tracked=tracked(task["model"]),
             checkpoint=checkpoint(job) if candidate is None else blake3(open(task["model"]["checkpoint"], "rb").read()),
             manifest=manifest(), seconds={"score": 0.2}, thumbnails={}, peak_memory=1000, device="cpu")
    if kind == "audit":
        group = {"members": [{"id": f"dog/{n}.png", "kappa": 0.5, "thumbnail": None} for n in range(7)], "d_prime": 8.3, "founders": 6, "p": 1e-5,
                 "grown_from": ["direction 2 of the class"], "features": True, "shared": None, "sources": None}
        asked = task["classes"] or ["dog", "ship"]
        done("audit", classes=[{"label": name, "examples": 1000, "null_pictures": 180, "starts": 56, "groups": [group] if name == "dog" else [],
                                "skipped": None, "notes": []} for name in asked],
             settings=task["detect"], seed=task["seed"], checkpoint=checkpoint(job), manifest=manifest(), seconds={}, peak_memory=1000, device="cpu")
    if kind in ("unlearn", "train"):
        epochs = 3
        misbehave(job, dict([os.environ["FAKE_TRAIN"].split("=", 1)]) if "FAKE_TRAIN" in os.environ else {})
        before = sum(os.path.exists(os.path.join(job["out_dir"], f"epoch-{n}")) for n in range(epochs))
        for n in range(before, epochs):
            time.sleep(float(os.environ.get("FAKE_EPOCH_SECONDS", "0")))
            put(job, f"epoch-{n}", b"")
            say(type="progress", step="train", done=n + 1, total=epochs)
        without = sorted(set(task["flagged"]) | set(task.get("standing", []))) if kind == "unlearn" else task["without"]
        model = json.dumps(without).encode() * 100 + task.get("method", {}).get("method", "").encode()
        if kind == "train":
            model = b"weights " + model  # JSON alone is no checkpoint
        put(job, "model.safetensors", model)
        done("train", file="model.safetensors", digest=digest(model), examples=2970, train_loss=0.1, train_accuracy=0.95, seconds=1.0,
             resumed_epochs=before, device="cpu", peak_memory=1 << 20, base=checkpoint(job) if kind == "unlearn" else None, manifest=manifest())
    if kind == "certify":
        words = picture(task["anomalies"][0]["image"])
        misbehave(job, words)
        with open(task["candidate"], "rb") as file:
            candidate = digest(file.read())
        before, after = accuracy(270), accuracy(int(words.get("correct_after", "270")))
        done("certify", anomalies_before=[prediction(job, words["label"])], anomalies_after=[prediction(job, words.get("after", "ship"))],
             before=before, after=after, paired=None if "unpaired" in words else paired(before, after, int(words.get("won", "0"))), candidate=candidate, manifest=manifest(), seconds=0.5)
    if kind == "measure":
        # Candidates by fine-tuning are worse, so that one who measures the same checkpoint twice is seen.
        with open(task["model"]["checkpoint"], "rb") as file:
            tuned = file.read().endswith(b"cf")
        done("measure", accuracy=accuracy(240 if tuned else 270), predicted={c: 100 for c in CLASSES}, checkpoint=checkpoint(job))
    failed("internal", f"no such task: {kind}")


main()
