"""Packs what was trained into the package, scores what was packed, and writes the card that tells of it.

    python tools/train_tiny/pack.py --out build/tiny [--into hotfolder/tiny_weights] [--prompts 500]

Weights become float16. Parts that several models have in common (VAE, texts, scheduler) are there once. A model that
was packed before must be there; one that has never come to its end is left out. What was scored before, with as many
prompts, the same weights and by the same code, is not scored again.
"""

import argparse
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from score import packed, packed_name, scored, summed

from hotfolder import tiny


class Model(NamedTuple):
    """Where the weights of a model come from."""

    #: Its folder below OUT, and the last of its courses.
    kind: str
    command: str
    #: The courses before that.
    before: tuple[str, ...] = ()
    #: What the same course trained besides.
    beside: tuple[str, ...] = ()


#: In the package, by its name.
MODELS: Final = {
    "tiny": Model("text2img", "train_text2img.py", before=("vae", "vae-decoder")),
    "tiny-kontext": Model("kontext", "train_shown.py kontext"),
    "tiny-fill": Model("fill", "train_shown.py fill"),
    "tiny-control": Model("control", "train_shown.py control"),
    "tiny-redux": Model("redux", "train_redux.py", before=("redux-seeing",), beside=("redux-base",)),
    "tiny-clip": Model("clip", "train_clip.py"),
    "tiny-night": Model("night", "train_lora.py"),
}
#: Beside the weights: how each model was trained, and the curve of its last course.
COURSES: Final = "courses.json"
CURVE: Final = "{name}.curve.jsonl"
_HOUR_S: Final = 3600
#: What diffusers writes into a configuration of the machine where it was trained.
_FOLDER: Final = re.compile(rb' *"_name_or_path": "[^"]*",\n')
_CARD: Final = """# The tiny models

Small FLUX models that draw simple things on plain grounds, at 128 x 128 pixels: their architecture is that of FLUX.1,
and the unchanged pipelines of diffusers load and run them. They were trained by this project, from nothing, with
pictures that it draws itself (`tools/train_tiny/`). Licence: Apache-2.0, as the project. Weights are float16.

{models}
Shares are 0 to 1, of prompts, edits, holes, edges and pictures that none of the models was trained with. `rest_db` is
the PSNR, in dB, of what an edit was not to change, `rest_kept` how often it is above 20. Of each picture there are two
variations: `kept` is how often one shows the same things in the same colours, and no other, `differ` how often they are
not the same. `python tools/train_tiny/score.py KIND` measures all again. `*.curve.jsonl` are the curves of the
trainings, with a line for every 50 steps.

## Files

| file | sha256 |
|---|---|
{files}
"""
_MODEL: Final = """## {name}

- Training: `python tools/train_tiny/{command} --steps {steps} --pool {pool}`, seed {seed}, {hours:.1f} hours{before}
  ({machine}); curve from step {first}; code of {commits}
- Scores of {prompts} pictures that it was never trained with: {scores}
"""


def main() -> None:
    """Pack, score, and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/tiny"))
    parser.add_argument("--into", type=Path, default=tiny.WEIGHTS)
    parser.add_argument("--prompts", type=int, default=500)
    options = parser.parse_args()
    trained = {name: model for name, model in MODELS.items() if _is_trained(options.out, model.kind)}
    if missing := [name for name in _packed(options.into) if name not in trained]:
        raise SystemExit(f"{options.out} has no {', '.join(missing)}: unpack.py lays out what was packed before")
    with tempfile.TemporaryDirectory(prefix=".packed.", dir=options.into.parent) as folder:
        beside = Path(folder) / "weights"
        pack_all(trained, options.out, beside, before=options.into, prompts=options.prompts)
        # `models.TINY_VERSION` is to be raised with the weights: models that were laid out before are left alone.
        shutil.rmtree(options.into, ignore_errors=True)
        beside.rename(options.into)


def _is_trained(out: Path, kind: str) -> bool:
    """Whether a training has come to its end."""
    return (out / kind).is_dir() and (out / "courses" / kind / "course.json").exists()


def _packed(folder: Path) -> dict[str, Any]:
    """Return what is told of each model in the package."""
    return json.loads((folder / COURSES).read_text()) if (folder / COURSES).exists() else {}


def pack_all(models: Mapping[str, Model], out: Path, folder: Path, *, before: Path, prompts: int) -> None:
    """Pack models, score them, and write the card.

    Args:
        before: what was packed the last time.
        prompts: how many each is scored with.
    """
    for name, model in models.items():
        pack(out / model.kind, folder / name)
        for kind in model.beside:
            pack(out / kind, folder / packed_name(kind))
        if (curve := out / "courses" / model.kind / "curve.jsonl").exists():
            shutil.copyfile(curve, folder / CURVE.format(name=name))
    share(folder)
    known, courses, checker = _packed(before), {}, _checker()
    for name, model in models.items():
        was, by = known.get(name, {}), {"weights": _sha256(model.kind, folder), "checker": checker}
        is_known = by.items() <= was.items() and was["scores"]["prompts"] == prompts
        scores = was["scores"] if is_known else summed(scored(model.kind, prompts, weights=folder))
        print(json.dumps({"model": name, **scores}), flush=True)
        courses[name] = {**_course(out / "courses", model), **by, "scores": scores}
    (folder / COURSES).write_text(json.dumps(courses, indent=1) + "\n", encoding="utf-8")
    told = "\n".join(_told(name, course, folder / CURVE.format(name=name)) for name, course in courses.items())
    card = _CARD.format(models=told, files="\n".join(_files(folder)))
    (folder / "README.md").write_text(card, encoding="utf-8")


def pack(trained: Path, folder: Path) -> None:
    """Copy a model as diffusers saves one, with its weights in half the bytes."""
    for file in sorted(path for path in trained.rglob("*") if path.is_file()):
        to = folder / file.relative_to(trained)
        to.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as opened:
                told = opened.metadata()
            if LORA_ADAPTER_METADATA_KEY in told:
                # How strong it is. Several entries would stand in any order, and the file have another hash each time.
                told = {LORA_ADAPTER_METADATA_KEY: told[LORA_ADAPTER_METADATA_KEY]}
            weights = {name: weight.to(torch.float16) for name, weight in load_file(file).items()}
            save_file(weights, to, metadata=told)
        else:
            to.write_bytes(_FOLDER.sub(b"", file.read_bytes()))


def share(folder: Path) -> None:
    """Leave a part that several models have with the first of them only, and note where it is."""
    there: dict[tuple[str, str], str] = {}
    same = {}
    for part in sorted(path for path in folder.glob("*/*") if path.is_dir()):
        name = str(part.relative_to(folder))
        if (first := there.setdefault((part.name, _learnt(part)), name)) != name:
            same[name] = first
            shutil.rmtree(part)
    (folder / tiny.SAME).write_text(json.dumps(same, indent=1) + "\n", encoding="utf-8")


def _learnt(part: Path) -> str:
    """Return a hash of what tells a part from others; configurations say too how it was called in training."""
    files = sorted(part.iterdir())
    learnt = [path for path in files if not path.name.endswith("config.json")]
    return _hashed(learnt or files)


def _course(courses: Path, model: Model) -> dict[str, Any]:
    """Return how a model was trained: its last course, with the time and the commits of all that it came of."""
    files = (courses / name / "course.json" for name in (*model.before, model.kind))
    # Of weights that were unpacked, what came before is told by the last.
    runs = [json.loads(file.read_text()) for file in files if file.exists()]
    commits = list(dict.fromkeys(commit for run in runs for commit in run["commits"]))
    return {**runs[-1], "seconds": sum(run["seconds"] for run in runs), "commits": commits}


def _sha256(kind: str, weights: Path) -> str:
    """Return one hash of all weights by which a model is scored: its own, and those that it has in common."""
    with tempfile.TemporaryDirectory() as folder:
        return _hashed(sorted(packed(kind, Path(folder), weights).rglob("*.safetensors")))


def _checker() -> str:
    """Return one hash of the code by which models are scored."""
    names = ("captions", "check", "edits", "holes", "pictures", "scenes", "score")
    return _hashed(Path(__file__).with_name(f"{name}.py") for name in names)


def _hashed(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _told(name: str, course: Mapping[str, Any], curve: Path) -> str:
    points = curve.read_text(encoding="utf-8").splitlines() if curve.exists() else []
    return _MODEL.format(
        name=name,
        command=MODELS[name].command,
        before=f" with {' and '.join(before)}" if (before := MODELS[name].before) else "",
        first=json.loads(points[0])["step"] if points else "none",
        steps=course["step"],
        pool=course["pool"],
        seed=course["seed"],
        hours=course["seconds"] / _HOUR_S,
        machine=course["machine"],
        commits=", ".join(course["commits"]),
        prompts=course["scores"]["prompts"],
        scores=", ".join(f"{key} {value:g}" for key, value in course["scores"].items() if key != "prompts"),
    )


def _files(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*.safetensors")):
        yield f"| `{path.relative_to(folder)}` | `{_hashed([path])}` |"


if __name__ == "__main__":
    main()
