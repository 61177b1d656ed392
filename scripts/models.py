#!/usr/bin/env python3
"""Whether torchvision's and timm's models can be guarded, at their real size: each is exported with random weights, read by `verify-model`, and deleted.

    scripts/models.py                         all that are not done yet; then docs/models.md is written again
    scripts/models.py resnet18 timm:levit_128s   those, again
    scripts/models.py --most 300              also those of up to 300 million parameters (default 100: what a machine of 8 GB can hold)
    scripts/models.py --keep                  leave the exported files in the cache folder
    scripts/models.py --only-export           export and keep, for a run later
    scripts/models.py --table                 only write the table

Needs torch, torchvision, timm and Pillow (pip install torch torchvision timm) and a built delta-guard. What was measured is kept, a JSON line a model, in the cache folder
(--cache, default ~/.cache/delta-guard/models): a run that was stopped goes on. No weights are downloaded.
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
CLASSES = 100

# Where a name needs another side than 224.
SIDES = {"inception_v3": 299, "swin_v2_t": 256, "timm:swinv2_tiny_window8_256": 256, "timm:mobilevit_s": 256, "timm:mobilevitv2_050": 256, "timm:eva02_tiny_patch14_336": 336, "timm:edgenext_xx_small": 256, "timm:fastvit_t8": 256, "timm:xception41": 299, "timm:gcresnet33ts": 256}

TORCHVISION = """alexnet vgg11_bn vgg16_bn resnet18 resnet50 resnext50_32x4d wide_resnet50_2 squeezenet1_1 densenet121 googlenet inception_v3 mobilenet_v2 mobilenet_v3_small
mobilenet_v3_large mnasnet1_0 shufflenet_v2_x1_0 efficientnet_b0 efficientnet_v2_s regnet_x_400mf regnet_y_400mf convnext_tiny vit_b_16 swin_t swin_v2_t maxvit_t""".split()

TIMM = """resnet18 resnet50d seresnet50 resnetv2_50 nf_resnet50 dm_nfnet_f0 res2net50_26w_4s resnest14d skresnet18 gcresnet33ts mobilenetv3_large_100 mobilenetv4_conv_small mobilenetv4_hybrid_medium
efficientnet_lite0 tf_efficientnetv2_b0 ghostnet_100 repvgg_a0 hrnet_w18_small cspresnet50 dla34 dpn68 xception41 ese_vovnet19b_dw lcnet_050 regnety_004 convnext_atto convnextv2_nano inception_next_tiny
vit_tiny_patch16_224 vit_base_patch16_224 deit_small_patch16_224 deit3_small_patch16_224 cait_xxs24_224 xcit_nano_12_p16_224 pit_ti_224 twins_svt_small swin_tiny_patch4_window7_224
swinv2_tiny_window8_256 beit_base_patch16_224 eva02_tiny_patch14_336 mixer_s16_224 gmlp_s16_224 resmlp_12_224 poolformer_s12 coatnet_0_rw_224 levit_128s mobilevit_s mobilevitv2_050
edgenext_xx_small efficientformer_l1 fastvit_t8 tiny_vit_5m_224 davit_tiny focalnet_tiny_srf hiera_tiny_224""".split()

MODELS = TORCHVISION + [f"timm:{name}" for name in TIMM]


def make(name: str):
    if name.startswith("timm:"):
        import timm

        return timm.create_model(name[5:], pretrained=False, num_classes=CLASSES)
    import torchvision

    more = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(name, weights=None, num_classes=CLASSES, **more)


def enliven(model, batch) -> None:
    """Random weights that behave like trained ones: nothing exactly 0 or 1 (heads and scales often start so: a network that answers 0 proves nothing), running statistics from data."""
    import torch

    norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    with torch.no_grad():
        for value in model.parameters():
            if value.numel() < 2 or value.std() == 0:
                value.add_(torch.randn_like(value) * 0.02)
        momenta = [m.momentum for m in norms]
        for m in norms:
            m.momentum = 1.0
            m.train()
        if norms:
            model(batch)
        for m, momentum in zip(norms, momenta):
            m.momentum = momentum
            m.eval()
        heads = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m.out_features == CLASSES]
        if heads:  # logits of a usual size
            heads[-1].weight.mul_(5 / model(batch).abs().max())


def pictures(folder: pathlib.Path) -> list:
    """Eight picture files, smooth with some noise, of several sizes; the same each time."""
    import numpy
    from PIL import Image

    random, paths = numpy.random.default_rng(14), []
    for i, (width, height) in enumerate([(320, 240), (240, 320), (256, 256), (500, 375), (300, 451), (224, 224), (640, 427), (333, 299)]):
        small = Image.fromarray(random.integers(0, 256, (5, 7, 3), dtype=numpy.uint8)).resize((width, height), Image.BICUBIC)
        pixels = numpy.asarray(small).astype(float) + random.normal(0, 12, (height, width, 3))
        paths.append(folder / f"picture_{i}.{'png' if i % 3 == 0 else 'jpg'}")
        Image.fromarray(pixels.clip(0, 255).astype(numpy.uint8)).save(paths[-1])
    return paths


def export_one(name: str, out: pathlib.Path, most: float) -> None:
    """In a process of its own: its memory is given back. Prints a JSON line."""
    import contextlib
    import copy
    import tempfile

    import torch
    from PIL import Image
    from torchvision import transforms

    sys.path.insert(0, str(ROOT / "docs"))
    from export import export

    torch.manual_seed(0)
    model = make(name).eval()
    parameters = sum(p.numel() for p in model.parameters())
    if parameters > most * 1e6:
        return print(json.dumps({"parameters": parameters, "skipped": True}))
    side = SIDES.get(name, 224)
    steps = [transforms.Resize(side * 8 // 7), transforms.CenterCrop(side), transforms.ToTensor(), transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    transform, folder = transforms.Compose(steps), tempfile.TemporaryDirectory()
    paths = pictures(pathlib.Path(folder.name))
    batch = torch.stack([transform(Image.open(path)) for path in paths])
    enliven(model, batch)
    with torch.no_grad():
        logits = model(batch)
        exact = copy.deepcopy(model).double()(batch.double()) if parameters < 50e6 else logits
    rounding = (exact - logits).abs().max().item()
    start = time.time()
    with contextlib.redirect_stdout(sys.stderr):
        export(model, out, paths, transform, [f"class {i:03}" for i in range(CLASSES)])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"parameters": parameters, "side": side, "largest_logit": logits.abs().max().item(), "rounding": rounding, "export_seconds": round(time.time() - start, 1), "export_memory": peak, "bytes": out.stat().st_size, "torch": torch.__version__}))


def last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1] if lines else ""


def one(name: str, options) -> dict:
    out = options.cache / f"{name.replace(':', '-')}.pt2"
    row, about = {"model": name}, out.with_suffix(".json")
    if not about.exists():
        done = subprocess.run([sys.executable, __file__, "--export", name, "--out", str(out), "--most", str(options.most)], capture_output=True, text=True)
        if done.returncode != 0:
            return row | {"failed": "export", "note": last_line(done.stderr)}
        about.write_text(last_line(done.stdout))
    row |= json.loads(about.read_text())
    if options.only_export:
        return row
    if not row.get("skipped"):
        start = time.time()
        done = subprocess.run([options.guard, "verify-model", "--json", str(out)], capture_output=True, text=True)
        row["verify_seconds"] = round(time.time() - start, 1)
        try:
            row["verified"] = json.loads(last_line(done.stdout))
        except ValueError:
            row |= {"failed": "verify-model", "note": done.stderr.strip().replace(f"{out.parent}/", "") or f"exit code {done.returncode}"}
    if not options.keep:
        out.unlink(missing_ok=True)
        about.unlink(missing_ok=True)
    return row


# A cold verdict over 10,000 examples takes so many plain passes (docs/lab/diary.md, `make bench`).
PASSES = 1.65

HEAD = """# Models that were tried

Written by `make models` (`scripts/models.py`; needs torch, torchvision and timm): models at their real size with random weights, exported by `docs/export.py`, read and run by `verify-model`. `timm:` names are timm's, the others
torchvision's.

* **apart**: largest difference between a logit of ours and PyTorch's own, over eight pictures that went through decoding and preprocessing, too; the largest logit is about 5. **gradient**: largest relative difference between gradients of three weights of
  three layers and finite differences.
* **tracked**: layers that influence is computed on, and the share of the parameters in them, of those that the logits depend on (auxiliary heads of training do not count).
* **ms**: forward and backward pass of one picture on one core; the committed table's machine was busy with builds, so these are several times too long, unevenly. **verdict**: what a cold one over 10,000 pictures takes then, in minutes (1.65 plain passes, [lab/diary.md](lab/diary.md)). **factors**: what EK-FAC keeps of all layers.
  **memory**: the most that `verify-model` held.

Deep networks with batch norm and random weights are chaotic: a rounding in the first layers grows on its way. That is why some are more than 1e-5 apart, and why finite differences say little there (for `efficientnet_v2_s` PyTorch's own slope in float64 is
2e14, and its own finite differences are as far off, whatever the step; for `resnet50` PyTorch's float32 is 7e-5 from its float64). Where a slope is nothing but rounding they say as little: 1e-10 behind the
layer scales of `cait_xxs24_224`. Trained networks are not: ResNet-18 and MobileNetV2 of [examples/pytorch](../examples/pytorch/), trained, are 2e-6 and 0 apart, and
gradients agree with finite differences to 2e-9 and 3e-10.

"""


def size(value, unit: float, text: str) -> str:
    return text.format(value / unit) if isinstance(value, (int, float)) else ""


def cells(row: dict) -> list:
    v = row.get("verified", {})
    proof = v.get("proof") or {}
    tracked = f"{v['layers']}, {100 * v['tracked_share']:.1f} %" if "layers" in v else ""
    note = row.get("note") or ""
    left = v.get("untracked", [])
    if "tracked_share" in v and (v["tracked_share"] < 0.95 or any("do not depend" in why for _, why in left[:1])):
        note = "not tracked: " + "; ".join(f"`{name}` ({why})" for name, why in v.get("untracked", [])[:2]) + (", …" if v.get("untracked_tensors", 0) > 2 else "")
    if proof and proof["difference"] > 1e-5 and row.get("rounding"):
        note = f"PyTorch's own float32 is {row['rounding']:.0e} from its float64 here. {note}"
    if proof and proof["difference"] > 1e-3:
        note = f"**not the same network**: {' '.join(proof.get('likely', []))}"
    if row.get("failed") and "nf_" in row["model"]:
        note += " (It was not: NFNets standardise their weights by a batch norm that is always in training mode.)"
    if row.get("failed"):
        note = f"**not guarded** ({row['failed']}): {note}"
    seconds = v.get("seconds_per_picture")
    return [
        f"`{row['model']}`", str(row.get("side", "")), size(row.get("parameters"), 1e6, "{:.1f} M"), tracked, size(proof.get("difference"), 1, "{:.0e}"), size(v.get("gradient_difference"), 1, "{:.0e}"),
        size(seconds, 1e-3, "{:.0f}"), size(seconds and seconds * PASSES * 10_000, 60, "{:.0f}"), size(v.get("factor_bytes"), 2**30, "{:.2f} GB"), size(v.get("peak_memory"), 2**30, "{:.1f} GB"),
        " ".join(note.split()).replace("|", "\\|"),
    ]  # fmt: skip


def table(rows: dict) -> str:
    skipped = [f"`{name}` ({rows[name]['parameters'] / 1e6:.0f} M)" for name in MODELS if rows.get(name, {}).get("skipped")]
    tried = [rows[name] for name in MODELS if name in rows and not rows[name].get("skipped")]
    apart = [(row.get("verified", {}).get("proof") or {}).get("difference", float("inf")) for row in tried]
    near, same = sum(d <= 1e-5 for d in apart), sum(d <= 1e-3 for d in apart)
    text = HEAD + f"{len(tried)} models: {near} within 1e-5, {same - near} more within 1e-3, {len(tried) - same} not.\n\n"
    text += "| model | side | parameters | tracked | apart | gradient | ms | verdict | factors | memory | note |\n" + "|---" * 11 + "|\n"
    text += "".join("| " + " | ".join(cells(row)) + " |\n" for row in tried)
    if skipped:
        text += f"\nNot tried, for their size (`scripts/models.py --most 300` does): {', '.join(skipped)}.\n"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="models to do again")
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    parser.add_argument("--cache", type=pathlib.Path, default=cache / "delta-guard" / "models")
    parser.add_argument("--guard", default=str(ROOT / "target/release/delta-guard"), help="the program (default: %(default)s)")
    parser.add_argument("--most", type=float, default=100, metavar="MILLION", help="largest number of parameters (default: %(default)s million)")
    parser.add_argument("--keep", action="store_true", help="leave the exported files")
    parser.add_argument("--only-export", action="store_true", help="export and keep the files, verify nothing")
    parser.add_argument("--table", action="store_true", help="only write docs/models.md")
    parser.add_argument("--export", metavar="NAME", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.export:
        return export_one(options.export, options.out, options.most)
    unknown = [name for name in options.names if name not in MODELS]
    if unknown:
        sys.exit(f"error: {', '.join(unknown)}: not among the models\n  help: these are: {' '.join(MODELS)}")
    options.cache.mkdir(parents=True, exist_ok=True)
    kept = options.cache / "models.jsonl"
    rows = {row["model"]: row for row in map(json.loads, kept.read_text().splitlines())} if kept.exists() else {}
    if not options.table:
        if not options.only_export and not os.access(options.guard, os.X_OK):
            sys.exit(f"error: {options.guard} is not there\n  help: run `make build` first")
        for number, name in enumerate(options.names or MODELS, 1):
            done = rows.get(name)
            if done and not options.names and not (done.get("skipped") and done["parameters"] <= options.most * 1e6):
                continue
            rows[name] = one(name, options)
            if not options.only_export:
                with kept.open("a") as file:
                    file.write(json.dumps(rows[name]) + "\n")
            print(f"{number} of {len(options.names or MODELS)}: {json.dumps(rows[name])}", flush=True)
    if options.only_export:
        return
    (ROOT / "docs/models.md").write_text(table(rows))
    print(f"docs/models.md; all that was measured: {kept}")


main()
