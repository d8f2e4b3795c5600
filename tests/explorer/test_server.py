"""The server that the command starts: right answers for many at once, one line for bad input, nothing besides."""

import base64
import contextlib
import io
import json
import subprocess
import sys
import textwrap
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from causalcxr.explorer.explorer import Explorer
from causalcxr.explorer.question import Question

USERS = 20


def png(levels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "png")
    return file.getvalue()


def film(size: int = 48) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (size, size), dtype=np.uint8)


def status(request: Any) -> int:
    """The HTTP status of a request that fails."""
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request, timeout=20)
    error.value.close()
    return error.value.code


def test_twenty_users_at_once(server: Any, explorer: Explorer) -> None:
    """Each gets the answer to its own question."""
    questions = [{"row": i, "do": {"age": 30 + 2 * i}} for i in range(USERS)]
    with ThreadPoolExecutor(USERS) as pool:
        answers = list(pool.map(server.ask, questions))
    for asked, answer in zip(questions, answers, strict=True):
        expected = explorer.answer(Question(**asked))
        assert answer["question"] == expected["question"]
        assert answer["factual"] == expected["factual"]
        assert [run["image"] for run in answer["runs"]] == [run["image"] for run in expected["runs"]]


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 60_000, b'{"row": 0, "do": {"\\ud800": 1}}', b"\xff"])
def test_what_is_no_question_is_one_line(server: Any, content: bytes) -> None:
    assert json.loads(server.send("answer", content)) == {"error": "question: expected JSON"}


def test_a_question_that_cannot_be_is_one_line(server: Any) -> None:
    assert server.ask({"row": 0, "do": {"age": 500}})["error"].startswith("'age': 500 is not in [18, 100] years")


@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff"])
def test_an_uploaded_film(server: Any, explorer: Explorer, kind: str) -> None:
    """It comes back as the model takes it, and is asked of like any patient."""
    file = io.BytesIO()
    Image.fromarray(film()).save(file, kind)
    sent = server.upload(file.getvalue(), f"film.{kind}")
    assert sent["shape"] == list(explorer.shape)
    given = {"sex": "male", "race": "white", "age": 50, "finding": "No Finding"}
    answer = server.ask({"pixels": sent["data"], "given": given, "do": {"age": 80}})
    assert answer["factual"]["image"]["data"] == sent["data"]
    assert "read_film" in answer["python"] and answer["exact"] is None


def test_a_dicom_film(server: Any) -> None:
    """Twelve bits in sixteen, dark bones: as a cohort of DICOM files has it."""
    pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")
    file = pydicom.Dataset()
    file.file_meta = pydicom.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    kind = pydicom.uid.DigitalXRayImageStorageForPresentation
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = kind
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = pydicom.uid.generate_uid()
    file.Rows = file.Columns = 64
    file.SamplesPerPixel, file.PhotometricInterpretation, file.PixelRepresentation = 1, "MONOCHROME1", 0
    file.BitsAllocated, file.BitsStored, file.HighBit = 16, 12, 11
    file.PixelData = np.linspace(0, 4095, 64 * 64).round().astype("<u2").tobytes()
    content = io.BytesIO()
    file.save_as(content, enforce_file_format=True)
    levels = np.frombuffer(base64.b64decode(server.upload(content.getvalue(), "film.dcm")["data"]), np.uint8)
    assert levels[:32].mean() > 240 and levels[-32:].mean() < 15


def test_sixteen_bits_are_scaled_by_their_range(server: Any) -> None:
    """Not clipped, nor taken for 8 bits: half of 65,535 is mid-grey."""
    levels = np.full((64, 64), 32768, np.uint16)
    levels[:8] = 65535
    sent = server.upload(png(levels))
    assert abs(int(np.median(np.frombuffer(base64.b64decode(sent["data"]), np.uint8))) - 128) <= 1


def damaged() -> bytes:
    content = png(film(200))
    return content[: len(content) // 2]


def huge() -> bytes:
    """The header of a PNG of 200 megapixels."""
    import struct
    import zlib

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", 20_000, 10_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "'scan.png' is empty"),
        (b"not a picture at all", "'scan.png': no image of a known format"),
        (damaged(), "'scan.png'"),
        (huge(), "'scan.png': Image size (200000000 pixels) exceeds limit"),
        (png(np.zeros((32, 32), np.uint8)), "'scan.png': every pixel is 0"),
    ],
    ids=["empty", "text", "truncated", "200 megapixels", "black"],
)
def test_a_bad_film_is_one_line_that_names_it(server: Any, content: bytes, said: str) -> None:
    answer = server.upload(content, "C:\\films\\scan.png")
    assert list(answer) == ["error"]
    assert answer["error"].startswith(said) and "\n" not in answer["error"] and "tmp" not in answer["error"]


def test_a_film_that_is_too_large_is_refused(server: Any) -> None:
    from causalcxr.explorer.server import MOST_BYTES

    answer = server.upload(b"\0" * (MOST_BYTES + 1))
    assert answer == {"error": f"the film is larger than {MOST_BYTES >> 20} MiB"}


@pytest.mark.parametrize("path", ["docs", "openapi.json", "%2e%2e/pyproject.toml", "static/x"])
def test_nothing_else_is_served(server: Any, path: str) -> None:
    assert status(server.url + path) == 404


def test_the_page_may_speak_to_this_server_alone(server: Any) -> None:
    with urllib.request.urlopen(server.url, timeout=20) as response:
        policy, page = response.headers["Content-Security-Policy"], response.read().decode()
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "") and "https://" not in page


def test_another_host_name_is_refused(server: Any) -> None:
    """A page of the web whose name was made to lead here gets nothing, nor one of another origin."""
    assert status(urllib.request.Request(server.url, headers={"Host": "films.example"})) == 403
    headers = {"Origin": "http://films.example", "Content-Type": "application/json"}
    assert status(urllib.request.Request(server.url + "answer", b'{"row": 0}', headers)) == 403
    assert status(urllib.request.Request(server.url, headers={"Origin": "http://["})) == 403
    own = urllib.request.Request(server.url + "answer", b'{"row": 0}', {"Origin": server.url.rstrip("/")})
    with urllib.request.urlopen(own, timeout=60) as response:
        assert "access-control-allow-origin" not in response.headers and b'"runs"' in response.read()


@pytest.mark.parametrize(
    ("bound", "asked", "ours"),
    [
        ("127.0.0.1", "127.0.0.1:7860", True),
        ("127.0.0.1", "LOCALHOST:7860", True),
        ("127.0.0.1", "films.example:7860", False),
        ("127.0.0.1", "", False),
        ("::1", "[::1]:7860", True),
        ("0.0.0.0", "192.168.1.7:7860", True),
        ("0.0.0.0", "films.example", False),
        ("0.0.0.0", "a b]c", False),
        ("127.0.0.1", "My-Machine:7860", True),
    ],
)
def test_names_that_lead_here(bound: str, asked: str, ours: bool) -> None:
    """An address, or a name of this machine; not what somebody else's name server says of us."""
    from causalcxr.explorer.server import _OwnNameOnly

    async def app(*_: Any) -> None: ...

    assert _OwnNameOnly(app, bound, "my-machine")._is_ours(asked) == ours


def test_too_many_at_once_are_refused() -> None:
    """One line, and places are free again behind those who leave."""
    from causalcxr.explorer.server import MOST_WAITING, Busy, _Queue

    queue = _Queue()
    with contextlib.ExitStack() as waiting:
        for _ in range(MOST_WAITING):
            waiting.enter_context(queue.place())
        with pytest.raises(Busy, match="100 others wait already"), queue.place():
            pass
    with queue.place():
        pass


def test_a_port_that_is_taken_is_one_line(server: Any, runs: list[Path]) -> None:
    port = server.url.rstrip("/").rpartition(":")[2]
    command = [sys.executable, "-m", "causalcxr", "explore", str(runs[0]), "--port", port]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith(f"causalcxr: explore: can't have port {port} of 127.0.0.1")


def test_the_process_speaks_to_nobody(runs: list[Path]) -> None:
    """Every address that it connects to, from the imports on, is of this machine; whatever a question names."""
    code = f"""
        import socket
        seen, connect, look_up = [], socket.socket.connect, socket.getaddrinfo
        def connecting(self, address):
            seen.append(address[0] if isinstance(address, tuple) else "local")
            return connect(self, address)
        def looking_up(host, *rest, **more):
            seen.append(host)
            return look_up(host, *rest, **more)
        socket.socket.connect, socket.getaddrinfo = connecting, looking_up
        import json, os, signal, threading, urllib.request
        from causalcxr.commands.explore import open_explorer
        from causalcxr.explorer.server import listening, serve
        at = listening()
        address = f"http://127.0.0.1:{{at.getsockname()[1]}}/"
        named = {{"path": "http://films.example/x", "meta": {{"_type": "gradio.FileData"}}}}
        questions = [{{"row": 0, "do": {{"age": 80}}}}, {{"row": 0, "do": named}}]
        def ask():
            with urllib.request.urlopen(address) as page:
                page.read()
            for question in questions:
                with urllib.request.urlopen(address + "answer", json.dumps(question).encode()) as answer:
                    answer.read()
            os.kill(os.getpid(), signal.SIGINT)
        threading.Timer(1, ask).start()
        try:
            serve(open_explorer([{str(runs[0])!r}]), at)
        except KeyboardInterrupt:
            pass
        print(json.dumps(sorted({{str(host) for host in seen}})))
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    assert set(json.loads(ended.stdout.splitlines()[-1])) <= {"127.0.0.1", "localhost", "local"}
