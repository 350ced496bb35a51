"""How a NAME is made of a file's name, told from its take, and shown."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hotfolder import names
from hotfolder.names import make_safe, safe_name, shown, split_take, take_folder

#: Whatever Linux gives as a name: any bytes but / and NUL, those that are no UTF-8 as surrogates.
FILE_NAMES = st.binary(min_size=1, max_size=255).map(
    lambda data: data.replace(b"/", b"_").replace(b"\0", b"_").decode("utf-8", "surrogateescape")
)


@given(FILE_NAMES)
@example("-" + "x" * 77 + " y.toml")
@example("x" * 250 + ".toml")
@example("\u00e9" * 125 + ".toml")
@example(" . .toml")
@example("COM1.toml")
def test_a_safe_name_can_be_written_on_every_file_system_and_shown_anywhere(file_name: str) -> None:
    name = safe_name(file_name)
    assert 1 <= len(name.encode()) <= names.MAX_NAME_BYTES
    assert unicodedata.is_normalized("NFC", name)
    assert not set(name) & set('<>:"/\\|?*')
    assert name == name.strip(" .")
    assert not name.startswith(("-", "~", "#", "@", "."))
    assert name.partition(".")[0].lower() not in {"con", "prn", "aux", "nul", "com1", "lpt9"}
    assert make_safe(name) == name, "making a safe name safe changes nothing"


@given(FILE_NAMES, st.integers(1, 10_000))
def test_the_folder_of_a_take_tells_name_and_take_again(file_name: str, take: int) -> None:
    name = safe_name(file_name)
    assert split_take(take_folder(name, take)) == (name, take)


@pytest.mark.parametrize(
    ("folder", "told"),
    [
        ("mug_take01", ("mug", 1)),
        ("mug_take100", ("mug", 100)),
        ("mug_take01_take02", ("mug_take01", 2)),
        ("mug", None),
        ("_take01", None),
        ("mug_take1", None),
        ("mug_take999999", ("mug", 999_999)),
        ("mug_take999999999", None),
        ("mug_take01_001", None),
        ("mug_take01\n", None),
        ("mug_take\u0660\u0661", None),
    ],
)
def test_only_a_folder_named_as_a_take_is_one(folder: str, told: tuple[str, int] | None) -> None:
    assert split_take(folder) == told


@given(FILE_NAMES)
def test_a_shown_name_is_printable_and_can_be_encoded(file_name: str) -> None:
    assert shown(file_name).isprintable()
    shown(file_name).encode()


def test_terminal_codes_undecodable_bytes_and_turned_text_are_shown_escaped() -> None:
    assert shown("a\x1b[31m\udcff\u202eb\nc") == r"a\x1b[31m\udcff\u202eb\nc"
