"""The commands that train the tiny models, a step each, and pack them; and what is told of those that are shipped."""

import hashlib
import importlib
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pack
import pytest
import train_vae
from unpack import unpack

from hotfolder import models, tiny

#: What each is to do at least, of what it was never trained with.
WANTED: Mapping[str, Mapping[str, float]] = {
    "tiny": {"colour": 0.99, "thing": 0.95, "place": 0.90},
    "tiny-kontext": {"follows": 0.80, "rest_kept": 0.95, "rest_db": 20},
    "tiny-fill": {"follows": 0.80},
    "tiny-control": {"follows": 0.60, "colour": 0.95},
    "tiny-redux": {"kept": 0.8, "differ": 0.85},
    "tiny-clip": {"first": 0.75, "before_others": 0.99},
    "tiny-night": {"night": 0.95},
}
#: All weights together, in millions of bytes.
MOST_MB = 30
#: `models.TINY_VERSION`, and one hash of all weights that go by it.
VERSION = ("7", "3cbcef9bcc99")
#: Few scenes: each training is to go on for a step.
POOL = 8
GOING_ON = (
    ("train_text2img", "text2img"),
    ("train_shown kontext", "kontext"),
    ("train_shown fill", "fill"),
    ("train_shown control", "control"),
    ("train_redux", "redux"),
    ("train_clip", "clip"),
)

Command = Callable[..., None]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Command:
    """Return what runs a command of tools/train_tiny."""

    def run(line: str, out: Path, **told: int | Path) -> None:
        name, *words = line.split()
        keys = [f"--{key}={one}" for key, one in told.items()]
        monkeypatch.setattr(sys, "argv", [name, *words, f"--out={out}", *keys])
        module = importlib.import_module(name)
        # To compile a model takes a minute, and is worth it for some thousand steps.
        monkeypatch.setattr(module, "compiled", lambda module: module, raising=False)
        module.main()

    return run


def step_of(out: Path, kind: str) -> int:
    return int(json.loads((out / "courses" / kind / "course.json").read_text())["step"])


def tokens(folder: Path) -> dict[str, Any]:
    """Return the tokens of each tokenizer in a folder, with their numbers."""
    return {
        str(path.relative_to(folder)): json.loads(path.read_text())["model"]["vocab"]
        for path in folder.rglob("tokenizer.json")
    }


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(folder.rglob("*.safetensors"))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# Said by torch where a CPU computes in bfloat16: FLUX norms what it attends to in that, with weights of float32.
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
@pytest.mark.timeout(300)
def test_each_training_goes_on_from_what_is_shipped_and_all_is_packed_again(command: Command, tmp_path: Path) -> None:
    out = tmp_path / "out"
    unpack(out, tiny.WEIGHTS)
    for line, kind in GOING_ON:
        before, words, step = hashes(out / kind), tokens(out / kind), step_of(out, kind)
        command(line, out, steps=step + 1, pool=POOL)
        assert step_of(out, kind) == step + 1
        assert tokens(out / kind) == words, "a word that has another number is another one"
        after = hashes(out / kind)
        assert after.keys() == before.keys()
        assert after != before, kind
    command("train_lora", out, steps=1, pool=4 * POOL)

    shutil.rmtree(out / "courses/redux")
    # In the first step the rate is still 0.
    command("train_redux", out, **{"steps": 2, "seeing-steps": 2, "pool": POOL})
    assert step_of(out, "redux-seeing") == step_of(out, "redux") == 2

    shipped = {name: pack.MODELS[name] for name in WANTED}
    pack.pack_all(shipped, out, tmp_path / "packed", before=tiny.WEIGHTS, prompts=2)
    packed = json.loads((tmp_path / "packed" / pack.COURSES).read_text())
    assert packed.keys() == WANTED.keys()
    for name, course in packed.items():
        assert course["scores"]["prompts"] == 2
        assert course["scores"].keys() >= WANTED[name].keys()
    assert hashes(tmp_path / "packed").keys() == hashes(tiny.WEIGHTS).keys()


@pytest.mark.timeout(300)
def test_the_vae_is_trained_first(tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_vae, "_SCALED", 4)
    monkeypatch.setattr(train_vae, "_SCORED", 4)
    command("train_vae", tmp_path, **{"steps": 2, "decoder-steps": 2, "pool": POOL})
    assert hashes(tmp_path / "vae").keys() == {"diffusion_pytorch_model.safetensors"}


def test_a_model_that_was_packed_does_not_vanish(tmp_path: Path, command: Command) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / pack.COURSES).write_text('{"tiny": {}, "tiny-clip": {}}')
    with pytest.raises(SystemExit, match="has no tiny, tiny-clip"):
        command("pack", tmp_path / "out", into=weights)
    assert (weights / pack.COURSES).exists()


@pytest.mark.parametrize("name", WANTED)
def test_a_shipped_model_does_what_is_wanted_of_it(name: str) -> None:
    course = json.loads((tiny.WEIGHTS / pack.COURSES).read_text())[name]
    assert course["scores"]["prompts"] == 500
    assert {key: course["scores"][key] for key, least in WANTED[name].items() if course["scores"][key] < least} == {}


def test_other_weights_go_by_another_version() -> None:
    """Models that were laid out before are left alone, by their version."""
    digest = hashlib.sha256(" ".join(hashes(tiny.WEIGHTS).values()).encode()).hexdigest()
    assert (models.TINY_VERSION, digest[:12]) == VERSION


def test_the_card_tells_of_the_weights_that_are_there() -> None:
    card = (tiny.WEIGHTS / "README.md").read_text()
    there = hashes(tiny.WEIGHTS)
    assert [line for line in card.splitlines() if line.startswith("| `")] == [
        f"| `{file}` | `{digest}` |" for file, digest in there.items()
    ]
    assert all(f"\n## {name}\n" in card for name in WANTED)
    assert sum((tiny.WEIGHTS / file).stat().st_size for file in there) < MOST_MB * 1e6
