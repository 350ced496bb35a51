"""pose: the skeleton of the person in a picture, in the colours of OpenPose. ViTPose.

The model looks at one person, whose box is the whole picture.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from PIL import Image, ImageDraw

from hotfolder.engine import Answer, Question
from hotfolder.errors import SettingsError
from hotfolder.helpers.helper import Helper, Ready, only

#: How much of its surroundings the model was trained to see with a person.
_PADDING: Final = 1.25
#: A joint that the model is less sure of than this is not drawn.
_SURE: Final = 0.3
#: The joints that are drawn are COCO's; models of hands or animals tell others.
_JOINTS_OF_COCO: Final = 17

_LEFT_SHOULDER, _RIGHT_SHOULDER = 5, 6
#: OpenPose's joints, from nose to left ear, as COCO numbers them; the neck lies between the shoulders.
_ORDER: Final = (0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
#: Bones, by OpenPose's joints counted from 0. Source: `limbSeq` of pytorch-openpose, as control models were trained on.
_BONES: Final = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13), (1, 0),
    (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
#: Of the joints, and of the bones in the same order. Source: the same.
_COLOURS: Final = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0), (0, 255, 85),
    (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255), (170, 0, 255),
    (255, 0, 255), (255, 0, 170), (255, 0, 85),
)  # fmt: skip
#: Bones are drawn darker than joints, so that these can be told.
_BONE_LIGHT: Final = 0.6
#: Radius of a joint and half the width of a bone in a picture of 512 pixels; larger ones have larger ones.
_RADIUS: Final = 4 / 512


class Joint(NamedTuple):
    """Where a joint is, in pixels."""

    x: float
    y: float
    #: How sure the model is, 0 to 1.
    score: float


def _run(ready: Ready, question: Question, _tick: Callable[[int, int], None]) -> Answer:
    picture = only(question)
    size = ready.processor.size
    left, top, step = _window(picture.size, (size["width"], size["height"]))
    # The processor would do this with scipy, which nothing else needs.
    shown = picture.transform(
        (size["width"], size["height"]),
        Image.Transform.AFFINE,
        (step, 0, left, 0, step, top),
        Image.Resampling.BICUBIC,
    )
    seen = ready.processor(shown, boxes=[[[0, 0, *shown.size]]], do_affine_transform=False, return_tensors="pt")
    heat = ready.model(**ready.inputs(**seen)).heatmaps[0].float().cpu()  # (joints, h, w)
    if heat.shape[0] != _JOINTS_OF_COCO:
        found = f"model {question.model.repo} tells {heat.shape[0]} joints, not the {_JOINTS_OF_COCO} of COCO"
        raise SettingsError("wrong-model", found, "such as usyd-community/vitpose-base-simple")
    cell = shown.width / heat.shape[2]
    joints = [_peak(each, left, top, step, cell) for each in heat]
    drawn = draw(picture.size, joints)
    if all(joint.score < _SURE for joint in joints):
        return Answer(image=drawn, notices=("no person was found in the picture",))
    return Answer(image=drawn)


def _window(size: tuple[int, int], shape: tuple[int, int]) -> tuple[float, float, float]:
    """Return left, top, and pixels of the picture for one of the model's input.

    Args:
        size: of the picture.
        shape: what the model takes.
    """
    step = max(size[0] / shape[0], size[1] / shape[1]) * _PADDING
    return (size[0] - shape[0] * step) / 2, (size[1] - shape[1] * step) / 2, step


def _peak(heat: Any, left: float, top: float, step: float, cell: float) -> Joint:
    """Return where a heat map (h, w) is hottest, a quarter of a cell nearer to the warmer neighbour.

    Args:
        cell: pixels of the model's input for one of the map.
    """
    height, width = heat.shape
    row, column = divmod(int(heat.argmax()), width)
    x, y = column + 0.5, row + 0.5
    if 0 < column < width - 1:
        x += 0.25 * float((heat[row, column + 1] - heat[row, column - 1]).sign())
    if 0 < row < height - 1:
        y += 0.25 * float((heat[row + 1, column] - heat[row - 1, column]).sign())
    return Joint(left + x * cell * step, top + y * cell * step, float(heat[row, column]))


def draw(size: tuple[int, int], joints: list[Joint]) -> Image.Image:
    """Return a skeleton on black.

    Args:
        joints: 17, in the order of COCO: nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles; left first.
    """
    canvas = Image.new("RGB", size)
    brush = ImageDraw.Draw(canvas)
    one, other = joints[_LEFT_SHOULDER], joints[_RIGHT_SHOULDER]
    neck = Joint((one.x + other.x) / 2, (one.y + other.y) / 2, min(one.score, other.score))
    found = [neck if place is None else joints[place] for place in _ORDER]
    radius = max(1.0, max(size) * _RADIUS)
    for (start, end), colour in zip(_BONES, _COLOURS, strict=False):
        if min(found[start].score, found[end].score) >= _SURE:
            line = (found[start].x, found[start].y, found[end].x, found[end].y)
            red, green, blue = (int(value * _BONE_LIGHT) for value in colour)
            brush.line(line, fill=(red, green, blue), width=max(1, round(2 * radius)))
    for joint, colour in zip(found, _COLOURS, strict=True):
        if joint.score >= _SURE:
            brush.circle((joint.x, joint.y), radius, fill=colour)
    return canvas


HELPER: Final = Helper(models={"VitPoseForPoseEstimation": "VitPoseImageProcessorPil"}, run=_run)
