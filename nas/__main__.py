"""`python -m nas`, which is also what torchrun starts: torchrun ... -m nas train ..."""

from __future__ import annotations

from nas.cli.program import main

if __name__ == "__main__":  # a spawned process imports this file too
    main()
