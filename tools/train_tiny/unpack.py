"""Lays out the weights in the package as the trainings left them, so that they can be trained on where they stopped.

    python tools/train_tiny/unpack.py --out build/tiny [--weights hotfolder/tiny_weights]

What is trained on begins with the packed weights (float16, averaged) at the step that they were packed at; optimizers
begin anew. A LoRA is laid out, but cannot be trained on: its training takes minutes.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import DiffusionPipeline
from models import TEXT_ENCODERS
from pack import COURSES, CURVE, MODELS
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from score import packed_name
from transformers import CLIPModel

from hotfolder import tiny

#: Kind -> the parts of it that a course keeps.
_KEPT: Final = {
    **dict.fromkeys(("text2img", "kontext", "fill", "control"), ("transformer", *TEXT_ENCODERS)),
    "redux": ("image_encoder", "image_embedder"),
    "redux-base": ("transformer",),
}


def main() -> None:
    """Lay out all models, each with a checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/tiny"))
    parser.add_argument("--weights", type=Path, default=tiny.WEIGHTS)
    options = parser.parse_args()
    if options.out.exists():
        raise SystemExit(f"{options.out} is there already: it may hold what was trained later. Move it, or say --out")
    unpack(options.out, options.weights)


def unpack(out: Path, weights: Path) -> None:
    """Lay out all models, each with a checkpoint and its curve."""
    for name, course in json.loads((weights / COURSES).read_text()).items():
        model = MODELS[name]
        folder = out / "courses" / model.kind
        trained: dict[str, Any] = {}
        for kind in (model.kind, *model.beside):
            tiny.build(packed_name(kind), out / kind, weights)
            _widen(out / kind)
            trained |= _weights(kind, out / kind)
        _keep(folder, course, trained)
        if (curve := weights / CURVE.format(name=name)).exists():
            shutil.copyfile(curve, folder / "curve.jsonl")
    if (vae := out / "text2img" / "vae").exists():
        shutil.copytree(vae, out / "vae")


def _widen(folder: Path) -> None:
    """Make float32 of the weights in a folder, as trainings do."""
    for file in folder.rglob("*.safetensors"):
        with safe_open(file, framework="pt") as opened:
            told = opened.metadata()
        save_file({name: weight.float() for name, weight in load_file(file).items()}, file, metadata=told)


def _weights(kind: str, folder: Path) -> dict[str, Any]:
    """Return the weights of what a course trains; of a LoRA none."""
    if kind == "clip":
        return {"clip": CLIPModel.from_pretrained(str(folder), local_files_only=True).state_dict()}
    if kind not in _KEPT:
        return {}
    parts = DiffusionPipeline.from_pretrained(str(folder), local_files_only=True).components
    return {name: parts[name].state_dict() for name in _KEPT[kind]}


def _keep(folder: Path, course: dict[str, Any], weights: dict[str, Any]) -> None:
    """Write what a course goes on from, and what is told of it."""
    folder.mkdir(parents=True)
    (folder / "course.json").write_text(json.dumps(course) + "\n", encoding="utf-8")
    if weights:
        torch.save({**course, "modules": weights, "averaged": weights}, folder / "checkpoint.pt")


if __name__ == "__main__":
    main()
