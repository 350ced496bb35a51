"""A page as a browser sees it."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """A page as a browser sees it: its elements, its text, and whether every element is closed."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        #: Of each element, in order: all the text in it.
        self.told: list[str] = []
        self._at: list[int] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(data.decode())
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        self.told.append("")
        if tag not in {"img", "link", "meta"}:
            self.open.append(tag)
            self._at.append(len(self.told) - 1)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self._at.pop()

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data
        for at in self._at:
            self.told[at] += data

    def texts(self, name: str) -> list[str]:
        return [text for (tag, _), text in zip(self.elements, self.told, strict=True) if tag == name]

    def classed(self, name: str) -> list[str]:
        """Return the texts of the elements of a class."""
        found = zip(self.elements, self.told, strict=True)
        return [text for (_, attributes), text in found if name in attributes.get("class", "").split()]

    def all(self, name: str, attribute: str) -> list[str]:
        return [attributes[attribute] for tag, attributes in self.elements if tag == name and attribute in attributes]

    @property
    def refresh(self) -> str | None:
        found = [one["content"] for tag, one in self.elements if tag == "meta" and one.get("http-equiv") == "refresh"]
        return found[0] if found else None
