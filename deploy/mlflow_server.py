"""What runs in the MLflow container: serve, healthy, upgrade, export, restore.

Stands alone (no module of the project is in the image) and is set by the environment, as
docker-compose.mlflow.yml fills it in: PGHOST, PGUSER, PGPASSWORD, PGDATABASE; ARTIFACTS_BUCKET
(empty: the folder /home/mlflow/artifacts) with MLFLOW_S3_ENDPOINT_URL and the AWS keys; UPLOADS_FOLDER,
which is emptied at the start; MLFLOW_SERVER_ALLOWED_HOSTS; AUTH (true: ask who is there) with
MLFLOW_AUTH_ADMIN_PASSWORD.
"""

import os
import shutil
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# The password stands in PGPASSWORD, which libpq reads: not in an address that ps and logs show.
DATABASE = "postgresql+psycopg2:///"
FOLDER = Path(os.environ.get("ARTIFACTS_FOLDER") or "/home/mlflow/artifacts")
PORT = int(os.environ.get("PORT") or 5000)
PROBE = "/api/2.0/mlflow/experiments/search?max_results=1"
TRUE = ("1", "true", "yes", "on")


# What a variable is called in .env, where it has another name.
IN_ENV = {
    "PGPASSWORD": "POSTGRES_PASSWORD",
    "AWS_ACCESS_KEY_ID": "S3_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY": "S3_SECRET_ACCESS_KEY",
    "MLFLOW_AUTH_ADMIN_PASSWORD": "MLFLOW_ADMIN_PASSWORD",
    "MLFLOW_FLASK_SERVER_SECRET_KEY": "MLFLOW_SECRET_KEY",
    "MLFLOW_SERVER_ALLOWED_HOSTS": "MLFLOW_ALLOWED_HOSTS",
}


def main(command: str) -> int:
    # Compose passes what is not set as an empty text, which boto3 would take for a key.
    for name in [name for name, value in os.environ.items() if not value]:
        del os.environ[name]
    try:
        match command:
            case "serve":
                serve()
            case "healthy":
                return healthy()
            case "upgrade":
                os.execv(sys.executable, [*mlflow("db", "upgrade"), DATABASE])
            case "export":
                export(sys.stdout.buffer)
            case "restore":
                restore(sys.stdin.buffer)
            case _:
                return fail(f"{command!r} is not one of serve, healthy, upgrade, export, restore")
    except Exception as error:  # the edge of the program: everything ends as one line
        reason = " ".join(str(error).split())
        return fail(reason if isinstance(error, (PermissionError, ValueError)) else f"{type(error).__name__}: {reason}")
    return 0


def serve() -> None:
    """Become the MLflow server."""
    need("PGHOST", "PGUSER", "PGPASSWORD", "PGDATABASE", "MLFLOW_SERVER_ALLOWED_HOSTS")
    clear_uploads()
    name, prefix = bucket()
    if name:
        if "MLFLOW_S3_ENDPOINT_URL" in os.environ:  # Amazon's own may know the machine instead
            need("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        make_bucket(name)
        destination = f"s3://{name}/{prefix}".rstrip("/")
    else:
        FOLDER.mkdir(parents=True, exist_ok=True)
        if not os.access(FOLDER, os.W_OK):
            raise PermissionError(
                f"user {os.getuid()} may not write to {FOLDER} (./mlruns of the project): give the folder to it, "
                "or set MLFLOW_UID in .env to the user who owns it"
            )
        destination = str(FOLDER)
    arguments = mlflow("server", "--host", os.environ.get("HOST") or "0.0.0.0", "--port", str(PORT))  # in a container
    arguments += ["--workers", os.environ.get("WORKERS") or "2"]
    arguments += ["--backend-store-uri", DATABASE, "--artifacts-destination", destination]
    if asks_who():
        need("MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY")
        arguments += ["--app-name", "basic-auth"]
        os.environ["MLFLOW_AUTH_CONFIG_PATH"] = str(auth_config())
    # MLflow's jobs judge answers of language models: eight processes that nothing here asks for.
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    os.execv(sys.executable, arguments)


def clear_uploads() -> None:
    """Remove what a server that was killed left of the artifacts that passed through; a volume keeps it otherwise."""
    folder = os.environ.get("UPLOADS_FOLDER")
    for path in Path(folder).iterdir() if folder else ():
        with suppress(OSError):  # of another user, before MLFLOW_UID was changed
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()


def need(*names: str) -> None:
    for name in names:
        if name not in os.environ:
            raise ValueError(f"{IN_ENV.get(name, name)} is not set: see .env.example")


def mlflow(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "mlflow", *arguments]


def asks_who() -> bool:
    return (os.environ.get("AUTH") or "false").lower() in TRUE


def auth_config() -> Path:
    """Users stand in the same database as the runs, so that one backup holds both."""
    handle, path = tempfile.mkstemp(suffix=".ini")
    with os.fdopen(handle, "w") as file:
        file.write(
            f"[mlflow]\ndefault_permission = READ\ndatabase_uri = {DATABASE}\nadmin_username = admin\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
            # A password is hashed at each request otherwise, and a training makes a hundred of them. A changed
            # password or a deleted user may hold for as many seconds in another worker.
            "auth_cache_ttl_seconds = 60\n"
        )
    return Path(path)


def healthy() -> int:
    """Ask a real route, which needs the database; MLflow's /health answers without it."""
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}{PROBE}")
    # A Host header that the server knows: the first of those allowed, without a wildcard.
    hosts = [host for host in os.environ.get("MLFLOW_SERVER_ALLOWED_HOSTS", "").split(",") if host and "*" not in host]
    if hosts:
        request.add_header("Host", hosts[0])
    try:
        with urllib.request.urlopen(request, timeout=8):
            return 0
    except urllib.error.HTTPError as error:
        # Who asks is not known here; that it wants to know shows that it works.
        return 0 if error.code == 401 and asks_who() else fail(f"{error.code} {error.reason}")


def bucket() -> tuple[str, str]:
    """Name and prefix of ARTIFACTS_BUCKET (`s3://name/prefix` or `name/prefix`); empty without one."""
    name, _, prefix = (os.environ.get("ARTIFACTS_BUCKET") or "").removeprefix("s3://").strip("/").partition("/")
    return name, prefix


def s3() -> Any:
    import boto3  # only where there is a bucket

    return boto3.client("s3", endpoint_url=os.environ.get("MLFLOW_S3_ENDPOINT_URL") or None)


def make_bucket(name: str) -> None:
    from botocore.exceptions import ClientError

    client = s3()
    try:
        client.head_bucket(Bucket=name)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("404", "NoSuchBucket"):
            raise PermissionError(
                f"the bucket {name} refuses ({error}): check S3_ACCESS_KEY_ID and its secret"
            ) from None
        client.create_bucket(Bucket=name)


def export(out: Any) -> None:
    """Write every artifact as one tar stream."""
    name, prefix = bucket()
    with tarfile.open(fileobj=out, mode="w|") as tar:
        if not name:
            for path in sorted(FOLDER.rglob("*")):
                if path.is_file():
                    tar.add(path, path.relative_to(FOLDER).as_posix(), recursive=False)
            return
        client = s3()
        start = f"{prefix}/" if prefix else ""
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=name, Prefix=start):
            for entry in page.get("Contents", []):
                found = client.get_object(Bucket=name, Key=entry["Key"])
                member = tarfile.TarInfo(entry["Key"].removeprefix(start))
                member.size = found["ContentLength"]
                tar.addfile(member, found["Body"])


def restore(source: Any) -> None:
    """Put the artifacts of a tar stream back; what is there under another name stays."""
    name, prefix = bucket()
    if name:
        make_bucket(name)
    client = s3() if name else None
    with tarfile.open(fileobj=source, mode="r|") as tar:
        for member in tar:
            body = tar.extractfile(member)
            if body is None:  # a folder, or what no export writes
                continue
            if client is not None:
                # In parts, however large; the stream cannot be wound back, so it has nothing but `read`.
                stream = SimpleNamespace(read=body.read)
                client.upload_fileobj(stream, name, f"{prefix}/{member.name}".lstrip("/"))
                continue
            path = (FOLDER / member.name).resolve()
            if not path.is_relative_to(FOLDER.resolve()):
                raise ValueError(f"{member.name}: outside the artifacts' folder; this is no export of theirs")
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f"{path.name}.partial")
            with partial.open("wb") as file:
                shutil.copyfileobj(body, file)
            partial.replace(path)


def fail(reason: str) -> int:
    sys.stderr.write(f"ERROR mlflow server: {reason}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) == 2 else "serve" if len(sys.argv) == 1 else " ".join(sys.argv[1:])))
