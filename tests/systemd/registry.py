#!/usr/bin/env python3
"""A registry that knows one image: serves an OCI archive, whatever the repository and the tag, over TLS.

Usage: registry.py ARCHIVE ADDRESS PORT CERT KEY LOG
"""

import http.server
import json
import ssl
import sys
import tarfile

archive, address, port, cert, key, log = sys.argv[1:]
with tarfile.open(archive) as tar:
    blobs = {name: tar.extractfile(name).read() for name in tar.getnames() if name.startswith("blobs/sha256/")}
    manifest = json.load(tar.extractfile("index.json"))["manifests"][0]


class Registry(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.split("?")[0]
        digest = manifest["digest"] if "/manifests/" in path else path.rsplit("/", 1)[1]
        kind = manifest["mediaType"] if digest == manifest["digest"] else "application/octet-stream"
        body = b"{}" if path == "/v2/" else blobs.get("blobs/" + digest.replace(":", "/"))
        self.send_response(200 if body is not None else 404)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body or b"")))
        self.send_header("Docker-Content-Digest", digest)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body or b"")

    def log_message(self, text, *values):
        with open(log, "a") as file:
            print(text % values, file=file)


server = http.server.ThreadingHTTPServer((address, int(port)), Registry)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(cert, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
