"""The models that the program brings along, put where all others are: they go through the same loading.

The trained ones are shipped as weights, where there are any; those of `noise` are made up.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from hotfolder import noise
from hotfolder.errors import SettingsError

#: The shipped weights: a folder for each model.
WEIGHTS: Final = Path(__file__).parent / "tiny_weights"
#: Where the parts are that a model has in common with another: "MODEL/PART" -> "MODEL/PART".
SAME: Final = "same.json"


def build(name: str, folder: Path, weights: Path = WEIGHTS) -> None:
    """Make the model `name` ("tiny", "noise-fill", ...) as `folder`, unless it stands there already.

    Made beside and renamed, so that `folder` is never half there. Of two that make one at once one wins, with the same
    bytes.

    Args:
        weights: where the trained ones are.

    Raises:
        SettingsError: `bad-preset`: there is no such model; `cannot-write`: the folder cannot be made.
    """
    if name not in (names := _names(weights)):
        known = ", ".join(f"hotfolder/{other}" for other in names)
        raise SettingsError(
            "bad-preset", f"model.repo = 'hotfolder/{name}': there is no such model", f"there are: {known}"
        )
    if folder.is_dir():
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=folder.parent) as beside:
            built = Path(beside) / name
            if (weights / name).is_dir():
                _copy(weights / name, built)
            else:
                noise.RECIPES[name]().save_pretrained(built)
            _flush(built)
            built.rename(folder)
    except OSError as error:
        if not folder.is_dir():  # else another process built it meanwhile
            hint = "models_dir must be a folder that the daemon may write, on a disk with room"
            raise SettingsError("cannot-write", f"{folder} cannot be made: {error.strerror or error}", hint) from error


def _names(weights: Path) -> list[str]:
    return sorted({*noise.RECIPES, *(path.name for path in weights.glob("*/"))})


def _copy(shipped: Path, folder: Path) -> None:
    """Copy a shipped model, with what it has in common with others. Not its modes: a package may be read-only."""
    same: dict[str, str] = json.loads((shipped.parent / SAME).read_bytes())
    own = f"{shipped.name}/"
    parts = {part.removeprefix(own): there for part, there in same.items() if part.startswith(own)}
    copies = {shipped: folder} | {shipped.parent / there: folder / part for part, there in parts.items()}
    for root, copied in copies.items():
        for file in (path for path in root.rglob("*") if path.is_file()):
            to = copied / file.relative_to(root)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, to)


def _flush(folder: Path) -> None:
    """Bring all files to the disk before the rename: after a power cut the folder is whole or not there."""
    for path in (folder, *folder.rglob("*")):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
