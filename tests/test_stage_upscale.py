"""upscale: by Lanczos, and by a model tile after tile."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from stage_calls import MODEL, AskedEngine, Ticks, cut_out, photo, picture_of, run

from hotfolder.engine import Answer, Question
from hotfolder.errors import JobError


def model(times: int) -> AskedEngine:
    """A model that makes each pixel `times` as large."""

    def enlarge(question: Question) -> Answer:
        (tile,) = question.pictures
        enlarged = tile.resize((tile.width * times, tile.height * times), Image.Resampling.NEAREST)
        return Answer(image=enlarged, model={"repo": "x"}, timings={"infer": 0.25})

    return AskedEngine(enlarge)


@settings(deadline=None, max_examples=50)
@given(width=st.integers(1, 90), height=st.integers(1, 90), factor=st.floats(1.01, 8))
def test_the_result_has_exactly_the_size_that_is_asked_for(width: int, height: int, factor: float) -> None:
    given = Image.new("RGB", (width, height), "teal")
    size = round(width * factor), round(height * factor)
    assert picture_of("upscale", given, factor=factor).size == size
    assert picture_of("upscale", given, model(2), factor=factor, by="esr").size == size


def test_a_plain_picture_stays_plain() -> None:
    made = picture_of("upscale", Image.new("RGB", (9, 7), (1, 77, 254)), factor=2.5)
    assert made.getcolors() == [(made.width * made.height, (1, 77, 254))]


@pytest.mark.parametrize("size", [(512, 512), (513, 512), (700, 300), (40, 1100), (993, 992), (1, 1), (1300, 700)])
def test_tiles_put_together_are_the_whole(size: tuple[int, int]) -> None:
    given = photo(*size)
    made = picture_of("upscale", given, model(2), factor=2.0, by="esr")
    whole = given.resize((size[0] * 2, size[1] * 2), Image.Resampling.NEAREST)
    assert made.tobytes() == whole.tobytes()


def test_tiles_are_at_most_512_pixels_and_share_32() -> None:
    engine = model(1)
    # Colours tell where a tile was.
    rows, columns = np.mgrid[:1100, :1300]
    given = Image.fromarray(
        np.stack([rows % 251, columns % 251, (rows // 251) * 16 + columns // 251], -1).astype(np.uint8)
    )
    picture_of("upscale", given, engine, factor=1.5, by="esr")

    spans = set()
    for question in engine.asked:
        assert (question.kind, question.preset, question.model) == ("upscale", "esr", MODEL)
        pixels = np.asarray(question.pictures[0]).astype(int)
        assert max(pixels.shape[:2]) <= 512
        assert pixels.shape == np.asarray(engine.asked[0].pictures[0]).shape
        left = pixels[0, 0, 1] + 251 * (pixels[0, 0, 2] % 16)
        spans.add((left, left + pixels.shape[1]))
    ordered = sorted(spans)
    assert (ordered[0][0], ordered[-1][1]) == (0, 1300)
    assert all(first[1] - second[0] >= 32 for first, second in itertools.pairwise(ordered))


def test_where_tiles_differ_one_passes_softly_into_the_next() -> None:
    """A model that makes every tile as bright as it likes: no step between neighbours may be seen."""
    engine = AskedEngine()
    shades = iter([60, 120, 180, 220, 90, 150, 30, 200, 240] * 2)

    def shade(question: Question) -> Answer:
        size = question.pictures[0].size
        return Answer(image=Image.new("RGB", (size[0] * 2, size[1] * 2), (next(shades),) * 3))

    engine.answer = shade
    made = np.asarray(picture_of("upscale", photo(1100, 1100), engine, factor=2.0, by="esr")).astype(int)[..., 0]
    assert len(engine.asked) == 9
    # At most 210 over the 64 pixels that two tiles share, in each direction.
    assert np.abs(np.diff(made, axis=0)).max() <= 5
    assert np.abs(np.diff(made, axis=1)).max() <= 5


def test_what_the_model_does_not_reach_is_done_by_lanczos_and_told() -> None:
    outcome = run("upscale", photo(30, 20), model(2), factor=3.0, by="esr")
    assert outcome.work.picture.size == (90, 60)
    assert outcome.notices == ("esr enlarges 2 times; the rest was done by Lanczos",)


def test_what_the_model_makes_too_large_is_brought_to_size() -> None:
    outcome = run("upscale", photo(30, 20), model(4), factor=1.5, by="esr")
    assert outcome.work.picture.size == (45, 30)
    assert outcome.notices == ()


def test_the_time_of_all_tiles_is_told_and_each_can_be_stopped() -> None:
    tick = Ticks()
    outcome = run("upscale", photo(600, 600), model(2), factor=2.0, by="esr", tick=tick)
    assert outcome.timings == {"infer": 1.0}
    assert outcome.model == {"repo": "x"}
    assert [came for came in tick.came if came[0] == "upscale"] == [
        ("upscale", 0, 0), *(("upscale", done, 4) for done in range(5)),
    ]  # fmt: skip


def test_a_model_is_given_colour_and_the_alpha_is_enlarged_beside_it() -> None:
    engine = model(2)
    given = cut_out(60, 40)
    made = picture_of("upscale", given, engine, factor=2.0, by="esr")
    assert engine.asked[0].pictures[0].tobytes() == given.convert("RGB").tobytes()
    assert made.getchannel("A").tobytes() == given.getchannel("A").resize((120, 80), Image.Resampling.LANCZOS).tobytes()


def test_a_model_that_distorts_is_a_bug() -> None:
    crooked = AskedEngine(lambda _: Answer(image=Image.new("RGB", (61, 41))))
    with pytest.raises(RuntimeError, match="the model made"):
        run("upscale", photo(30, 20), crooked, by="esr")


def test_a_size_that_would_fill_the_memory_is_refused() -> None:
    with pytest.raises(JobError, match=r"factor = 8\.0 would make a picture of 24000x16000 pixels") as caught:
        run("upscale", Image.new("RGB", (3000, 2000)), factor=8.0)
    assert caught.value.code == "bad-value"
