"""One bad input."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Content = str | bytes | None  # None: the file is removed


@dataclass(frozen=True)
class Row:
    """`nas line` in a folder with `files` and copies of parts of the world must end with `code`.

    The one line on stderr must hold all of `says`: the value that is wrong and the way out. `world`
    names what is copied from tests/bad_inputs/world.py: images, train, search, scale, arch.
    `special` makes one of the files a fifo, a device, a link to itself, unreadable or a folder.
    """

    line: str
    says: tuple[str, ...]
    files: Mapping[str, Content] = field(default_factory=dict)
    world: tuple[str, ...] = ()
    code: int = 2
    special: tuple[str, str] = ("", "")
    keeps: bool = True  # nothing new lies under runs/
    printed: bool = False  # it is a finding of doctor, on stdout

    def lay_out(self, folder: Path) -> None:
        """Write the files."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                path.unlink()
            elif isinstance(content, bytes):
                path.write_bytes(content)
            else:
                path.write_text(content, encoding="utf-8")


def rows(*table: tuple[Any, ...], **more: Any) -> list[Row]:
    """Return rows of (line, says, files); alternatives in `says` are separated by |, all needed."""
    found = []
    for line, says, *rest in table:
        files = rest[0] if rest else {}
        found.append(Row(line, tuple(says.split("|")), files, **more))
    return found
