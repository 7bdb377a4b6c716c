"""Measured values as people read them: the same form in every table, plot and report."""

from dataclasses import dataclass

DIGITS = 4  # significant ones, as many as the spread of a good measurement leaves meaning
UNKNOWN = "–"


@dataclass(frozen=True)
class Scale:
    """A unit for people, and how many of the measured unit it is."""

    symbol: str
    size: float


TIMES = (Scale("s", 1), Scale("ms", 1e-3), Scale("µs", 1e-6), Scale("ns", 1e-9))
SIZES = (Scale("GiB", 2**30), Scale("MiB", 2**20), Scale("KiB", 2**10), Scale("B", 1))
MINUTE = 60.0
LONG = 2 * MINUTE  # seconds from which on minutes are shown


def amount(value: float | None, unit: str) -> str:
    """A value in a unit of `runtime.measure.quantities`, such as `734.3 ms`; of what is counted and of ratios, the
    number. A dash for None."""
    if value is None:
        return UNKNOWN
    if unit == "s" and abs(value) >= LONG:
        minutes, seconds = divmod(round(value), int(MINUTE))
        return f"{minutes} min {seconds} s"
    shown = scale(value, unit)
    return f"{digits(value / shown.size)} {shown.symbol}".rstrip()


def scale(value: float, unit: str) -> Scale:
    """The unit in which a value of about this size is read most easily."""
    scales = {"s": TIMES, "bytes": SIZES}.get(unit)
    if scales is None:
        return Scale("x" if unit == "x" else "", 1)
    return next((step for step in scales if abs(value) >= step.size), scales[-1] if value else scales[0])


def digits(value: float) -> str:
    """A number with DIGITS significant digits, whole from there on, without an exponent; 0 as 0."""
    if value == round(value) or abs(value) >= 10**DIGITS:
        return f"{value:.0f}"
    places, size = DIGITS - 1, abs(value)
    while size >= 10:
        places, size = places - 1, size / 10
    while size < 1 and places < 3 * DIGITS:
        places, size = places + 1, size * 10
    return f"{value:.{places}f}"


def times(ratio: float | None) -> str:
    """A ratio, such as `0.96×`; a dash for None."""
    if ratio is None:
        return UNKNOWN
    return f"{ratio:.2f}×" if 0.1 <= ratio < 100 else f"{digits(float(f'{ratio:.2g}'))}×"


def share(part: float) -> str:
    """A part of a whole as `12.3%`."""
    return f"{part:.1%}"
