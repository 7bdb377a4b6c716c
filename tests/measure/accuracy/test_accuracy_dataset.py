"""Manifests as people write them, and all that is wrong with them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from env.errors import KitError, UsageError
from runtime.audio import Limits, load
from runtime.demo import CLIPS
from runtime.measure.accuracy.dataset import DataSet
from runtime.measure.accuracy.layouts import read

Write = Callable[..., Path]
SAID = {"english-2.wav": "bread chicken", "chinese-2.wav": "飞机商店"}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a manifest beside two clips."""
    for clip in SAID:
        shutil.copy(CLIPS / clip, tmp_path)

    def writer(name: str, *rows: object, encoding: str = "utf-8") -> Path:
        content = "".join((row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)) + "\n" for row in rows)
        (tmp_path / name).write_bytes(content.encode(encoding))
        return tmp_path / name

    return writer


def reasons(data: DataSet) -> list[str]:
    """Why entries were refused, each after the line where it stands."""
    return [f"{refused.where.rpartition(':')[2]}: {refused.reason}" for refused in data.refused]


@pytest.mark.parametrize(
    "row",
    [
        {"audio": "english-2.wav", "text": "bread chicken", "language": "en", "speaker": "zac", "id": "u1"},
        {
            "audio_filepath": "english-2.wav",
            "duration": 2.35,
            "text": "bread chicken",
            "lang": "en-US",
            "speaker": "zac",
        },
        {"key": "u1", "wav": "english-2.wav", "txt": "bread chicken", "language": "英语", "spk": "zac"},
        {"key": "u1", "source": "english-2.wav", "target": "bread chicken", "language": "English", "speaker_id": "zac"},
        {"file_name": "./english-2.wav", "transcription": "bread chicken", "locale": "en_us", "client_id": "zac"},
    ],
)
def test_the_fields_of_well_known_tools_are_understood(write: Write, row: dict[str, object]) -> None:
    data = read(write("test.jsonl", row))
    (item,) = data.items
    assert (data.name, data.layout, data.plain, data.refused) == ("test", "manifest", False, ())
    assert (item.text, item.language, item.speaker) == ("bread chicken", "English", "zac")
    assert item.name in ("u1", "english-2.wav", "./english-2.wav")
    assert isinstance(item.source, Path)
    assert load(item.source, limits=Limits()).seconds > 1


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("a.csv", ("path,sentence,speaker", "english-2.wav,bread chicken,1", "chinese-2.wav,飞机商店,2")),
        ("a.csv", ("text;audio", '"bread chicken";english-2.wav', "飞机商店;chinese-2.wav")),
        ("a.csv", ("\ufeffAudio, Text", "english-2.wav, bread chicken", "", "chinese-2.wav, 飞机商店")),
        ("a.tsv", ("client_id\tpath\tsentence", "x\tenglish-2.wav\tbread chicken", "y\tchinese-2.wav\t飞机商店")),
        ("a.csv", ('"audio"|"text"', "english-2.wav|bread chicken", "chinese-2.wav|飞机商店")),
        ("A.CSV", ("audio,text\r", "english-2.wav,bread chicken\r", "chinese-2.wav,飞机商店\r")),
    ],
)
def test_a_table_is_read_by_its_header(write: Write, name: str, rows: tuple[str, ...]) -> None:
    data = read(write(name, *rows))
    assert not data.refused
    assert {Path(str(item.source)).name: item.text for item in data.items} == SAID


def test_commas_and_quotes_of_a_text_stay_in_it(write: Write) -> None:
    table = read(write("a.csv", "audio,text", 'english-2.wav,"bread, ""chicken"""'))
    assert table.items[0].text == 'bread, "chicken"'
    tabs = read(write("a.tsv", "audio\ttext", 'english-2.wav\t"bread" chicken'))
    assert tabs.items[0].text == '"bread" chicken'


def test_audio_may_be_anywhere(write: Write, tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    manifest = write(
        "lists/a.json",
        {"audio": "../english-2.wav", "text": "bread chicken"},
        {"audio": str(tmp_path / "chinese-2.wav"), "text": "飞机商店"},
    )
    assert [item.text for item in read(manifest).items] == ["bread chicken", "飞机商店"]


def test_the_kits_own_names_go_before_others_and_a_part_that_is_the_whole_is_none(write: Write) -> None:
    row = {"audio": "english-2.wav", "source": "Studio A", "text": "bread chicken", "target": "面包", "offset": 0.0}
    assert read(write("a.jsonl", row)).items[0].text == "bread chicken"
    assert len(read(write("a.csv", "audio,text,offset", "english-2.wav,bread chicken,0.00")).items) == 1


def test_a_table_beside_a_directory_of_audio_is_no_layout(write: Write, tmp_path: Path) -> None:
    for folder in ("audio", "clips"):
        (tmp_path / folder).mkdir()
        shutil.copy(CLIPS / "english-2.wav", tmp_path / folder)
        data = read(write("test.tsv", "audio\ttext", f"{folder}/english-2.wav\tbread chicken"))
        assert (data.layout, len(data.items)) == ("manifest", 1)


def test_a_language_is_for_entries_without_their_own(write: Write) -> None:
    manifest = write(
        "a.jsonl",
        {"audio": "english-2.wav", "text": "bread chicken"},
        {"audio": "chinese-2.wav", "text": "飞机商店", "language": "zh"},
    )
    assert [item.language for item in read(manifest).items] == [None, "Chinese"]
    assert [item.language for item in read(manifest, language="en").items] == ["English", "Chinese"]
    with pytest.raises(UsageError, match="no language of this name"):
        read(manifest, language="klingon")


GOOD = {"audio": "english-2.wav", "text": "bread chicken"}
OTHER = "chinese-2.wav"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"audio": "gone.wav", "text": "x"}, "gone.wav: No such file or directory"),
        ({"audio": ".", "text": "x"}, "is a directory"),
        ({"audio": "a" * 300, "text": "x"}, "File name too long"),
        ({"audio": "/dev/null", "text": "x"}, "/dev/null: is no file"),
        ({"audio": "https://example.org/a.wav", "text": "x"}, "is a URL, expected a file: fetch it first"),
        ({"audio": "english-2.wav", "text": "again"}, "english-2.wav, as"),
        ({"audio": "./english-2.wav", "text": "again"}, "english-2.wav, as"),
        ({"audio": OTHER}, "has no text, by none of the names text, sentence"),
        ({"audio": OTHER, "text": None}, "has no text"),
        ({"text": "x"}, "has no audio, by none of the names audio, audio_filepath"),
        ({"audio": "", "text": "x"}, "has no audio"),
        ({"audio": OTHER, "text": ["x"]}, "text is no text: ['x']"),
        (
            {"audio": OTHER, "sentence": "x", "txt": "y"},
            "says different things in sentence and txt: which is meant, call text",
        ),
        ('{"audio": "chinese-2.wav", "text": "\\ud83d"}', "text has U+D83D in it"),
        ('["chinese-2.wav", "x"]', "is no JSON object"),
        ({"audio": OTHER, "text": "x", "language": "klingon"}, "klingon: no language of this name"),
        ({"audio": OTHER, "text": "x", "offset": 3.5}, "offset 3.5: a part of a file cannot be taken"),
        ({"audio": OTHER, "text": "caf\ufffd"}, "text has U+FFFD in it, as a wrong encoding leaves behind"),
        ({"audio": OTHER + "\0", "text": "x"}, "audio has U+0000 in it"),
        ('{"audio": "chinese-2.wav", "text": "x"', "is no JSON: Expecting"),
        ('"text"', "is no JSON object"),
        ('{"audio": "chinese-2.wav", "text": "' + "x" * (1 << 20) + '"}', "is longer than 1048576 bytes"),
        ('{"audio": "chinese-2.wav",\0"text": "x"}', "is no JSON"),
    ],
)
def test_an_entry_that_cannot_be_used_is_named_with_its_line(write: Write, row: object, reason: str) -> None:
    data = read(write("a.jsonl", GOOD, "", row, {"audio": OTHER, "text": "飞机"}))
    (told,) = reasons(data)
    assert told.startswith("3: ")
    assert reason in told
    assert [item.text for item in data.items] == ["bread chicken", "飞机"]


def test_two_entries_of_one_name_are_told_apart_or_refused(write: Write) -> None:
    data = read(write("a.jsonl", {**GOOD, "id": 7}, {"audio": OTHER, "text": "飞机商店", "id": "7"}))
    assert [item.name for item in data.items] == ["7"]
    assert "has the name 7, as " in reasons(data)[0]
    assert data.refused[0].reason.endswith("a.jsonl:1")


def test_silence_is_expected_only_where_it_is_said(write: Write) -> None:
    assert read(write("a.jsonl", {"audio": OTHER, "text": ""})).items[0].text == ""
    data = read(write("a.csv", "audio,text", "english-2.wav,", "chinese-2.wav,飞机商店"))
    assert "has no text" in reasons(data)[0]
    assert len(data.items) == 1


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (("english-2.wav,bread, chicken",), "2: has 3 fields, the header 2"),
        (("english-2.wav",), "2: has 1 fields, the header 2"),
        (('english-2.wav,"bread', 'chicken"'), "2: goes on to line 3: is a quote left open?"),
        (('english-2.wav,"bread',), "2: is no row of a table: unexpected end of data"),
        (('english-2.wav,"bread" chicken',), "2: is no row of a table"),
        (("english-2.wav,bread\0chicken",), "2: text has U+FFFD in it"),
        (("english-2.wav," + "x" * (1 << 20),), "2: is longer than 1048576 bytes"),
        (("english-2.wav," + "x" * (1 << 18),), "2: is no row of a table: field larger than field limit"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_with_its_line(write: Write, rows: tuple[str, ...], reason: str) -> None:
    last = () if "end of data" in reason else ("chinese-2.wav,飞机商店",)
    told = _told(write("a.csv", "audio,text", *rows, *last))
    assert told[0].startswith(reason)
    assert len(told) == 1


def _told(manifest: Path) -> list[str]:
    try:
        return reasons(read(manifest))
    except KitError as error:
        return [error.reason.partition("a.csv:")[2]]


@pytest.mark.parametrize(
    ("name", "rows", "encoding", "message"),
    [
        ("a.csv", ("audio,text", "chinese-2.wav,飞机商店"), "gb18030", "0xb7 in line 2 → .*iconv -f GB18030 -t UTF-8"),
        ("a.jsonl", ({"audio": "a.wav", "text": "café"},), "latin-1", "is not UTF-8: byte 0xe9 in line 1"),
        ("a.csv", ("audio,text", "chinese-2.wav,飞机商店"), "utf-16", "is in UTF-16, expected UTF-8 → iconv -f UTF-16"),
        ("a.csv", ("audio,text", "chinese-2.wav,飞机商店"), "utf-32", "is in UTF-32, expected UTF-8"),
        ("a.csv", ("audio,text", "chinese-2.wav,飞机商店"), "utf-16-le", "is no header"),
        (
            "a.csv",
            ("chinese-2.wav,飞机商店",),
            "utf-8",
            r"begins with 'chinese-2.wav,飞机商店', which is no header → .*audio \(or",
        ),
        ("a.csv", ("audio,text",), "utf-8", "lists no utterances"),
        ("a.jsonl", (), "utf-8", "lists no utterances"),
        (
            "a.jsonl",
            ({"audio": "x.wav", "text": ""},) * 3,
            "utf-8",
            "none of its 3 entries can be used, the first: .*a.jsonl:1: ",
        ),
        ("a.json", ([GOOD],), "utf-8", "is a JSON array, expected an object in each line → jq -c"),
        ("a.json", ("[", GOOD, "]"), "utf-8", "is a JSON array"),
        ("a.txt", ("english-2.wav bread",), "utf-8", "is no manifest by its ending, expected .jsonl"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused_as_a_whole(
    write: Write, name: str, rows: tuple[object, ...], encoding: str, message: str
) -> None:
    with pytest.raises(KitError, match=message):
        read(write(name, *rows, encoding=encoding))


def test_what_is_not_there_is_the_fault_of_who_typed_it(write: Write, tmp_path: Path) -> None:
    for path in (tmp_path / "gone.jsonl", tmp_path / ("a" * 300)):
        with pytest.raises(UsageError, match="cannot be read"):
            read(path)
    with pytest.raises(UsageError, match="which has no splits"):
        read(write("a.jsonl", GOOD), split="test")


def test_the_digest_is_of_the_data_and_not_of_its_place(write: Write, tmp_path: Path) -> None:
    manifest = write("a.jsonl", GOOD)
    before = read(manifest).digest
    assert read(manifest).digest == before
    shutil.copytree(tmp_path, tmp_path / "copy")
    assert read(tmp_path / "copy" / "a.jsonl").digest == before
    assert read(write("a.jsonl", {**GOOD, "text": "bread"})).digest != before
    assert read(write("a.jsonl", {**GOOD, "language": "en"})).digest != before
    (tmp_path / "english-2.wav").write_bytes((tmp_path / OTHER).read_bytes())
    assert read(write("a.jsonl", GOOD)).digest != before


line = st.one_of(
    st.sampled_from([json.dumps(GOOD).encode(), b"english-2.wav,bread", b"chinese-2.wav\tx"]),
    st.binary(max_size=40),
    st.dictionaries(
        st.sampled_from(["audio", "path", "text", "language", "id", "offset", "x"]),
        st.none()
        | st.booleans()
        | st.integers(0, 3)
        | st.text(max_size=9)
        | st.sampled_from([*SAID, "en", "/dev/null"]),
    ).map(lambda row: json.dumps(row).encode()),
    st.lists(st.sampled_from([*SAID, '"', "text", "audio", "é", "\0"]), max_size=4).map(
        lambda row: ",".join(row).encode()
    ),
)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(st.lists(line, max_size=6), st.sampled_from([".jsonl", ".csv", ".tsv"]), st.booleans())
def test_whatever_a_manifest_holds_it_is_read_or_refused_in_words(rows: list[bytes], ending: str, header: bool) -> None:
    content = b"\n".join([b"audio,text", *rows] if header and ending != ".jsonl" else rows)
    with TemporaryDirectory() as folder:
        for clip in SAID:
            (Path(folder) / clip).symlink_to(CLIPS / clip)
        manifest = Path(folder) / f"a{ending}"
        manifest.write_bytes(content)
        try:
            data = read(manifest)
        except KitError:
            return
    assert all(refused.reason for refused in data.refused)
    if ending == ".jsonl":  # nothing is lost
        written = sum(bool(row.strip()) for row in content.decode("utf-8-sig").split("\n"))
        assert len(data.items) + len(data.refused) == written
