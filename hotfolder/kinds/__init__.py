"""What a model does. To add a kind: one file here, one line in `KINDS`, one class in `jobfile`."""

from collections.abc import Mapping
from typing import Final

from hotfolder.kinds import control, fill, kontext, redux, text2img
from hotfolder.kinds.kind import Kind

#: Name -> kind.
KINDS: Final[Mapping[str, Kind]] = {
    "text2img": text2img.KIND,
    "kontext": kontext.KIND,
    "fill": fill.KIND,
    "control": control.KIND,
    "redux": redux.KIND,
}
