"""What results depend on besides data and parameters."""

import hashlib
import unicodedata
from functools import cache
from importlib.metadata import version
from pathlib import Path

FINGERPRINT_PACKAGES = (
    "ftfy", "numpy", "onnxruntime", "pandas", "pillow", "scikit-learn", "scipy", "sentencepiece", "tokenizers",
)  # fmt: skip


@cache
def code_fingerprint() -> str:
    """SHA-256 of this library's code and of the versions of the packages that results depend on."""
    state = hashlib.sha256(f"unicode {unicodedata.unidata_version}".encode())
    library = Path(__file__).resolve().parents[1]
    for path in sorted(library.rglob("*.py")):
        state.update(path.relative_to(library).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    for package in FINGERPRINT_PACKAGES:
        state.update(f"{package} {version(package)}\n".encode())
    return state.hexdigest()
