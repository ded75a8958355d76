"""API keys: long random words of which only the SHA-256 is kept, one line each: `name:hash`.

`rakuten keys NAME` makes one. A line taken out of the file revokes its key at once.
"""

import hashlib
import hmac
import logging
import re
import secrets
from pathlib import Path

from rakuten.errors import UserError
from rakuten.files import atomic_write

log = logging.getLogger(__name__)

NAME_PATTERN = re.compile(r"[A-Za-z0-9_.-]{1,40}")
LINE_PATTERN = re.compile(rf"({NAME_PATTERN.pattern}):([0-9a-f]{{64}})")


class ApiKeys:
    """The keys of a file, read again when it changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._hashes: dict[str, str] = {}

    def owner(self, key: str) -> str | None:
        """Whose key this is; None for nobody's. Every hash is compared, in constant time each."""
        given = hashlib.sha256(key.encode()).hexdigest()
        found = None
        for name, known in self._read().items():
            if hmac.compare_digest(given, known):
                found = name
        return found

    def there(self) -> bool:
        """Whether there is any key."""
        return bool(self._read())

    def _read(self) -> dict[str, str]:
        try:
            stat = self._path.stat()
        except OSError:
            self._stamp = None
            return {}  # no file, no keys: nobody is let in
        if (stat.st_mtime_ns, stat.st_size) != self._stamp:
            self._hashes = parse_keys(self._path.read_text(encoding="utf-8"))
            self._stamp = (stat.st_mtime_ns, stat.st_size)
        return self._hashes


def parse_keys(text: str) -> dict[str, str]:
    """Name -> hash. A line that is none is left out with a warning: a typing error must not let anybody in."""
    found = {}
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.partition("#")[0].strip()
        if match := LINE_PATTERN.fullmatch(stripped):
            found[match[1]] = match[2]
        elif stripped:
            log.warning("line %d of the keys' file is not `name:sha256` and is left out", number)
    return found


def add_key(path: Path, name: str) -> str:
    """A new key for a name that has none; only its hash is written. Returns the key.

    Raises:
        UserError: the name has a key, or holds other characters than letters, digits and _.-
    """
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if not NAME_PATTERN.fullmatch(name):
        raise UserError(f"{name!r}: a name has 1 to 40 letters, digits, '_', '.' or '-'")
    if name in parse_keys(text):
        raise UserError(f"{name} has a key in {path}: take its line out first, which revokes it")
    key = secrets.token_urlsafe(32)
    with atomic_write(path) as (part,):
        part.touch(mode=0o600)
        lines = text + ("" if not text or text.endswith("\n") else "\n")
        part.write_text(f"{lines}{name}:{hashlib.sha256(key.encode()).hexdigest()}\n", encoding="utf-8")
        part.chmod(0o600)
    return key
