"""A web server on this machine in place of the ones that data sets are downloaded from."""

from __future__ import annotations

import http.server
import threading


class Mirror:
    """A web server on this machine: answers by path, and counts what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, list[tuple[int, bytes]]] = {}
        self.asked: list[str] = []
        self.tells_length = True
        mirror = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mirror.asked.append(self.path)
                answers = mirror.answers.get(self.path, [(404, b"")])
                code, body = answers.pop(0) if len(answers) > 1 else answers[0]
                self.send_response(code)
                # A body that ends early stands for a dropped connection.
                if mirror.tells_length:
                    self.send_header("Content-Length", str(len(body.removesuffix(b"DROP"))))
                if body.endswith(b"DROP"):
                    body = body.removesuffix(b"DROP")[:-7]
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
