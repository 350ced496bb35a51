"""LoRAs: small changes of a model, named in a preset, switched on by a job, and off again without a trace."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Workspace
from diffusers import FluxPipeline
from diffusers.training_utils import _collate_lora_metadata
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image
from safetensors.torch import save_file
from tiny_jobs import REQUESTS, engine_in, hash_of, ignore, pixels, settings_of
from waiting import wait_until

from hotfolder import jobfile, lanes, loras, models, tiny, tomltext
from hotfolder.batch import Found
from hotfolder.dropped import read_plan
from hotfolder.engine import Request, UsedLora
from hotfolder.errors import Rejected, SettingsError
from hotfolder.gpu import GpuEngine
from hotfolder.plan import Plan
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


def make_lora(model: Path, folder: Path, seed: int, *parts: str) -> Path:
    """Save a LoRA of random weights, as diffusers does. Args: parts: that it changes; by default the transformer."""
    loaded = FluxPipeline.from_pretrained(model)
    saved: dict[str, Any] = {}
    chance = torch.Generator().manual_seed(seed)
    for part in parts or ("transformer",):
        module: Any = getattr(loaded, part)
        where = ["to_q", "to_k", "to_v"] if part == "transformer" else ["q_proj", "v_proj"]
        module.add_adapter(LoraConfig(r=2, lora_alpha=4, target_modules=where))
        with torch.no_grad():
            for name, weight in module.named_parameters():
                if "lora_" in name:
                    weight.copy_(torch.randn(weight.shape, generator=chance))
        saved |= {f"{part}_lora_layers": get_peft_model_state_dict(module)} | _collate_lora_metadata({part: module})
    FluxPipeline.save_lora_weights(folder, **saved)
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
        make_lora(model, folder / name, seed)
    make_lora(model, folder / "both", 9, "transformer", "text_encoder")
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
    model = models.tiny_folder("noise", settings_of(folder))
    first = hash_of(engine.make(with_loras(folder, "night"), ignore))
    for seed in range(10):
        lora = Lora(repo=str(make_lora(model, tmp_path / str(seed), 100 + seed)))
        adapter = UsedLora(name=f"n{seed}", lora=lora, weight=1.0)
        engine.make(replace(REQUESTS["text2img"], loras=(adapter,)), ignore)
    loaded: Any = engine.pool.models[REQUESTS["text2img"].model.key]
    assert len(loaded.pipe.transformer.peft_config) <= 8
    assert hash_of(engine.make(with_loras(folder, "night"), ignore)) == first


@pytest.mark.parametrize("first", ["text2img", "kontext"])
def test_one_that_changes_a_text_encoder_too_serves_two_models_that_share_it(folder: Path, first: str) -> None:
    second = "kontext" if first == "text2img" else "text2img"
    engine = engine_in(folder)
    never = {name: hash_of(engine.make(REQUESTS[name], ignore)) for name in (first, second)}
    on = {name: hash_of(engine.make(with_loras(folder, "both", name), ignore)) for name in (first, second)}
    assert len({*never.values(), *on.values()}) == 4
    assert {name: hash_of(engine.make(REQUESTS[name], ignore)) for name in never} == never
    alone = engine_in(folder)
    assert hash_of(alone.make(with_loras(folder, "both", second), ignore)) == on[second]


def test_two_names_of_the_same_content_both_count(engine: GpuEngine, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "night", tmp_path / "again")
    twice = tuple(
        UsedLora(name=where.name, lora=Lora(repo=str(where)), weight=0.5)
        for where in (folder / "night", tmp_path / "again")
    )
    made = engine.make(replace(REQUESTS["text2img"], loras=twice), ignore)
    assert hash_of(made) == hash_of(engine.make(with_loras(folder, "night"), ignore))


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("transformer.transformer_blocks.0.attn.norm_q.weight", "could not be switched off"),
        ("unet.down_blocks.0.attn.to_q.lora_A.weight", "changes no part of this model"),
        ("transformer.transformer_blocks.0.attn.to_q.lora_A.weight", "cannot be loaded"),
    ],
)
def test_one_for_another_model_is_told_and_leaves_nothing(
    engine: GpuEngine, folder: Path, tmp_path: Path, key: str, said: str
) -> None:
    never = hash_of(engine.make(REQUESTS["text2img"], ignore))
    other = {key: torch.ones(2, 99), key.replace("lora_A", "lora_B"): torch.ones(99, 2)}
    save_file(other, tmp_path / FILE)
    foreign = UsedLora(name="foreign", lora=Lora(repo=str(tmp_path)), weight=1.0)
    for _ in range(2):  # what was left of the first try would serve the second
        with pytest.raises(SettingsError, match=said) as caught:
            engine.make(replace(REQUESTS["text2img"], loras=(foreign,)), ignore)
        assert caught.value.code == "bad-model"
        assert caught.value.hint == f"mend {tmp_path}, or name another one in the preset"
    assert hash_of(engine.make(REQUESTS["text2img"], ignore)) == never
    assert hash_of(engine.make(with_loras(folder, "night"), ignore)) != never


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


def planned(text: str, presets: Presets, **more: Any) -> Plan:
    job = jobfile.read(tomltext.parse(text.encode()), presets, "ours", **more)
    return make_plan("a_take01", job, (), drawn_seed=1)


def problems_of(text: str, presets: Presets, **more: Any) -> list[str]:
    with pytest.raises(Rejected) as caught:
        planned(text, presets, **more)
    return [problem.message for problem in caught.value.problems]


def test_in_a_list_each_row_is_read_with_its_own_preset(presets: Presets, tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text('extends = "noise"\n[loras.ink]\nrepo = "./ink"\n')
    rows = b"prompt,preset,loras\na,ours,night\nb,other,ink\n"
    plan = planned('items = "list.csv"\n', presets, found=Found(items=rows))
    assert [plan.item(number).generation(1).loras for number in (1, 2)] == ["night", "ink"]
    assert [sorted(plan.presets[name].loras or {}) for name in ("ours", "other")] == [["night"], ["ink"]]
    crossed = Found(items=rows.replace(b"ink", b"night"))
    assert problems_of('items = "list.csv"\n', presets, found=crossed) == ["loras: preset 'other' has no LoRA 'night'"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('prompt = "a"\n[matrix]\n"stage.generate.loras" = ["", "night", "nigth"]\n', "'ours' has no LoRA 'nigth'"),
        (
            'prompt = "a"\n[stage.generate]\nloras = "night"\n[matrix]\n"stage.generate.preset" = ["ours", "noise"]\n',
            "'noise' has no LoRA 'night'",
        ),
        ('prompt = "a"\nloras = 3\n', "loras = 3"),
        ('prompt = "a"\nloras = ["night"]\n', "loras"),
        (
            'image = "a.png"\n[matrix]\nloras = ["x y"]\n[[stages]]\nstage = "upscale"\nby = "tiny-upscale"\n',
            "no stage of this job takes loras",
        ),
        ('prompt = "a"\n[stage.generate]\npreset = "tiny-clip"\n', "is of the kind clip"),
    ],
)
def test_what_cannot_be_is_told_wherever_it_stands(presets: Presets, text: str, said: str) -> None:
    assert any(said in message for message in problems_of(text, presets))


def test_of_a_lane_its_file_is_named(presets: Presets) -> None:
    lane = lanes.read_text(tomltext.parse(b'loras = "nigth"\n'), "night/folder.toml")
    assert problems_of('prompt = "a"\n', presets, lane=lane) == [
        "night/folder.toml: loras: preset 'ours' has no LoRA 'nigth'"
    ]


def test_a_preset_without_any_says_how_to_name_one(presets: Presets) -> None:
    with pytest.raises(Rejected, match="has no LoRA") as caught:
        read('preset = "noise"\nprompt = "a"\nloras = "night"\n', presets)
    assert "[loras.NAME]" in caught.value.problems[0].hint


def test_a_preset_may_have_some_switched_on_and_a_job_switches_them_off(presets: Presets) -> None:
    plans = [
        planned(f'preset = "always"\nprompt = "a"\n{own}', presets)
        for own in ("", 'loras = ""\n', 'loras = "sketch"\n')
    ]
    assert [plan.item(1).generation(1).loras for plan in plans] == ["night:0.5", None, "sketch"]
    assert [sorted(plan.presets["always"].loras or {}) for plan in plans] == [["night"], ["night"], ["night", "sketch"]]


def test_a_preset_that_switches_on_what_it_does_not_have_is_told(presets: Presets, tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text('extends = "ours"\n[keys]\nloras = "nigth"\n')
    with pytest.raises(Rejected, match=r"wrong\.toml: keys\.loras: preset 'wrong' has no LoRA 'nigth'"):
        read('preset = "wrong"\nprompt = "a"\n', presets)


def test_a_dropped_plan_names_only_what_the_preset_has_here(presets: Presets, tmp_path: Path) -> None:
    plan = planned('prompt = "a"\nloras = "night"\n', presets)
    assert read_plan(tomltext.parse(plan.dump()), presets) == plan
    (tmp_path / "ours.toml").write_text(PRESET.format(folder="./another"))
    with pytest.raises(Rejected, match="another LoRA 'night'") as caught:
        read_plan(tomltext.parse(plan.dump()), presets)
    assert caught.value.problems[0].code == "wrong-model"


def test_a_dropped_plan_that_names_more_than_it_has_is_refused(presets: Presets) -> None:
    plan = planned('prompt = "a"\nloras = "night"\n', presets)
    with pytest.raises(Rejected, match="has no LoRA 'dusk'"):
        read_plan(tomltext.parse(plan.dump().replace(b'"night"', b'"dusk"')), presets)


def test_a_resume_may_switch_on_what_the_preset_has(workspace: Workspace, serve: Any) -> None:
    (workspace.root / "presets").mkdir(exist_ok=True)
    (workspace.root / "presets/ours.toml").write_text(PRESET.format(folder="./night"))
    (workspace.root / "presets/always.toml").write_text('extends = "ours"\n[keys]\nloras = "night:0.5"\n')
    stages = '[[stages]]\nstage = "select"\nby = "review"\n[[stages]]\nstage = "generate"\nstrength = 0.5\n'
    workspace.drop("a.toml", f'preset = "ours"\nprompt = "a"\n[[stages]]\nstage = "generate"\nid = "first"\n{stages}')
    serve()
    workspace.wait_for("a_take01", "review")
    workspace.drop("a.resume", 'picks = [1]\n[stage.generate]\nloras = "nigth"\n')
    wait_until(lambda: "nigth" in (workspace.outputs / "a_take01/status.toml").read_text(), 20)
    assert workspace.state("a_take01") == "review"
    (workspace.root / "presets/wrong.toml").write_text('extends = "ours"\n[keys]\nloras = 3\n')
    workspace.drop("a.resume", 'picks = [1]\n[stage.generate]\npreset = "wrong"\n')
    wait_until(lambda: "keys.loras" in (workspace.outputs / "a_take01/status.toml").read_text(), 20)
    workspace.drop("a.resume", 'picks = [1]\n[stage.generate]\npreset = "always"\n')
    assert workspace.wait_for("a_take01")["state"] == "completed"
    changed = (workspace.outputs / "a_take01/plan_02.toml").read_text()
    assert "night" in changed


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
