# ruff: noqa: RUF001  the strings are hard on purpose
"""The hard strings that every loader tokenizes: one list, in this order, in every golden file. Standard library only, because
it is imported by scripts in three environments."""

from __future__ import annotations

import string

__all__ = ["STRINGS"]

_MARKERS = ("[MASK]", "[PAD]", "[CLS]", "[SEP]", "[UNK]", "[unused0]", "[unused1]", "[Q] ", "[D] ", "[Q]", "[D]",
            "<s>", "</s>", "<pad>", "<unk>", "<mask>", "[QueryMarker]", "[DocumentMarker]")  # fmt: skip

_BLANK = ("", " ", "   ", "\t", "\n", "\r\n", "\t \n ", "\u00a0", "\u3000", "\u200b", "\ufeff", "\u2028", "\x1f", "\x00")

_PLAIN = (
    "what is late interaction",
    "What is the capital of France?",
    "the quick brown fox jumps over the lazy dog",
    "late interaction keeps one vector per token and scores by the sum of best matches",
    "wait for a thread to finish, then join it [and] lock {the} mutex",
    "  leading spaces",
    "trailing spaces  ",
    "\tleading tab",
    "trailing newline\n",
    "  both  ends  ",
    "inner   runs    of     spaces",
    "tab\tnew\nline\r\nreturn",
    "UPPER CASE QUERY",
    "MiXeD cAsE",
    "a",
    "I",
    "0",
    "x y z",
    "the the the the",
    "hello world",
    " hello",
    "hello ",
)

_PUNCTUATION = (
    *string.punctuation,
    string.punctuation,
    "?!",
    "...",
    "!!!???",
    ". , ; :",
    "--",
    "()[]{}<>",
    '"quoted"',
    "'single'",
    "it's don't we'll",
    "e.g. this, i.e. that.",
    "3.14, 1,000.50; 50%",
    "a-b_c/d\\e",
    "C++ and C# and .NET",
    "user@example.com",
    "https://example.com/path?query=1&b=2#top",
    "x = y[0] + {z: 1};",
    "#hashtag @mention $100",
    "«guillemets» „low“ “curly” ‘single’",
    "em—dash en–dash hyphen‐minus",
    "ellipsis… bullet• section§",
    "、。！？「」",
    "؟ ، ؛",
)

_SCRIPTS = (
    "naïve café überraschung",
    "ÀÉÎÕÜ àéîõü",
    "Straße GROẞ",
    "İstanbul ıstanbul",
    "ΣΊΣΥΦΟΣ σίσυφος",
    "Привет, мир",
    "東京の天気は晴れ",
    "東京 の 天気",
    "今天天气很好",
    "한국어 문장입니다",
    "ภาษาไทย",
    "हिन्दी में",
    "שלום עולם",
    "مرحبا بالعالم",
    "mixed עברית and العربية text",
    "\u202eright-to-left override\u202c",
    "\u200fmark",
    "Tiếng Việt có dấu",
    "ﬁ ligature ﬀ",
    "ｆｕｌｌｗｉｄｔｈ ＡＢＣ １２３",
    "½ ² ³ ① Ⅳ ™ ©",
    "ǆ Ǆ ǅ",
    "Ǻ",
)

_MARKS = (
    "cafe\u0301",
    "e\u0301\u0302\u0303",
    "\u0301",
    "\u0301abc",
    "a\u0308 o\u0308 u\u0308",
    "z\u0351\u036b\u0343a\u0342l\u0364g\u0362o",
    "\u00e9 \u0065\u0301",
    "ñ n\u0303",
    "क\u094dष",
    "\u1100\u1161\u11a8",
)

_EMOJI = (
    "🙂",
    "🙂🙃",
    "emoji 🙂 inside",
    "👩‍👩‍👧",
    "👍🏽",
    "🇫🇷🇩🇪",
    "❤️",
    "a🙂b",
    "\U0001f9d1\u200d\U0001f4bb codes",
    "𝕄𝕒𝕥𝕙 𝓈𝒸𝓇𝒾𝓅𝓉",
)

_CONTROL = (
    "a\x00b",
    "a\x07b\x08c",
    "\x00\x01\x02",
    "esc\x1b[31mred",
    "del\x7fete",
    "soft\u00adhyphen",
    "zero\u200bwidth",
    "join\u200der non\u200cjoiner",
    "word\u2060joiner",
    "\ufeffbom at start",
    "bom\ufeffinside",
    "line\u2028separator paragraph\u2029separator",
    "next\u0085line",
    "vertical\x0btab form\x0cfeed",
    "unit\x1fseparator \x1c\x1d\x1e",
    "\ufffdreplacement",
    "private \ue000 use",
    "no\u00a0break thin\u2009space ideographic\u3000space",
    "\u00a0 padded by no-break \u00a0",
    "\u2003em space first",
)

_MARKED = (
    *_MARKERS,
    *(f"{marker} what is this" for marker in _MARKERS),
    *(f"before {marker} after" for marker in _MARKERS[:11]),
    "[MASK][MASK][MASK]",
    "[PAD] [PAD] [PAD]",
    "[CLS] [SEP]",
    "glued[MASK]word",
    "glued[PAD]",
    "[Q][Q]",
    "[Q] [D] ",
    "[q] lower",
    "[mask]",
    "[Unused0]",
    "[ MASK ]",
    "<mask> and <pad>",
    "query: what",
    "search_query: what",
)

_LONG = (
    "word " * 40,
    "word " * 400,
    "late interaction " * 11,
    "the capital of france " * 6,
    "a " * 13,
    "a " * 14,
    "a " * 15,
    "a " * 21,
    "a " * 22,
    "a " * 23,
    "a b c d e f g h i j k l m n o p q r s t u v w x y z",
    "x" * 99,
    "x" * 100,
    "x" * 101,
    "x" * 3000,
    "antidisestablishmentarianism" * 9,
    "," * 60,
    ". " * 30,
    "東京" * 30,
    "🙂" * 30,
    " " * 500,
    "[MASK] " * 20,
    "[PAD] " * 20,
    " " * 50 + "far right",
    "no-spaces-but-many-hyphens-" * 6,
    "\u0301" * 40,
    "1234567890" * 12,
)

STRINGS: tuple[str, ...] = (
    *_BLANK, *_PLAIN, *_PUNCTUATION, *_SCRIPTS, *_MARKS, *_EMOJI, *_CONTROL, *_MARKED, *_LONG,
)  # fmt: skip
