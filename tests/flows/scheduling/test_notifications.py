"""The script of `docs/how-to/notifications.md` on a real server: runs that fail or find nothing new send mail."""

from __future__ import annotations

import re
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import yaml
from drawn_store import draw_store
from prefect_machine import ROOT, wait_for


class MailServer(socketserver.ThreadingTCPServer):
    """Takes mail by SMTP, as much of it as one message needs."""

    allow_reuse_address = daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Conversation)
        self.mail: list[str] = []


class _Conversation(socketserver.StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        for line in self.rfile:
            if line.upper().startswith(b"DATA"):
                self.wfile.write(b"354 go on\r\n")
                text = b"".join(iter(self.rfile.readline, b".\r\n"))
                self.server.mail.append(text.decode())
            self.wfile.write(b"250 fine\r\n")


@pytest.fixture
def mail_server() -> Iterator[MailServer]:
    with MailServer() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.slow  # Prefect's automations send the mail; test_scheduled_runs has the deployments and the worker
def test_failed_runs_and_runs_that_find_nothing_new_send_mail(prefect_server, mail_server, tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/how-to/notifications.md").read_text(), re.DOTALL)
    address = f"mailto://127.0.0.1:{mail_server.server_address[1]}?from=lab@example.org&to=me@example.org&mode=insecure"
    for _ in range(2):  # doing it again changes nothing
        command = [sys.executable, "-c", code, address]
        subprocess.run(command, env=prefect_server.environment, check=True, capture_output=True)
    names = [found["name"] for found in prefect_server.ask("/automations/filter", offset=0)]
    assert [names.count(name) for name in ("traitline: a run failed", "traitline: nothing new")] == [1, 1]

    draw_store(tmp_path, people=2, clips_each=1)
    (tmp_path / "videos").mkdir()
    for clip in range(2):
        name = f"p{clip:03d}/{clip:04d}.mp4"
        (tmp_path / "videos" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "videos" / name).write_text(name)  # whose digest is that of the store
    settings = {"videos": str(tmp_path / "videos"), "store": {"path": str(tmp_path / "store")}, "weights": "random"}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    prefect_server.traitline("deploy", "--config", tmp_path / "run.yaml")
    with prefect_server.worker(tmp_path / "worker"):
        assert prefect_server.ended(prefect_server.start_run("extract"))["type"] == "COMPLETED"
        mail = wait_for("mail", lambda: mail_server.mail, limit_s=60)
        assert "nothing new" in mail[0]
        state = prefect_server.ended(prefect_server.start_run("rescore", model="better/7"))
        assert state["type"] == "FAILED"
        assert "model better/7" in state["message"]  # a person's mistake is one line
        assert "\n" not in state["message"]
        mail = wait_for("mail", lambda: len(mail_server.mail) > 1 and mail_server.mail, limit_s=60)
    assert "a run failed: rescore 20" in " ".join(mail[1].split())
    assert "model better/7" in mail[1]
