"""The device that a network is trained on: CUDA, Apple's MPS or the CPU."""

import platform
from contextlib import AbstractContextManager, nullcontext

import torch
from torch.utils import collect_env

from rakuten.config import FinetuneDevice
from rakuten.errors import UserError


def find_device(choice: FinetuneDevice) -> torch.device:
    """The device that finetune.device of params.yaml chooses; for "auto" the first of CUDA, MPS and CPU that is there.

    Raises:
        UserError: this machine, or the installed torch, does not have it.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if choice == "auto":
        return torch.device(next(name for name, is_there in available.items() if is_there))
    if not available[choice]:
        raise UserError(f"finetune.device: torch {torch.__version__} finds no {choice} here; use auto or cpu")
    return torch.device(choice)


def describe(device: torch.device) -> str:
    """The device, its driver and the version of torch, for the record of a run."""
    if device.type == "cuda":
        driver = collect_env.get_nvidia_driver_version(collect_env.run)
        name = torch.cuda.get_device_name(device)
        return f"{name}, driver {driver}, CUDA {torch.version.cuda}, torch {torch.__version__}"
    return f"{device.type} ({platform.machine()}), torch {torch.__version__}"


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """bfloat16 for matrix products where the device has it; on the CPU 32-bit floats throughout."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        mixed: AbstractContextManager[object] = torch.autocast("cuda", torch.bfloat16)
        return mixed
    return nullcontext()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that the device, or this machine, has no more memory."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def free_memory(device: torch.device) -> None:
    """Give cached memory of the device back to it."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
