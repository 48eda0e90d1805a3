"""The page: a few files, made by hand, that need nothing from anywhere else.

They are read once, and served by their names: no path of a request ever becomes one of a file. They
say nothing of the store; what the page shows it asks of the API.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

_STATIC = Path(__file__).parent / "static"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
INDEX = "index.html"


class Page:
    """The files of the page."""

    def __init__(self) -> None:
        self._files = {
            file.name: (file.read_bytes(), _TYPES[file.suffix])
            for file in sorted(_STATIC.iterdir())
            if file.suffix in _TYPES
        }

    @property
    def names(self) -> list[str]:
        """Names of the files."""
        return list(self._files)

    async def index(self, request: Request) -> Response:
        """Give the page itself."""
        return self._file(INDEX, request)

    async def static(self, request: Request) -> Response:
        """Give one of its files."""
        return self._file(request.path_params["name"], request)

    def _file(self, name: str, request: Request) -> Response:
        if name not in self._files:
            raise HTTPException(404, "there is no such file")
        data, kind = self._files[name]
        tag = f'"{sha256(data).hexdigest()[:20]}"'
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == tag:
            return Response(None, 304, headers)
        return Response(data, 200, {**headers, "Content-Type": kind})
