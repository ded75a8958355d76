"""`rakuten score` with another chunk size: `python -m tests.support.score_in_chunks CHUNK_ROWS FLAGS...`.

Prints the peak memory of the process in kB. Not by resource.getrusage: that peak is never below the one of the process
that started this one.
"""

import sys
from pathlib import Path

from rakuten.commands import score
from rakuten.models import score_file


def main(chunk_rows: int, flags: list[str]) -> int:
    score_file.CHUNK_ROWS = chunk_rows
    code = score.main(flags)
    lines = Path("/proc/self/status").read_text().splitlines()
    print(*(line.split()[1] for line in lines if line.startswith("VmHWM")))  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
