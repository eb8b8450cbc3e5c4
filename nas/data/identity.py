"""What a data set is, told by its content: two copies are the same, a changed one is another.

Names inside the data set and labels count too, because the splits are drawn from names. Times, and
the place where the folder lies, do not.

Files of up to 1 GiB together are hashed whole. Of more, files up to 64 KiB are hashed whole, and of
a larger one its size, its first and last 4 KiB and pieces of 4 KiB between them: 16 in all, one for
each MiB of files above 16 MiB. What lies between those pieces can change unnoticed there, as by a
fault of the disk; an image that was edited or saved again has another size or other pieces.
"""

from __future__ import annotations

import hashlib
import itertools
import stat
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

WHOLE_SET, WHOLE_FILE = 1 << 30, 1 << 16
_BYTES = 16  # of a digest
_PIECE, _PIECES, _EVERY = 1 << 12, 16, 1 << 20
# disks across a network answer slowly, and several requests at once
_THREADS, _CHUNK = 8, 256
# images of a reader of the user's that are read, of each split
SAMPLED = 5_000


@dataclass(frozen=True)
class File:
    """A file of a data set. `fact` prints what else tells it apart: its split, label and name."""

    path: Path
    fact: object


def of_files(files: Iterable[File], *facts: object) -> str:
    """Return the identity of a data set made of files, in this order, and of further facts.

    A file that cannot be read counts as such: its images are broken ones.
    """
    listed = list(files)
    sizes = [_size(file.path) for file in listed]
    whole = sum(sizes) <= WHOLE_SET

    def several(chunk: range) -> list[bytes]:
        return [_of_file(listed[i].path, sizes[i], whole=whole) for i in chunk]

    digest = _begun(facts)
    chunks = [range(i, min(i + _CHUNK, len(listed))) for i in range(0, len(listed), _CHUNK)]
    with ThreadPoolExecutor(min(_THREADS, max(1, len(chunks)))) as pool:
        found = itertools.chain.from_iterable(pool.map(several, chunks))
        for file, content in zip(listed, found, strict=True):
            digest.update(f"{file.fact!r}\n".encode(errors="surrogateescape"))
            digest.update(content)
    return digest.hexdigest()


def of_arrays(arrays: Iterable[npt.NDArray[np.generic]], *facts: object) -> str:
    """Return the identity of a data set that is arrays in memory."""
    digest = _begun(facts)
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def of_images(read: Callable[[int], bytes | npt.NDArray[np.uint8]], count: int) -> str:
    """Return the identity of images that a function reads: of at most 5,000, evenly spread."""
    step = max(1, -(-count // SAMPLED))
    digest = _begun([count])
    for i in range(0, count, step):
        try:
            image = read(i)
            data = image if isinstance(image, bytes) else np.ascontiguousarray(image).tobytes()
            digest.update(hashlib.blake2b(data, digest_size=_BYTES).digest())
        except Exception as error:  # the user's; a broken image is told of where it is decoded
            digest.update(f"unreadable: {type(error).__name__}\n".encode())
    return digest.hexdigest()


def combined(*facts: object) -> str:
    """Return the identity that facts make which print the same whenever they are the same."""
    return _begun(facts).hexdigest()


def fingerprint(facts: Iterable[object]) -> str:
    """Return a hash of facts that print the same whenever they are the same."""
    digest = hashlib.blake2b(digest_size=12)
    for fact in facts:
        digest.update(f"{fact!r}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _begun(facts: Iterable[object]) -> hashlib.blake2b:
    digest = hashlib.blake2b(digest_size=_BYTES)
    for fact in facts:
        digest.update(f"{fact!r}\n".encode(errors="surrogateescape"))
    return digest


def _size(path: Path) -> int:
    """Return the bytes of a regular file; 0 of what is none, which is never opened."""
    try:
        status = path.stat()
    except OSError:
        return 0
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def _of_file(path: Path, size: int, *, whole: bool) -> bytes:
    digest = hashlib.blake2b(f"{size}\n".encode(), digest_size=_BYTES)
    if size:
        try:
            for part in _parts(path, size, whole=whole or size <= WHOLE_FILE):
                digest.update(part)
        except OSError as error:
            digest.update(f"unreadable: {error.errno}\n".encode())
    return digest.digest()


def _parts(path: Path, size: int, *, whole: bool) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        if whole:
            while part := file.read(1 << 20):
                yield part
            return
        pieces = max(_PIECES, size // _EVERY)
        for i in range(pieces):
            file.seek((size - _PIECE) * i // (pieces - 1))
            yield file.read(_PIECE)


def unchanged(before: object, now: object) -> bool:
    """Tell whether a fingerprint that a run has noted, or None, is that of `now`.

    `now` has the fingerprints: a data set, or an evaluator that trains on one.
    Runs of before data was known by its content have noted names, sizes and times, which still
    tell that nothing has changed.
    """
    own, former = (str(getattr(now, f"{kind}fingerprint", "")) for kind in ("", "former_"))
    return before is None or before == own or (before == former and former != "")


def way_back(before: object, now: object, file: Path, key: str = "fingerprint") -> str:
    """Return what can be done where data has changed since a run noted its fingerprint in a file.

    `key`: of the fingerprint in that file, without which the run goes on.
    """
    old = isinstance(before, str) and len(before) != 2 * _BYTES
    if old and getattr(now, "former_fingerprint", "") != "":
        return (
            "it is from a version that knew data by times, which differ: if the images are the "
            f'same, remove "{key}" from {file} and resume'
        )
    return "put the data back, or start anew under another --name"
