"""Behind a proxy that publishes the server under a path of its own: `--root-path /class/tensors`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from app import settings as options
from app.main import create_app
from app.settings import Settings
from tests.app.conftest import FakeService, served, tensor
from tests.fixtures.catalogue import generated_catalogue

ROOT = "/class/tensors"


class Generated(FakeService):
    def catalogue(self) -> list[dict[str, Any]]:
        return generated_catalogue()


@pytest.fixture
def behind(make_client: Callable[..., httpx.Client]) -> httpx.Client:
    return make_client(root_path=ROOT)


@pytest.mark.parametrize("prefix", ["", ROOT], ids=["the proxy takes it off", "the proxy leaves it"])
def test_whether_the_proxy_takes_the_path_off_or_not(behind: httpx.Client, fake: FakeService, prefix: str) -> None:
    fake.answer = {"results": {"data": tensor([1.0], id="t7")}}
    made = behind.post(f"{prefix}/v1/tensors", json={"data": [1.0]})
    assert (made.status_code, made.headers["location"]) == (201, f"{ROOT}/v1/tensors/t7")
    assert behind.get(f"{prefix}/v1/devices").status_code == 200
    assert behind.get(f"{prefix}/healthz", headers={"Host": "10.0.0.1"}).status_code == 200
    assert behind.get(f"{prefix}/").headers["location"] == f"{ROOT}/docs"
    problem = behind.get(f"{prefix}/v1/nothing").json()
    assert problem["instance"] == f"{ROOT}/v1/nothing"


def test_the_root_itself_leads_to_the_documentation(behind: httpx.Client) -> None:
    assert behind.get(ROOT).headers["location"] == f"{ROOT}/docs"


@pytest.mark.parametrize("root, url", [(ROOT, ROOT), ("", "/")])
def test_the_documents_name_the_path_that_clients_see(root: str, url: str) -> None:
    with served(create_app(Settings(root_path=root), Generated())) as client:  # type: ignore[arg-type]
        for path in ("/openapi.json", "/openapi/core.json"):
            assert client.get(path).json()["servers"] == [{"url": url}]


def test_pages_refer_to_their_files_by_where_they_are(behind: httpx.Client) -> None:
    for path in ("/docs", "/redoc"):
        page = behind.get(ROOT + path).text
        assert 'href="/' not in page
        assert 'src="/' not in page


def test_what_is_like_the_path_is_not_the_path(behind: httpx.Client) -> None:
    assert behind.get("/class/tensorsX/v1/devices").status_code == 404
    assert behind.get(f"{ROOT}{ROOT}/v1/devices").status_code == 404


@pytest.mark.parametrize("text", ["class", "/a b", "/a?x", "//a", "https://a.example/x", "/a//b"])
def test_what_is_no_path_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options.read(["--root-path", text], {})
    assert "is not a path such as /curlgrad" in capsys.readouterr().err


def test_without_one_nothing_is_put_before_anything(client: httpx.Client) -> None:
    assert client.get("/").headers["location"] == "/docs"
    assert client.get("/v1/nothing").json()["instance"] == "/v1/nothing"
