"""Write your model as one file that delta-guard reads, with a proof that it was read right: eight pictures and what your own code says of them.

    from export import export                    # this file beside your script; needs torch, and Pillow

    export(model, "model.pt2", pictures, transform, classes)

model      an nn.Module: a float batch [n, channels, height, width] in, logits [n, classes] out
pictures   paths of some eight picture files as they arrive (JPEG, PNG, …), of several classes and sizes; their bytes are stored, so nothing private
transform  what your evaluation does with a PIL picture: torchvision's Compose, WEIGHTS.transforms(), timm's create_transform, or an image processor of
           transformers
classes    names of the classes, in the order of the logits
"""

import base64
import copy
import json
import pathlib

import torch
from PIL import Image


def words(transform) -> list:
    """The evaluation transform in torchvision's words. What has no words is an error: give `preprocess=[…]` yourself."""

    def both(size):
        return size if isinstance(size, int) else size[0] if len(size) == 1 else list(size)

    def resize(t, size):
        smooth = not tensor or bool(t.antialias)  # PIL's resize always is
        return {"resize": {"size": both(size), "interpolation": str(getattr(t.interpolation, "value", t.interpolation)), "antialias": smooth}}

    kind, found, tensor = type(transform).__name__, [], False
    if kind == "ImageClassification":  # torchvision: WEIGHTS.transforms()
        found = [resize(transform, transform.resize_size), {"center_crop": transform.crop_size[0]}]
        return found + [{"normalize": {"mean": list(transform.mean), "std": list(transform.std)}}]
    if hasattr(transform, "image_mean"):  # transformers
        return processor(transform)
    for t in getattr(transform, "transforms", [transform]):
        kind = type(t).__name__
        if any("normalize" in word for word in found):
            raise ValueError(f"{kind} comes after Normalize; delta-guard normalises last. Describe what your evaluation does with preprocess=[…]")
        if kind == "Resize" and getattr(t, "max_size", None) is None:
            found.append(resize(t, t.size))
        elif kind == "CenterCrop":
            found.append({"center_crop": t.size if isinstance(t.size, int) else t.size[0] if len(set(t.size)) == 1 else list(t.size)})
        elif kind == "Grayscale":
            found.append({"grayscale": {"channels": t.num_output_channels}})
        elif kind == "Normalize":
            found.append({"normalize": {"mean": [round(float(v), 7) for v in t.mean], "std": [round(float(v), 7) for v in t.std]}})
        elif kind in ("ToTensor", "MaybeToTensor", "PILToTensor", "ToImage"):
            tensor = True
        elif kind != "ConvertImageDtype" and not (kind == "ToDtype" and t.scale):
            raise ValueError(f"delta-guard has no word for {kind}; describe what your evaluation does with preprocess=[…] (docs/guard-your-model.md)")
    return found


def processor(p) -> list:
    """The same of an image processor of transformers. Some do more than they say: `export` finds that."""
    size, found = dict(p.size or {}), []
    edge, cut = size.get("shortest_edge"), getattr(p, "crop_pct", None)
    if p.do_resize:
        to = [size["height"], size["width"]] if not edge else edge if cut is None else int(edge / cut) if edge < 384 else [edge, edge]  # `crop_pct`: ConvNeXT's
        kind = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}[int(p.resample)]
        found.append({"resize": {"size": to, "interpolation": kind, "antialias": True}})
    if getattr(p, "do_center_crop", None):
        height, width = p.crop_size["height"], p.crop_size["width"]
        found.append({"center_crop": height if height == width else [height, width]})
    elif cut and edge < 384:
        found.append({"center_crop": edge})
    return found + ([{"normalize": {"mean": list(p.image_mean), "std": list(p.image_std)}}] if p.do_normalize else [])


def replay(picture, preprocess) -> torch.Tensor:
    """What the words say, done by Pillow: so that a wrong description is found here, not in the guard."""
    mean, std = [0.0], [1.0]
    for word in preprocess:
        ((kind, value),) = word.items()
        width, height = picture.size
        if kind == "resize":
            to, short = value["size"], min(width, height)
            new = (to[1], to[0]) if isinstance(to, list) else (to if width == short else int(to * width / short), to if height == short else int(to * height / short))
            if value["interpolation"].upper() not in Image.Resampling.__members__:
                raise ValueError(f"delta-guard resizes as Pillow does, which has no {value['interpolation']}: {', '.join(Image.Resampling.__members__).lower()}")
            picture = picture.resize(new, Image.Resampling[value["interpolation"].upper()])
        elif kind == "center_crop":
            to = value if isinstance(value, list) else [value, value]
            left, top = (-((t - s) // 2) if t > s else round((s - t) / 2) for s, t in ((width, to[1]), (height, to[0])))
            picture = picture.crop((left, top, left + to[1], top + to[0]))
        elif kind == "grayscale":
            picture = picture.convert("L") if value["channels"] == 1 else picture.convert("L").convert("RGB")
        elif kind == "normalize":
            mean, std = value["mean"], value["std"]
        else:
            raise ValueError(f"delta-guard has no word {kind}: resize, center_crop, grayscale, normalize")
    pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(picture.height, picture.width, -1).permute(2, 0, 1) / 255
    return (pixels - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1)


def export(model, out, pictures, transform, classes, preprocess=None, mode="RGB") -> None:
    """Write `out` (.pt2). `mode` is how your code opens pictures: "RGB" (ImageFolder's way) or "L" (one channel)."""
    model = copy.deepcopy(model).cpu().float().eval()
    preprocess = words(transform) if preprocess is None else preprocess
    if mode == "L":
        preprocess = [{"grayscale": {"channels": 1}}, *preprocess]
    if not any("normalize" in word for word in preprocess):
        preprocess = [*preprocess, {"normalize": {"mean": [0.0] * (1 if mode == "L" else 3), "std": [1.0] * (1 if mode == "L" else 3)}}]
    see = (lambda picture: transform(picture, return_tensors="pt")["pixel_values"][0]) if hasattr(transform, "image_mean") else transform
    opened = [Image.open(p).convert(mode) for p in pictures]
    batch = torch.stack([see(picture) for picture in opened])
    if all(word.get("resize", {}).get("antialias", True) for word in preprocess):  # Pillow cannot do it without
        for path, picture, ours in zip(pictures, opened, batch):
            said = replay(picture, preprocess)
            std = torch.tensor(preprocess[-1]["normalize"]["std"]).view(-1, 1, 1)
            off = ((said - ours) * std).abs().max().item() * 255 if said.shape == ours.shape else None
            if off is None or not off <= 3:
                what = f"up to {off:.0f} of 255 off" if off is not None else f"{list(said.shape)} instead of {list(ours.shape)}"
                raise ValueError(f"{path}: {json.dumps(preprocess)} is not what your transform does ({what}); describe it with preprocess=[…]")
    with torch.no_grad():
        logits = model(batch)
    if not isinstance(logits, torch.Tensor):
        raise ValueError(f"the model answered {type(logits).__name__}, not one tensor of logits: wrap it (docs/guard-your-model.md, transformers)")
    if logits.shape != (len(pictures), len(classes)):
        raise ValueError(f"{len(pictures)} pictures and {len(classes)} classes, but the model answered {tuple(logits.shape)}")

    ep = torch.export.export(model, (torch.zeros(2, *batch.shape[1:]),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    apart = (ep.module()(batch) - logits).abs().max().item()
    if not apart <= 1e-3:
        raise ValueError(f"the exported program answers otherwise than the model (by {apart:g}): does its forward depend on the data or on chance?")
    for node in ep.graph.nodes:  # where on your machine it was traced: half of the file, and nobody's business
        node.meta.pop("stack_trace", None)

    extra, stored = {}, []
    for i, (path, row) in enumerate(zip(map(pathlib.Path, pictures), logits.tolist())):
        file = f"picture_{i}{path.suffix.lower()}.base64"  # torch keeps text only
        extra[file] = base64.b64encode(path.read_bytes()).decode()
        stored.append({"file": file, "name": path.name, "logits": row})
    about = {"format": 1, "classes": list(classes), "preprocess": preprocess, "pictures": stored}
    torch.export.save(ep, out, extra_files={"delta_guard.json": json.dumps(about)} | extra)
    print(f"{out}: {len(classes)} classes, {sum(p.numel() for p in model.parameters())} parameters, {len(pictures)} pictures with their logits, preprocessing {json.dumps(preprocess)}")
