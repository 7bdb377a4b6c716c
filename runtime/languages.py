"""The 30 languages of Qwen3-ASR, by English name as the model writes it, by code, and by native and Chinese name."""

import difflib
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

from env.errors import UsageError


@dataclass(frozen=True)
class Language:
    """`code` is ISO 639-1, else 639-3; `others` are further codes and names, `;` between them."""

    code: str
    chinese: str
    others: str

    @property
    def names(self) -> tuple[str, ...]:
        """The code and all names except the English one."""
        return (self.code, self.chinese, *self.others.split(";"))


# In the order of `support_languages` in the checkpoint's config.json. The others: ISO 639-2 (both kinds) and 639-3,
# codes that were withdrawn (`in`), names in the language itself (CLDR), further Chinese names. Wu and Min Nan are among
# the dialects that the model takes as Chinese.
LANGUAGES: dict[str, Language] = {
    "Chinese": Language(
        "zh",
        "中文",
        "zho;chi;cmn;wuu;nan;mandarin;汉语;漢語;普通话;普通話;国语;國語;华语;華語;吴语;吳語;闽南语;閩南語",
    ),
    "English": Language("en", "英语", "eng;英文;英語"),
    "Cantonese": Language("yue", "粤语", "粵語;广东话;廣東話;广州话;廣州話"),
    "Arabic": Language("ar", "阿拉伯语", "ara;arb;العربية;阿拉伯語"),
    "German": Language("de", "德语", "deu;ger;deutsch;德文;德語"),
    "French": Language("fr", "法语", "fra;fre;français;francais;法文;法語"),
    "Spanish": Language("es", "西班牙语", "spa;español;espanol;castellano;castilian;西班牙文;西班牙語"),
    "Portuguese": Language("pt", "葡萄牙语", "por;português;portugues;葡萄牙文;葡萄牙語"),
    "Indonesian": Language("id", "印尼语", "ind;in;bahasa indonesia;indonesia;印度尼西亚语;印尼語;印尼文"),
    "Italian": Language("it", "意大利语", "ita;italiano;意大利文;意大利語;義大利語"),
    "Korean": Language("ko", "韩语", "kor;한국어;韩文;朝鲜语;韓語;韓文;朝鮮語"),
    "Russian": Language("ru", "俄语", "rus;русский;俄文;俄語"),
    "Thai": Language("th", "泰语", "tha;ไทย;ภาษาไทย;泰文;泰語"),
    "Vietnamese": Language("vi", "越南语", "vie;tiếng việt;tieng viet;越南文;越南語"),
    "Japanese": Language("ja", "日语", "jpn;日本語;日文;日語"),
    "Turkish": Language("tr", "土耳其语", "tur;türkçe;turkce;土耳其文;土耳其語"),
    "Hindi": Language("hi", "印地语", "hin;हिन्दी;हिंदी;印地文;印地語;北印度語"),
    "Malay": Language("ms", "马来语", "msa;may;zsm;bahasa melayu;melayu;马来文;馬來語;馬來文"),
    "Dutch": Language("nl", "荷兰语", "nld;dut;nederlands;flemish;荷兰文;荷蘭語;荷蘭文"),
    "Swedish": Language("sv", "瑞典语", "swe;svenska;瑞典文;瑞典語"),
    "Danish": Language("da", "丹麦语", "dan;dansk;丹麦文;丹麥語;丹麥文"),
    "Finnish": Language("fi", "芬兰语", "fin;suomi;芬兰文;芬蘭語;芬蘭文"),
    "Polish": Language("pl", "波兰语", "pol;polski;波兰文;波蘭語;波蘭文"),
    "Czech": Language("cs", "捷克语", "ces;cze;čeština;cestina;捷克文;捷克語"),
    "Filipino": Language("fil", "菲律宾语", "tl;tgl;tagalog;pilipino;他加禄语;菲律賓語;他加祿語"),
    "Persian": Language("fa", "波斯语", "fas;per;pes;farsi;فارسی;波斯文;波斯語"),
    "Greek": Language("el", "希腊语", "ell;gre;ελληνικά;希腊文;希臘語;希臘文"),
    "Romanian": Language("ro", "罗马尼亚语", "ron;rum;mo;română;romana;moldavian;罗马尼亚文;羅馬尼亞語"),
    "Hungarian": Language("hu", "匈牙利语", "hun;magyar;匈牙利文;匈牙利語"),
    "Macedonian": Language("mk", "马其顿语", "mkd;mac;македонски;马其顿文;馬其頓語"),
}

# What clients send for "find out yourself": `und` is BCP 47's undetermined, `none` is Python's.
AUTOMATIC = frozenset({"", "auto", "detect", "null", "none", "undefined", "und"})

# Written without spaces between words; error rates of these count characters.
UNSPACED = frozenset({"Chinese", "Cantonese", "Japanese", "Thai"})

# First word of a letter's Unicode name → the language of UNSPACED that it stands for.
_SCRIPTS = {"CJK": "Chinese", "HIRAGANA": "Japanese", "KATAKANA": "Japanese", "THAI": "Thai"}

_BY_NAME = {name.casefold(): english for english, language in LANGUAGES.items() for name in (english, *language.names)}
# Names that a misspelt one may have meant. Codes are none: `en-US` is near to `es`, and means something else.
_SPELT = [name for name in _BY_NAME if len(name) > 3 or not name.isascii()]

# A tag of BCP 47 (`zh-Hans-CN`), or a POSIX locale's name (`zh_CN.UTF-8`), after _ became -: language and subtags.
_TAG = re.compile(r"([^\W\d_]{2,})((?:-[a-z0-9]{1,8})+)(?:[.@].*)?")
_CANTONESE = {"hk", "mo", "yue"}  # subtags of Chinese that name where, or how, Cantonese is spoken


class UnknownLanguageError(UsageError):
    """The name is none of a language that the model, or the loaded checkpoint, knows."""


def resolve(name: str | None, *, supported: tuple[str, ...] = tuple(LANGUAGES)) -> str | None:
    """The English name of a language, None where `name` leaves it to the model (AUTOMATIC, or None).

    `name` is a name in English, Chinese or the language itself, a code of ISO 639, a tag of BCP 47 or a POSIX locale,
    whose script and region fall to the language: pt-BR is Portuguese. Chinese as in Hong Kong or Macau is Cantonese
    where the checkpoint has it.

    Raises UnknownLanguageError with the nearest names where there is no such language, or where it is not among those
    that the checkpoint supports.
    """
    wanted = (name or "").strip().casefold()
    if wanted in AUTOMATIC:
        return None
    english = _BY_NAME.get(wanted) or _of_tag(wanted.replace("_", "-"), supported)
    if english in supported:
        return english
    shown = (name or "").strip()
    if english:
        raise UnknownLanguageError(shown, f"this checkpoint knows only {', '.join(supported)}")
    near = difflib.get_close_matches(wanted, _SPELT, n=6, cutoff=0.7) if len(wanted) > 1 else []
    nearest = dict.fromkeys(f"{_BY_NAME[match]} ({LANGUAGES[_BY_NAME[match]].code})" for match in near)
    hint = f"did you mean {' or '.join(list(nearest)[:3])}?" if nearest else f"one of {', '.join(supported)}"
    raise UnknownLanguageError(shown, "no language of this name", hint)


def _of_tag(tag: str, supported: tuple[str, ...]) -> str | None:
    match = _TAG.fullmatch(tag)
    if not match:
        return None
    english, subtags = _BY_NAME.get(match[1]), match[2].split("-")
    if english == "Chinese" and "Cantonese" in supported and not _CANTONESE.isdisjoint(subtags):
        return "Cantonese"
    return english


def by_script(text: str) -> str | None:
    """The language that the script of a text stands for: Japanese for kana, Chinese for Han without kana, Thai; None
    where most is of a script that languages share. A word in such a script counts as much as one of their letters."""
    scripts = [_SCRIPTS.get(unicodedata.name(letter, "").partition(" ")[0]) for letter in text]
    found = Counter(language for language in scripts if language)
    shared = "".join(" " if language else letter for language, letter in zip(scripts, text, strict=True))
    if found.total() <= len(re.findall(r"[^\W\d_]+", shared)):
        return None
    return "Japanese" if found["Japanese"] else found.most_common(1)[0][0]


def code(english: str | None) -> str | None:
    """The ISO code of a language by its English name; None for none or for a name the model made up."""
    return LANGUAGES[english].code if english in LANGUAGES else None
