"""A line to the object storage of the tests that can be cut, as a network can."""

from __future__ import annotations

import contextlib
import socket
import threading
from urllib.parse import urlsplit

CHUNK_BYTES = 4096


class Line:
    """Passes bytes between clients and a server.

    Args:
        server: address to pass them to, such as http://127.0.0.1:5000.
    """

    def __init__(self, server: str) -> None:
        parts = urlsplit(server)
        self._server = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.bytes_left: int | None = None
        """Bytes that clients may still send; then every connection is cut, and stays so. None for any number."""
        self.loses_answer = False
        """Whether the next answer of the server is cut off; after that the line is good again."""
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Refuse connections from now on, and cut those there are."""
        self.bytes_left = 0
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                for source, target, pump in ((client, server, self._send), (server, client, self._answer)):
                    threading.Thread(target=self._pump, args=(source, target, pump), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, passes) -> None:
        with contextlib.suppress(OSError):
            while (data := source.recv(CHUNK_BYTES)) and (allowed := passes(data)):
                target.sendall(allowed)
                if len(allowed) < len(data):
                    break
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _send(self, data: bytes) -> bytes:
        if self.bytes_left is None:
            return data
        allowed = data[: self.bytes_left]
        self.bytes_left -= len(allowed)
        return allowed

    def _answer(self, data: bytes) -> bytes:
        if self.loses_answer:
            self.loses_answer = False
            return b""
        return b"" if self.bytes_left == 0 else data
