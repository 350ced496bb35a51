"""Weights from their files into memory: the one place where any are loaded, and what it means when they cannot be."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from hotfolder import download, models
from hotfolder.errors import SettingsError
from hotfolder.helpers.helper import Helper, Ready
from hotfolder.models import Checkpoint, HelperFiles
from hotfolder.presets import Model

#: What PyTorch says where it raises no OutOfMemoryError.
_NO_MEMORY: Final = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


def pipeline(
    checkpoint: Checkpoint, class_name: str, dtype: str, variant: str | None, shared: Mapping[str, Any]
) -> Any:
    """Load a pipeline of diffusers into main memory.

    Args:
        shared: parts that are in memory already.

    Raises:
        SettingsError: `bad-model`.
    """
    import diffusers
    import torch

    with explained(checkpoint):
        pipe = getattr(diffusers, class_name).from_pretrained(
            checkpoint.folder,
            dtype=getattr(torch, dtype),
            variant=variant,
            use_safetensors=True,  # other formats can run code when they are read
            local_files_only=True,
            **shared,
        )
    pipe.set_progress_bar_config(disable=True)
    if "transformer" in pipe.components:
        # Whatever the environment says: another attention makes other pixels.
        pipe.transformer.set_attention_backend("native")
    return pipe


def helper_model(helper: Helper, files: HelperFiles, class_name: str, model: Model, device: Any) -> Ready:
    """Load a helper model onto a device.

    Raises:
        SettingsError: `bad-model`.
    """
    import torch
    import transformers

    dtype = getattr(torch, model.dtype)
    with explained(files):
        if files.file is not None and helper.read_file is not None:
            read = helper.read_file(files.folder / files.file)
            return Ready(model=read.to(device, dtype), processor=None)
        read = getattr(transformers, class_name).from_pretrained(
            files.folder,
            dtype=dtype,
            variant=model.variant,
            use_safetensors=True,  # as above
            local_files_only=True,
        )
        named = {"processor": helper.models[class_name]} | ({"tokenizer": helper.tokenizer} if helper.tokenizer else {})
        others = {
            role: getattr(transformers, name).from_pretrained(files.folder, local_files_only=True)
            for role, name in named.items()
        }
    return Ready(model=read.to(device).eval(), **others)


def bytes_of(part: Any) -> int:
    """Return the memory that the weights of a part take; 0 for what has none, such as a tokenizer."""
    import torch

    if isinstance(part, Ready):
        part = part.model
    if not isinstance(part, torch.nn.Module):
        return 0
    return sum(tensor.numel() * tensor.element_size() for tensor in (*part.parameters(), *part.buffers()))


@contextmanager
def explained(files: Checkpoint | HelperFiles, what: str = "model") -> Iterator[None]:
    """Turn what a library says of files that it cannot load into `bad-model`."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        if is_out_of_memory(error) or is_broken_device(error):
            raise
        found = f"{what} {files.repo} cannot be loaded from {files.folder}: {download.first_line(error)}"
        anew = f"delete {files.root}; it is made or got anew"
        mend = f"mend {files.folder}, or name another one in the preset"
        hint = mend if models.is_folder(files.repo) else anew
        raise SettingsError("bad-model", found, hint) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the device or of the machine."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY)


def is_broken_device(error: BaseException) -> bool:
    """Whether the CUDA context is broken: nothing works on it any more in this process."""
    import torch

    if is_out_of_memory(error):
        return False
    return isinstance(error, torch.AcceleratorError) or (
        isinstance(error, RuntimeError) and "CUDA error:" in str(error)
    )
