"""Which commit holds the code, the parameters and the dvc.lock of a training, whenever that commit was made."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from rakuten.errors import UserError
from rakuten.tracking.lineage import git, git_bytes
from rakuten.yaml_files import parse_yaml

TRAINING_STAGES = ("ingest", "features", "finetune", "train")
MAX_COMMITS = 200  # the newest, of branches and tags: not of DVC's experiments, nor stashed
COMMIT_HINT = "commit the code, params.yaml and dvc.lock that made it (`git add`, `git commit`)"


def find_commit(dvc_lock: Mapping[str, Any]) -> str:
    """The newest commit that holds the training stages as `dvc_lock` records them, with their code and parameters.

    Args:
        dvc_lock: the content of the dvc.lock of a training.

    Raises:
        UserError: there is none; the message says what differs from the nearest.
    """
    stages = _training_stages(dvc_lock)
    differences: list[str] = []
    revisions = ("HEAD", "--branches", "--tags", "--remotes", "--topo-order", f"--max-count={MAX_COMMITS}")
    for commit in (git("log", *revisions, "--format=%H") or "").split():
        if _training_stages(_yaml_of(commit, "dvc.lock")) != stages:
            continue
        found = list(_differences(commit, stages))
        if not found:
            return commit
        differences = differences or [f"commit {commit[:10]} has its dvc.lock, but another {', '.join(found)}"]
    raise UserError(f"{'; '.join(differences) or 'no commit has the dvc.lock of its training'}: {COMMIT_HINT}")


def _training_stages(dvc_lock: Mapping[str, Any]) -> dict[str, Any]:
    stages = dvc_lock.get("stages") or {}
    return {name: stages[name] for name in TRAINING_STAGES if name in stages}


def _differences(commit: str, stages: Mapping[str, Any]) -> Iterator[str]:
    """The files, folders and parameters that the stages depend on and that a commit has otherwise."""
    params = _yaml_of(commit, "params.yaml")
    dependencies = {entry["path"]: entry["md5"] for stage in stages.values() for entry in stage.get("deps", ())}
    for path, md5 in dependencies.items():
        if (digest := _dvc_digest(commit, path)) is not None and digest != md5:
            yield path
    values = {name: value for stage in stages.values() for name, value in _recorded_params(stage).items()}
    for name, value in values.items():
        if _leaf(params, name) != value:
            yield f"{name} in params.yaml"


def _recorded_params(stage: Mapping[str, Any]) -> dict[str, Any]:
    return dict((stage.get("params") or {}).get("params.yaml") or {})


def _leaf(params: Any, name: str) -> Any:
    for key in name.split("."):
        params = params.get(key) if isinstance(params, dict) else None
    return params


def _yaml_of(commit: str, path: str) -> Mapping[str, Any]:
    """The content of a YAML file in a commit; empty if it has no such file."""
    entry = (git("ls-tree", commit, "--", path) or "").split()
    return _parse_yaml(entry[2]) if entry else {}


@cache
def _parse_yaml(blob: str) -> Mapping[str, Any]:
    try:
        loaded = parse_yaml(git("cat-file", "blob", blob) or "")
    except UserError:  # committed in the middle of an edit
        return {}
    return loaded if isinstance(loaded, dict) else {}


def _dvc_digest(commit: str, path: str) -> str | None:
    """The MD5 that DVC would record for code, or data with a .dvc file, of a commit; None for anything else.

    A folder of data may hold files that Git ignores, such as an encoder of the user's own.
    """
    tracked = _yaml_of(commit, f"{path}.dvc").get("outs")
    if tracked:
        return str(tracked[0].get("md5"))
    entry = (git("ls-tree", commit, "--", path) or "").split() if path.startswith("src/") else []
    if not entry:  # else mode, type, id, path
        return None
    return _folder_digest(entry[2]) if entry[1] == "tree" else _file_digest(entry[2])


@cache
def _folder_digest(tree: str) -> str:
    """DVC's digest of a folder: that of a JSON list of its files' digests.

    Args:
        tree: the id of Git's object.
    """
    lines = [line for line in (git("ls-tree", "-r", "-z", tree) or "").split("\0") if line]
    entries = [
        {"md5": _file_digest(head.split()[2]), "relpath": name}
        for head, name in (line.split("\t", 1) for line in lines)
    ]
    text = json.dumps(sorted(entries, key=lambda entry: entry["relpath"]), sort_keys=True)
    return f"{hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()}.dir"


@cache
def _file_digest(blob: str) -> str:
    return hashlib.md5(git_bytes("cat-file", "blob", blob) or b"", usedforsecurity=False).hexdigest()
