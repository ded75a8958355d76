"""API keys: long random strings, stored only as their SHA-256, one `name:hash` or `name:hash:role` line for each.

`rakuten keys NAME` creates one. Deleting a line from the file revokes its key at once.
"""

import hashlib
import hmac
import logging
import re
import secrets
from pathlib import Path
from typing import NamedTuple

from rakuten.errors import UserError
from rakuten.files import write_secret
from rakuten.serving.roles import Role

log = logging.getLogger(__name__)

NAME_PATTERN = re.compile(r"[A-Za-z0-9_.-]{1,40}")
LINE_PATTERN = re.compile(rf"({NAME_PATTERN.pattern}):([0-9a-f]{{64}})(?::({'|'.join(Role.__members__).lower()}))?")


class StoredKey(NamedTuple):
    """What the file has of a key."""

    sha256: str  # in hex digits
    role: Role


class Owner(NamedTuple):
    """Whom a key belongs to, and what it may be used for."""

    name: str
    role: Role


class ApiKeys:
    """The keys in a file, which is read again whenever it changes.

    Without the file no key is valid. If it cannot be read, those that were read before are.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None  # modification time and size of the file that was read
        self._keys: dict[str, StoredKey] = {}

    def owner(self, key: str) -> Owner | None:
        """Whom a key belongs to, or None. Every hash is compared, each in constant time."""
        key_hash = hashlib.sha256(key.encode()).hexdigest()
        owner = None
        for name, stored in self._read().items():
            if hmac.compare_digest(key_hash, stored.sha256):
                owner = Owner(name, stored.role)
        return owner

    def has_keys(self) -> bool:
        """Whether the file has any key."""
        return bool(self._read())

    def _read(self) -> dict[str, StoredKey]:
        try:
            stat = self._path.stat()
        except OSError:
            self._stamp, self._keys = None, {}
            return {}
        if (stat.st_mtime_ns, stat.st_size) != self._stamp:
            self._stamp = (stat.st_mtime_ns, stat.st_size)
            try:
                self._keys = parse_keys(self._path.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError) as error:
                log.warning("%s cannot be read (%s); the keys read before stay valid", self._path, error)
        return self._keys


def parse_keys(text: str) -> dict[str, StoredKey]:
    """The hash and the role of each name's key; a line without a role is of the least one.

    `#` starts a comment. An invalid line is skipped with a warning, so that a typing error never makes a valid key.
    """
    keys = {}
    for number, line in enumerate(text.splitlines(), start=1):
        entry = line.partition("#")[0].strip()
        if match := LINE_PATTERN.fullmatch(entry):
            keys[match[1]] = StoredKey(match[2], Role[(match[3] or "classify").upper()])
        elif entry:
            log.warning("line %d of the keys file is not `name:sha256` or `name:sha256:role` and is skipped", number)
    return keys


def add_key(path: Path, name: str, output: Path | None = None, role: Role = Role.CLASSIFY) -> str:
    """Create a key for a new name and return it; its hash is written to a file that its owner alone can read.

    Args:
        role: what the key may be used for.
        output: a file for the key itself. It is written first: a hash whose key is lost would be of no use.

    Raises:
        UserError: the name has a key already, or holds other characters than letters, digits and _.-; or the file
            cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 (byte {error.start}); fix or delete that line") from error
    if not NAME_PATTERN.fullmatch(name):
        raise UserError(f"{name!r}: a name has 1 to 40 letters, digits, '_', '.' or '-'")
    if name in parse_keys(text):
        raise UserError(f"{name} has a key in {path}: delete its line first, which revokes it")
    key = secrets.token_urlsafe(32)
    separator = "" if not text or text.endswith("\n") else "\n"
    key_hash = hashlib.sha256(key.encode()).hexdigest()
    role_suffix = "" if role == Role.CLASSIFY else f":{role.word}"
    if output is not None:
        write_secret(output, key)
    write_secret(path, f"{text}{separator}{name}:{key_hash}{role_suffix}\n")
    return key
