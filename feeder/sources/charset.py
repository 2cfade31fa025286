"""Decode bytes to text.

HTML is decoded as browsers do: a byte order mark, then what the page declares, then a default
(https://html.spec.whatwg.org/#determining-the-character-encoding, https://encoding.spec.whatwg.org). Plain text is UTF-8.
"""

from __future__ import annotations

import codecs
import re

from feeder.sources.report import Note
from late_interaction.errors import CollectionError

__all__ = ["decode_html", "decode_text"]

PRESCAN = 1 << 16  # bytes; browsers search the first 1,024, and again if a page declares an encoding further down
FALLBACK = "cp1252"
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
    ("<?x".encode("utf-16-le"), "utf-16-le"),
    ("<?x".encode("utf-16-be"), "utf-16-be"),
)

# Python's codecs of the encodings that browsers support, by the normalised name of a label's codec
_CODECS = {
    "ascii": FALLBACK, "iso8859-1": FALLBACK, "cp1252": FALLBACK, "iso8859-9": "cp1254", "cp1254": "cp1254",
    "iso8859-11": "cp874", "tis-620": "cp874", "cp874": "cp874", "shift_jis": "cp932", "cp932": "cp932", "euc_jp": "euc_jp",
    "iso2022_jp": "iso2022_jp", "euc_kr": "cp949", "cp949": "cp949", "gb2312": "gb18030", "gbk": "gb18030",
    "gb18030": "gb18030", "big5": "big5hkscs", "big5hkscs": "big5hkscs", "utf-8": "utf-8", "utf-16": "utf-8",
    "utf-16-le": "utf-8", "utf-16-be": "utf-8", "cp866": "cp866", "koi8-r": "koi8-r", "koi8-u": "koi8-u",
    "mac-roman": "mac-roman", "mac-cyrillic": "mac-cyrillic",
    **{name: name for name in (f"iso8859-{number}" for number in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16))},
    **{name: name for name in (f"cp125{number}" for number in (0, 1, 3, 5, 6, 7, 8))},
}  # fmt: skip
_LABELS = {  # labels that Python does not have
    "unicode-1-1-utf-8": "utf-8", "x-unicode20utf8": "utf-8", "unicode20utf8": "utf-8", "unicode11utf8": "utf-8",
    "windows-874": "cp874", "dos-874": "cp874", "x-sjis": "cp932", "ms_kanji": "cp932", "windows-31j": "cp932",
    "windows-949": "cp949", "x-gbk": "gb18030", "csiso58gb231280": "gb18030", "x-x-big5": "big5hkscs", "cn-big5": "big5hkscs",
    "csbig5": "big5hkscs", "x-euc-jp": "euc_jp", "cseucpkdfmtjapanese": "euc_jp", "koi": "koi8-r", "koi8": "koi8-r",
    "cskoi8r": "koi8-r", "koi8-ru": "koi8-u", "x-mac-roman": "mac-roman", "macintosh": "mac-roman",
    "x-mac-cyrillic": "mac-cyrillic", "x-mac-ukrainian": "mac-cyrillic", "logical": "iso8859-8", "visual": "iso8859-8",
    "iso-8859-8-i": "iso8859-8", "iso-8859-8-e": "iso8859-8", "csiso88598i": "iso8859-8", "csiso88598e": "iso8859-8",
    "gb_2312-80": "gb18030", "iso-ir-149": "cp949", "ksc_5601": "cp949", "ks_c_5601-1989": "cp949",
    "csksc56011987": "cp949", "csisolatin9": "iso8859-15", "mac": "mac-roman", "csmacintosh": "mac-roman", "ucs-2": "utf-8",
    "unicode": "utf-8", "iso-10646-ucs-2": "utf-8", "csunicode": "utf-8", "unicodefeff": "utf-8", "unicodefffe": "utf-8",
    "iso-8859-6-i": "iso8859-6", "iso-8859-6-e": "iso8859-6", "sun_eu_greek": "iso8859-7", "x-user-defined": FALLBACK,
    **{f"x-cp125{number}": f"cp125{number}" for number in range(9)},
}  # fmt: skip
_REFUSED = {"iso-2022-kr", "csiso2022kr", "hz-gb-2312", "iso-2022-cn", "iso-2022-cn-ext", "replacement"}  # browsers do so too

_SHIFT = re.compile(rb"\x1b\$[@B]|\x1b\$[()][@-C]")  # escapes of ISO 2022, which has 7 bits and so looks like UTF-8
_ATTRIBUTE = re.compile(
    rb"""[\t\n\f\r /]*(=?[^\t\n\f\r />=]*)(?:[\t\n\f\r ]*=[\t\n\f\r ]*(?:"([^"]*)"|'([^']*)'|([^\t\n\f\r >]*)))?"""
)
_TAG = re.compile(rb"</?[a-zA-Z][^\t\n\f\r />]*")
_CHARSET = re.compile(rb"""charset[\t\n\f\r ]*=[\t\n\f\r ]*(?:"([^"]*)"|'([^']*)'|([^\t\n\f\r ;"']+))""", re.IGNORECASE)
_XML = re.compile(rb"""<\?xml\s[^>]*?\bencoding\s*=\s*(?:"([^"]*)"|'([^']*)')""")


def decode_text(data: bytes, name: str) -> str:
    """Decode UTF-8, or what a byte order mark says, or ISO-2022-JP.

    Raises:
        CollectionError: if the text has another encoding.
    """
    mark = _marked(data)
    encoding = mark or _seven_bits(data, name) or "utf-8"
    if mark is None and data.count(b"\0") * 3 > len(data):
        raise CollectionError(f"{name} is not UTF-8 but UTF-16 without a byte order mark, or not text; convert the file")
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise CollectionError(f"{name} is not UTF-8 (byte {error.start}); convert the file") from None


def decode_html(data: bytes, name: str) -> tuple[str, tuple[Note, ...]]:
    """Return the page's text, and notes if its encoding was guessed.

    Raises:
        CollectionError: if browsers refuse the encoding, or the bytes are not text.
    """
    notes: list[Note] = []
    label = None
    encoding = _marked(data)
    if encoding is None:
        label = _declared(data[:PRESCAN])
        encoding = None if label is None else _codec(label, name)
        if label is not None and encoding is None:
            notes.append(Note("encoding", "pages with an encoding that does not exist", 1, (f"{name} ({label[:40]})",)))
    if encoding is None:
        encoding = _seven_bits(data, name) or ("utf-8" if _valid(data) else None)
    elif encoding == FALLBACK and _valid(data):
        encoding = "utf-8"  # the most copied label, on a page that was converted
    if encoding is None:
        encoding = FALLBACK
        if b"\0" in data:
            raise CollectionError(f"{name} is not HTML: it has NUL bytes and is not UTF-8")
        notes.append(Note("encoding", "pages in no declared encoding, read as windows-1252", 1, (name,)))
    text = data.decode(encoding, errors="replace").removeprefix("\ufeff")
    if "\ufffd" in text and "\ufffd".encode() not in data:
        notes.append(Note("encoding", f"pages with bytes that are not {encoding}, replaced by \ufffd", 1, (name,)))
    return text.replace("\0", ""), tuple(notes)


def _marked(data: bytes) -> str | None:
    return next((encoding for mark, encoding in _MARKS if data.startswith(mark)), None)


def _valid(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _seven_bits(data: bytes, name: str) -> str | None:
    if not _SHIFT.search(data):
        return None
    try:
        data.decode("iso2022_jp")
    except UnicodeDecodeError:
        raise CollectionError(f"{name} is in an unsupported ISO 2022 encoding; convert it to UTF-8") from None
    return "iso2022_jp"


def _codec(label: str, name: str) -> str | None:
    """Return the codec; CollectionError if browsers refuse the encoding."""
    label = label.strip("\t\n\f\r ").lower()
    if label in _REFUSED:
        raise CollectionError(f"{name} is in {label}, which browsers do not support either; convert it to UTF-8")
    if label in _LABELS:
        return _LABELS[label]
    try:
        return _CODECS.get(codecs.lookup(label).name)
    except (LookupError, ValueError):
        return None


def _declared(data: bytes) -> str | None:
    """Return the label that a page declares in a meta element, or else in an XML declaration."""
    found = _in_meta(data)
    if found is None and (match := _XML.match(data)):
        found = match.group(1) or match.group(2)
    return None if found is None else found.decode("latin-1")


def _in_meta(data: bytes) -> bytes | None:
    """Search as browsers do before parsing: comments are skipped, scripts are not."""
    place = data.find(b"<")
    while place >= 0:
        after = place + 1
        if data.startswith(b"<!--", place):
            end = data.find(b"-->", place + 2)
            if end < 0:
                return None
            after = end + 3
        elif tag := _TAG.match(data, place):
            attributes, after = _attributes(data, tag.end())
            if tag.group().lower() == b"<meta" and (label := _of_meta(attributes)):
                return label
        elif data[after : after + 1] in (b"!", b"/", b"?"):
            end = data.find(b">", after)
            if end < 0:
                return None
            after = end + 1
        place = data.find(b"<", after)
    return None


def _attributes(data: bytes, place: int) -> tuple[dict[bytes, bytes], int]:
    found: dict[bytes, bytes] = {}
    while (match := _ATTRIBUTE.match(data, place)) and match.group(1):
        value = next((group for group in match.groups()[1:] if group is not None), b"")
        found.setdefault(match.group(1).lower(), value)
        place = match.end()
    return found, place


def _of_meta(attributes: dict[bytes, bytes]) -> bytes | None:
    if label := attributes.get(b"charset"):
        return label
    if attributes.get(b"http-equiv", b"").lower() != b"content-type":
        return None
    match = _CHARSET.search(attributes.get(b"content", b""))
    return next((group for group in match.groups() if group), None) if match else None
