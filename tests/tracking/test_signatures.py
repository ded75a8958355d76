import shutil
import subprocess
from pathlib import Path

import minisign
import pytest

from rakuten.errors import UserError
from rakuten.tracking.signatures import NO_SIGNATURE, check_signature, decrypt, new_key, read_key, sign

# The example of https://jedisct1.github.io/minisign: the file `test`, as the program minisign has signed it.
PUBLIC_KEY = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3"
SIGNATURE = """untrusted comment: signature from minisign secret key
RUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=
trusted comment: timestamp:1633700835\tfile:test\tprehashed
wLMDjy9FLAuxZ3q4NlEvkgtyhrr0gtTu6KC4KBJdITbbOeAi1zBIYo0v4iTgt8jJpIidRJnp94ABQkJAgAooBQ==
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    (tmp_path / "manifest.json").write_text("test")
    return tmp_path / "manifest.json"


def test_a_signature_of_the_program_minisign_is_accepted(manifest: Path) -> None:
    check_signature("it", manifest, SIGNATURE, PUBLIC_KEY)


def test_what_is_signed_here_is_accepted_by_the_program_minisign(manifest: Path, tmp_path: Path) -> None:
    program = shutil.which("minisign")
    if program is None:
        pytest.skip("needs minisign")
    public_key = new_key(tmp_path / "models.key", "")
    (tmp_path / "signature").write_text(sign(manifest, read_key(tmp_path / "models.key")))
    command = [program, "-V", "-P", public_key, "-x", str(tmp_path / "signature"), "-m", str(manifest)]
    subprocess.run(command, check=True, capture_output=True)


def test_a_new_key_signs_and_only_its_owner_can_read_it(manifest: Path, tmp_path: Path) -> None:
    key = tmp_path / "keys" / "models.key"
    public_key = new_key(key, "")
    assert key.stat().st_mode & 0o777 == 0o600
    check_signature("it", manifest, sign(manifest, read_key(key)), public_key)
    with pytest.raises(UserError, match="already exists; choose another file"):
        new_key(key, "")


def test_a_key_with_a_password_signs_only_with_it(manifest: Path, tmp_path: Path) -> None:
    public_key = new_key(tmp_path / "models.key", "open sesame")
    secret_key = read_key(tmp_path / "models.key")
    assert secret_key.is_encrypted()
    with pytest.raises(UserError, match="cannot be decrypted: wrong password"):
        decrypt(secret_key, "open")
    decrypt(secret_key, "open sesame")
    check_signature("it", manifest, sign(manifest, secret_key), public_key)


def test_a_changed_model_another_key_and_what_is_no_signature_are_refused(manifest: Path, tmp_path: Path) -> None:
    public_key, other = new_key(tmp_path / "a.key", ""), new_key(tmp_path / "b.key", "")
    signature = sign(manifest, read_key(tmp_path / "a.key"))
    with pytest.raises(UserError, match="not match the key in models.require_signature .incompatible key"):
        check_signature("it", manifest, signature, other)
    lines = signature.splitlines()
    for damaged in ("", "RW", "\n".join([*lines[:2], lines[2] + "0", lines[3]]), "\n".join(lines[:3])):
        with pytest.raises(UserError, match="is not signed" if not damaged else "it is refused"):
            check_signature("it", manifest, damaged, public_key)
    manifest.write_text("tes")
    with pytest.raises(UserError, match="signature verification failed"):
        check_signature("it", manifest, signature, public_key)
    with pytest.raises(UserError, match="it is not signed, but models.require_signature"):
        check_signature("it", manifest, None, public_key)
    check_signature("it", manifest, None, NO_SIGNATURE)


def test_what_is_no_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.key: cannot be read .*rakuten sign --new-key"):
        read_key(tmp_path / "a.key")
    (tmp_path / "a.key").write_text(f"untrusted comment: public\n{PUBLIC_KEY}\n")
    with pytest.raises(UserError, match="not a secret key of minisign"):
        read_key(tmp_path / "a.key")


def test_a_signature_holds_the_time_and_the_file(manifest: Path, tmp_path: Path) -> None:
    new_key(tmp_path / "models.key", "")
    signature = minisign.Signature.from_bytes(sign(manifest, read_key(tmp_path / "models.key")).encode())
    assert signature.trusted_comment.startswith("timestamp:")
    assert "file:manifest.json" in signature.trusted_comment
