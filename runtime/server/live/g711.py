"""G.711, the 8-bit code of telephone lines, as 16-bit PCM: ITU-T Recommendation G.711, tables 1a to 2b."""

from functools import cache

import numpy as np
import numpy.typing as npt

LAWS = ("audio/pcmu", "audio/pcma")  # μ-law and A-law, in OpenAI's names
RATE = 8000  # Hz; there is no other


def decode(data: bytes, law: str) -> bytes:
    """One byte a sample → 16-bit PCM, little-endian."""
    return _table(law)[np.frombuffer(data, dtype=np.uint8)].tobytes()


@cache
def _table(law: str) -> npt.NDArray[np.int16]:
    """The sample of each of the 256 codes: sign, segment (3 bits), step within it (4 bits). Both laws are scaled to 16
    bits: μ-law has 14, A-law 13."""
    codes = np.arange(256)
    codes = ~codes & 0xFF if law == "audio/pcmu" else codes ^ 0x55
    segment, step = (codes & 0x70) >> 4, codes & 0x0F
    if law == "audio/pcmu":
        size, negative = (((step << 3) + 0x84) << segment) - 0x84, (codes & 0x80) != 0
    else:
        size, negative = (step << 4) + 8, (codes & 0x80) == 0
        size = np.where(segment > 0, (size + 0x100) << np.maximum(segment - 1, 0), size)
    return np.where(negative, -size, size).astype("<i2")
