"""Which drivers a CANN goes with.

Huawei names the driver by its HDK release: HDK 25.5.2 is driver 25.5.2 and its firmware.
"""

import re
from typing import Literal

# The first two numbers of the HDKs, oldest first, by the beginning of CANN's version; the longest counts.
# 8.5: https://www.hiascend.com/document/detail/en/canncommercial/850/releasenote/releasenote_0000.html
# The others: "CANN and Ascend HDK Version Compatibility" in
# https://www.hiascend.com/document/detail/en/CANNCommunityEdition/910/softwareinst/releasenote/9.1.1/release-notes_en.md
DRIVERS = {
    "8.5": ("25.0", "25.2", "25.3", "25.5"),
    "8.5.2": ("25.0", "25.2", "25.3", "25.5", "25.7", "26.0", "26.1"),
    "9.0": ("25.0", "25.2", "25.3", "25.5", "25.7", "26.0", "26.1"),
    "9.1": ("25.2", "25.3", "25.5", "25.7", "26.0", "26.1"),
}


def accepted(cann: str) -> tuple[str, ...]:
    """The HDKs that are listed for a CANN, such as ("25.0", "25.2"); empty if that CANN is not listed."""
    keys = [key for key in DRIVERS if f"{cann}.".startswith(f"{key}.")]
    return DRIVERS[max(keys, key=len)] if keys else ()


def judge(cann: str, driver: str) -> Literal["listed", "too old", "not listed"]:
    """Whether a driver goes with a CANN. One that is newer than all that are listed may, but nobody says so."""
    listed = accepted(cann)
    if listed and _series(driver) < _series(listed[0]):
        return "too old"
    return "listed" if _series(driver) in map(_series, listed) else "not listed"


def _series(version: str) -> tuple[int, ...]:
    """25.0.rc1.1 → (25, 0)"""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
