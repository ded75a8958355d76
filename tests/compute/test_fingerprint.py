"""The fingerprint of code and libraries that workers must share."""

import shutil
import subprocess
import sys
from pathlib import Path

from rakuten.compute import code_fingerprint
from rakuten.config import SOURCE


def fingerprint_of(source: Path) -> str:
    command = [sys.executable, "-c", "from rakuten.compute import code_fingerprint; print(code_fingerprint())"]
    done = subprocess.run(command, env={"PYTHONPATH": str(source)}, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_it_depends_on_the_code_and_not_on_where_it_stands(tmp_path: Path) -> None:
    shutil.copytree(SOURCE / "rakuten", tmp_path / "rakuten", ignore=shutil.ignore_patterns("__pycache__"))
    assert fingerprint_of(tmp_path) == code_fingerprint()
    with (tmp_path / "rakuten" / "features" / "text.py").open("a") as file:
        file.write("\n# changed\n")
    assert fingerprint_of(tmp_path) != code_fingerprint()
