import re

import pytest

pytest.importorskip("gradio", reason="Gradio is not installed: pip install -e '.[demo]'")

from fastapi.testclient import TestClient

from kit.demo.page import build_page
from kit.demo.server import POLICY, application


@pytest.fixture
def visitor(model, in_loop, tmp_path):
    server = in_loop(lambda: application(build_page([model()], tmp_path), upload_mib=1))
    with TestClient(server) as client:
        yield client


def test_every_answer_lets_the_browser_load_from_this_server_alone(visitor):
    for path in ("/", "/config", "/theme.css", "/nowhere"):
        assert visitor.get(path).headers["content-security-policy"] == POLICY
    assert POLICY.startswith("default-src 'self' ") and "http" not in POLICY


def test_the_page_reports_to_nobody_and_keeps_no_history(visitor):
    config = visitor.get("/config").json()
    assert config["analytics_enabled"] is False and config["run_history"] is False
    assert visitor.get("/monitoring").status_code in (403, 404)
    assert visitor.get("/gradio_api/info").json()["named_endpoints"] == {}


def test_no_font_is_fetched(visitor):
    sources = re.findall(r"src: url\('([^']*)'", visitor.get("/theme.css").text)
    assert sources and all(source.startswith("static/fonts/") for source in sources)
    assert all(visitor.get(f"/{source}").status_code == 200 for source in sources)


def test_a_file_of_this_machine_is_not_served(visitor, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    assert visitor.get(f"/gradio_api/file={secret}").status_code == 403
    assert visitor.get("/gradio_api/file=/etc/hostname").status_code == 403


def test_an_upload_is_taken_up_to_the_limit(visitor):
    small = visitor.post("/gradio_api/upload", files={"files": ("a.png", b"x" * 1000)})
    large = visitor.post("/gradio_api/upload", files={"files": ("b.png", b"x" * (2 << 20))})
    assert small.status_code == 200 and large.status_code == 413
    assert visitor.get(f"/gradio_api/file={small.json()[0]}").status_code == 200
