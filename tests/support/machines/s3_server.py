"""Object storage on this machine: Moto's S3 server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def open_s3_server(host: str = "127.0.0.1") -> Iterator[dict[str, str]]:
    """Start it with the bucket `traitline`; yields the environment variables by which clients find it."""
    import boto3
    from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    class Handler(MotoRequestHandler):
        def log_request(self, *_: object) -> None:
            """Say nothing of requests."""

    # Not ThreadedMotoServer: to tell which of all services is asked, it lists the folders of Moto twice a request.
    answer, one_at_a_time = create_backend_app("s3"), threading.Lock()

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if "HTTP_IF_NONE_MATCH" not in environ or environ["REQUEST_METHOD"] == "GET":
            return answer(environ, start_response)
        # Moto looks whether there is such an object, and then puts it: two requests at once both succeeded.
        with one_at_a_time:
            return answer(environ, start_response)

    server = make_server(host, 0, application, threaded=True, request_handler=Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        environment = {
            "AWS_ENDPOINT_URL": f"http://{host}:{server.server_address[1]}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }
        access = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
        client = boto3.client("s3", endpoint_url=environment["AWS_ENDPOINT_URL"], **access)
        client.create_bucket(Bucket="traitline")
        yield environment
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
