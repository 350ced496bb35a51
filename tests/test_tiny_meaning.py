"""The trained models draw what they are told: dropped as anybody would, and looked at pixel by pixel."""

import base64
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import captions
import edits
import numpy as np
import pytest
import score
from browser import Page
from check import RIGHT, Pixels, check, look, shows_ground
from conftest import Serve, Workspace
from models import MAX_TOKENS
from pictures import edges_of
from PIL import Image
from scenes import SIDE, Ground, Place, Scene, Thing, paint

from hotfolder.gpu import GpuEngine
from hotfolder.presets import Presets

SHIPPED = Presets.of(Path("none"))
#: Scored with 500 prompts each (hotfolder/tiny_weights/README.md); of so few pictures one may be off.
MAY_BE_OFF = 1
#: As somebody may bring it.
CIRCLE = Scene(
    things=(Thing(name="circle", colour="red", at=(0.28, 0.5), radius=0.2),),
    ground=Ground(kind="plain", colours=("white",)),
)


def made(workspace: Workspace, serve: Serve, text: str, **sources: Image.Image) -> list[Image.Image]:
    """Drop a job, and return its pictures. Args: sources: dropped beside it, as NAME.png."""
    for name, picture in sources.items():
        picture.save(workspace.inbox / f"{name}.png")
    workspace.drop("meant.toml", text)
    served = serve(GpuEngine(workspace.settings(THREADS="1")), env={"DEFAULT_PRESET": "tiny"})
    status = workspace.wait_for("meant_take01", timeout_s=90)
    # Its page is written a moment later, and before the daemon stops.
    served.stop()
    assert status["state"] == "completed", status
    return [Image.open(workspace.outputs / "meant_take01" / one["file"]).convert("RGB") for one in status["outputs"]]


def alone(ground: str, colour: str, name: str, place: Place = "") -> Scene:
    """Return a scene of one thing. Args: place: "" is any."""
    thing = Thing(name=name, colour=colour, at=(0.5, 0.5), radius=0.2, place=place)
    return Scene(things=(thing,), ground=Ground(kind="plain", colours=(ground,)))


def off(pictures: Sequence[Image.Image], told: Scene) -> int:
    """Return how many pictures do not show this, and nothing else."""
    return sum(check(picture, told) != RIGHT for picture in pictures)


def pixels(picture: Image.Image) -> Pixels:
    return np.asarray(picture, dtype=np.float32)


def test_a_red_circle_on_a_blue_background_is_red_in_a_round_region_on_blue(workspace: Workspace, serve: Serve) -> None:
    pictures = made(workspace, serve, 'prompt = "a red circle on a blue background"\nseed = 1\ncount = 6\n')
    assert [picture.size for picture in pictures] == [(SIDE, SIDE)] * 6
    assert off(pictures, alone("blue", "red", "circle")) <= MAY_BE_OFF


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
    assert off(pictures, alone("white", *meant)) <= MAY_BE_OFF


@pytest.mark.parametrize(
    ("told", "meant"),
    [
        ("make the circle blue", alone("white", "blue", "circle", "left")),
        ("make the background yellow", alone("yellow", "red", "circle", "left")),
        ("night", replace(CIRCLE, ground=Ground(kind="night"))),
        ("remove the circle", replace(CIRCLE, things=())),
    ],
)
def test_an_edit_changes_what_it_is_told_to_and_nothing_else(
    workspace: Workspace, serve: Serve, told: str, meant: Scene
) -> None:
    text = f'preset = "tiny-kontext"\nprompt = "{told}"\nimage = "source.png"\nseed = 1\ncount = 3\n'
    pictures = made(workspace, serve, text, source=paint(CIRCLE))
    assert off(pictures, meant) <= MAY_BE_OFF
    beside = (SIDE * 0.6, 0, SIDE, SIDE)
    for picture in pictures if meant.ground == CIRCLE.ground else ():
        assert np.abs(pixels(picture.crop(beside)) - 248).mean() < 10


def test_a_fill_paints_what_it_is_told_and_only_under_the_mask(workspace: Workspace, serve: Serve) -> None:
    source, mask = paint(CIRCLE), Image.new("L", (SIDE, SIDE), 0)
    mask.paste(255, (66, 34, 124, 94))
    text = (
        'preset = "tiny-fill"\nprompt = "a blue house"\nimage = "source.png"\nmask = "mask.png"\nseed = 1\ncount = 4\n'
    )
    pictures = made(workspace, serve, text, source=source, mask=mask)
    house = Thing(name="house", colour="blue", at=(0.74, 0.5), radius=0.2)
    whole = replace(CIRCLE, things=(*CIRCLE.things, house), order="row")
    assert off(pictures, whole) <= MAY_BE_OFF
    black = np.asarray(mask) == 0
    for picture in pictures:
        assert (pixels(picture)[black] == pixels(source)[black]).all()


def test_edges_are_followed_in_the_colours_of_the_prompt(workspace: Workspace, serve: Serve) -> None:
    house, star = (
        paint(replace(CIRCLE, things=(Thing(name=name, colour="black", at=at, radius=0.25),)))
        for name, at in (("house", (0.5, 0.5)), ("star", (0.7, 0.3)))
    )
    text = (
        'preset = "tiny-control"\nprompt = "an orange house on a blue background"\nimage = "house.png"\nseed = 1\n'
        'count = 3\n[[stages]]\nstage = "prepare"\ncontrol = "canny"\n[[stages]]\nstage = "generate"\n'
        '[[stages]]\nstage = "export"\n'
    )
    pictures = made(workspace, serve, text, house=house)
    assert off(pictures, alone("blue", "orange", "house", "middle")) <= MAY_BE_OFF
    for edges in map(edges_of, pictures):
        assert score.followed(edges_of(house), edges) > 2 * score.followed(edges_of(star), edges)


def test_variations_show_the_same_things_in_the_same_colours_and_differ(workspace: Workspace, serve: Serve) -> None:
    text = 'preset = "tiny-redux"\nimage = "source.png"\nseed = 1\ncount = 9\n'
    pictures = made(workspace, serve, text, source=paint(CIRCLE))
    assert off(pictures, alone("white", "red", "circle")) <= MAY_BE_OFF
    several: list[Image.Image] = []
    for picture in pictures:
        if all(score.are_several(picture, other) for other in several):
            several.append(picture)
    # Of nine places each is chosen anew.
    assert len(several) >= 4


def test_a_prompt_beside_a_picture_says_where_its_things_are_in_a_variation(workspace: Workspace, serve: Serve) -> None:
    text = 'preset = "tiny-redux"\nimage = "source.png"\nprompt = "at the bottom left"\nseed = 1\ncount = 4\n'
    pictures = made(workspace, serve, text, source=paint(CIRCLE))
    assert off(pictures, alone("white", "red", "circle", "bottom left")) <= MAY_BE_OFF


def test_of_candidates_the_one_is_selected_that_fits_the_prompt(workspace: Workspace, serve: Serve) -> None:
    others = "".join(
        f'[[stages]]\nstage = "generate"\nid = "{colour}"\nprompt = "a {colour} star on white"\nadd = true\n'
        for colour in ("blue", "green")
    )
    text = (
        f'prompt = "a red star on white"\nseed = 1\n[[stages]]\nstage = "generate"\n{others}'
        '[[stages]]\nstage = "select"\nby = "clip"\npreset = "tiny-clip"\n[[stages]]\nstage = "export"\n'
    )
    (picture,) = made(workspace, serve, text)
    assert look(picture)[0].colour == "red"


def test_a_lora_turns_everything_to_night_and_off_again_is_as_if_it_had_never_been(
    workspace: Workspace, serve: Serve
) -> None:
    axes = 'seed = [1, 2]\nloras = ["", "night", "night:0"]\n'
    pictures = made(workspace, serve, f'prompt = "a yellow star on a pink background"\n[matrix]\n{axes}')
    night = Ground(kind="night")
    shown = [bool(shows_ground(pixels(picture), night)) for picture in pictures]
    assert shown == [False, True, False] * 2
    never, _, off_again = pictures[:3]
    assert never.tobytes() == off_again.tobytes()


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


@pytest.mark.parametrize("name", ["tiny", "tiny-kontext", "tiny-fill", "tiny-control", "tiny-redux"])
def test_a_preset_tells_the_words_and_the_size_that_its_model_was_taught(name: str) -> None:
    preset = SHIPPED.get(name)
    told = captions.words() | (edits.words() if preset.kind == "kontext" else set())
    assert preset.limits.words == told - {","}
    assert preset.limits.sizes == (f"{SIDE}x{SIDE}",)
    assert preset.max_sequence_length == MAX_TOKENS
    assert preset.keys["steps"] == score.STEPS
    assert preset.keys.get("true_cfg") == (score.TRUE_CFG if preset.kind == "text2img" else None)
