"""Text files line by line, in UTF-8 or not at all: an encoding that is guessed wrong gives other texts and no error."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from env.errors import KitError

LONGEST = 1 << 20  # bytes of a line; a transcript of hours stays below
# First bytes → the encoding that they tell.
MARKS = {b"\xff\xfe\x00\x00": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


@dataclass(frozen=True)
class Line:
    """A line without its end; `where` is `file:line`, from 1; `fault` says why it cannot be used, empty if it can."""

    where: str
    text: str
    fault: str = ""


def lines(path: Path) -> Iterator[Line]:
    """The lines of a file, one after another. Raises KitError where it cannot be read or is not UTF-8."""
    try:
        with path.open("rb") as file:
            number = 0
            while raw := file.readline(LONGEST + 1):
                number += 1
                if number == 1:
                    _refuse_marked(path, raw)
                    raw = raw.removeprefix(b"\xef\xbb\xbf")
                if len(raw) > LONGEST and not raw.endswith(b"\n"):
                    while (more := file.readline(LONGEST)) and not more.endswith(b"\n"):
                        pass
                    yield Line(f"{path}:{number}", "", f"is longer than {LONGEST} bytes")
                else:
                    yield Line(f"{path}:{number}", _decoded(path, number, raw).rstrip("\r\n"))
    except OSError as error:
        raise KitError(str(path), f"cannot be read: {error.strerror}") from None


def _refuse_marked(path: Path, start: bytes) -> None:
    for mark, encoding in MARKS.items():
        if start.startswith(mark):
            raise KitError(str(path), f"is in {encoding}, expected UTF-8", _convert(path, encoding))


def _decoded(path: Path, number: int, raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        reason = f"is not UTF-8: byte 0x{raw[error.start]:02x} in line {number}"
        raise KitError(str(path), reason, "if it is GB18030 or GBK: " + _convert(path, "GB18030")) from None


def _convert(path: Path, encoding: str) -> str:
    return f"iconv -f {encoding} -t UTF-8 {path} > {path.stem}-utf8{path.suffix}"
