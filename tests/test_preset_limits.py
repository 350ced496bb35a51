"""A preset of few sizes and few words: what it makes instead, and what is said of that."""

from pathlib import Path

import pytest

from hotfolder import jobfile, tomltext
from hotfolder.dropped import read_plan
from hotfolder.errors import SettingsError
from hotfolder.plan import Plan, Source
from hotfolder.planning import make_plan
from hotfolder.presets import Presets

SMALL = """
extends = "noise"
[limits]
sizes = ["128x128", "192x96"]
words = ["a", "red", "circle", "on", "blue"]
beyond = "flux-schnell"
"""


@pytest.fixture
def presets(tmp_path: Path) -> Presets:
    for name, text in (("small", SMALL), ("small-edit", SMALL.replace('"noise"', '"noise-kontext"'))):
        (tmp_path / f"{name}.toml").write_text(text)
    return Presets.of(tmp_path)


def plan_of(presets: Presets, text: str, *sources: Source) -> Plan:
    job = jobfile.read(tomltext.parse(text.encode()), presets, "small")
    return make_plan("mug_take01", job, sources, drawn_seed=7)


def picture(width: int, height: int) -> Source:
    return Source(role="image", name="a.png", file="x/a.png", sha256="5" * 64, width=width, height=height)


def test_the_prompt_that_it_knows_is_no_matter_for_a_notice(presets: Presets) -> None:
    plan = plan_of(presets, 'prompt = "A red circle, on blue."\nwidth = 128\nheight = 128\n')
    assert plan.notices == ()


def test_words_that_it_was_never_taught_are_named_with_the_preset_that_draws_them(presets: Presets) -> None:
    plan = plan_of(presets, 'prompt = "a red castle on a cliff, Castle"\nwidth = 128\nheight = 128\n')
    (notice,) = plan.notices
    assert notice.startswith("small was never taught 'castle', 'cliff': it draws what the other words say;")
    assert notice.endswith("preset flux-schnell would draw what they say")


def test_of_many_unknown_words_some_are_named_and_the_others_counted(presets: Presets) -> None:
    told = " ".join(f"word{letter}" for letter in "abcdefghijk")
    (notice,) = plan_of(presets, f'prompt = "{told}"\nwidth = 128\nheight = 128\n').notices
    assert "'wordh' and 3 more:" in notice
    assert "wordi" not in notice


def test_of_a_batch_the_words_of_all_items_are_told_together(presets: Presets) -> None:
    text = 'width = 128\nheight = 128\n[matrix]\nprompt = ["a cat", "a dog", "a red dog"]\n'
    (notice,) = plan_of(presets, text).notices
    assert notice.startswith("small was never taught 'cat', 'dog':")


@pytest.mark.parametrize(
    ("asked", "made"),
    [
        ("width = 1024\nheight = 1024\n", (128, 128)),
        ("width = 64\nheight = 64\n", (128, 128)),
        ("width = 1024\nheight = 576\n", (192, 96)),
        ('aspect = "2:1"\n', (192, 96)),
        ("", (128, 128)),
    ],
)
def test_it_makes_the_nearest_of_its_sizes_and_says_so(presets: Presets, asked: str, made: tuple[int, int]) -> None:
    plan = plan_of(presets, f'prompt = "a circle"\n{asked}')
    generation = plan.item(1).generation(1)
    assert (generation.width, generation.height) == made
    (notice,) = plan.notices
    assert notice.startswith(f"made at {made[0]}x{made[1]} instead of ")
    assert notice.endswith(": the preset makes 128x128 and 192x96 only")


def test_a_picture_is_made_at_the_size_that_is_most_alike(presets: Presets) -> None:
    text = 'preset = "small-edit"\nprompt = "a red circle"\nimage = "a.png"\n'
    generation = plan_of(presets, text, picture(4000, 2200)).item(1).generation(1)
    assert (generation.width, generation.height) == (192, 96)


def test_a_later_stage_that_is_shown_a_picture_makes_a_size_of_its_own(presets: Presets) -> None:
    first, then = (
        '[[stages]]\nstage = "generate"\n',
        '[[stages]]\nstage = "generate"\nid = "edit"\npreset = "small-edit"\n',
    )
    text = 'prompt = "a red circle"\nwidth = 128\nheight = 128\n'
    plan = plan_of(presets, f'{text}{first}{then}[[stages]]\nstage = "export"\n')
    assert (plan.item(1).generation(2).width, plan.item(1).generation(2).height) == (128, 128)


def test_a_dropped_plan_keeps_the_sizes(presets: Presets) -> None:
    plan = plan_of(presets, 'prompt = "a red circle"\nwidth = 128\nheight = 128\n')
    again = read_plan(tomltext.parse(plan.dump()), presets)
    assert again == plan
    assert again.presets["small"].sizes == ("128x128", "192x96")


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ('sizes = ["100x128"]', "sides that are multiples of 16 are accepted"),
        ('sizes = ["128"]', "String should match pattern"),
        ('size = ["128x128"]', "unknown key limits.size, did you mean limits.sizes?"),
    ],
)
def test_limits_that_cannot_be_are_told(tmp_path: Path, limits: str, said: str) -> None:
    (tmp_path / "small.toml").write_text(f'extends = "noise"\n[limits]\n{limits}\n')
    with pytest.raises(SettingsError, match=r"small\.toml") as caught:
        Presets.of(tmp_path).get("small")
    assert said in str(caught.value)
