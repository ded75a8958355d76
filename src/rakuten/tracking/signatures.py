"""Signatures of models, in the format of minisign (Ed25519).

A model's manifest has the digests of its other files, so a signature of the manifest is one of the whole model. It is
made where the model was trained and kept as a tag of the registered version: whoever may write to the registry, but has
not the secret key, can replace neither the model nor its signature.
"""

import time
from pathlib import Path

import minisign

from rakuten.errors import UntrustedModelError, UserError
from rakuten.files import write_secret

NO_SIGNATURE = "none"  # models.require_signature, where none is asked for


def new_key(path: Path, password: str) -> str:
    """Write a new secret key to a file that its owner alone can read; returns the public key.

    Args:
        password: with which the key is encrypted; empty to leave it as it is.

    Raises:
        UserError: the file exists.
    """
    if path.exists():
        raise UserError(f"{path} already exists; choose another file, so that no key is overwritten")
    secret_key = minisign.KeyPair.generate().secret_key
    public = public_key(secret_key)
    if password:
        secret_key.encrypt(password)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_secret(path, f"{bytes(secret_key).decode()}\n")
    return public


def public_key(secret_key: minisign.SecretKey) -> str:
    """The public key of a secret key, which must not be encrypted."""
    text: str = secret_key.get_public_key().to_base64().decode()
    return text


def read_key(path: Path) -> minisign.SecretKey:
    """Read a secret key, as `new_key` or the program minisign writes it.

    Raises:
        UserError: there is no such file, or it is no secret key.
    """
    try:
        return minisign.SecretKey.from_file(path)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); create a key with `rakuten sign --new-key`"
        ) from error
    except minisign.Error as error:
        raise UserError(f"{path}: not a secret key of minisign ({error})") from error


def decrypt(secret_key: minisign.SecretKey, password: str) -> None:
    """Decrypt a secret key in place.

    Raises:
        UserError: the password is wrong.
    """
    try:
        secret_key.decrypt(password)
    except minisign.Error as error:
        raise UserError(f"the secret key cannot be decrypted: {error}") from error


def sign(manifest: Path, secret_key: minisign.SecretKey) -> str:
    """The signature of a model's manifest, as text of four lines."""
    comment = f"timestamp:{int(time.time())}\tfile:{manifest.name}\thashed"
    return bytes(secret_key.sign(manifest.read_bytes(), trusted_comment=comment)).decode()


def check_signature(name: str, manifest: Path, signature: str | None, require_signature: str) -> None:
    """Check the signature of a model.

    Args:
        name: of the model, for the message.
        require_signature: the public key, or NO_SIGNATURE.

    Raises:
        UntrustedModelError: a signature is asked for, and there is none or not one of that key for this manifest.
    """
    if require_signature == NO_SIGNATURE:
        return
    if not signature:
        raise UntrustedModelError(
            f"{name} is not signed, but models.require_signature in params.yaml requires it: sign it where it was "
            "trained, with `rakuten sign --key FILE`"
        )
    try:
        minisign.PublicKey.from_base64(require_signature).verify(
            manifest.read_bytes(), minisign.Signature.from_bytes(signature.encode())
        )
    except minisign.Error as error:
        raise UntrustedModelError(
            f"{name} is refused: its signature does not match the key in models.require_signature ({error}): the "
            "model was altered, or signed with another key"
        ) from error
