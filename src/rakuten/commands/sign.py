"""Sign the model in models/, so that the registry's users know that it is yours; or make the key that signs."""

import argparse
import getpass
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rakuten.cli import run_command
from rakuten.config import MODELS, load_params
from rakuten.errors import UserError
from rakuten.files import digest
from rakuten.models.classifier import MANIFEST_FILE, ProductClassifier
from rakuten.tracking import lineage, registry, server, signatures

PASSWORD_VARIABLE = "SIGNING_PASSWORD"


def command(arguments: argparse.Namespace) -> str:
    """Sign models/ or make a key; returns what was done."""
    if arguments.new_key is not None:
        public_key = signatures.new_key(arguments.new_key, _password("password of the new key (empty: none): ", True))
        sys.stdout.write(f"{public_key}\n")
        return (
            f"the secret key is in {arguments.new_key}, readable only by you; "
            "put the public key above into models.require_signature in params.yaml"
        )
    return _sign_model(arguments.key)


def _sign_model(key: Path) -> str:
    """Sign the model that dvc.lock records: these files, never those that the registry has."""
    secret_key = signatures.read_key(key)
    ProductClassifier.load(MODELS)  # whose files are those of its manifest
    manifest = MODELS / MANIFEST_FILE
    if lineage.dvc_lock_digests("train", "outs").get(lineage.repo_relative(manifest)) != digest(manifest, "md5"):
        raise UserError(f"{MODELS} is not the model that dvc.lock records: `dvc repro` or `dvc checkout`, then sign")
    server.check_server()
    with server.mlflow_errors():
        numbers = registry.numbers_by_digest(lineage.model_digest(MODELS))
        if not numbers:
            raise UserError(
                f"{registry.MODEL_NAME} on {server.redacted_uri()} has no version with the model in {MODELS}: "
                "`rakuten sync`, or train with that server"
            )
        if secret_key.is_encrypted():
            signatures.decrypt(secret_key, _password(f"password of {key}: "))
        if load_params().models.require_signature not in (signatures.NO_SIGNATURE, signatures.public_key(secret_key)):
            raise UserError(f"{key} does not match models.require_signature in params.yaml: the model would be refused")
        signature = signatures.sign(manifest, secret_key)
        for number in numbers:
            registry.set_signature(number, signature)
    return f"signed: version {', '.join(numbers)} (model {lineage.model_version(MODELS)})"


def _password(prompt: str, repeat: bool = False) -> str:
    """From the environment, or typed at a terminal; empty where there is neither."""
    if PASSWORD_VARIABLE in os.environ or not sys.stdin.isatty():
        return os.environ.get(PASSWORD_VARIABLE, "")
    password = getpass.getpass(prompt)
    if repeat and password and getpass.getpass("once more: ") != password:
        raise UserError("the two passwords differ; no key was created")
    return password


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="rakuten sign", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--key", metavar="FILE", type=Path, help="sign with this secret key (minisign)")
    what.add_argument("--new-key", metavar="FILE", type=Path, help="create a secret key, and show its public key")
    return run_command("sign", command, parser, argv)
