"""Gets models from the Hugging Face Hub: the small files first, safetensors only; can be left at any time."""

import errno
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import Future
from contextlib import suppress
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Final

from hotfolder import models
from hotfolder.engine import Tick
from hotfolder.errors import SettingsError
from hotfolder.models import Checkpoint, HelperFiles
from hotfolder.presets import Model, Preset, Presets
from hotfolder.settings import Settings, prepare_models

#: How often a download looks whether it is to stop.
_LOOK_S: Final = 0.5


def pipeline(
    repo: str, revision: str, variant: str | None, check: Callable[[Checkpoint], None], *, has_transformer: bool
) -> None:
    """Get a pipeline.

    Args:
        check: raises where it is of another kind; called before its gigabytes are got.
        has_transformer: whether `check` looks at the configs of its transformer and its VAE.
    """
    from diffusers import DiffusionPipeline
    from huggingface_hub import hf_hub_download

    index = hf_hub_download(repo, "model_index.json", revision=revision)
    for part in ("transformer", "vae") if has_transformer else ():
        hf_hub_download(repo, f"{part}/config.json", revision=revision)
    check(Checkpoint(repo=repo, folder=Path(index).parent, revision=""))
    DiffusionPipeline.download(repo, revision=revision, variant=variant, use_safetensors=True)


def helper(model: Model, check: Callable[[HelperFiles], object]) -> None:
    """Get a helper model: its one file, or a folder of transformers.

    Args:
        check: as for `pipeline`.
    """
    from huggingface_hub import hf_hub_download, snapshot_download

    if model.file is not None:
        hf_hub_download(model.repo, model.file, revision=model.revision)
        return
    config = hf_hub_download(model.repo, "config.json", revision=model.revision)
    check(HelperFiles(repo=model.repo, folder=Path(config).parent, revision=""))
    # Weights last: where they are, the rest is.
    snapshot_download(model.repo, revision=model.revision, allow_patterns=list(models.HELPER_CONFIGS))
    folder = snapshot_download(model.repo, revision=model.revision, allow_patterns=models.HELPER_WEIGHTS)
    if not any(Path(folder).glob(models.HELPER_WEIGHTS)):
        raise FileNotFoundError(f"{model.repo} has no model.safetensors at revision {model.revision}")


def run(
    get: Callable[[], None], repo: str, preset: str, settings: Settings, tick: Tick, *, file: str | None = None
) -> None:
    """Run one of the above beside this thread, and say what went wrong in the words of `models.missing`.

    A download that was left goes on where it was, the next time.

    Raises:
        SettingsError: `model-missing`; transient where the network or the Hub failed. `disk-full`. What `get` raises.
        JobStopped: from `tick`.
    """
    known = _preset(preset, settings)
    if not settings.download or models.is_folder(repo):
        raise models.missing(repo, settings, known, file=file)
    prepare_models(settings)
    from httpx2 import HTTPError

    try:
        _in_background(get, tick)
    # RuntimeError: what fetches the large files (hf-xet) has no other for a network that fails.
    except (OSError, ValueError, RuntimeError, HTTPError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            hint = f"make room on the disk of {settings.models_path}"
            raise SettingsError("disk-full", f"model {repo} does not fit on the disk", hint) from error
        cause = _cause(error)
        raise models.missing(
            repo,
            settings,
            known,
            first_line(cause or error),
            file=file,
            transient=cause is not None,
            retry_after_s=_retry_after_s(cause) if cause else None,
        ) from error


def first_line(error: BaseException) -> str:
    """Return what an error of a library says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _preset(name: str, settings: Settings) -> Preset | None:
    try:
        return Presets.of(settings.presets_dir).get(name)
    except SettingsError:
        return None  # it has gone since the job was planned


def _in_background(work: Callable[[], None], tick: Tick) -> None:
    done: Future[None] = Future()

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            done.set_exception(error)
        else:
            done.set_result(None)

    # A thread of its own that nobody waits for at the end, as an executor would.
    threading.Thread(target=run, name="download", daemon=True).start()
    while not done.done():
        tick("download", 0, 0)
        futures.wait([done], timeout=_LOOK_S)
    done.result()


def _cause(error: BaseException) -> BaseException | None:
    """Return what of the network or the Hub failed, where that may pass by itself; else None.

    The Hub's library wraps it, more than once, in errors that say that a file is not here.
    """
    from httpx2 import HTTPStatusError, TransportError
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    for each in _causes(error):
        match each:
            case OfflineModeIsEnabled():
                return None
            case HTTPStatusError() | HfHubHTTPError():
                status = each.response.status_code
                busy = status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR
                return each if busy else None
            case TransportError() | ConnectionError() | TimeoutError():
                return each
            case _:
                pass
    return error if type(error) is RuntimeError else None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it came from."""
    each: BaseException | None = error
    while each is not None:
        yield each
        each = each.__cause__ or each.__context__


def _retry_after_s(error: BaseException) -> float | None:
    """Return how long the Hub asks to wait: its Retry-After is in seconds, or a date."""
    response = getattr(error, "response", None)
    value = "" if response is None else response.headers.get("Retry-After", "")
    with suppress(ValueError):
        return max(0.0, float(value))
    with suppress(ValueError, OverflowError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return None
