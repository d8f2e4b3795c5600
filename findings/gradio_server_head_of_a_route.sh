#!/usr/bin/env bash
# gradio 6.31.0, fastapi 0.165.0: a page that replaces the one at "/" of a `gradio.Server` is replaced for GET alone.
# HEAD of the same address is answered by gradio's own page, with its length and its type.
#
# Server mode is for a front end of one's own: `@server.get("/")` gives the page. Of such a route one expects of HEAD
# what FastAPI gives without gradio, 405, or the headers of the page itself (RFC 9110: the same as GET's). A health
# check or a link checker, which ask by HEAD, look at another page than people do.
#
# Seen: GET 200 with 17 bytes; HEAD 200 with the length of gradio's page, some thousand bytes; plain FastAPI says 405.
# Mend: `@server.api_route("/", methods=["GET", "HEAD"])`; then HEAD has 17 bytes as well.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet gradio==6.31.0 fastapi==0.165.0 starlette==1.10.0
GRADIO_ANALYTICS_ENABLED=False "$folder/venv/bin/python" - <<'PYTHON'
import http.client
import urllib.parse

import fastapi
import gradio
from fastapi.responses import HTMLResponse
from fastapi.testclient import TestClient


def asked(server, method):
    address = urllib.parse.urlparse(server.blocks.local_url)
    connection = http.client.HTTPConnection(address.hostname, address.port)
    connection.request(method, "/")
    answer = connection.getresponse()
    answer.read()
    return answer.status, int(answer.headers["content-length"])


def served(*methods):
    server = gradio.Server()
    server.api_route("/", methods=list(methods), response_class=HTMLResponse)(lambda: "<p>our own</p>\n\n\n")
    server.launch(server_name="127.0.0.1", quiet=True, prevent_thread_lock=True)
    found = asked(server, "GET"), asked(server, "HEAD")
    server.blocks.close(verbose=False)
    return found


plain = fastapi.FastAPI()
plain.get("/", response_class=HTMLResponse)(lambda: "<p>our own</p>")
(get, head), mended = served("GET"), served("GET", "HEAD")
print(gradio.__version__, "GET", get, "HEAD", head, "mended", mended, "fastapi", TestClient(plain).head("/").status_code)
assert get == (200, 17), "changed"
assert head[0] == 200 and head[1] > 1000, "changed"
assert mended == ((200, 17), (200, 17)), "changed"
assert TestClient(plain).head("/").status_code == 405, "changed"
PYTHON
echo "as described"
