"""placeholder until the report is written"""

from pathlib import Path


def write(folder: Path) -> Path:
    return folder
