"""The trained models draw what they are told: dropped as anybody would, and looked at pixel by pixel."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import captions
import edits
import pytest
import score
from browser import Page
from check import Verdict, check, look
from conftest import Serve, Workspace
from models import MAX_TOKENS
from PIL import Image
from scenes import SIDE, Ground, Place, Scene, Thing

from hotfolder.gpu import GpuEngine
from hotfolder.presets import Presets

SHIPPED = Presets.of(Path("none"))
#: Scored with 500 prompts each (hotfolder/tiny_weights/README.md); of so few pictures one may be off.
MAY_BE_OFF = 1


def made(workspace: Workspace, serve: Serve, text: str) -> list[Image.Image]:
    """Drop a job, and return its pictures."""
    workspace.drop("meant.toml", text)
    serve(GpuEngine(workspace.settings(THREADS="1")), env={"DEFAULT_PRESET": "tiny"})
    status = workspace.wait_for("meant_take01", timeout_s=90)
    assert status["state"] == "completed", status
    return [Image.open(workspace.outputs / "meant_take01" / one["file"]).convert("RGB") for one in status["outputs"]]


def off(pictures: Sequence[Image.Image], ground: str, colour: str, name: str, place: Place = "") -> int:
    """Return how many pictures do not show this one thing on this ground, and nothing else. Args: place: "" is any."""
    thing = Thing(name=name, colour=colour, at=(0.5, 0.5), radius=0.2, place=place)
    told = Scene(things=(thing,), ground=Ground(kind="plain", colours=(ground,)))
    right = Verdict(colour=True, thing=True, place=True)
    return sum(check(picture, told) != right or len(look(picture)) != 1 for picture in pictures)


def test_a_red_circle_on_a_blue_background_is_red_in_a_round_region_on_blue(workspace: Workspace, serve: Serve) -> None:
    pictures = made(workspace, serve, 'prompt = "a red circle on a blue background"\nseed = 1\ncount = 6\n')
    assert [picture.size for picture in pictures] == [(SIDE, SIDE)] * 6
    assert off(pictures, "blue", "red", "circle") <= MAY_BE_OFF


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("A green star at the top left on white.", ("green", "star", "top left")),
        ("yellow house, bottom right, white background", ("yellow", "house", "bottom right")),
    ],
)
def test_a_thing_stands_where_it_is_told_to(
    workspace: Workspace, serve: Serve, said: str, meant: tuple[str, str, Place]
) -> None:
    pictures = made(workspace, serve, f'prompt = "{said}"\nseed = 1\ncount = 4\n')
    assert off(pictures, "white", *meant) <= MAY_BE_OFF


def test_the_sheet_of_a_matrix_has_its_colours_in_the_right_cells(workspace: Workspace, serve: Serve) -> None:
    colours = ("red", "green", "yellow")
    prompts = ", ".join(f'"a {colour} square on black"' for colour in colours)
    made(workspace, serve, f"[matrix]\nprompt = [{prompts}]\nseed = [1, 2]\n")
    page = Page((workspace.outputs / "meant_take01/index.html").read_bytes())
    assert page.texts("th")[1:6] == ["1", "2", *(f"a {colour} square on black" for colour in colours)]
    shown = [Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) for source in page.all("img", "src")]
    wanted = [colour for colour in colours for _ in range(2)]
    assert [look(picture.convert("RGB"))[0].colour for picture in shown] == wanted


def test_words_that_it_has_never_seen_are_named_with_the_preset_that_draws_them(
    workspace: Workspace, serve: Serve
) -> None:
    made(workspace, serve, 'prompt = "a red circle and a unicorn"\nwidth = 300\nheight = 300\n')
    notices = [one["text"] for one in workspace.status("meant_take01")["notices"]]
    assert any("'unicorn'" in text and "flux-schnell" in text for text in notices)
    assert any("128x128" in text for text in notices)


@pytest.mark.parametrize("name", [name for name in SHIPPED.names() if SHIPPED.get(name).limits.words])
def test_a_preset_tells_the_words_and_the_size_that_its_model_was_taught(name: str) -> None:
    preset = SHIPPED.get(name)
    told = captions.words() | (edits.words() if preset.kind == "kontext" else set())
    assert preset.limits.words == told - {","}
    assert preset.limits.sizes == (f"{SIDE}x{SIDE}",)
    assert preset.max_sequence_length == MAX_TOKENS
    assert preset.keys["steps"] == score.STEPS
    assert preset.keys.get("true_cfg") == (score.TRUE_CFG if preset.kind == "text2img" else None)
