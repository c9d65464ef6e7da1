"""A web server of assets that serves well, or badly in the ways that web servers do."""

from __future__ import annotations

import http.server
import threading


class AssetServer(http.server.ThreadingHTTPServer):
    """A web server on this machine with one file, `content`, that the first part of an address gives in its own way.

    /sound: with an ETag, and the rest of the file for a Range whose If-Range is that ETag. /breaking: so too, but each
    connection ends after `break_after` bytes. /plain: no ETag, no Range. /plain-breaking: so too, broken off.
    /other-part: answers a Range with another part. /wrong: as many bytes, but others. /short: fewer. /endless: does not
    say how many, and sends more. /moved: redirects to /sound. /silent: half, and then nothing. All else is absent.
    """

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _AssetRequest)
        self.content, self.etag, self.break_after = content, '"first"', len(content) // 3
        self.asked: list[tuple[str, str | None]] = []
        self.stopped = threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"


class _AssetRequest(http.server.BaseHTTPRequestHandler):
    server: AssetServer

    def log_message(self, *_):
        pass

    def do_GET(self):
        server, way, content = self.server, self.path.split("/")[1], self.server.content
        server.asked.append((way, self.headers["Range"]))
        if way in ("sound", "breaking"):
            ranged = self.headers["Range"] is not None and self.headers["If-Range"] == server.etag
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-")) if ranged else 0
            limit = server.break_after if way == "breaking" else None
            self.answer(content[start:], etag=server.etag, limit=limit, start=start if ranged else None)
        elif way in ("plain", "plain-breaking"):
            self.answer(content, limit=server.break_after if way == "plain-breaking" else None)
        elif way == "other-part":
            self.answer(content[7:], etag=server.etag, start=7 if self.headers["Range"] else None)
        elif way == "wrong":
            self.answer(bytes(byte ^ 1 for byte in content))
        elif way == "short":
            self.answer(content[:-1])
        elif way == "endless":
            self.answer(content * 3, with_length=False)
        elif way == "moved":
            self.send_response(302)
            self.send_header("Location", "/sound")
            self.end_headers()
        elif way == "silent":
            self.answer(content, limit=len(content) // 2, etag=server.etag)
            self.wfile.flush()
            server.stopped.wait(30)
        else:
            self.send_error(404, "Not here")

    def answer(self, body, *, etag=None, limit=None, start=None, with_length=True):
        self.send_response(200 if start is None else 206)
        if with_length:
            self.send_header("Content-Length", str(len(body)))
        if start is not None:
            size = len(self.server.content)
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        if etag is not None:
            self.send_header("ETag", etag)
        self.end_headers()
        self.wfile.write(body[:limit])
