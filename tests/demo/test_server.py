"""Who may ask the server for what: no file of the machine, no other server, nobody without the password."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest

from foveate import demo
from foveate.cli import main
from foveate.demo.samples import MAX_UPLOAD
from foveate.demo.server import private_environment, serve
from foveate.models import shipped

from .conftest import Server, start
from .files import photograph

PASSWORD = "correct horse"
ROOT = Path(__file__).parents[2]

CHOSEN = ["cram_tf_efficientnet_lite0.flowers", None, None, None, 1.0, "What the pixel takes", "Both", None]
"""What a visitor has chosen, which every function of the page is told; image and pixel are the server's to know."""


def call(server: Server, fn: int, data: list[Any], **more: Any) -> dict[str, Any]:
    """Call a function of the page as its own scripts do, with whatever data; return the outcome."""
    session = uuid.uuid4().hex  # which networks can be chosen depends on the image of the session
    body = {"data": data, "fn_index": fn, "session_hash": session, **more}
    httpx.post(f"{server.url}/gradio_api/queue/join", json=body).raise_for_status()
    with httpx.stream("GET", f"{server.url}/gradio_api/queue/data?session_hash={session}", timeout=20) as stream:
        for line in stream.iter_lines():
            message = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
            if message.get("msg") == "process_completed":
                return message
    raise AssertionError("the queue ended without an outcome")


def function(server: Server, event: str) -> int:
    """Return the number of the page's function that runs at an event."""
    dependencies = httpx.get(f"{server.url}/config").json()["dependencies"]
    return next(fn["id"] for fn in dependencies if any(target[1] == event for target in fn["targets"]))


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../../../../../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", str(ROOT / "pyproject.toml"), "."],
)
def test_no_file_of_the_machine_is_served(server: Server, path: str) -> None:
    for prefix in ("/gradio_api/file=", "/gradio_api/file/", "/file=", "/static/", "/assets/", "/svelte/"):
        answer = httpx.get(server.url + prefix + path)
        assert answer.status_code in (403, 404), prefix
        assert "root:" not in answer.text
        assert "setuptools" not in answer.text


def test_no_checkpoint_is_served(server: Server, networks: list[str]) -> None:
    files = networks or [str(path) for path in shipped("digits").values()]
    page = httpx.get(server.url).text
    for file in files:
        assert Path(file).is_file()
        assert httpx.get(f"{server.url}/gradio_api/file={file}").status_code == 403
        assert str(Path(file).parent) not in page


@pytest.mark.parametrize(
    "path",
    [
        "/monitoring",
        "/monitoring/summary",
        "/docs",
        "/openapi.json",
        "/gradio_api/openapi.json",
        "/gradio_api/runs",
        "/gradio_api/proxy=http://127.0.0.1:1/",
        "/gradio_api/file=http://127.0.0.1:1/",
        "/gradio_api/file=file:///etc/passwd",
        "/gradio_api/mcp",
        "/custom_component/1/client/component/index.js",
    ],
)
def test_what_the_page_does_not_need_is_not_there(server: Server, path: str) -> None:
    assert httpx.get(server.url + path).status_code == 404
    assert httpx.post(server.url + path).status_code == 404


@pytest.mark.parametrize("path", ["process_recording", "run/predict", "call/predict", "vibe-edit", "component_server"])
def test_other_ways_in_are_not_there(server: Server, path: str) -> None:
    assert httpx.post(f"{server.url}/gradio_api/{path}", json={}).status_code == 404


@pytest.mark.slow
def test_files_that_were_not_uploaded_are_refused(server: Server, checkpoint: Path, tmp_path: Path) -> None:
    fn = function(server, "upload")
    secret = photograph(tmp_path)
    for path in ("/etc/passwd", str(checkpoint), str(secret), f"{server.temporary}/../{tmp_path.name}/hopper.png"):
        outcome = call(server, fn, [{"path": path, "meta": {"_type": "gradio.FileData"}}, *CHOSEN])
        assert not outcome["success"], path
    assert secret.exists()  # what was read is deleted; this was not
    samples = list(server.temporary.rglob("*.png"))  # of the page itself
    assert samples
    for path in samples[:3]:
        call(server, fn, [{"path": str(path), "meta": {"_type": "gradio.FileData"}}, *CHOSEN])
        assert path.exists()

    with secret.open("rb") as file:
        (uploaded,) = httpx.post(f"{server.url}/gradio_api/upload", files={"files": ("hopper.png", file)}).json()
    assert call(server, fn, [{"path": uploaded, "meta": {"_type": "gradio.FileData"}}, *CHOSEN])["success"]
    assert not Path(uploaded).exists()


@pytest.mark.slow
def test_a_page_that_is_no_longer_known_is_told_that_its_image_is_gone(server: Server) -> None:
    """As many pages were opened since: of a new session nothing was offered, as of one that is forgotten."""
    chosen = ["cram_resnet_tiny.digits", None, None, "layer4.attention", 12.5, *CHOSEN[5:7], "Head 2"]
    outcome = call(server, function(server, "input"), chosen)
    assert not outcome["success"]
    assert "no longer" in outcome["output"]["error"]


def test_an_address_of_version_6_is_told_in_brackets() -> None:
    class Page:
        server_port, told = 7860, ""

        def queue(self, **_: Any) -> Page:
            return self

        def launch(self, *, server_name: str, **_: Any) -> None:
            self.told = server_name
            signal.raise_signal(signal.SIGINT)

        def close(self, **_: Any) -> None:
            pass

    page = Page()
    with pytest.raises(KeyboardInterrupt):
        serve(page, address="::1", port=None, password=None)
    assert page.told == "[::1]"


def test_addresses_of_other_servers_are_not_fetched(server: Server) -> None:
    fn = function(server, "upload")
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(0.5)
        address = f"http://127.0.0.1:{other.getsockname()[1]}/image.png"
        for file in ({"path": address}, {"path": "x.png", "url": address}):
            assert not call(server, fn, [{**file, "meta": {"_type": "gradio.FileData"}}, *CHOSEN])["success"]
        with pytest.raises(TimeoutError):
            other.accept()


@pytest.mark.parametrize("index", [-1, 99, "0", None, [0, 1], {"path": "/etc/passwd"}])
def test_a_sample_that_there_is_not_is_refused(server: Server, index: Any) -> None:
    fn, event = function(server, "select"), {"value": None, "selected": True}
    assert call(server, fn, CHOSEN, event_data={**event, "index": 3})["success"]
    assert not call(server, fn, CHOSEN, event_data={**event, "index": index})["success"]


def test_another_name_for_this_machine_is_refused(server: Server) -> None:
    assert httpx.get(server.url, headers={"Host": "rebound.example.org"}).status_code == 400
    assert httpx.get(server.url, headers={"Host": "localhost:7860"}).status_code == 200


def test_another_page_leaves_no_files_here(server: Server) -> None:
    def upload(origin: str) -> int:
        files = {"files": ("a.png", b"1")}
        return httpx.post(f"{server.url}/gradio_api/upload", files=files, headers={"Origin": origin}).status_code

    assert {upload(origin) for origin in ("https://example.org", "http://127.0.0.1.example.org:80", "null")} == {403}
    assert {upload(origin) for origin in (server.url, "http://localhost:7860")} == {200}


def test_large_requests_are_refused(server: Server) -> None:
    large = bytes(MAX_UPLOAD + 2**20)
    answer = httpx.post(f"{server.url}/gradio_api/upload", files={"files": ("large.png", large)})
    assert answer.status_code == 413
    chunks = (large[start : start + 2**16] for start in range(0, len(large), 2**16))  # without saying how much it is
    try:
        code = httpx.post(f"{server.url}/gradio_api/queue/join", content=chunks).status_code
    except httpx.TransportError:
        code = 400  # it hung up
    assert code >= 400
    assert httpx.get(server.url).status_code == 200


def test_the_page_asks_nothing_of_others(server: Server) -> None:
    page = httpx.get(server.url).text
    asked = re.findall(r"""<(?:script|link|img|iframe)[^>]+(?:src|href)=["'](https?://[^"']+)""", page)
    assert [url for url in asked if not url.startswith(server.url)] == []
    config = httpx.get(f"{server.url}/config").json()
    assert config["analytics_enabled"] is False
    assert config["stylesheets"] == []


@pytest.mark.slow
def test_a_password_is_asked_for_and_ctrl_c_leaves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    environment = {"FOVEATE_DEMO_PASSWORD": PASSWORD, "GRADIO_ALLOWED_PATHS": "/etc", "GRADIO_SHARE": "true"}
    found = start([str(checkpoint), "--address", "0.0.0.0"], tmp_path, **environment)
    try:
        url = found.url.replace("0.0.0.0", "127.0.0.1")
        assert len(left_in(tmp_path)) == 1
        for path in ("/config", "/gradio_api/file=/etc/hosts", "/gradio_api/info"):
            assert httpx.get(url + path).status_code == 401
        assert httpx.post(f"{url}/gradio_api/queue/join", json={"data": [], "fn_index": 0}).status_code == 401
        assert httpx.post(f"{url}/gradio_api/upload", files={"files": ("a.png", b"1")}).status_code == 401
        with httpx.Client(base_url=url) as visitor:
            for user, password in (("foveate", "wrong"), ("foveate", ""), ("admin", PASSWORD), ("foveate", "ü")):
                assert visitor.post("/login", data={"username": user, "password": password}).status_code >= 400
                assert visitor.get("/config").status_code == 401
            visitor.post("/login", data={"username": "foveate", "password": PASSWORD}).raise_for_status()
            assert visitor.get("/config").status_code == 200
            assert visitor.get("/gradio_api/file=/etc/hosts").status_code == 403
    finally:
        found.process.send_signal(signal.SIGINT)
        code = found.process.wait(timeout=20)
    assert code == 130
    assert left_in(tmp_path) == []


def left_in(folder: Path) -> list[Path]:
    """Return what is in a folder for temporary files, but for what importing wandb makes there."""
    return [path for path in folder.iterdir() if "wandb-" not in path.name]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--address", "0.0.0.0"], "0.0.0.0 can be reached by others, and there is no password"),
        (["--address", "::"], "can be reached by others"),
        (["--address", "example.org"], "address must be an IP address"),
        (["--port", "70000"], "port must be at most 65535"),
        (["--samples", "0"], "samples must be at least 1"),
        (["--password_file", "nowhere"], "nowhere"),
        (["--checkpoint", "nowhere"], "nowhere"),
    ],
)
def test_wrong_settings_end_with_code_2(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FOVEATE_DEMO_PASSWORD", raising=False)
    assert main(["demo", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_short_password_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "password").write_text("short\nand more\n")
    assert main(["demo", "--address", "0.0.0.0", "--password_file", str(tmp_path / "password")]) == 2
    assert "at least 8 characters; it has 5" in capsys.readouterr().err


def test_a_password_from_a_pipe_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, served = tmp_path / "password", []
    os.mkfifo(pipe)
    threading.Thread(target=pipe.write_text, args=(f"{PASSWORD}\n",), daemon=True).start()
    monkeypatch.setattr("foveate.demo.server.serve", lambda page, **how: served.append(how["password"]))
    demo.run(demo.DemoConfig(address="0.0.0.0", password_file=str(pipe), samples=1))
    assert served == [PASSWORD]


def test_a_port_that_is_taken_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert main(["demo", "--port", port]) == 2
    assert f"cannot be at 127.0.0.1, port {port}: " in capsys.readouterr().err


def test_an_address_of_another_machine_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOVEATE_DEMO_PASSWORD", PASSWORD)
    assert main(["demo", "--address", "192.0.2.1"]) == 2  # set aside for documentation
    assert "cannot be at 192.0.2.1: " in capsys.readouterr().err


def test_variables_of_gradio_are_not_heeded_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_ALLOWED_PATHS", "/")
    monkeypatch.setenv("no_proxy", "example.org")
    before = dict(os.environ)
    with private_environment() as folder:
        assert "GRADIO_ALLOWED_PATHS" not in os.environ
        assert os.environ["GRADIO_TEMP_DIR"] == str(folder)
        assert folder.stat().st_mode & 0o077 == 0
        assert os.environ["no_proxy"].split(",") == ["example.org", "127.0.0.1", "localhost", "::1"]
    assert not folder.exists()
    assert dict(os.environ) == before
