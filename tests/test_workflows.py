"""The GitHub workflows: pinned actions, least permissions, and commands that are Makefile targets."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.project import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
# Commands that need GitHub itself, and so have no Makefile target.
GITHUB_COMMANDS = ("gh pr comment", "docker login", "git diff --quiet -- dvc.lock")


def steps(workflow: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


def test_the_workflows_are_those_that_are_tested() -> None:
    assert [path.stem for path in WORKFLOWS] == ["ci", "release", "retrain", "security"]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_and_permissions_least(workflow: Path) -> None:
    text = workflow.read_text(encoding="utf-8")
    for action in re.findall(r"uses: (.+)", text):
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action
    assert yaml.safe_load(text)["permissions"] == {"contents": "read"}
    for job in yaml.safe_load(text)["jobs"].values():
        assert job["timeout-minutes"]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_every_command_is_a_makefile_target(workflow: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    commands = [step["run"] for step in steps(workflow) if "run" in step]
    assert commands
    for command in commands:
        if not any(part in command for part in GITHUB_COMMANDS):
            assert (match := re.match(r"make ([a-z-]+)", command)), command
            assert match[1] in targets


@pytest.mark.heavy
def test_no_committed_file_has_a_secret_and_a_planted_one_is_found(tmp_path: Path) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    locks = ("requirements.txt", "requirements-run.txt", "uv.lock", "dvc.lock")
    files = [name for name in listed.splitlines() if name not in locks]
    hook = [str(Path(sys.executable).parent / "detect-secrets-hook"), "--baseline", ".secrets.baseline"]
    result = subprocess.run([*hook, *files], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
    planted = tmp_path / "settings.py"
    planted.write_text(f"AWS_SECRET_ACCESS_KEY = '{'wJalrXUtnFEMI' + '/K7MDENG/bPxRfiCYzzzzzzzKEY'}'\n")
    result = subprocess.run([*hook, str(planted)], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 1
