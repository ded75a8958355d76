"""Where a Chromium is, and how it is started in a container."""

import shutil

TIMEOUT_MS = 60_000  # of what a test waits for: the cores may be busy with other tests
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [  # no sandbox in a container; no calls home
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


def find_chromium() -> str | None:
    """Path of the first Chromium on PATH; None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)
