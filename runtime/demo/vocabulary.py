"""What the demo model can hear: number words and everyday words in English and Mandarin, in free order.

Words of one language differ in sound, so that a transcript is either right or wrong. The exception is on purpose: each
pair in `HOTWORDS` sounds the same, and only the context (the system turn) says which spelling is meant. That is how a
test can see that a context reached the model.
"""

import random
from dataclasses import dataclass

ENGLISH_NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand"
).split()

ENGLISH_WORDS = (
    "water coffee music window door house garden river mountain morning evening today tomorrow yesterday monday friday "
    "summer winter open close start stop play turn light table chair paper pencil camera doctor teacher mother father "
    "brother sister friend happy yellow green orange purple black silver apple banana bread cheese chicken dinner "
    "breakfast train airport bicycle station street market computer telephone message weather please thank hello "
    "goodbye"
).split()

MANDARIN_NUMBERS = "零 一 二 三 四 五 六 七 八 九 十 百 千 万".split()

MANDARIN_WORDS = (
    "今天 明天 昨天 早上 晚上 天气 下雨 太阳 月亮 城市 学校 老师 学生 朋友 妈妈 爸爸 哥哥 姐姐 孩子 医生 音乐 电影 "
    "电话 电脑 手机 开门 关灯 窗户 桌子 椅子 咖啡 牛奶 面包 鸡蛋 米饭 苹果 香蕉 西瓜 红色 蓝色 绿色 黑色 飞机 火车 "
    "汽车 公园 商店 超市 图书馆 喜欢 谢谢 你好 再见 高兴 春天 夏天 冬天 中国 北京 请问 打开 播放 停止"
).split()

# Spelling without context → spelling when the context holds it. Both sound alike; speech is made from the first.
HOTWORDS = {
    "English": {"john": "jon", "sarah": "sara", "steven": "stephen"},
    "Chinese": {"王芳": "王方", "张伟": "章伟"},
}

LANGUAGES = tuple(HOTWORDS)
MOST_WORDS = 12  # in one utterance


@dataclass(frozen=True)
class Sentence:
    """An utterance before it is spoken: its words and, in `context`, what the system turn holds."""

    language: str
    words: tuple[str, ...]
    context: str = ""

    @property
    def text(self) -> str:
        """The transcript expected, with the spelling that the context asks for."""
        return join(self.language, [spelling(self.language, word, self.context) for word in self.words])


def join(language: str, words: list[str]) -> str:
    """Words as the language writes them: English with spaces, Chinese without."""
    return ("" if language == "Chinese" else " ").join(words)


def spelling(language: str, word: str, context: str) -> str:
    """`word`, or its other spelling where `context` names that one."""
    other = HOTWORDS[language].get(word)
    return other if other and other in context.replace(",", " ").split() else word


def words_of(language: str) -> list[str]:
    """All words of a language that are spoken."""
    numbers, everyday = {
        "English": (ENGLISH_NUMBERS, ENGLISH_WORDS),
        "Chinese": (MANDARIN_NUMBERS, MANDARIN_WORDS),
    }[language]
    return [*numbers, *everyday, *HOTWORDS[language]]


def _number(rng: random.Random, language: str) -> list[str]:
    """A number as one says it, up to four words."""
    digit = rng.randint(1, 9)
    if language == "Chinese":
        digits = MANDARIN_NUMBERS
        shapes = [
            [digits[digit], "十", digits[rng.randint(1, 9)]],
            [digits[digit], "百", digits[rng.randint(1, 9)], "十"],
            [digits[digit], rng.choice(["千", "万"])],
        ]
    else:
        tens = ENGLISH_NUMBERS[rng.randint(20, 27)]
        shapes = [
            [tens, ENGLISH_NUMBERS[rng.randint(1, 9)]],
            [ENGLISH_NUMBERS[digit], "hundred", tens],
            [ENGLISH_NUMBERS[digit], "thousand"],
        ]
    return rng.choice(shapes)


def draw_sentence(rng: random.Random, language: str) -> Sentence:
    """1 to 12 words in free order, without context: everyday words, digits, numbers and now and then a name."""
    numbers = ENGLISH_NUMBERS if language == "English" else MANDARIN_NUMBERS
    everyday = ENGLISH_WORDS if language == "English" else MANDARIN_WORDS
    length = rng.randint(1, MOST_WORDS)
    words: list[str] = []
    while len(words) < length:
        kind = rng.random()
        if kind < 0.55:
            words.append(rng.choice(everyday))
        elif kind < 0.80:
            words.append(rng.choice(numbers))
        elif kind < 0.92:
            words.extend(_number(rng, language))
        else:
            words.append(rng.choice(list(HOTWORDS[language])))
    return Sentence(language, tuple(words[:length]))


def draw_context(rng: random.Random, language: str) -> str:
    """One to four hotwords: other spellings of names among everyday words, parted by spaces or commas."""
    pool = list(HOTWORDS[language].values())
    chosen = rng.sample(pool, rng.randint(0, len(pool)))
    chosen += rng.sample(words_of(language), rng.randint(0 if chosen else 1, 2))
    rng.shuffle(chosen)
    return rng.choice([" ", ", "]).join(chosen)
