"""What a process of the `ImageDecoder` runs. It imports little, to start in a moment and to take little memory."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from rakuten.features.encoders.preprocessing import DecodedImage, decode_image

MAX_EXTRA_BYTES = 300_000_000  # of memory, beyond what the process has after it has started
PAGE_COUNTS = Path("/proc/self/statm")


def decode(data: bytes, sizes: Sequence[int]) -> DecodedImage:
    """`decode_image`, within MAX_EXTRA_BYTES where the system has a limit of memory."""
    _limit_memory()
    return decode_image(data, sizes)


@cache
def _limit_memory() -> None:
    """Let every allocation that is over the limit fail, for the rest of this process."""
    if not PAGE_COUNTS.exists():  # not Linux
        return
    import resource

    size = int(PAGE_COUNTS.read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + MAX_EXTRA_BYTES, hard))
