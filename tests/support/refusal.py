"""What a command leaves behind that refuses its input."""

from pathlib import Path

PREVIOUS_OUTPUT = "of an earlier run"


def assert_refused(stderr: str, message: str, folder: Path) -> None:
    """Check that one line was logged, with this message, and that the folder is as before.

    Args:
        folder: holds out.csv with PREVIOUS_OUTPUT as its content.
    """
    assert message in stderr
    assert stderr.count("\n") == 1
    assert (folder / "out.csv").read_text(encoding="utf-8") == PREVIOUS_OUTPUT
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
