#!/usr/bin/env python3
"""docs/export.py held against torchvision, timm and (where installed) transformers: what it stores is read back by torch, says what each library's own pipeline does,
and a wrong description does not pass. Needs torch, torchvision and timm; part of `make models`."""

import base64
import io
import json
import pathlib
import sys
import tempfile
import warnings

import timm
import torch
import torchvision
from PIL import Image
from torchvision import transforms as T
from torchvision.transforms import v2

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "docs"))
from export import export, replay, words  # noqa: E402

CLASSES = ["ant", "bee", "cicada"]
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
failed = []


class Net(torch.nn.Module):
    """Any size, any channels; dropout and batch norm tell training mode from evaluation."""

    def __init__(self, channels=3):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Conv2d(channels, 8, 5, stride=3), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Dropout(), torch.nn.Linear(32, 3))

    def forward(self, x):
        return self.net(x)


def check(name: str, good: bool, what="") -> None:
    print(f"{'ok' if good else 'FAILED'}: {name}" + (f": {what}" if what and not good else ""))
    if not good:
        failed.append(name)


def pictures(folder: pathlib.Path) -> list:
    sizes, paths = [(48, 40), (41, 57), (200, 133), (333, 61), (90, 301), (256, 256), (50, 50), (31, 52)], []
    for i, (width, height) in enumerate(sizes):
        picture = Image.fromarray((torch.rand(7, 5, 3) * 255).byte().numpy()).resize((width, height), Image.BICUBIC)
        paths.append(folder / f"{i}.{['png', 'jpg', 'bmp', 'webp'][i % 4]}")
        picture.convert("L" if i == 6 else "RGB").save(paths[-1])
    return paths


def stands(name: str, paths: list, transform, out: pathlib.Path, channels=3, **more) -> None:
    """Exported, read by torch again: pictures to the byte, logits as the model's own pipeline makes them."""
    model = Net(channels)
    with torch.no_grad():
        model(torch.randn(8, channels, 30, 30))
    # In training mode, as it comes from a training script: the logits are those of evaluation nevertheless.
    export(model.train(), out, paths, transform, CLASSES, **more)
    extra = {"delta_guard.json": ""}
    program = torch.export.load(out, extra_files=extra)
    about = json.loads(extra["delta_guard.json"])
    files = [base64.b64decode(extra[p["file"]]) for p in about["pictures"]]
    check(f"{name}: files to the byte", files == [path.read_bytes() for path in paths])
    again = torch.stack([replay(Image.open(io.BytesIO(f)).convert("RGB"), about["preprocess"]) for f in files])
    stored = torch.tensor([p["logits"] for p in about["pictures"]])
    apart = (program.module()(again) - stored).abs().max().item()
    check(f"{name}: logits from the stored words", apart < (0.02 if "tensors" in name or "transformers" in name else 1e-5), apart)
    model.load_state_dict(program.state_dict, strict=True)
    check(f"{name}: classes and mode", about["classes"] == CLASSES and about["format"] == 1 and model.training)
    check(f"{name}: nothing of this machine in it", str(pathlib.Path(__file__).parent).encode() not in out.read_bytes())


def refused(name: str, action, part: str) -> None:
    try:
        action()
        check(f"{name} is refused", False, "it passed")
    except ValueError as error:
        check(f"{name} is refused", part in str(error), str(error))


def main() -> int:
    warnings.filterwarnings("ignore")
    torch.manual_seed(7)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        paths, out = pictures(folder), folder / "model.pt2"
        tail = [T.ToTensor(), T.Normalize(*IMAGENET)]
        squash, wide = timm.create_model("resnet10t").pretrained_cfg | {"crop_mode": "squash"}, timm.create_model("resnet10t").pretrained_cfg
        good = {
            "torchvision's own words": torchvision.models.ResNet18_Weights.DEFAULT.transforms(),
            "shorter side, crop": T.Compose([T.Resize(37), T.CenterCrop(32), *tail]),
            "a crop larger than the picture": T.Compose([T.Resize(30), T.CenterCrop((33, 41)), *tail]),
            "both sides, bicubic": T.Compose([T.Resize((33, 29), interpolation=T.InterpolationMode.BICUBIC), *tail]),
            "grey in three channels": T.Compose([T.Grayscale(3), T.Resize(40), T.CenterCrop(31), *tail]),
            "v2 on tensors": v2.Compose([v2.ToImage(), v2.Resize(40, antialias=True), v2.CenterCrop(32), v2.ToDtype(torch.float32, scale=True), v2.Normalize(*IMAGENET)]),
            "timm": timm.data.create_transform(**timm.data.resolve_data_config(wide)),
            "timm, squash": timm.data.create_transform(**timm.data.resolve_data_config(squash)),
        }
        for name, transform in good.items():
            stands(name, paths, transform, out)
        stands("grey in one channel", paths, T.Compose([T.Resize(40), T.Grayscale(), T.CenterCrop(31), T.ToTensor(), T.Normalize((0.4,), (0.3,))]), out, channels=1)
        stands("one channel", paths, T.Compose([T.Resize((28, 28)), T.ToTensor()]), out, channels=1, mode="L")
        try:
            import transformers
        except ImportError:
            print("transformers is not installed: not checked")
        else:
            for processor in (transformers.ViTImageProcessor(), transformers.PvtImageProcessor()):
                stands(f"transformers, {type(processor).__name__}", paths, processor, out)

        transform = T.Compose([T.Resize(37), T.CenterCrop(32), *tail])
        right = words(transform)

        def wrong(at, word):
            return lambda: export(Net(), out, paths, transform, CLASSES, preprocess=[*right[:at], *word, *right[at + 1 :]])

        refused("another size", wrong(0, [{"resize": {"size": 38, "interpolation": "bilinear", "antialias": True}}]), "not what your transform does")
        refused("another interpolation", wrong(0, [{"resize": {"size": 37, "interpolation": "bicubic", "antialias": True}}]), "not what your transform does")
        refused("squashed instead of cut", wrong(0, [{"resize": {"size": [37, 37], "interpolation": "bilinear", "antialias": True}}]), "not what your transform does")
        refused("another crop", wrong(1, [{"center_crop": 31}]), "instead of")
        refused("no mean and std", wrong(2, []), "not what your transform does")
        refused("mean and std in units of 255", wrong(2, [{"normalize": {"mean": [123.7, 116.3, 103.5], "std": [58.4, 57.1, 57.4]}}]), "not what your transform does")
        refused("a word that there is not", wrong(1, [{"five_crop": 32}]), "no word five_crop")
        refused("a transform without a word", lambda: words(T.Compose([T.RandomHorizontalFlip(), *tail])), "RandomHorizontalFlip")
        refused("an interpolation that Pillow has not", wrong(0, [{"resize": {"size": 37, "interpolation": "nearest-exact"}}]), "no nearest-exact")
        refused("a step after mean and std", lambda: words(T.Compose([*tail, T.Resize(32)])), "after Normalize")
        refused("pixels that are not scaled", lambda: words(v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32)])), "ToDtype")
        bundle = type("Bundle", (Net,), {"forward": lambda self, x: {"logits": self.net(x)}})
        refused("a model that answers a dictionary", lambda: export(bundle(), out, paths, transform, CLASSES), "answered dict")
        refused("a class too many", lambda: export(Net(), out, paths, transform, [*CLASSES, "dragonfly"]), "4 classes")
    print(f"{len(failed)} failed")
    return int(bool(failed))


sys.exit(main())
