"""Answers every request with a line of text. The standard library is all there is."""

import platform
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hello(BaseHTTPRequestHandler):
    def do_GET(self):
        text = f"Hello from Python {platform.python_version()} in a microVM.\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


# All addresses: the guest is reached from outside of it.
ThreadingHTTPServer(("0.0.0.0", 8080), Hello).serve_forever()
