"""HTML from anybody's text: escaped in this one place, so that nobody who writes a page can forget it."""

import re
from html import escape
from typing import Final
from urllib.parse import quote

#: Control codes, half characters, and marks that turn the direction of what follows; a line break and a tab stay.
_UNSHOWABLE: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufffe\uffff]")
#: What makes a difference: the above, and what means something in HTML.
_SPECIAL: Final = re.compile(f"{_UNSHOWABLE.pattern[:-1]}&<>\"']")
#: Elements that have no end tag.
_VOID: Final = frozenset({"img", "link", "meta"})


class Html(str):
    """Text that is HTML already. Any other text is escaped where it becomes part of it."""

    __slots__ = ()


NOTHING: Final = Html("")


def tag(element: str, *inside: str | Html, **attributes: str) -> Html:
    """Return an element. `class_` stands for `class`, `aria_label` for `aria-label`; empty attributes are left out."""
    words = [
        f' {name.rstrip("_").replace("_", "-")}="{value if isinstance(value, Html) else _escaped(value)}"'
        for name, value in attributes.items()
        if value
    ]
    start = f"<{element}{''.join(words)}>"
    return Html(start if element in _VOID else f"{start}{join(*inside)}</{element}>")


def link(path: str, text: str | Html, *, class_: str = "") -> Html:
    """Return a link to a file by its path, with slashes, relative to the page."""
    href = "/".join(quote(part, safe="", errors="surrogateescape") for part in path.split("/"))
    return tag("a", text if isinstance(text, Html) else bdi(text), href=href, class_=class_)


def bdi(text: str | Html) -> Html:
    """Return a stranger's text, which may run from right to left, as an island."""
    return tag("bdi", text)


def join(*parts: str | Html) -> Html:
    """Return the parts one after the other."""
    return Html("".join(part if isinstance(part, Html) else _escaped(part) for part in parts))


def _escaped(text: str) -> str:
    # Most of what a page holds needs nothing: a page has hundreds of such pieces.
    return escape(_UNSHOWABLE.sub(_code, text)) if _SPECIAL.search(text) else text


def _code(found: re.Match[str]) -> str:
    number = ord(found.group())
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"  # noqa: PLR2004 - as Python writes them
