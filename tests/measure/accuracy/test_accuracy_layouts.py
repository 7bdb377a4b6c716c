"""Common data sets as they lie on a disk, made of the bundled clips."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile

from env.errors import KitError, UsageError
from runtime.audio import Limits, load
from runtime.demo import CLIPS
from runtime.measure.accuracy.dataset import DataSet
from runtime.measure.accuracy.layouts import read

SPLITS = ("test-clean", "test-other")


def put(clip: str, path: Path) -> None:
    """A bundled clip, in the format of the file's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".wav":
        shutil.copy(CLIPS / clip, path)
    else:
        soundfile.write(path, *soundfile.read(CLIPS / clip))


def write(path: Path, *rows: str) -> None:
    """A text file of these lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(row + "\n" for row in rows), encoding="utf-8")


def librispeech(root: Path) -> Path:
    """LibriSpeech with two splits; in one of them a file is missing and a line has no text."""
    for split, speaker in zip(SPLITS, ("1089", "367"), strict=True):
        chapter = root / "LibriSpeech" / split / speaker / "130732"
        for number, clip in enumerate(("english-1.wav", "english-2.wav")):
            put(clip, chapter / f"{speaker}-130732-000{number}.flac")
        texts = ("STATION TRAIN THIRTY THREE PURPLE CLOSE TWO THOUSAND", "BREAD CHICKEN")
        lines = [f"{speaker}-130732-000{number} {text}" for number, text in enumerate(texts)]
        write(chapter / f"{speaker}-130732.trans.txt", *lines)
    write(chapter / f"{speaker}-130732.trans.txt", *lines, f"{speaker}-130732-0002 GONE", f"{speaker}-130732-0003", "")
    write(root / "LibriSpeech" / "README.TXT", "LibriSpeech")
    return root / "LibriSpeech"


def aishell(root: Path) -> Path:
    """AISHELL-1 with two splits; a recording of the test split has no transcript."""
    data = root / "data_aishell"
    put("chinese-1.wav", data / "wav" / "train" / "S0002" / "BAC009S0002W0122.wav")
    put("chinese-2.wav", data / "wav" / "test" / "S0764" / "BAC009S0764W0121.wav")
    put("chinese-3.wav", data / "wav" / "test" / "S0901" / "BAC009S0901W0122.wav")
    put("chinese-3.wav", data / "wav" / "test" / "S0901" / "BAC009S0901W0123.wav")
    write(
        data / "transcript" / "aishell_transcript_v0.8.txt",
        "BAC009S0002W0122 万 爸爸 孩子 蓝色 绿色",
        "BAC009S0764W0121 飞机 商店",
        "",
        "BAC009S0901W0122 太阳 七百 五万",
    )
    return data


def fleurs(root: Path) -> Path:
    """FLEURS in Chinese and English; the English table ends in a torn row."""
    rows = {
        "cmn_hans_cn": ("1904\t1.wav\t飞机,商店。\t飞 机 商 店\t飞 | 机\t35000\tFEMALE", "chinese-2.wav"),
        "en_us": ('1905\t1.wav\t"Bread", chicken.\tbread chicken\tb r e a d |\t37000\tMALE', "english-2.wav"),
    }
    for language, (row, clip) in rows.items():
        put(clip, root / "data" / language / "audio" / "test" / "1.wav")
        write(root / "data" / language / "test.tsv", row)
        write(root / "data" / language / "dev.tsv", row)
    write(root / "data" / "en_us" / "test.tsv", row, "1906\t2.wav")
    return root / "data"


def common_voice(root: Path) -> Path:
    """Common Voice in English and Mandarin; the English table is of an early release, without a locale."""
    data = root / "cv-corpus-21.0-2025-03-14"
    put("chinese-2.wav", data / "zh-CN" / "clips" / "common_voice_zh-CN_1.mp3")
    put("english-2.wav", data / "en" / "clips" / "common_voice_en_1.mp3")
    for table in ("test", "validated"):
        write(
            data / "zh-CN" / f"{table}.tsv",
            "client_id\tpath\tsentence_id\tsentence\tup_votes\tlocale\tsegment",
            "ab12\tcommon_voice_zh-CN_1.mp3\tf00\t飞机商店。\t2\tzh-CN\t",
        )
    write(data / "zh-CN" / "clip_durations.tsv", "clip\tduration[ms]", "common_voice_zh-CN_1.mp3\t2200")
    write(
        data / "en" / "test.tsv",
        "client_id\tpath\tsentence\tup_votes",
        'cd34\tcommon_voice_en_1.mp3\t"Bread, chicken\t2',
        "cd34\tcommon_voice_en_2.mp3\tGone.\t2",
    )
    return data


def told(data: DataSet) -> list[tuple[str, str, str | None, str]]:
    """Name, text, language and speaker of all that can be used, each of which is heard to be audio."""
    for item in data.items:
        assert isinstance(item.source, Path)
        assert load(item.source, limits=Limits()).seconds > 1
    return [(item.name, item.text, item.language, item.speaker) for item in data.items]


def test_librispeech(tmp_path: Path) -> None:
    root = librispeech(tmp_path)
    data = read(root / "test-other")
    assert (data.name, data.layout) == ("LibriSpeech test-other", "librispeech")
    assert told(data) == [
        ("367-130732-0000", "STATION TRAIN THIRTY THREE PURPLE CLOSE TWO THOUSAND", "English", "367"),
        ("367-130732-0001", "BREAD CHICKEN", "English", "367"),
    ]
    assert [refused.where.rpartition(":")[2] for refused in data.refused] == ["3", "4"]
    assert "367-130732-0002.flac: No such file" in data.refused[0].reason
    assert data.refused[1].reason == "has no text"
    assert read(root, split="test-other") == read(tmp_path, split="test-other") == data
    assert read(root, split="test-clean").digest != data.digest
    with pytest.raises(UsageError, match=r"--split: is needed: .* has test-clean, test-other → --split test-other"):
        read(root)


def test_aishell(tmp_path: Path) -> None:
    root = aishell(tmp_path)
    data = read(root)
    assert (data.name, data.layout) == ("AISHELL-1 test", "aishell")
    assert told(data) == [
        ("BAC009S0764W0121", "飞机商店", "Chinese", "S0764"),
        ("BAC009S0901W0122", "太阳七百五万", "Chinese", "S0901"),
    ]
    (refused,) = data.refused
    assert refused.where.endswith("BAC009S0901W0123.wav")
    assert "has no text in " in refused.reason
    assert read(tmp_path) == read(root / "wav" / "test") == data
    assert [item.speaker for item in read(root, split="train").items] == ["S0002"]


def test_aishell_whose_archives_are_packed_says_how_to_unpack_them(tmp_path: Path) -> None:
    root = aishell(tmp_path)
    shutil.rmtree(root / "wav")
    write(root / "wav" / "S0764.tar.gz", "")
    with pytest.raises(KitError, match=r"still packed → cd .*/wav && for f in \*.tar.gz"):
        read(root)


def test_fleurs(tmp_path: Path) -> None:
    root = fleurs(tmp_path)
    data = read(root / "cmn_hans_cn")
    assert (data.name, data.layout) == ("FLEURS cmn_hans_cn test", "fleurs")
    assert told(data) == [("cmn_hans_cn/1", "飞机,商店。", "Chinese", "")]
    assert read(root / "cmn_hans_cn" / "test.tsv") == data
    everything = read(root)
    assert everything.name == "FLEURS test"
    assert told(everything)[1] == ("en_us/1", '"Bread", chicken.', "English", "")
    assert [refused.reason for refused in everything.refused] == ["has 2 fields, expected 7"]


def test_fleurs_whose_archive_is_packed_says_how_to_unpack_it(tmp_path: Path) -> None:
    root = fleurs(tmp_path)
    write(root / "en_us" / "audio" / "dev.tar.gz", "")
    with pytest.raises(KitError, match=r"dev.tar.gz: is still packed → tar xf \S+dev.tar.gz -C \S+/en_us/audio$"):
        read(root / "en_us", split="dev")


def test_fleurs_in_a_language_that_the_model_does_not_know_is_named(tmp_path: Path) -> None:
    root = fleurs(tmp_path)
    (root / "en_us").rename(root / "sw_ke")
    assert any("sw_ke: no language of this name" in refused.reason for refused in read(root).refused)
    with pytest.raises(KitError, match="sw_ke: no language of this name"):
        read(root / "sw_ke")


def test_common_voice(tmp_path: Path) -> None:
    root = common_voice(tmp_path)
    data = read(root / "zh-CN")
    assert (data.name, data.layout) == ("Common Voice zh-CN test", "common-voice")
    assert told(data) == [("common_voice_zh-CN_1", "飞机商店。", "Chinese", "ab12")]
    assert read(root / "zh-CN" / "test.tsv") == data
    assert told(read(root / "zh-CN", split="validated")) == told(data)
    everything = read(root)
    assert told(everything)[0] == ("common_voice_en_1", '"Bread, chicken', "English", "cd34")
    assert len(everything.items) == 2
    assert "common_voice_en_2.mp3: No such file" in everything.refused[0].reason
    with pytest.raises(UsageError, match=r"'dev' is none of .*/zh-CN, which has test, validated"):
        read(root / "zh-CN", split="dev")


@pytest.mark.parametrize("make", [librispeech, aishell, fleurs, common_voice])
def test_the_digest_is_the_same_for_a_copy(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    one, other = make(tmp_path / "one"), make(tmp_path / "other")
    split = "test-clean" if make is librispeech else "test"
    assert read(one, split=split).digest == read(other, split=split).digest


def test_what_is_no_data_set_is_told_what_was_looked_for(tmp_path: Path) -> None:
    put("english-1.wav", tmp_path / "english-1.wav")
    with pytest.raises(KitError) as refused:
        read(tmp_path)
    for looked_for in ("LibriSpeech", "AISHELL-1", "FLEURS", "Common Voice", ".trans.txt", ".jsonl", ".csv"):
        assert looked_for in str(refused.value)
    with pytest.raises(KitError, match="is no manifest by its ending"):
        read(tmp_path / "english-1.wav")
