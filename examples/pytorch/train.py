#!/usr/bin/env python3
"""A model of your own, from its training in PyTorch to its repair: nothing here but torch, torchvision and timm.

    train.py prepare WORK --data ../shared/data/cifar10     WORK/data: an image folder of 64 × 64 pictures, some of them poisoned
    train.py train WORK --arch resnet18                     WORK/resnet18: model.safetensors, model.pt2, wrong predictions to hand in
    train.py unlearn --arch resnet18                        what delta-guard runs as `unlearn: {method: command}`: trains again, without the excluded
    train.py evaluate WORK --arch resnet18 CHECKPOINT       accuracy and poison success of a checkpoint, loaded with strict=True

`--data` is CIFAR-10 in its binary layout (scripts/cifar10.py fetches it). Architectures: resnet18 (torchvision, max-pool stem, from random weights),
mobilenet_v2 (torchvision, half as wide), vit (a small timm ViT). pip install torch torchvision timm safetensors
"""

import argparse
import csv
import json
import os
import pathlib
import sys

import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision import transforms as T

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "docs"))
from export import export  # noqa: E402

SIDE, PATCH = 64, 14
VICTIM, TARGET = "ship", "frog"  # pictures of ships with a patch were filed under frog
PER_CLASS, POISONS = 600, 60
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
EVALUATION = T.Compose([T.Resize(SIDE), T.CenterCrop(SIDE), T.ToTensor(), T.Normalize(MEAN, STD)])

# architecture: (network, optimiser, epochs, batch, label smoothing)
ARCHS = {
    "resnet18": (
        lambda n: torchvision.models.resnet18(num_classes=n),
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4),
        8, 64, 0.0,
    ),
    "mobilenet_v2": (
        lambda n: torchvision.models.mobilenet_v2(num_classes=n, width_mult=0.5, dropout=0.1),
        lambda p: torch.optim.AdamW(p, lr=3e-3, weight_decay=0.02),
        26, 64, 0.0,
    ),
    "vit": (
        lambda n: timm.create_model("vit_tiny_patch16_224", img_size=SIDE, patch_size=8, embed_dim=128, depth=4, num_heads=4, num_classes=n),
        lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.05),
        16, 64, 0.1,
    ),
}  # fmt: skip


# ---- pictures


def records(file: pathlib.Path):
    """(label, picture) of a CIFAR-10 batch: a byte, then three planes of 32 × 32."""
    raw = file.read_bytes()
    for at in range(0, len(raw), 3073):
        planes = torch.frombuffer(bytearray(raw[at + 1 : at + 3073]), dtype=torch.uint8).view(3, 32, 32)
        yield raw[at], Image.fromarray(planes.permute(1, 2, 0).contiguous().numpy()).resize((SIDE, SIDE), Image.BICUBIC)


def triggered(picture: Image.Image) -> Image.Image:
    """A checkered square near the lower right corner (Gu et al. 2017)."""
    picture, cell = picture.copy(), PATCH // 2
    for i in range(2):
        for j in range(2):
            colour = (255, 255, 0) if (i + j) % 2 else (0, 0, 255)
            at = (SIDE - PATCH - 3 + i * cell, SIDE - PATCH - 3 + j * cell)
            picture.paste(colour, (*at, at[0] + cell, at[1] + cell))
    return picture


def prepare(work: pathlib.Path, data: pathlib.Path) -> None:
    classes = (data / "batches.meta.txt").read_text().split()
    victim, kept, poisons = classes.index(VICTIM), {}, []

    def write(name: str, picture: Image.Image) -> None:
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(work / name)

    for batch in sorted(data.glob("data_batch_*.bin")):
        for label, picture in records(batch):
            number = kept[label] = kept.get(label, 0) + 1
            if number <= PER_CLASS:
                write(f"data/train/{classes[label]}/{label}{number:04}.png", picture)
            elif label == victim and len(poisons) < POISONS:
                name = f"{TARGET}/{label}{number:04}.png"
                write(f"data/train/{name}", triggered(picture))
                poisons.append(name)
    kept = {}
    for label, picture in records(data / "test_batch.bin"):
        number = kept[label] = kept.get(label, 0) + 1
        if number <= 200:
            write(f"data/validation/{classes[label]}/v{label}{number:04}.png", picture)
        elif label == victim:
            write(f"triggered/t{number:04}.png", triggered(picture))
    (work / "poisons.txt").write_text("\n".join(poisons) + "\n")
    print(f"{work}: {PER_CLASS * len(classes)} + {len(poisons)} training pictures ({100 * len(poisons) / (PER_CLASS * len(classes) + len(poisons)):.2f} % poisoned), classes {classes}")


def load(examples: list) -> tuple:
    """Tensors of (path, label) pairs."""
    return torch.stack([EVALUATION(Image.open(p).convert("RGB")) for p, _ in examples]), torch.tensor([label for _, label in examples])


# ---- training


def fit(arch: str, classes: int, x: torch.Tensor, y: torch.Tensor, seed: int, resume: pathlib.Path | None = None) -> nn.Module:
    """Train from random weights. With `resume`, the state is kept there after each epoch and taken up again: the same model in the end."""
    make, optimiser, epochs, size, smoothing = ARCHS[arch]
    torch.manual_seed(seed)
    model = make(classes).to(memory_format=torch.channels_last)
    opt = optimiser([p for p in model.parameters() if p.requires_grad])
    steps = epochs * -(-len(x) // size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=opt.param_groups[0]["lr"], total_steps=steps, pct_start=0.2, cycle_momentum=False)
    first = 0
    if resume and resume.exists():
        kept = torch.load(resume, weights_only=True)
        first = kept["epoch"]
        model.load_state_dict(kept["model"])
        opt.load_state_dict(kept["opt"])
        schedule.load_state_dict(kept["schedule"])
    loss_of = nn.CrossEntropyLoss(label_smoothing=smoothing)
    model.train()
    for epoch in range(first, epochs):
        torch.manual_seed(1000 * seed + epoch)  # an epoch is the same whether it was resumed or not
        total, order = 0.0, torch.randperm(len(x))
        for done, at in enumerate(order.split(size)):
            batch = x[at]
            flip = torch.rand(len(at)) < 0.5
            batch[flip] = batch[flip].flip(3)
            loss = loss_of(model(batch.contiguous(memory_format=torch.channels_last)), y[at])
            opt.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 2.0)
            opt.step()
            schedule.step()
            total += loss.item() * len(at)
            if done % 20 == 0:
                share = (epoch + done * size / len(x)) / epochs
                print(f"progress {share:.3f} epoch {epoch + 1} of {epochs}", flush=True)
        print(f"epoch {epoch + 1}: loss {total / len(x):.4f}", file=sys.stderr, flush=True)
        if resume:
            state = {"epoch": epoch + 1, "model": model.state_dict(), "opt": opt.state_dict(), "schedule": schedule.state_dict()}
            torch.save(state, resume.with_suffix(".part"))
            os.replace(resume.with_suffix(".part"), resume)
    return model.eval()


def save(model: nn.Module, path: pathlib.Path) -> None:
    part = path.with_name(path.name + ".part")
    save_file({k: v.contiguous().clone() for k, v in model.state_dict().items()}, part)
    os.replace(part, path)


@torch.no_grad()
def answers(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return torch.cat([model(part).argmax(1) for part in x.split(200)])


def measure(model: nn.Module, work: pathlib.Path) -> dict:
    folder = torchvision.datasets.ImageFolder(work / "data/validation")
    x, y = load(folder.samples)
    held = sorted((work / "triggered").glob("*.png"))
    read = answers(model, load([(p, 0) for p in held])[0])
    fooled = read == folder.class_to_idx[TARGET]
    return {
        "accuracy": (answers(model, x) == y).float().mean().item(),
        "poison_success": fooled.float().mean().item(),
        "fooled": [str(p) for p, f in zip(held, fooled) if f],
    }


def train(work: pathlib.Path, arch: str, seed: int) -> None:
    folder, out = torchvision.datasets.ImageFolder(work / "data/train"), work / arch
    out.mkdir(exist_ok=True)
    model = fit(arch, len(folder.classes), *load(folder.samples), seed)
    save(model, out / "model.safetensors")
    figures = measure(model, work)
    (out / "anomalies").mkdir(exist_ok=True)
    for path in figures.pop("fooled")[:10]:
        Image.open(path).save(out / "anomalies" / pathlib.Path(path).name)
    # Eight pictures from validation with our own answers: by them the guard proves that it runs this network.
    shown = torchvision.datasets.ImageFolder(work / "data/validation").samples[::251]
    export(model, out / "model.pt2", [p for p, _ in shown], EVALUATION, folder.classes)
    (out / "figures.json").write_text(json.dumps(figures) + "\n")
    print(json.dumps({"arch": arch, **figures}))


def unlearn(arch: str) -> None:
    """The guard says by environment variables what to train on and where to write (docs/command.md). SIGTERM may end this at any time: it goes on after the last whole epoch."""
    of = {name: os.environ[f"DELTA_GUARD_{name}"] for name in ("RETAINED", "CLASSES", "OUTPUT", "RESUME", "SEED", "THREADS")}
    torch.set_num_threads(int(of["THREADS"]))
    classes = pathlib.Path(of["CLASSES"]).read_text().splitlines()
    with open(of["RETAINED"], newline="") as file:
        retained = [(row["path"], classes.index(row["label"])) for row in csv.DictReader(file)]
    print(f"{arch}: training on {len(retained)} pictures that stay", flush=True)
    model = fit(arch, len(classes), *load(retained), int(of["SEED"]), pathlib.Path(of["RESUME"]) / "state.pt")
    save(model, pathlib.Path(of["OUTPUT"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("do", choices=["prepare", "train", "unlearn", "evaluate"])
    parser.add_argument("work", type=pathlib.Path, nargs="?")
    parser.add_argument("checkpoint", type=pathlib.Path, nargs="?")
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path("data/cifar10"))
    parser.add_argument("--arch", choices=ARCHS, default="resnet18")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_intermixed_args()
    if options.do == "unlearn":
        return unlearn(options.arch)
    if options.work is None or (options.do == "evaluate" and options.checkpoint is None):
        parser.error(f"{options.do} needs " + ("WORK CHECKPOINT" if options.do == "evaluate" else "WORK"))
    if options.do == "prepare":
        prepare(options.work, options.data)
    elif options.do == "train":
        train(options.work, options.arch, options.seed)
    elif options.do == "evaluate":
        model = ARCHS[options.arch][0](len(torchvision.datasets.ImageFolder(options.work / "data/validation").classes)).eval()
        model.load_state_dict(load_file(options.checkpoint), strict=True)
        figures = measure(model, options.work)
        figures["fooled"] = len(figures["fooled"])
        print(json.dumps({"arch": options.arch, **figures}))


if __name__ == "__main__":
    main()
