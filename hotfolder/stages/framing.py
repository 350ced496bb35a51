"""Where a frame of a shape lies in a picture."""

from typing import Final

from PIL import Image

#: Left, top, right, bottom in pixels; right and bottom are the first that are not in it.
Area = tuple[int, int, int, int]
Size = tuple[int, int]

NO_SUBJECT: Final = "nothing stands out in the picture: its centre was kept"


def place(picture: Image.Image, aspect: str, gravity: str) -> tuple[Area, str | None]:
    """Return the largest part of a shape, where gravity draws it, and what there is to tell about that."""
    frame = largest(picture.size, aspect)
    if gravity != "subject":
        return _drawn_to(frame, picture.size, gravity), None
    from hotfolder.stages.subject import find_subject  # and numpy with it: large, and seldom needed

    subject = find_subject(picture)
    if subject is None:
        return _drawn_to(frame, picture.size, "center"), NO_SUBJECT
    return around((subject.left, subject.top, subject.right, subject.bottom), frame, picture.size), None


def largest(size: Size, aspect: str) -> Size:
    """Return the largest frame of a shape that fits into a picture: one of its sides is the picture's."""
    (width, height), (across, down) = size, _shape(aspect)
    if width * down > height * across:
        return min(width, max(1, round(height * across / down))), height
    return width, min(height, max(1, round(width * down / across)))


def smallest(size: Size, aspect: str) -> Size:
    """Return the smallest frame of a shape that holds a picture: one of its sides is the picture's."""
    (width, height), (across, down) = size, _shape(aspect)
    if width * down > height * across:
        return width, max(height, round(width * down / across))
    return max(width, round(height * across / down)), height


def around(area: Area, frame: Size, size: Size) -> Area:
    """Return a frame with an area in its middle, moved as little as keeps it inside the picture."""
    (width, height), (left, top, right, bottom) = frame, area
    left = min(max(0, (left + right - width) // 2), size[0] - width)
    top = min(max(0, (top + bottom - height) // 2), size[1] - height)
    return left, top, left + width, top + height


def corner(thing: Size, size: Size, anchor: str, margin: int = 0) -> tuple[int, int]:
    """Return left and top of a thing that keeps to a corner or a side, such as "bottom-right", or to the centre."""
    across, down = size[0] - thing[0], size[1] - thing[1]
    left = margin if "left" in anchor else across - margin if "right" in anchor else across // 2
    top = margin if "top" in anchor else down - margin if "bottom" in anchor else down // 2
    return left, top


def _drawn_to(frame: Size, size: Size, gravity: str) -> Area:
    left, top = corner(frame, size, gravity)
    return left, top, left + frame[0], top + frame[1]


def _shape(aspect: str) -> Size:
    across, down = aspect.split(":")
    return int(across), int(down)
