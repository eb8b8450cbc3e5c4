"""The user's text inside of ours: visible on a screen, literal in Markdown, quoted for a shell.

Names of classes, files and runs may hold anything: brackets that rich takes for markup, control
characters that move a terminal's cursor, bytes that are no UTF-8, pipes that end a table's cell.
"""

from __future__ import annotations

import re
import shlex
import unicodedata

# what turns the order of letters around, so that a name reads as another one
_BIDIRECTIONAL = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_HIDDEN = frozenset({"Cc", "Cs", "Zl", "Zp"})  # control, half a pair, line and paragraph ends
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~&!])")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def visible(text: str) -> str:
    r"""Return text on one line with what a terminal would act on shown as Python writes it: \x1b.

    A byte of a file's name that is no UTF-8 is shown as that byte.
    """
    if text.isprintable():
        return text
    return "".join(_escape(c) if _acts(c) else c for c in text)


def _acts(character: str) -> bool:
    return character in _BIDIRECTIONAL or unicodedata.category(character) in _HIDDEN


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps such a byte
        code -= 0xDC00
    if character in _SHORT:
        return _SHORT[character]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def markdown(text: str) -> str:
    """Return text that Markdown shows as it is, in a paragraph, a heading or a table's cell."""
    return _MARKDOWN.sub(r"\\\1", visible(text))


def command(*words: object) -> str:
    """Return a command line that can be pasted into a shell, whatever its words hold."""
    return " ".join(_word(str(word)) for word in words)


def _word(word: str) -> str:
    if word == visible(word):
        return shlex.quote(word)
    # bash and zsh read escapes between $' and '
    quoted = word.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{visible(quoted)}'"
