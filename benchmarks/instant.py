"""A PicoD that runs nothing: it answers every request at once, to show what a client alone costs."""

from __future__ import annotations

import asyncio
import re

_ECHO = re.compile(rb"echo (\d+)-")
_SCRIPT = re.compile(rb'"script_\d+\.sh"')


class Instant(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._data = b""
        self._number = b"0"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to answer."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every complete request."""
        self._data += data
        while True:
            head, end, rest = self._data.partition(b"\r\n\r\n")
            if not end:
                return
            length = int(re.search(rb"(?i)content-length: (\d+)", head + end).group(1))  # type: ignore[union-attr]
            if len(rest) < length:
                return
            self._data = rest[length:]
            self._transport.write(self._answer(head, rest[:length]))

    def _answer(self, head: bytes, body: bytes) -> bytes:
        if b"/api/files" in head:
            import base64
            import json

            found = _ECHO.search(base64.b64decode(json.loads(body)["content"]))
            self._number = found.group(1) if found else b"0"
            content = b'{"path": "x", "size": 1, "mode": "-rw-r--r--", "modified": "2026-01-01T00:00:00Z"}'
        else:
            found = _ECHO.search(body)
            if found is not None:
                self._number = found.group(1)
            shown = self._number + b"-42\\n" if found is not None or _SCRIPT.search(body) else b""
            content = b'{"stdout": "' + shown + b'", "stderr": "", "exit_code": 0, "duration": 0.001}'
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
            len(content),
            content,
        )


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(Instant, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve())
