"""export: the finished picture and its sidecar; what it does is to put them on disk, see `outputs`."""

from typing import Final

from hotfolder.stages.work import Ending

STAGE: Final = Ending(version=1)
