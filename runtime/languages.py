"""The 30 languages of Qwen3-ASR, by the English name that the model uses, by code and by Chinese name."""

import difflib
import re
import unicodedata
from collections import Counter

from runtime.errors import UsageError

# English name as the model writes it → codes (ISO 639-1, else 639-3) and Chinese names. Names: `support_languages` in
# the checkpoint's config.json, in its order.
LANGUAGES: dict[str, tuple[str, ...]] = {
    "Chinese": ("zh", "cmn", "zh-cn", "mandarin", "中文", "汉语", "普通话", "国语"),
    "English": ("en", "英语", "英文"),
    "Cantonese": ("yue", "zh-hk", "粤语", "广东话"),
    "Arabic": ("ar", "阿拉伯语"),
    "German": ("de", "德语"),
    "French": ("fr", "法语"),
    "Spanish": ("es", "西班牙语"),
    "Portuguese": ("pt", "葡萄牙语"),
    "Indonesian": ("id", "印尼语", "印度尼西亚语"),
    "Italian": ("it", "意大利语"),
    "Korean": ("ko", "韩语", "朝鲜语"),
    "Russian": ("ru", "俄语"),
    "Thai": ("th", "泰语"),
    "Vietnamese": ("vi", "越南语"),
    "Japanese": ("ja", "日语"),
    "Turkish": ("tr", "土耳其语"),
    "Hindi": ("hi", "印地语"),
    "Malay": ("ms", "马来语"),
    "Dutch": ("nl", "荷兰语"),
    "Swedish": ("sv", "瑞典语"),
    "Danish": ("da", "丹麦语"),
    "Finnish": ("fi", "芬兰语"),
    "Polish": ("pl", "波兰语"),
    "Czech": ("cs", "捷克语"),
    "Filipino": ("fil", "tl", "菲律宾语", "他加禄语"),
    "Persian": ("fa", "波斯语"),
    "Greek": ("el", "希腊语"),
    "Romanian": ("ro", "罗马尼亚语"),
    "Hungarian": ("hu", "匈牙利语"),
    "Macedonian": ("mk", "马其顿语"),
}

# Written without spaces between words; error rates of these count characters.
UNSPACED = frozenset({"Chinese", "Cantonese", "Japanese", "Thai"})

# First word of a letter's Unicode name → the language of UNSPACED that it stands for.
_SCRIPTS = {"CJK": "Chinese", "HIRAGANA": "Japanese", "KATAKANA": "Japanese", "THAI": "Thai"}

_BY_NAME = {name.casefold(): english for english, names in LANGUAGES.items() for name in (english, *names)}


class UnknownLanguageError(UsageError):
    """The name is none of a language that the model, or the loaded checkpoint, knows."""


def resolve(name: str, *, supported: tuple[str, ...] = tuple(LANGUAGES)) -> str:
    """The English name of the language called `name` in English, by code or in Chinese.

    Raises UnknownLanguageError with the nearest names where there is no such language, or where it is not among those
    that the checkpoint supports.
    """
    wanted = name.strip().casefold().replace("_", "-")
    english = _BY_NAME.get(wanted)
    if english in supported:
        return english
    if english:
        raise UnknownLanguageError(name, f"this checkpoint knows only {', '.join(supported)}")
    near = difflib.get_close_matches(wanted, _BY_NAME, n=6, cutoff=0.5)
    nearest = dict.fromkeys(f"{_BY_NAME[match]} ({LANGUAGES[_BY_NAME[match]][0]})" for match in near)
    hint = f"did you mean {' or '.join(list(nearest)[:3])}?" if nearest else f"one of {', '.join(supported)}"
    raise UnknownLanguageError(name, "no language of this name", hint)


def of_tag(name: str) -> str:
    """As `resolve`, and also by a tag with a script or region, such as en-US, pt_br or cmn_hans_cn."""
    try:
        return resolve(name)
    except UnknownLanguageError:
        primary = re.split("[-_]", name.strip())[0]
        if primary.casefold() not in _BY_NAME:
            raise
        return resolve(primary)


def by_script(text: str) -> str | None:
    """The language that the script of a text stands for: Japanese for kana, Chinese for Han without kana, Thai; None
    where most is of a script that languages share. A word in such a script counts as much as one of their letters."""
    told = [_SCRIPTS.get(unicodedata.name(letter, "").partition(" ")[0]) for letter in text]
    found = Counter(language for language in told if language)
    shared = "".join(" " if language else letter for language, letter in zip(told, text, strict=True))
    if found.total() <= len(re.findall(r"[^\W\d_]+", shared)):
        return None
    return "Japanese" if found["Japanese"] else found.most_common(1)[0][0]


def code(english: str | None) -> str | None:
    """The ISO code of a language by its English name; None for none or for a name the model made up."""
    return LANGUAGES[english][0] if english in LANGUAGES else None
