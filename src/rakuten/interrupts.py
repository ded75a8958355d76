"""Imported first by a script, for its effect: Ctrl-C while the rest is imported, a second or two, shows no traceback.

Later `rakuten.cli` handles it. The exit status is that of a process that was ended by Ctrl-C.
"""

import sys
from types import TracebackType


def _show(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("ERROR: stopped by the user\n")
    else:
        sys.__excepthook__(kind, error, traceback)


sys.excepthook = _show
