"""In place of what a process of the ImageDecoder runs: each way in which it can go wrong."""

import os
import signal
import time
from collections.abc import Sequence

import numpy as np

from rakuten.features.encoders.preprocessing import DecodedImage, decode_image
from rakuten.serving import decoding_worker

LONG, KILLED, MUCH = b"long", b"killed", b"much"  # in place of an image file


def misbehave(data: bytes, sizes: Sequence[int]) -> DecodedImage:
    """Take long, be killed, or take more memory than there may be; with another image behave well."""
    if data == LONG:
        time.sleep(60)
    if data == KILLED:
        os.kill(os.getpid(), signal.SIGKILL)
    if data == MUCH:
        decoding_worker._limit_memory()
        np.ones(2 * decoding_worker.MAX_EXTRA_BYTES, dtype=np.uint8)
    return decode_image(data, sizes)
