"""What text and image bases share: where they are found, and a digest of their weights.

A base on Hugging Face's hub is downloaded once, at a pinned commit, and then used offline.
"""

import hashlib
import re
from pathlib import Path

import httpx
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from torch import nn

from rakuten.config import ROOT
from rakuten.errors import UserError

FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]  # never a pickle, never code
_NAME = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def base_folder(name: str, revision: str | None, section: str) -> Path:
    """The folder of a base: one that is there, or one that is downloaded from the hub unless it was before.

    Args:
        name: a folder, from the project's root, or a name on the hub.
        revision: commit on the hub; needed for a name on the hub only.
        section: of params.yaml, for errors, such as "finetune.text".

    Raises:
        UserError: it is neither, or cannot be downloaded.
    """
    if (ROOT / name).is_dir():
        return ROOT / name
    if not _NAME.fullmatch(name):
        raise UserError(f"{section}.base: {ROOT / name}: no such folder")
    if not _COMMIT.fullmatch(revision or ""):
        raise UserError(f"{section}.revision: pin {name} to a commit, 40 hex digits, as its page on the hub lists them")
    for local in (True, False):
        try:
            return Path(snapshot_download(name, revision=revision, allow_patterns=FILES, local_files_only=local))
        except LocalEntryNotFoundError:
            continue
        except (RepositoryNotFoundError, RevisionNotFoundError) as error:
            raise UserError(f"{section}: {name} at {revision}: not found on the hub") from error
        except (HfHubHTTPError, httpx.HTTPError, OSError) as error:
            raise UserError(f"{section}.base: {name}: the hub cannot be reached ({first_line(error)})") from error
    raise UserError(
        f"{section}.base: {name}: is not a folder here, and the hub cannot be reached to download it; "
        "download it elsewhere and give the folder"
    )


def weights_digest(network: nn.Module) -> str:
    """SHA-256 of the names and values of a network's parameters and buffers, such as the means of batch norms."""
    found = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        found.update(name.encode() + b"\0" + tensor.numpy().tobytes())
    return found.hexdigest()


def first_line(error: BaseException) -> str:
    """What an exception says, in one line; a line that ends with a colon says nothing without the next one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
