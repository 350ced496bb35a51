"""Models that stages ask, one file for each kind. To add one: one file here, one line in `HELPERS`."""

from collections.abc import Mapping
from typing import Final

from hotfolder.helpers import clip, depth, detect, pose, upscale
from hotfolder.helpers.helper import Helper

#: Name -> helper.
HELPERS: Final[Mapping[str, Helper]] = {
    "detect": detect.HELPER,
    "depth": depth.HELPER,
    "pose": pose.HELPER,
    "clip": clip.HELPER,
    "upscale": upscale.HELPER,
}
