"""A directory as bytes, and a bench on which one state after another is laid out as files."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

Image = dict[str, bytes]
"""A directory: the bytes of each file by its name."""


class Bench:
    """A directory that is given one state after another."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._state: Image = {}
        path.mkdir()

    def lay(self, image: Image) -> None:
        """Make the directory hold this."""
        for name in self._state.keys() - image.keys():
            (self.path / name).unlink()
        for name, data in image.items():
            if self._state.get(name) != data:
                (self.path / name).write_bytes(data)
        self._state = image

    def read(self) -> Image:
        """What the directory holds now."""
        self._state = read_image(self.path)
        return self._state


def read_image(path: Path) -> Image:
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


def fast_directory() -> TemporaryDirectory[str]:
    """A directory for many small files: in memory where there is such a place."""
    memory = Path("/dev/shm")
    return TemporaryDirectory(prefix="aquipu-", dir=memory if memory.is_dir() else None)
