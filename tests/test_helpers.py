"""Helper models through the engine: what each answers, loaded once, stopped anywhere; what is said of a wrong one."""

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import hub
import pytest
from painted import PaintedEngine
from PIL import Image, ImageDraw
from tiny_jobs import REQUESTS, engine_in, hash_of, ignore, model_of, pixels, settings_of, source, stop_at

from hotfolder import download, models, tiny
from hotfolder.engine import Answer, BrokenDevice, JobStopped, Question, StopReason
from hotfolder.errors import JobError, SettingsError
from hotfolder.gpu import GpuEngine
from hotfolder.helpers import HELPERS, pose
from hotfolder.helpers.helper import Ready
from hotfolder.helpers.pose import Joint
from hotfolder.pool import LoadedHelper
from hotfolder.presets import HELPER_KINDS, Model, Presets
from hotfolder.settings import WorkerSettings

KINDS = pytest.mark.parametrize("kind", sorted(HELPER_KINDS))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture
def engine(workspace: Path) -> Iterator[GpuEngine]:
    engine = engine_in(workspace)
    yield engine
    engine.close()


def question(kind: str, *pictures: Image.Image, **changes: Any) -> Question:
    told = Question(
        kind=kind,
        preset=f"tiny-{kind}",
        model=model_of(f"hotfolder/tiny-{kind}"),
        pictures=pictures or (source(200, 120),),
        text="a red mug",
    )
    return replace(told, **changes)


def ask(engine: GpuEngine, kind: str, *pictures: Image.Image, **changes: Any) -> Answer:
    return engine.ask(question(kind, *pictures, **changes), ignore)


def told(answer: Answer) -> tuple[Any, ...]:
    """What a helper said, without how long it took."""
    return (answer.image and pixels(answer.image), answer.boxes, answer.scores)


def module_of(engine: GpuEngine, kind: str) -> Any:
    loaded = engine.pool.models[model_of(f"hotfolder/tiny-{kind}").key]
    assert isinstance(loaded, LoadedHelper)
    return loaded.ready.model


def failing(engine: GpuEngine, kind: str, times: int, error: Exception) -> Any:
    """Let the model of this kind raise so many times; returns the hook."""
    left = [times]

    def hook(_module: Any, _arguments: Any) -> None:
        if left[0]:
            left[0] -= 1
            raise error

    return module_of(engine, kind).register_forward_pre_hook(hook)


def out_of_memory() -> Exception:
    import torch

    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


# What each answers


def test_there_is_a_helper_for_each_kind() -> None:
    assert HELPERS.keys() == HELPER_KINDS


@KINDS
def test_the_same_question_has_the_same_answer_here_and_from_a_fresh_start(
    engine: GpuEngine, workspace: Path, kind: str
) -> None:
    first = ask(engine, kind)
    assert told(ask(engine, kind)) == told(first)
    assert told(ask(engine_in(workspace), kind)) == told(first)
    if kind != "clip":  # one number may well be the same
        assert told(ask(engine, kind, source(120, 200).rotate(90, expand=True))) != told(first)


@pytest.mark.parametrize("size", [(200, 120), (64, 64), (33, 171)])
@pytest.mark.parametrize("kind", ["depth", "pose"])
def test_a_map_has_the_size_of_the_picture(engine: GpuEngine, kind: str, size: tuple[int, int]) -> None:
    made = ask(engine, kind, source(*size)).image
    assert made is not None
    assert (made.mode, made.size) == ("RGB", size)


def test_a_depth_map_is_grey_and_uses_the_whole_range(engine: GpuEngine) -> None:
    made = ask(engine, "depth").image
    assert made is not None
    assert made.getextrema() == ((0, 255),) * 3
    red, green, blue = made.split()
    assert red.tobytes() == green.tobytes() == blue.tobytes()


def test_metres_are_told_as_nearness_too(engine: GpuEngine, workspace: Path, tmp_path: Path) -> None:
    near = ask(engine, "depth").image
    folder = Path(shutil.copytree(models.tiny_folder("tiny-depth", settings_of(workspace)), tmp_path / "metric"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"depth_estimation_type": "metric", "max_depth": 20}))
    far = ask(engine, "depth", model=model_of(str(folder))).image
    assert near is not None
    assert far is not None
    brightest = max(range(200 * 120), key=near.convert("L").tobytes().__getitem__)
    assert far.convert("L").tobytes()[brightest] < 64


@pytest.mark.parametrize("size", [(30, 21), (64, 64), (600, 40)])
def test_an_enlarged_picture_is_twice_as_large(engine: GpuEngine, size: tuple[int, int]) -> None:
    made = ask(engine, "upscale", source(*size)).image
    assert made is not None
    assert (made.mode, made.size) == ("RGB", (size[0] * 2, size[1] * 2))


def test_a_large_picture_is_enlarged_in_tiles_without_a_seam_and_each_is_told(engine: GpuEngine) -> None:
    seen: list[tuple[str, int, int]] = []
    wide = source(600, 40)
    made = engine.ask(question("upscale", wide), lambda *now: seen.append(now)).image
    assert [now for now in seen if now[1]] == [("infer", 1, 3), ("infer", 2, 3), ("infer", 3, 3)]
    # A picture as large as what the first tile is shown is enlarged as a whole, and has no border where that tile ends.
    one = ask(engine, "upscale", wide.crop((0, 0, 256, 40))).image
    assert made is not None
    assert one is not None
    assert made.crop((0, 0, 400, 80)).tobytes() == one.crop((0, 0, 400, 80)).tobytes()
    # At the seam the tiles agree: a pixel differs from its neighbours no more than elsewhere in the pattern.
    line = made.crop((0, 40, 1200, 42)).convert("L").resize((600, 1), Image.Resampling.BOX).tobytes()
    steps = [abs(one - other) for one, other in pairwise(line)]
    assert max(steps[250:262]) <= max(steps[100:200]) + 8


def test_boxes_are_inside_the_picture_named_and_the_surest_comes_first(engine: GpuEngine) -> None:
    boxes = ask(engine, "detect", text="a Red mug. cat").boxes
    assert len(boxes) > 2
    for box in boxes:
        assert 0 <= box.left < box.right <= 200
        assert 0 <= box.top < box.bottom <= 120
        assert box.score >= 0.3
        assert box.label in {"a Red mug", "cat"}
    assert [box.score for box in boxes] == sorted((box.score for box in boxes), reverse=True)
    surest = ask(engine, "detect", text="a Red mug. cat", threshold=boxes[1].score).boxes
    assert surest == boxes[:2]
    assert ask(engine, "detect", threshold=0.99).boxes == ()
    assert ask(engine, "detect", text=" . ").boxes == ()


def test_the_score_of_a_picture_hangs_on_picture_and_text_and_nothing_else(engine: GpuEngine) -> None:
    pictures = [source(200, 120), source(64, 64), Image.new("RGB", (80, 80), "blue")]
    scores = ask(engine, "clip", *pictures).scores
    assert len(set(scores)) == 3
    assert all(-1 <= score <= 1 for score in scores)
    assert ask(engine, "clip", *reversed(pictures)).scores == tuple(reversed(scores))
    assert ask(engine, "clip", pictures[0]).scores == scores[:1]
    assert ask(engine, "clip", pictures[0], text="a blue cat").scores != scores[:1]
    assert ask(engine, "clip", pictures[0], text="mug " * 200).scores != scores[:1]  # cut, not refused
    assert ask(engine, "clip", pictures=()).scores == ()


def test_an_alpha_channel_and_grey_pictures_do_no_harm(engine: GpuEngine) -> None:
    for kind in sorted(HELPER_KINDS):
        for mode in ("RGBA", "L"):
            ask(engine, kind, source(80, 64).convert(mode))


def test_joints_are_where_the_model_sees_them() -> None:
    """A model that takes the brightest place of its input for every joint."""
    import torch
    from transformers import VitPoseImageProcessorPil

    class Brightest(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, pixel_values: Any) -> Any:
            heat = torch.nn.functional.max_pool2d(pixel_values.mean(1, keepdim=True), 4)
            return type("Output", (), {"heatmaps": heat.expand(1, 17, -1, -1)})

    ready = Ready(model=Brightest(), processor=VitPoseImageProcessorPil(size={"height": 256, "width": 192}))
    for size, spot in (((400, 200), (300, 50)), ((200, 400), (40, 333)), ((640, 640), (320, 320))):
        picture = Image.new("RGB", size)
        ImageDraw.Draw(picture).circle(spot, 6, "white")
        with torch.no_grad():
            made = HELPERS["pose"].run(ready, question("pose", picture), lambda *_: None).image
        assert made is not None
        box = made.getbbox()
        assert box is not None
        found = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        assert all(abs(has - wants) < max(size) / 30 for has, wants in zip(found, spot, strict=True)), (size, found)


def test_a_skeleton_has_the_colours_of_openpose_and_leaves_out_what_is_not_sure() -> None:
    joints = [Joint(10.0 + 20 * number, 10.0 + 7 * (number % 5), 1.0) for number in range(17)]
    made = pose.draw((400, 60), joints)
    assert made.getpixel((10, 10)) == (255, 0, 0)  # nose
    assert made.getpixel((10 + 20 * 6, 17)) == (255, 170, 0)  # right shoulder
    assert made.getpixel((10 + 20 * 5, 10)) == (85, 255, 0)  # left shoulder
    unsure = [joint._replace(score=0.1) for joint in joints]
    assert pose.draw((400, 60), unsure).getbbox() is None


def test_a_picture_without_a_person_is_said_to_be_one(engine: GpuEngine) -> None:
    import torch

    ask(engine, "pose")
    with torch.no_grad():
        module_of(engine, "pose").head.conv.weight.zero_()
    answer = ask(engine, "pose")
    assert answer.notices == ("no person was found in the picture",)
    assert answer.image is not None
    assert answer.image.getbbox() is None


# The engine


@KINDS
def test_what_is_known_of_the_model_is_told(engine: GpuEngine, workspace: Path, kind: str) -> None:
    answer = ask(engine, kind)
    assert dict(answer.model) | {"sha256": ""} == {
        "repo": f"hotfolder/tiny-{kind}",
        "revision": models.TINY_VERSION,
        "sha256": "",
        "dtype": "float32",
        "device": "cpu",
        "threads": "1",
    }
    assert len(answer.model["sha256"]) == 64
    assert answer.timings.keys() == {"load", "infer"}
    assert all(seconds > 0 for seconds in answer.timings.values())
    assert answer.notices == ()
    assert models.state(model_of(f"hotfolder/tiny-{kind}"), settings_of(workspace)) == "ready"


def test_each_model_is_loaded_once_beside_those_that_paint(engine: GpuEngine) -> None:
    engine.make(REQUESTS["text2img"], ignore)
    for _ in range(2):
        for kind in HELPER_KINDS:
            ask(engine, kind)
    assert engine.pool.loads == 6
    assert engine.loaded == {
        REQUESTS["text2img"].model.key,
        *(model_of(f"hotfolder/tiny-{kind}").key for kind in HELPER_KINDS),
    }
    engine.close()
    assert (engine.loaded, engine.pool.used_bytes) == (frozenset(), 0)


def test_the_longest_unused_model_is_put_out_helper_or_not(workspace: Path) -> None:
    engine = engine_in(workspace, worker=WorkerSettings(vram_gb=0.0016))
    picture = hash_of(engine.make(REQUESTS["text2img"], ignore))
    ask(engine, "pose")
    ask(engine, "clip")
    assert engine.loaded == {model_of(f"hotfolder/tiny-{kind}").key for kind in ("pose", "clip")}
    assert hash_of(engine.make(REQUESTS["text2img"], ignore)) == picture
    assert engine.pool.used_bytes <= 1_600_000
    assert engine.pool.loads == 4


@KINDS
def test_the_tick_is_called_around_each_part(engine: GpuEngine, kind: str) -> None:
    seen: list[tuple[str, int, int]] = []
    engine.ask(question(kind), lambda *now: seen.append(now))
    assert [now for now in seen if not now[1]] == [("load", 0, 0)] * 2 + [("infer", 0, 0)] * 2


@KINDS
@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_cancel_at_any_tick_leaves_a_usable_engine(engine: GpuEngine, kind: str, at: int) -> None:
    undisturbed = told(ask(engine, kind))
    engine.close()
    left = [at]

    def tick(_phase: str, _step: int, _steps: int) -> None:
        left[0] -= 1
        if not left[0]:
            raise JobStopped(StopReason.CANCEL)

    with pytest.raises(JobStopped):
        engine.ask(question(kind), tick)
    assert told(ask(engine, kind)) == undisturbed


def test_a_cancel_between_two_tiles_or_pictures_stops_there(engine: GpuEngine) -> None:
    for asked in (question("upscale", source(600, 40)), question("clip", source(), source(64, 64))):
        with pytest.raises(JobStopped):
            engine.ask(asked, stop_at("infer", 1))
        engine.ask(asked, ignore)


def test_when_memory_runs_out_other_models_are_put_out_and_it_is_tried_once_more(engine: GpuEngine) -> None:
    engine.make(REQUESTS["text2img"], ignore)
    undisturbed = told(ask(engine, "depth"))
    hook = failing(engine, "depth", 1, out_of_memory())
    answer = ask(engine, "depth")
    hook.remove()
    assert answer.notices == ("memory ran out: begun again with all other models put out",)
    assert told(answer) == undisturbed
    assert engine.loaded == {model_of("hotfolder/tiny-depth").key}
    assert engine.make(REQUESTS["text2img"], ignore).notices == ()


def test_what_fits_in_no_way_fails_and_on_the_cpu_will_again(engine: GpuEngine) -> None:
    ask(engine, "upscale")
    hook = failing(engine, "upscale", 2, out_of_memory())
    with pytest.raises(
        JobError, match="upscale of 200x120 does not fit in memory with hotfolder/tiny-upscale"
    ) as caught:
        ask(engine, "upscale")
    assert (caught.value.code, caught.value.transient) == ("out-of-memory", False)
    hook.remove()
    ask(engine, "upscale")


def test_a_broken_device_and_a_bug_are_told_apart(engine: GpuEngine) -> None:
    ask(engine, "clip")
    errors: list[tuple[Exception, type[Exception]]] = [
        (RuntimeError("CUDA error: misaligned"), BrokenDevice),
        (ZeroDivisionError("a bug"), ZeroDivisionError),
        (RuntimeError("a bug"), RuntimeError),
    ]
    for error, expected in errors:
        hook = failing(engine, "clip", 1, error)
        with pytest.raises(expected):
            ask(engine, "clip")
        hook.remove()
    ask(engine, "clip")


@KINDS
def test_half_precision_answers_much_the_same(engine: GpuEngine, kind: str) -> None:
    half = Model(repo=f"hotfolder/tiny-{kind}", dtype="bfloat16")
    answer = ask(engine, kind, model=half)
    assert answer.model["dtype"] == "bfloat16"
    whole = ask(engine, kind)
    assert (answer.image and answer.image.size) == (whole.image and whole.image.size)
    assert answer.scores == pytest.approx(whole.scores, abs=0.05)


# Models that are not what they should be


@pytest.mark.parametrize(
    ("kind", "repo", "found"),
    [
        ("depth", "hotfolder/tiny-pose", "is a VitPoseForPoseEstimation; needed is a DepthAnythingForDepthEstimation"),
        ("detect", "hotfolder/tiny-clip", "is a CLIPModel; needed is a GroundingDinoForObjectDetection"),
        ("clip", "hotfolder/tiny-upscale", "is a Swin2SRForImageSuperResolution; needed is a CLIPModel"),
    ],
)
def test_a_model_of_another_kind_is_refused_before_its_weights_are_read(
    engine: GpuEngine, kind: str, repo: str, found: str
) -> None:
    with pytest.raises(SettingsError, match=f"model {repo} {found}") as caught:
        ask(engine, kind, model=model_of(repo))
    assert (caught.value.code, caught.value.transient) == ("wrong-model", False)
    assert engine.pool.loads == 0


def test_a_model_that_is_loaded_for_one_kind_is_refused_for_another(engine: GpuEngine) -> None:
    ask(engine, "depth")
    with pytest.raises(SettingsError, match="is a DepthAnythingForDepthEstimation; needed is a CLIPModel"):
        ask(engine, "clip", model=model_of("hotfolder/tiny-depth"))
    with pytest.raises(SettingsError, match=r"model hotfolder/tiny-depth: files are missing"):
        engine.make(replace(REQUESTS["text2img"], model=model_of("hotfolder/tiny-depth")), ignore)
    ask(engine, "depth")
    assert engine.pool.loads == 1


@pytest.mark.parametrize("name", ["depth", "esrgan"])
def test_a_model_that_is_not_here_says_how_to_get_it(engine: GpuEngine, workspace: Path, name: str) -> None:
    preset = Presets.of(settings_of(workspace).presets_dir).get(name)
    assert models.state(preset.model, settings_of(workspace)) == "missing"
    with pytest.raises(SettingsError, match=f"model {preset.model.repo} is not on this machine") as caught:
        ask(engine, preset.kind, preset=name, model=preset.model)
    assert (caught.value.code, caught.value.transient) == ("model-missing", False)
    wanted = preset.model.file or '--include "*.json" --include "*.txt" --include "model*.safetensors"'
    assert f"hf download {preset.model.repo} {wanted}; 0.1 GB" in caught.value.hint


@pytest.mark.parametrize("gone", ["config.json", "model.safetensors", "preprocessor_config.json"])
def test_a_folder_that_lacks_a_file_is_named(engine: GpuEngine, workspace: Path, tmp_path: Path, gone: str) -> None:
    ask(engine, "depth")
    folder = Path(shutil.copytree(models.tiny_folder("tiny-depth", settings_of(workspace)), tmp_path / "mine"))
    assert models.state(model_of(str(folder)), settings_of(workspace)) == "ready"
    assert told(ask(engine, "depth", model=model_of(str(folder)))) == told(ask(engine, "depth"))
    assert engine.pool.loads == 1  # the same content, under another name
    (folder / gone).unlink()
    assert models.state(model_of(str(folder)), settings_of(workspace)) == "missing"
    engine.close()
    with pytest.raises(SettingsError, match=f"{folder} is no whole transformers folder") as caught:
        ask(engine, "depth", model=model_of(str(folder)))
    assert caught.value.code == "model-missing"


def test_damaged_weights_are_named_and_pickled_ones_are_never_opened(
    engine: GpuEngine, workspace: Path, tmp_path: Path
) -> None:
    ask(engine, "clip")
    folder = Path(shutil.copytree(models.tiny_folder("tiny-clip", settings_of(workspace)), tmp_path / "mine"))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(SettingsError, match="cannot be loaded from") as caught:
        ask(engine, "clip", model=model_of(str(folder)))
    assert caught.value.code == "bad-model"
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(SettingsError, match="is no whole transformers folder"):
        ask(engine, "clip", model=model_of(str(folder)))


def test_a_single_file_is_refused_where_the_kind_has_none_and_needs_its_extra(
    engine: GpuEngine, tmp_path: Path
) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"\x02\x00\x00\x00\x00\x00\x00\x00{}")
    single = model_of(str(tmp_path), file="x.safetensors")
    with pytest.raises(SettingsError, match=r"x\.safetensors is a single file; needed is a CLIPModel") as caught:
        ask(engine, "clip", model=single)
    assert caught.value.code == "wrong-model"
    if importlib.util.find_spec("spandrel"):
        with pytest.raises(SettingsError, match="is of no known architecture") as caught:
            ask(engine, "upscale", model=single)
        assert caught.value.code == "wrong-model"
    else:
        with pytest.raises(SettingsError, match="which spandrel reads, and that is not installed") as caught:
            ask(engine, "upscale", model=single)
        assert caught.value.code == "model-missing"
        assert "pip install 'hotfolder[upscale]'" in caught.value.hint
    with pytest.raises(SettingsError, match=r"is no whole folder with y\.safetensors|is no whole") as caught:
        ask(engine, "upscale", model=model_of(str(tmp_path), file="y.safetensors"))
    assert caught.value.code == "model-missing"


@pytest.mark.skipif(importlib.util.find_spec("spandrel") is None, reason="the extra `upscale` is not installed")
def test_a_single_file_of_the_esrgan_family_enlarges_four_times(engine: GpuEngine, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from hotfolder.helpers import single_file

    with single_file.without_torchvision():
        from spandrel.architectures.ESRGAN import ESRGAN
    small = ESRGAN(in_nc=3, out_nc=3, num_filters=8, num_blocks=1, scale=4)
    save_file(small.state_dict(), tmp_path / "small.safetensors")
    model = model_of(str(tmp_path), file="small.safetensors")
    assert models.state(model, settings_of(tmp_path)) == "ready"
    answer = ask(engine, "upscale", source(37, 20), model=model)
    assert answer.image is not None
    assert answer.image.size == (148, 80)
    assert (answer.model["file"], answer.model["repo"]) == ("small.safetensors", str(tmp_path))
    assert told(ask(engine, "upscale", source(37, 20), model=model)) == told(answer)
    assert engine.pool.loads == 1
    assert not [name for name in sys.modules if name.startswith("torchvision")]


def test_none_of_this_needs_torchvision(workspace: Path) -> None:
    program = """
import sys
from pathlib import Path
sys.modules["torchvision"] = None  # cannot be imported, wherever it is installed
from tiny_jobs import engine_in, ignore, model_of, source
from hotfolder.engine import Question
from hotfolder.helpers import HELPERS
engine = engine_in(Path(sys.argv[1]))
for kind in HELPERS:
    model = model_of(f"hotfolder/tiny-{kind}")
    engine.ask(Question(kind=kind, preset="", model=model, pictures=(source(),), text="a mug"), ignore)
print(engine.pool.loads, sorted(name for name in sys.modules if name.startswith("torchvision.")))
"""
    run = subprocess.run(
        [sys.executable, "-c", program, str(workspace)],
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent)])},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert run.stdout == "5 []\n", run.stderr


# The Hub


def test_a_helper_is_downloaded_once_its_config_first_and_failures_say_whether_to_try_again(
    workspace: Path, tmp_path: Path
) -> None:
    tiny.build("tiny-clip", folder := models.tiny_folder("tiny-clip", settings_of(workspace)))
    tangled = Path(shutil.copytree(folder, tmp_path / "tangled"))
    (tangled / "pytorch_model.bin").write_bytes(b"a pickle")
    (tangled / "open_clip_model.safetensors").write_bytes(b"for another program")
    unsafe = Path(shutil.copytree(folder, tmp_path / "unsafe"))
    (unsafe / "model.safetensors").rename(unsafe / "pytorch_model.bin")
    asked: list[str] = []
    refused = {
        "acme/secret": hub.Refusal(401),
        "acme/gated": hub.Refusal(403, {"X-Error-Code": "GatedRepo"}),
        "acme/hangs-up": hub.Refusal(0),
    }
    (tmp_path / "single" / "4x").mkdir(parents=True)
    (tmp_path / "single" / "4x" / "mine.safetensors").write_bytes(b"\x02\x00\x00\x00\x00\x00\x00\x00{}")
    served = {"acme/clip": tangled, "acme/unsafe": unsafe, "acme/single": tmp_path / "single"}
    with hub.serving(served, asked, refused) as address:
        environment = {name: value for name, value in os.environ.items() if name != "HF_HOME"}
        run = subprocess.run(
            [sys.executable, "-c", _DOWNLOADING, str(tmp_path)],
            env=environment | {"HF_ENDPOINT": address, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
    assert run.returncode == 0, run.stderr
    answer = json.loads(run.stdout)
    assert answer["wrong"] == ["wrong-model", False, None]
    assert answer["after wrong"] == [["config.json"], "missing"]
    assert answer["stopped"]
    assert answer["states"] == ["missing", "ready"]
    assert answer["revision"] == hub.COMMIT
    assert answer["phases"][0] == "load"
    assert "download" in answer["phases"]
    assert sorted(set(asked)) == sorted([*(file.name for file in folder.iterdir()), "4x/mine.safetensors"])
    assert answer["single"] == ["missing", "ready"]
    # config.json for the first refusal; each of the others once.
    assert asked.count("model.safetensors") == 1
    for repo in ("acme/none", "acme/secret", "acme/gated", "acme/unsafe"):
        assert answer[repo][:2] == ["model-missing", False], repo
    assert answer["acme/hangs-up"] == ["model-missing", True, None]
    assert answer["pipeline: acme/hangs-up"] == ["model-missing", True, None]


_DOWNLOADING = """
import json, os, sys
from dataclasses import replace
from pathlib import Path
from tiny_jobs import REQUESTS, ignore, model_of, source
from hotfolder import models
from hotfolder.engine import JobStopped, Question, StopReason
from hotfolder.errors import SettingsError
from hotfolder.gpu import GpuEngine
from hotfolder.settings import Settings

workspace = Path(sys.argv[1])
settings = Settings(workspace=workspace, device="cpu", threads=1)
engine = GpuEngine(settings)

def question(kind, repo):
    return Question(kind=kind, preset="clip", model=model_of(repo), pictures=(source(),), text="a mug")

def refusal(call):
    try:
        call()
    except SettingsError as error:
        return [error.code, error.transient, error.retry_after_s]

def stop(phase, *_):
    if phase == "download":
        raise JobStopped(StopReason.CANCEL)

answer = {"states": [models.state(model_of("acme/clip"), settings)]}
answer["wrong"] = refusal(lambda: engine.ask(question("depth", "acme/clip"), ignore))
here = workspace / "models/hub/models--acme--clip/snapshots"
answer["after wrong"] = [
    sorted(file.name for file in here.rglob("*") if file.is_file()),
    models.state(model_of("acme/clip"), settings),
]
answer["phases"] = []
try:
    engine.ask(question("clip", "acme/clip"), stop)
except JobStopped:
    answer["stopped"] = True
answered = engine.ask(question("clip", "acme/clip"), lambda phase, *_: answer["phases"].append(phase))
answer["revision"] = answered.model["revision"]
answer["states"].append(models.state(model_of("acme/clip"), settings))
for repo in ("acme/none", "acme/secret", "acme/gated", "acme/hangs-up", "acme/unsafe"):
    answer[repo] = refusal(lambda: engine.ask(question("clip", repo), ignore))
single = model_of("acme/single", file="4x/mine.safetensors")
answer["single"] = [models.state(single, settings)]
refusal(lambda: engine.ask(replace(question("upscale", "acme/single"), model=single), ignore))
answer["single"].append(models.state(single, settings))
pipeline = replace(REQUESTS["text2img"], model=model_of("acme/hangs-up"))
answer["pipeline: acme/hangs-up"] = refusal(lambda: engine.make(pipeline, ignore))
print(json.dumps(answer))
"""


@pytest.mark.parametrize(
    ("refusal", "transient", "retry_after_s"),
    [
        (hub.Refusal(429, {"Retry-After": "7"}), True, 7.0),
        (hub.Refusal(503, {"Retry-After": "0.5"}), True, 0.5),
        (hub.Refusal(503, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}), True, 0.0),
        (hub.Refusal(502, {"Retry-After": "soon"}), True, None),
        (hub.Refusal(500), True, None),
        (hub.Refusal(401), False, None),
        (hub.Refusal(403), False, None),
        (hub.Refusal(404), False, None),
    ],
)
def test_what_the_hub_answers_decides_whether_it_is_tried_again(
    workspace: Path, refusal: hub.Refusal, transient: bool, retry_after_s: float | None
) -> None:
    settings = settings_of(workspace).model_copy(update={"download": True})
    with hub.serving({}, [], {"acme/busy": refusal}) as address:

        def get() -> None:
            """As the Hub's library does at the end of its own attempts, which take half a minute."""
            import httpx2
            from huggingface_hub.errors import LocalEntryNotFoundError

            try:
                httpx2.get(f"{address}/acme/busy/resolve/main/config.json").raise_for_status()
            except httpx2.HTTPError as error:
                raise LocalEntryNotFoundError("an error happened") from error

        with pytest.raises(SettingsError, match=str(refusal.status) if transient else "acme/busy") as caught:
            download.run(get, "acme/busy", "none", settings, ignore)
    assert (caught.value.code, caught.value.transient) == ("model-missing", transient)
    assert caught.value.retry_after_s == retry_after_s


def test_a_hub_that_cannot_be_reached_is_tried_again(workspace: Path) -> None:
    import httpx2

    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"http://127.0.0.1:{unheard.getsockname()[1]}/"
        settings = settings_of(workspace).model_copy(update={"download": True})
        with pytest.raises(SettingsError, match=r"acme/far is not on this machine: .*refused") as caught:
            download.run(lambda: print(httpx2.get(address)), "acme/far", "none", settings, ignore)
    assert (caught.value.code, caught.value.transient) == ("model-missing", True)


def test_errors_of_a_download_that_are_not_of_the_network_are_not_tried_again(workspace: Path) -> None:
    settings = settings_of(workspace).model_copy(update={"download": True})

    def fail(error: Exception) -> SettingsError:
        def get() -> None:
            raise error

        with pytest.raises(SettingsError) as caught:
            download.run(get, "acme/busy", "none", settings, ignore)
        return caught.value

    assert fail(OSError(28, "No space left on device")).code == "disk-full"
    assert not fail(PermissionError(13, "Permission denied")).transient
    assert not fail(ValueError("no such thing")).transient
    assert fail(ConnectionResetError(104, "Connection reset by peer")).transient
    assert fail(TimeoutError("timed out")).transient
    assert fail(RuntimeError("Data processing error: CAS service error")).transient


# The painted engine, which other tests ask


def test_the_painted_engine_answers_from_picture_and_text_alone() -> None:
    engine = PaintedEngine()
    answers = {kind: engine.ask(question(kind, source(80, 40)), ignore) for kind in sorted(HELPER_KINDS)}
    (box,) = answers["detect"].boxes
    assert (box.left, box.top, box.right, box.bottom, box.label) == (20, 10, 60, 30, "a red mug")
    sizes = {kind: answer.image.size for kind, answer in answers.items() if answer.image}
    assert sizes == {"depth": (80, 40), "pose": (80, 40), "upscale": (160, 80)}
    assert answers["clip"].scores == engine.ask(question("clip", source(80, 40)), ignore).scores
    assert [asked.kind for asked in engine.asked] == [*sorted(HELPER_KINDS), "clip"]
    assert engine.loads == [model_of(f"hotfolder/tiny-{kind}").key for kind in (*sorted(HELPER_KINDS), "clip")]
    assert engine.loaded == {engine.loads[-1]}
    with suppress(JobStopped):
        engine.ask(question("depth"), stop_at("infer"))
    assert len(engine.asked) == 6
