"""What the page is looked at with."""

from __future__ import annotations

from late_interaction.documents import Document

_TOPICS = {
    "sea": [
        "the harbour and its fishing boats",
        "a storm far out on the water",
        "salt, sails and the morning tide",
        "lighthouse keepers",
    ],
    "kitchen": ["bread that rises over night", "soup for a cold evening", "salt and butter on warm bread", "a sharp knife"],
    "city": ["trams in the morning", "the market on the square", "a library that is open at night", "bridges over the river"],
    "forest": ["moss on old stones", "a path along the river", "owls that hunt at night", "the first snow of the year"],
}


def page_documents() -> list[Document]:
    """32 documents with metadata of several types."""
    made = []
    for place, (kind, lines) in enumerate(_TOPICS.items()):
        for number, line in enumerate(lines * 2):
            metadata = {"kind": kind, "year": 1990 + 5 * place + number, "tags": line.split()[-2:], "long": number % 2 == 0}
            title = f"{kind.title()} {number + 1}: {line}"
            text = (
                f"A note on {line}. "
                + " ".join(lines[number % 4 :])
                + f". Written in {metadata['year']} \N{MATHEMATICAL BOLD ITALIC SMALL A} by the {kind}."
            )
            made.append(Document(f"{kind}/{number + 1}", title, text * (1 + 3 * (number % 2)), metadata))
    return made


MARKUP = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>&amp;<b>bold</b>'
OVERRIDE = "\u202egnp.eliforp\u202c \u2067\u05e9\u05dc\u05d5\u05dd\u2069"
LONG = "x" * 1_000_000


def hostile_documents() -> list[Document]:
    """Texts that would be markup, turn other texts around, or push everything aside."""
    say = "a plain query"
    return [
        Document("markup", MARKUP, f"{say} {MARKUP} {say}", {"note": MARKUP, "size": 1}),
        Document(
            'id"><script>window.pwned=1</script>',
            "",
            f"{say} without a title",
            {"note": "javascript:window.pwned=1", "size": 2},
        ),
        Document("override", f"{OVERRIDE} {say}", f"{OVERRIDE} {say} {OVERRIDE}", {"note": OVERRIDE, "size": 3}),
        Document("long", f"{say} {LONG}", f"{say} {LONG} {say}", {"note": LONG, "size": 4}),
        Document("i" * 1_000, say, f"{say}\x00\x1b[31m red\u2028line", {"note": "a\nb\tc", "size": 5}),
        Document(
            "template",
            "{{7*7}} ${7*7} %3Cscript%3E",
            f"{say} {{{{constructor.constructor('window.pwned=1')()}}}}",
            {"note": "'\"`", "size": 6},
        ),
    ]
