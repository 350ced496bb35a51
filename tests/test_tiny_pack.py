"""How trained models are packed into the package, and laid out from it again: to be used, and to be trained on."""

import json
from pathlib import Path

import pytest
import torch
from course import Course
from diffusers import FluxPipeline
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from models import TEXT_ENCODERS, make_clip
from pack import COURSES, CURVE, pack, share
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from unpack import unpack

from hotfolder import tiny
from hotfolder.models import Checkpoint


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models that have all in common but what each learnt."""
    folder = tmp_path_factory.mktemp("trained")
    for name, kind in (("noise", "text2img"), ("noise-kontext", "kontext")):
        tiny.build(name, folder / kind)
    file = folder / "kontext/text_encoder_2/model.safetensors"
    save_file({name: weight + 1 for name, weight in load_file(file).items()}, file, metadata={"format": "pt"})
    return folder


@pytest.fixture
def weights(trained: Path, tmp_path: Path) -> Path:
    """The package as it is with both packed into it."""
    folder = tmp_path / "weights"
    for kind, name in (("text2img", "tiny"), ("kontext", "tiny-kontext")):
        pack(trained / kind, folder / name)
    share(folder)
    return folder


def test_what_models_have_in_common_is_there_once(weights: Path) -> None:
    parts = {"scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "vae"}
    own = {"tiny": {*parts, "transformer"}, "tiny-kontext": {"text_encoder_2", "transformer"}}
    for name, there in own.items():
        assert {path.name for path in (weights / name).iterdir()} == {"model_index.json", *there}
    elsewhere = {f"tiny-kontext/{part}": f"tiny/{part}" for part in parts - own["tiny-kontext"]}
    assert json.loads((weights / tiny.SAME).read_text()) == elsewhere


@pytest.mark.parametrize(("name", "kind"), [("tiny", "text2img"), ("tiny-kontext", "kontext")])
def test_it_is_laid_out_whole_with_its_weights_in_half_the_bytes(
    weights: Path, trained: Path, tmp_path: Path, name: str, kind: str
) -> None:
    tiny.build(name, tmp_path / name, weights)
    laid_out = Checkpoint(repo=name, folder=tmp_path / name, revision="")
    assert laid_out.is_whole()
    assert laid_out.parts() == Checkpoint(repo=kind, folder=trained / kind, revision="").parts()
    for file in (trained / kind).rglob("*.safetensors"):
        before, now = load_file(file), load_file(tmp_path / name / file.relative_to(trained / kind))
        assert {key: weight.half().float().sum() for key, weight in before.items()} == {
            key: weight.float().sum() for key, weight in now.items()
        }
        assert {weight.dtype for weight in now.values()} == {torch.float16}
    assert "dropout_rate" in (tmp_path / name / "text_encoder_2/config.json").read_text()


def test_a_lora_is_packed_with_its_strength_and_to_the_same_bytes_each_time(tmp_path: Path) -> None:
    told = {"format": "pt", LORA_ADAPTER_METADATA_KEY: "{}"}
    (tmp_path / "night").mkdir()
    save_file({"weight": torch.ones(2)}, tmp_path / "night/lora.safetensors", metadata=told)
    pack(tmp_path / "night", tmp_path / "packed")
    with safe_open(tmp_path / "packed/lora.safetensors", framework="pt") as packed:
        # Two entries would stand in any order.
        assert packed.metadata() == {LORA_ADAPTER_METADATA_KEY: "{}"}


def test_what_was_packed_is_trained_on_where_it_stopped(weights: Path, trained: Path, tmp_path: Path) -> None:
    point = '{"step": 50, "seconds": 1.0, "loss": 0.5}\n'
    (weights / CURVE.format(name="tiny")).write_text(point)
    told = {"step": 50, "seconds": 9.0, "seed": 7, "commits": ["abc"], "machine": "GPU", "pool": 9}
    (weights / COURSES).write_text(json.dumps({"tiny": told}))
    unpack(tmp_path / "out", weights)

    parts = FluxPipeline.from_pretrained(str(tmp_path / "out/text2img"), local_files_only=True).components
    before = FluxPipeline.from_pretrained(str(trained / "text2img"), local_files_only=True).components
    modules = {name: parts[name] for name in ("transformer", *TEXT_ENCODERS)}
    folder = tmp_path / "out/courses/text2img"
    course = Course(folder, modules, steps=51, rate=0.0, muon=0.0, ema=0.9, seed=7)
    assert (course.step, course.seconds, course.seed) == (50, 9.0, 7)
    for name, module in modules.items():
        assert {weight.dtype for weight in module.parameters()} == {torch.float32}
        for key, weight in before[name].state_dict().items():
            assert torch.equal(module.state_dict()[key], weight.half().float())
            assert torch.equal(course.averaged[name].state_dict()[key], weight.half().float())
    course.run(lambda _: sum(weight.sum() for weight in modules["transformer"].parameters()) * torch.ones(()))
    assert course.step == 51
    assert (folder / "curve.jsonl").read_text() == point
    assert (tmp_path / "out/vae/config.json").exists()


def test_a_package_that_may_not_be_written_is_no_hindrance(weights: Path, tmp_path: Path) -> None:
    for path in [weights, *weights.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    tiny.build("tiny", tmp_path / "tiny", weights)
    assert {path.stat().st_mode & 0o200 for path in (tmp_path / "tiny").rglob("*")} == {0o200}


def test_words_that_are_often_said_are_one_token_of_clip() -> None:
    said = [f"a {colour} circle on {ground}" for colour in ("red", "green") for ground in ("blue", "white")] * 50
    tokenizer = make_clip(said)["tokenizer"]
    assert tokenizer.tokenize("a red circle") == ["a</w>", "red</w>", "circle</w>"]
    assert len(tokenizer.tokenize("castle")) > 1
    assert tokenizer("a red circle").input_ids[0] == tokenizer.bos_token_id
