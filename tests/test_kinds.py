"""Each kind paints what was asked for, the same pixels each time, by the real pipelines of diffusers."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_jobs import REQUESTS, engine_in, hash_of, ignore, make_elsewhere, mask, pixels, source

from hotfolder.engine import Request
from hotfolder.errors import JobError, SettingsError
from hotfolder.gpu import GpuEngine
from hotfolder.kinds import KINDS
from hotfolder.kinds.kind import fit, prepare
from hotfolder.kinds.text2img import steps_left
from hotfolder.pool import Loaded

SORTS = pytest.mark.parametrize("name", REQUESTS)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GpuEngine]:
    engine = engine_in(tmp_path_factory.mktemp("here"))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What another process with models of its own made."""
    return make_elsewhere(tmp_path_factory.mktemp("elsewhere"))


def make(engine: GpuEngine, request: Request, **changes: Any) -> Image.Image:
    return engine.make(replace(request, **changes), ignore).image


def difference(one: Image.Image, other: Image.Image) -> float:
    """Mean difference of the 8-bit values."""
    return float(np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).mean())


@SORTS
def test_the_picture_has_the_size_that_was_asked_for(engine: GpuEngine, name: str) -> None:
    picture = make(engine, REQUESTS[name], width=160, height=96)
    assert (picture.size, picture.mode) == ((160, 96), "RGB")


@SORTS
def test_the_same_request_makes_the_same_pixels_in_another_process_with_other_models(
    engine: GpuEngine, elsewhere: dict[str, Any], name: str
) -> None:
    assert hash_of(engine.make(REQUESTS[name], ignore)) == elsewhere["hashes"][name]


def test_torchvision_is_not_needed(elsewhere: dict[str, Any]) -> None:
    assert not elsewhere["torchvision"]


@SORTS
def test_seed_prompt_and_steps_each_make_another_picture(engine: GpuEngine, name: str) -> None:
    request = REQUESTS[name]
    changed: list[dict[str, Any]] = [{}, {"seed": 8}, {"prompt": "a black cat"}, {"steps": 5}, {"guidance": 1.5}]
    assert len({pixels(make(engine, request, **changes)) for changes in changed}) == len(changed)


@SORTS
def test_what_was_made_before_does_not_matter(engine: GpuEngine, name: str) -> None:
    request = REQUESTS[name]
    first = make(engine, request)
    make(engine, request, width=192, height=64, steps=2, seed=99, prompt="another one")
    assert pixels(make(engine, request)) == pixels(first)


@pytest.mark.parametrize("name", ["img2img", "kontext", "fill", "control", "redux"])
def test_each_picture_that_goes_in_matters(engine: GpuEngine, name: str) -> None:
    request = REQUESTS[name]
    for role, picture in request.pictures.items():
        turned = {**request.pictures, role: picture.crop((0, 0, 96, 128)).resize(picture.size)}
        assert difference(make(engine, request, pictures=turned), make(engine, request)) > 0, role


@pytest.mark.parametrize("name", ["img2img", "kontext", "fill", "control", "redux"])
def test_pictures_with_alpha_or_a_palette_are_taken(engine: GpuEngine, name: str) -> None:
    request = REQUESTS[name]
    for mode in ("RGBA", "P", "L"):
        pictures = {role: picture.convert(mode) for role, picture in request.pictures.items()}
        assert make(engine, request, pictures=pictures).size == (128, 128)


@pytest.mark.parametrize("name", ["text2img", "img2img", "kontext"])
def test_a_negative_prompt_steers_away(engine: GpuEngine, name: str) -> None:
    request = replace(REQUESTS[name], true_cfg=4.0)
    pictures = [
        make(engine, REQUESTS[name]),
        make(engine, request),  # away from the empty prompt
        make(engine, request, negative_prompt="a table"),
        make(engine, request, negative_prompt="a cat"),
    ]
    assert len(set(map(pixels, pictures))) == len(pictures)


def test_a_negative_prompt_that_would_do_nothing_is_refused(engine: GpuEngine) -> None:
    with pytest.raises(JobError, match="negative_prompt does nothing without true_cfg above 1"):
        make(engine, REQUESTS["text2img"], negative_prompt="a cat")


@pytest.mark.parametrize(
    ("name", "changes", "key"),
    [
        ("fill", {"true_cfg": 4.0}, "true_cfg"),
        ("control", {"true_cfg": 4.0}, "true_cfg"),
        ("redux", {"true_cfg": 4.0}, "true_cfg"),
        ("kontext", {"strength": 0.5}, "strength"),
        ("text2img", {"strength": 0.5}, "strength"),
    ],
)
def test_a_key_that_means_nothing_to_the_pipeline_is_never_dropped_silently(
    engine: GpuEngine, name: str, changes: dict[str, Any], key: str
) -> None:
    with pytest.raises(SettingsError, match=f"{key} = .* means nothing to") as caught:
        make(engine, REQUESTS[name], **changes)
    assert caught.value.code == "bad-preset"


def test_image_strength_is_refused_by_all_but_redux(engine: GpuEngine) -> None:
    with pytest.raises(JobError, match="text2img has no use for image_strength"):
        make(engine, REQUESTS["text2img"], image_strength=0.5)


@pytest.mark.parametrize(
    ("name", "role"), [("fill", "mask"), ("fill", "image"), ("control", "control"), ("redux", "image")]
)
def test_a_picture_that_is_needed_and_not_there_is_named(engine: GpuEngine, name: str, role: str) -> None:
    pictures = {key: picture for key, picture in REQUESTS[name].pictures.items() if key != role}
    with pytest.raises(JobError, match=f"{role} is missing"):
        make(engine, REQUESTS[name], pictures=pictures)


def test_a_picture_of_no_use_is_refused(engine: GpuEngine) -> None:
    with pytest.raises(JobError, match="control has no use for mask"):
        make(engine, REQUESTS["control"], pictures={"control": source(), "mask": mask()})


def test_img2img_makes_as_many_steps_as_strength_leaves(engine: GpuEngine) -> None:
    for steps, strength in ((4, 0.75), (4, 0.3), (5, 1.0), (3, 0.01), (8, 0.6)):
        seen: list[tuple[int, int]] = []

        def tick(phase: str, step: int, of: int, seen: list[tuple[int, int]] = seen) -> None:
            if phase == "denoise":
                seen.append((step, of))

        engine.make(replace(REQUESTS["img2img"], steps=steps, strength=strength), tick)
        left = steps_left(steps, strength)
        assert seen == [(step, left) for step in range(1, left + 1)]


def test_img2img_stays_nearer_to_its_source_with_less_strength(engine: GpuEngine) -> None:
    request = replace(REQUESTS["img2img"], steps=8)
    # The tiny VAE does not give back what it was given: what it makes of the source is the nearest there is.
    nearest = make(engine, request, strength=0.001)
    near, far = (make(engine, request, strength=strength) for strength in (0.2, 0.9))
    assert difference(near, nearest) < difference(far, nearest)


def test_img2img_with_a_strength_that_leaves_no_step_says_so(engine: GpuEngine) -> None:
    with pytest.raises(JobError, match="strength = 0 leaves none of 4 steps") as caught:
        make(engine, REQUESTS["img2img"], strength=0.0)
    assert (caught.value.code, caught.value.hint) == ("bad-value", "raise strength or steps")


def test_img2img_without_strength_asks_for_it(engine: GpuEngine) -> None:
    with pytest.raises(JobError, match="strength is missing"):
        make(engine, REQUESTS["img2img"], strength=None)


def test_kontext_works_without_a_picture(engine: GpuEngine) -> None:
    assert make(engine, REQUESTS["kontext"], pictures={}).size == (128, 128)


@pytest.mark.parametrize(("size", "seen"), [((128, 128), (128, 128)), ((6000, 4000), (144, 96)), ((40, 20), (176, 80))])
def test_kontext_sees_its_reference_in_its_own_shape_with_as_many_pixels_as_the_result(
    size: tuple[int, int], seen: tuple[int, int]
) -> None:
    request = replace(REQUESTS["kontext"], pictures={"image": source(*size)})
    reference = KINDS["kontext"].arguments(request)["image"]
    assert reference.size == seen
    if size == seen:
        assert pixels(reference) == pixels(source())


def test_kontext_of_a_model_that_knows_few_sizes_sees_its_reference_at_that_of_the_result() -> None:
    request = replace(REQUESTS["kontext"], sizes=("128x128",), pictures={"image": source(600, 400)})
    assert KINDS["kontext"].arguments(request)["image"].size == (128, 128)


def test_kontext_does_not_stretch_its_reference_to_a_million_pixels(engine: GpuEngine) -> None:
    tokens = []

    def look(_module: Any, _arguments: Any, named: dict[str, Any]) -> None:
        tokens.append(named["hidden_states"].shape[1])

    make(engine, REQUESTS["kontext"])
    loaded = engine.pool.models[REQUESTS["kontext"].model.key]
    assert isinstance(loaded, Loaded)
    hook = loaded.pipe.transformer.register_forward_pre_hook(look, with_kwargs=True)
    make(engine, REQUESTS["kontext"])
    hook.remove()
    assert set(tokens) == {2 * (128 // 16) ** 2}  # the result and the reference


def test_fill_keeps_what_is_black_in_the_mask_to_the_pixel_and_repaints_what_is_white(engine: GpuEngine) -> None:
    picture = np.asarray(make(engine, REQUESTS["fill"]))
    before, white = np.asarray(source()), np.asarray(mask()) == 255
    assert (picture[~white] == before[~white]).all()
    assert (picture[white] != before[white]).mean() > 0.9


def test_fill_blends_what_is_grey_in_the_mask(engine: GpuEngine) -> None:
    grey = Image.new("L", (128, 128), 0)
    grey.paste(192, (32, 32, 96, 96))
    picture = make(engine, REQUESTS["fill"], pictures={"image": source(), "mask": grey})
    assert 0 < difference(picture, source()) < difference(make(engine, REQUESTS["fill"]), source())


def test_fill_crops_what_rounding_cuts_away_and_scales_nothing(engine: GpuEngine) -> None:
    pictures = {"image": source(139, 130), "mask": Image.new("L", (139, 130), 0)}
    made = engine.make(replace(REQUESTS["fill"], pictures=pictures), ignore)
    assert pixels(made.image) == pixels(source(139, 130).crop((5, 1, 133, 129)))
    assert "image was cropped from 139x130 to 128x128" in made.notices


def test_a_source_of_another_shape_is_cropped_in_the_middle_not_stretched() -> None:
    wide = Image.new("L", (400, 100), "black")
    wide.paste("white", (150, 0, 250, 100))
    assert np.asarray(fit(wide, (64, 64))).min() > 240


def test_what_was_done_to_a_source_is_said() -> None:
    request = replace(REQUESTS["img2img"], pictures={"image": source(300, 100)})
    prepared, notices = prepare(KINDS["text2img"], request)
    assert prepared.pictures["image"].size == (128, 128)
    assert notices == ["image was scaled and cropped from 300x100 to 128x128"]


def test_redux_puts_together_what_its_own_pipeline_would(engine: GpuEngine) -> None:
    import torch

    request = REQUESTS["redux"]
    make(engine, request)
    loaded = engine.pool.models[request.model.key]
    assert isinstance(loaded, Loaded)
    with torch.no_grad():
        tokens, pooled, _ids = loaded.pipe.encode_prompt(request.prompt, None, max_sequence_length=64)
        assert loaded.kind.condition is not None
        ours = loaded.kind.condition(loaded.prior, request, tokens, pooled)
        loaded.prior.register_modules(text_encoder=loaded.pipe.text_encoder)
        theirs = loaded.prior(request.pictures["image"], prompt_embeds=tokens, pooled_prompt_embeds=pooled.clone())
        loaded.prior.register_modules(text_encoder=None)
    assert torch.equal(ours[0], theirs.prompt_embeds)
    assert torch.equal(ours[1], theirs.pooled_prompt_embeds)


def test_redux_works_without_a_prompt(engine: GpuEngine) -> None:
    none, blank = (make(engine, REQUESTS["redux"], prompt=prompt) for prompt in ("", " "))
    assert none.size == (128, 128)
    assert difference(none, blank) > 0


def test_redux_follows_its_source_as_strongly_as_asked_and_forgets_it_for_the_next(engine: GpuEngine) -> None:
    request = REQUESTS["redux"]
    usual, weak = make(engine, request), make(engine, request, image_strength=0.3)
    assert difference(usual, weak) > 0
    assert pixels(make(engine, request, image_strength=1.0)) == pixels(usual)


def test_a_prompt_in_any_script_is_painted(engine: GpuEngine, tmp_path: Path) -> None:
    assert make(engine, REQUESTS["text2img"], prompt="猫 ☕ \u202e naïve\n\x00").size == (128, 128)
