"""LoRAs: small changes of a model, named in a preset, switched on by a job, and off again without a trace."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Workspace
from diffusers import FluxPipeline, FluxTransformer2DModel
from diffusers.training_utils import _collate_lora_metadata
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image
from tiny_jobs import REQUESTS, engine_in, hash_of, ignore, pixels, settings_of

from hotfolder import jobfile, loras, models, tiny, tomltext
from hotfolder.dropped import read_plan
from hotfolder.engine import Request, UsedLora
from hotfolder.errors import Rejected, SettingsError
from hotfolder.gpu import GpuEngine
from hotfolder.planning import make_plan
from hotfolder.presets import Lora, Presets

FILE = "pytorch_lora_weights.safetensors"
PRESET = """
extends = "noise"
[loras.night]
repo = "{folder}"
[loras.sketch]
repo = "./sketches"
file = "one.safetensors"
"""


def make_lora(transformer: Path, folder: Path, seed: int) -> Path:
    """Save a LoRA of random weights, as diffusers does."""
    model: Any = FluxTransformer2DModel.from_pretrained(transformer)
    model.add_adapter(LoraConfig(r=2, lora_alpha=4, target_modules=["to_q", "to_k", "to_v"]))
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.copy_(torch.randn(weight.shape, generator=chance))
    FluxPipeline.save_lora_weights(
        folder, get_peft_model_state_dict(model), **_collate_lora_metadata({"transformer": model})
    )
    return folder


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GpuEngine]:
    engine = engine_in(tmp_path_factory.mktemp("workspace"))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two LoRAs of the model "noise"."""
    folder = tmp_path_factory.mktemp("loras")
    model = models.tiny_folder("noise", settings_of(folder))
    tiny.build("noise", model)
    for seed, name in enumerate(("night", "sketch")):
        make_lora(model / "transformer", folder / name, seed)
    return folder


def with_loras(folder: Path, said: str, name: str = "text2img") -> Request:
    adapters = (
        UsedLora(name=one, lora=Lora(repo=str(folder / one)), weight=weight)
        for one, weight in loras.parse(said).items()
    )
    return replace(REQUESTS[name], loras=tuple(adapters))


def test_one_changes_the_picture_and_off_again_is_as_never_on(engine: GpuEngine, folder: Path) -> None:
    never = hash_of(engine.make(REQUESTS["text2img"], ignore))
    on = engine.make(with_loras(folder, "night"), ignore)
    assert hash_of(on) != never
    assert hash_of(engine.make(REQUESTS["text2img"], ignore)) == never
    assert hash_of(engine.make(with_loras(folder, "night"), ignore)) == hash_of(on)


def test_weights_count_and_several_are_added_up(engine: GpuEngine, folder: Path) -> None:
    said = ("night", "night:0.5", "night:-1", "sketch", "night, sketch", "")
    assert len({hash_of(engine.make(with_loras(folder, text), ignore)) for text in said}) == len(said)


def test_another_preset_of_the_same_model_is_not_touched(engine: GpuEngine, folder: Path) -> None:
    """Redux paints with the model that has one switched on."""
    never = hash_of(engine_in(engine.pool._settings.workspace).make(REQUESTS["redux"], ignore))  # noqa: SLF001
    engine.make(with_loras(folder, "night"), ignore)
    assert hash_of(engine.make(REQUESTS["redux"], ignore)) == never
    img2img = hash_of(engine.make(REQUESTS["img2img"], ignore))
    assert hash_of(engine.make(with_loras(folder, "night", "img2img"), ignore)) != img2img


def test_it_is_told_what_was_on(engine: GpuEngine, folder: Path) -> None:
    told = engine.make(with_loras(folder, "night:0.5"), ignore).model["loras"]
    assert told.startswith(f"night:0.5 ({folder}/night, ")
    assert "loras" not in engine.make(REQUESTS["text2img"], ignore).model


def test_no_more_than_some_are_kept(engine: GpuEngine, folder: Path, tmp_path: Path) -> None:
    model = models.tiny_folder("noise", settings_of(folder)) / "transformer"
    first = hash_of(engine.make(with_loras(folder, "night"), ignore))
    for seed in range(10):
        lora = Lora(repo=str(make_lora(model, tmp_path / str(seed), 100 + seed)))
        adapter = UsedLora(name=f"n{seed}", lora=lora, weight=1.0)
        engine.make(replace(REQUESTS["text2img"], loras=(adapter,)), ignore)
    loaded: Any = engine.pool.models[REQUESTS["text2img"].model.key]
    assert len(loaded.pipe.transformer.peft_config) <= 8
    assert hash_of(engine.make(with_loras(folder, "night"), ignore)) == first


@pytest.mark.parametrize("content", [b"no safetensors", None])
def test_one_that_cannot_be_loaded_is_told_and_leaves_nothing(
    engine: GpuEngine, folder: Path, tmp_path: Path, content: bytes | None
) -> None:
    never = hash_of(engine.make(REQUESTS["text2img"], ignore))
    broken = tmp_path / "broken"
    broken.mkdir()
    if content is not None:
        (broken / FILE).write_bytes(content)
    adapter = UsedLora(name="broken", lora=Lora(repo=str(broken)), weight=1.0)
    with pytest.raises(SettingsError, match="broken") as caught:
        engine.make(replace(REQUESTS["text2img"], loras=(adapter,)), ignore)
    assert caught.value.code == ("model-missing" if content is None else "bad-model")
    assert hash_of(engine.make(REQUESTS["text2img"], ignore)) == never


# --- what a job may say ---


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("night", {"night": 1.0}),
        (" night:0.5 ,sketch:-2", {"night": 0.5, "sketch": -2.0}),
        ("night:0, sketch", {"sketch": 1.0}),
    ],
)
def test_a_text_names_them_with_their_weights(text: str, found: dict[str, float]) -> None:
    assert loras.parse(text) == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("night:x", "names with commas"),
        ("../night", "names with commas"),
        ("night,", "names with commas"),
        ("night, night:0.5", "night stands twice"),
        ("night:11", "from -10 to 10"),
        (", ".join(f"n{number}" for number in range(17)), "at most 16"),
    ],
)
def test_what_is_no_such_text_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        loras.parse(text)


@pytest.fixture
def presets(tmp_path: Path) -> Presets:
    (tmp_path / "ours.toml").write_text(PRESET.format(folder="./night"))
    (tmp_path / "always.toml").write_text('extends = "ours"\n[keys]\nloras = "night:0.5"\n')
    return Presets.of(tmp_path)


def read(text: str, presets: Presets) -> jobfile.JobFile:
    return jobfile.read(tomltext.parse(text.encode()), presets, "ours")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('prompt = "a"\nloras = "nigth"\n', 2),
        ('prompt = "a"\n[matrix]\nloras = ["", "night", "nigth:0.5"]\n', 3),
        ('prompt = "a"\n[stage.generate]\nloras = "nigth"\n', 3),
    ],
)
def test_a_name_that_the_preset_does_not_have_is_refused_at_its_line(presets: Presets, text: str, line: int) -> None:
    with pytest.raises(Rejected) as caught:
        read(text, presets)
    (problem,) = caught.value.problems
    assert (problem.code, problem.line) == ("bad-value", line)
    assert problem.message == "loras: preset 'ours' has no LoRA 'nigth'"
    assert problem.hint == "did you mean 'night'? it has night, sketch"


def test_a_preset_without_any_says_how_to_name_one(presets: Presets) -> None:
    with pytest.raises(Rejected, match="has no LoRA") as caught:
        read('preset = "noise"\nprompt = "a"\nloras = "night"\n', presets)
    assert "[loras.NAME]" in caught.value.problems[0].hint


def test_a_preset_may_have_some_switched_on_and_a_job_switches_them_off(presets: Presets) -> None:
    plans = [
        make_plan("a_take01", read(f'preset = "always"\nprompt = "a"\n{own}', presets), (), drawn_seed=1)
        for own in ("", 'loras = ""\n', 'loras = "sketch"\n')
    ]
    assert [plan.item(1).generation(1).loras for plan in plans] == ["night:0.5", None, "sketch"]
    assert [sorted(plan.presets["always"].loras or {}) for plan in plans] == [["night"], ["night"], ["night", "sketch"]]


def test_a_preset_that_switches_on_what_it_does_not_have_is_told(presets: Presets, tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text('extends = "ours"\n[keys]\nloras = "nigth"\n')
    with pytest.raises(Rejected, match=r"wrong\.toml: keys\.loras: preset 'wrong' has no LoRA 'nigth'"):
        read('preset = "wrong"\nprompt = "a"\n', presets)


def test_a_dropped_plan_names_only_what_the_preset_has_here(presets: Presets, tmp_path: Path) -> None:
    plan = make_plan("a_take01", read('prompt = "a"\nloras = "night"\n', presets), (), drawn_seed=1)
    assert read_plan(tomltext.parse(plan.dump()), presets) == plan
    (tmp_path / "ours.toml").write_text(PRESET.format(folder="./another"))
    with pytest.raises(Rejected, match="another LoRA 'night'") as caught:
        read_plan(tomltext.parse(plan.dump()), presets)
    assert caught.value.problems[0].code == "wrong-model"


def test_through_the_folder_a_batch_with_and_without_and_the_same_again_from_its_sidecar(
    workspace: Workspace, serve: Any, folder: Path
) -> None:
    (workspace.root / "presets").mkdir(exist_ok=True)
    (workspace.root / "presets/ours.toml").write_text(PRESET.format(folder=folder / "night"))
    small = "width = 64\nheight = 64\nsteps = 2\nseed = 3\n"
    workspace.drop(
        "a.toml", f'preset = "ours"\nprompt = "a mug"\n{small}[matrix]\nloras = ["", "night", "night:0.5"]\n'
    )
    serve(GpuEngine(workspace.settings()))
    status = workspace.wait_for("a_take01", timeout_s=60)
    assert status["state"] == "completed", status
    pictures = [(workspace.outputs / "a_take01" / one["file"]).read_bytes() for one in status["outputs"]]
    assert len(set(pictures)) == 3

    again = (workspace.outputs / "a_take01" / f"{status['outputs'][1]['file']}.toml").read_text()
    assert "night:1" in again
    workspace.drop("again.toml", again)
    (output,) = workspace.wait_for("again_take01", timeout_s=60)["outputs"]
    made = (
        workspace.outputs / "a_take01" / status["outputs"][1]["file"],
        workspace.outputs / "again_take01" / output["file"],
    )
    assert len({pixels(Image.open(path)) for path in made}) == 1
