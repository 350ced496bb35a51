"""Whatever is dropped as a picture is taken as it is shown, or called a bad picture: in no time and little memory."""

from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from limits import EXAMPLES, check_problem, cost
from mutations import nearly_right
from odd_pictures import FORMATS, REFUSED, TAKEN, drawn
from PIL import Image
from readers import Desk, refusal
from seeds import SEEDS, picture
from taking import loaded, settings_in

from hotfolder.errors import Problem

#: Of a small picture, and of one that says it is larger than is accepted.
MAX_CPU_S = 1.0
MAX_MB = 120.0
#: Of a large one, and of a few bytes that may be one (a lossless WebP of one colour), for each pixel at its peak.
MAX_BYTES_A_PIXEL = 20
MAX_NS_A_PIXEL = 80


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk(tmp_path_factory.mktemp("pictures") / "work")


@pytest.fixture(scope="module")
def tried() -> Iterator[Counter[str]]:
    """How many pictures were looked at."""
    count: Counter[str] = Counter()
    yield count
    print(f"\nhostile pictures tried: {count.total()}")


def check(desk: Desk, data: bytes) -> tuple[Problem, ...]:
    with cost() as spent:
        problems = refusal("picture", desk, data)
    pixels = accepted_pixels(desk, data)
    assert spent.cpu_s < MAX_CPU_S + pixels * MAX_NS_A_PIXEL / 1e9
    assert spent.peak_mb < MAX_MB + pixels * MAX_BYTES_A_PIXEL / 1e6
    for problem in problems:
        check_problem(problem)
        assert problem.code == "bad-picture"
        assert problem.hint
    return problems


def accepted_pixels(desk: Desk, data: bytes) -> int:
    """Return how many pixels a picture says that it has; 0 where that is nothing, or more than is accepted."""
    try:
        with Image.open(BytesIO(data)) as image:
            pixels = image.width * image.height
    except Exception:  # noqa: BLE001 - decoders raise whatever they like
        return 0
    return pixels if pixels <= desk.settings.inbox.max_megapixels * 1_000_000 else 0


@pytest.mark.filterwarnings("ignore")  # decoders warn of what they then refuse
@settings(max_examples=EXAMPLES * 4, deadline=None, suppress_health_check=list(HealthCheck))
@given(random=st.randoms(use_true_random=False))
def test_a_picture_that_is_nearly_right_is_taken_or_refused(desk: Desk, tried: Counter[str], random: Random) -> None:
    tried["picture"] += 1
    check(desk, nearly_right(random, SEEDS["picture"]))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", FORMATS)
def test_a_picture_that_ends_too_soon_is_refused(form: str, desk: Desk, tried: Counter[str]) -> None:
    data = drawn(form)
    assert not check(desk, data)
    for end in range(0, len(data) * 9 // 10, 1 + len(data) // 100):
        tried["picture"] += 1
        assert check(desk, data[:end]), end


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TAKEN)
def test_an_odd_picture_is_taken_at_its_size(name: str, desk: Desk, tmp_path: Path) -> None:
    data, size = TAKEN[name]
    assert not check(desk, data)
    image = loaded(settings_in(tmp_path), data)
    assert (image.size, image.mode) == (size, "RGB")
    if name.startswith("moving"):
        red, green, blue = np.asarray(image).mean(axis=(0, 1))
        assert red > 200, "its first frame"
        assert max(green, blue) < 60


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_picture_for_us_is_refused(name: str, desk: Desk) -> None:
    assert check(desk, REFUSED[name])


LARGE = [("PNG", "RGBA"), ("PNG", "I;16"), ("TIFF", "F"), ("WEBP", "RGBA"), ("JPEG", "CMYK")]


@pytest.mark.parametrize(("form", "mode"), LARGE)
def test_memory_grows_with_the_pixels_that_are_allowed_and_no_faster(desk: Desk, form: str, mode: str) -> None:
    data = picture(form, mode, (2000, 2000))
    with cost() as spent:
        assert not refusal("picture", desk, data)
    assert spent.peak_mb < 40 + 4 * MAX_BYTES_A_PIXEL
