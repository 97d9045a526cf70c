"""A server that speaks as much of Amazon SQS as is needed: messages appear again until they are deleted."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class SqsServer:
    """One queue.

    Attributes:
        url: Of the queue.
        messages: Bodies of those that were sent and not deleted, by id.
        hidden: Ids of those that were received and not deleted.
        asked: What was asked for, with the key id that it was signed by.
        fails: Status of the next answers.
    """

    def __init__(self) -> None:
        self.messages: dict[str, str] = {}
        self.hidden: set[str] = set()
        self.asked: list[tuple[str, str]] = []
        self.fails: list[int] = []
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["content-length"])))
                name = self.headers["x-amz-target"].removeprefix("AmazonSQS.")
                server.asked.append((name, self.headers["authorization"].split("Credential=")[1].split("/")[0]))
                status = server.fails.pop(0) if server.fails else 200
                error = {"__type": "com.amazonaws.sqs#AccessDenied", "message": "a secret of the queue"}
                body = json.dumps(server.answer(name, request) if status == 200 else error).encode()
                self.send_response_only(status)
                self.send_header("content-type", "application/x-amz-json-1.0")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/1/pictures"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def send(self, body: str) -> None:
        self.messages[str(len(self.messages) + len(self.asked))] = body

    def show_again(self) -> None:
        """The time for which received messages are hidden is over."""
        self.hidden.clear()

    def answer(self, name: str, request: dict[str, Any]) -> dict[str, Any]:
        if name == "ReceiveMessage":
            ids = [message for message in self.messages if message not in self.hidden][: request["MaxNumberOfMessages"]]
            self.hidden.update(ids)
            return {"Messages": [self._message(identity) for identity in ids]} if ids else {}
        assert name == "DeleteMessageBatch"
        for entry in request["Entries"]:
            del self.messages[entry["ReceiptHandle"]]
        return {"Successful": [{"Id": entry["Id"]} for entry in request["Entries"]], "Failed": []}

    def _message(self, identity: str) -> dict[str, str]:
        body = self.messages[identity]
        digest = hashlib.md5(body.encode(), usedforsecurity=False).hexdigest()
        return {"MessageId": identity, "ReceiptHandle": identity, "Body": body, "MD5OfBody": digest}


@contextmanager
def sqs_server() -> Iterator[SqsServer]:
    server = SqsServer()
    try:
        yield server
    finally:
        server.close()
