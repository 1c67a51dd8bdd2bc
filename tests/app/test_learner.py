"""What a learner has on disk: tables and pictures go up, tables come back; printing as the book sets it."""

from __future__ import annotations

import io
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from app.wire import csv, pictures
from engine.errors import EngineError, Malformed, TooLarge
from engine.session import Session
from tests.app.test_real import V1, ok
from tests.engine.programs import run, step


def picture(mode: str, kind: str = "PNG", size: tuple[int, int] = (3, 2)) -> bytes:
    out = io.BytesIO()
    rng = np.random.default_rng(0)
    channels = len(Image.new(mode, (1, 1)).getbands())
    pixels = rng.integers(0, 256, (size[1], size[0], channels), np.uint8)
    Image.fromarray(pixels.squeeze() if channels == 1 else pixels, mode).save(out, kind)
    return out.getvalue()


class TestTables:
    def test_a_table_goes_up_and_comes_back(self, http: httpx.Client) -> None:
        body = b"height,weight\n1.5,2\n-3,4e2\n"
        made = ok(
            http.post(f"{V1}/tensors?skip_rows=1&name=t", content=body, headers={"Content-Type": "text/csv"}), 201
        )
        assert (made["shape"], made["dtype"], made["values"]) == ([2, 2], "float32", [[1.5, 2.0], [-3.0, 400.0]])
        back = http.get(f"{V1}/tensors/t?as=csv")
        assert back.headers["content-type"].startswith("text/csv")
        again = ok(http.post(f"{V1}/tensors", content=back.content, headers={"Content-Type": "text/csv"}), 201)
        assert again["values"] == made["values"]

    def test_columns_are_taken_in_the_order_asked_for(self, http: httpx.Client) -> None:
        sent = {"content": b"1,2,3\n4,5,6\n", "headers": {"Content-Type": "text/csv"}}
        made = ok(http.post(f"{V1}/tensors?columns=2,0", **sent), 201)
        assert (made["dtype"], made["values"]) == ("int64", [[3, 1], [6, 4]])

    def test_large_integers_keep_their_digits(self) -> None:
        assert csv.read(b"9007199254740993\n").array.tolist() == [[9007199254740993]]

    @pytest.mark.parametrize(
        "body, words",
        [(b"1,2\n3\n", "2"), (b"1,x\n", "1"), (b"\xff\xfe", "UTF-8"), (b"1,2\n3,4,5\n", "2")],
        ids=["ragged", "word", "encoding", "long row"],
    )
    def test_what_is_no_table_is_refused_with_its_place(self, body: bytes, words: str) -> None:
        with pytest.raises(Malformed, match=words):
            csv.read(body)

    def test_three_dimensions_have_no_table(self, http: httpx.Client) -> None:
        ok(http.post(f"{V1}/ops/ones", json={"size": [2, 2, 2], "out_name": "c"}))
        refused = http.get(f"{V1}/tensors/c?as=csv")
        assert refused.status_code == 406
        assert refused.json()["hint"]


class TestPictures:
    @pytest.mark.parametrize(
        "mode, channels", [("L", 1), ("RGB", 3), ("RGBA", 4), ("LA", 2)], ids=["grey", "rgb", "rgba", "grey and alpha"]
    )
    def test_a_png_is_its_pixels(self, mode: str, channels: int) -> None:
        body = picture(mode)
        read = pictures.read(body, "image/png")
        assert (read.dtype, read.array.shape) == ("uint8", (2, 3, channels))
        with Image.open(io.BytesIO(body)) as same:
            assert np.array_equal(read.array, np.asarray(same).reshape(2, 3, channels))

    def test_a_palette_is_replaced_by_its_colours(self) -> None:
        out = io.BytesIO()
        Image.fromarray(np.array([[[255, 0, 0], [0, 255, 0]]], np.uint8)).quantize(4).save(out, "PNG")
        assert pictures.read(out.getvalue(), "image/png").array.tolist() == [[[255, 0, 0], [0, 255, 0]]]

    def test_a_jpeg_over_http(self, http: httpx.Client) -> None:
        body = picture("RGB", "JPEG", (16, 8))
        made = ok(http.post(f"{V1}/tensors", content=body, headers={"Content-Type": "image/jpeg"}), 201)
        assert (made["shape"], made["dtype"]) == ([8, 16, 3], "uint8")

    @pytest.mark.parametrize("body", [b"", b"\x89PNG\r\n\x1a\n", picture("RGB")[:60], b"GIF89a" + b"\0" * 20])
    def test_what_is_no_picture_is_refused(self, body: bytes) -> None:
        with pytest.raises(EngineError):
            pictures.read(body, "image/png")

    def test_a_small_file_that_claims_to_be_huge_is_refused_unopened(self) -> None:
        out = io.BytesIO()
        Image.new("1", (20_000, 20_000)).save(out, "PNG")
        assert len(out.getvalue()) < 100_000
        with pytest.raises(TooLarge):
            pictures.read(out.getvalue(), "image/png")


class TestPrintOptions:
    def text(self, session: Session) -> Any:
        return session.query({"do": "text", "ref": "x"})["text"]

    def test_they_are_the_sessions_and_are_taken_back_with_a_failing_program(self) -> None:
        commits: list[Any] = []
        session = Session("s", seed=0, on_commit=commits.append)
        run(session, inputs={"x": [1.23456789, 1000.5]}, keep={"x": "x"})
        plain = self.text(session)
        run(session, step("set_printoptions", precision=2))
        short = self.text(session)
        assert short != plain
        assert short == "tensor([   1.23, 1000.50])"
        with pytest.raises(EngineError):
            run(session, step("set_printoptions", precision=7), step("add", input="nosuch", other=1))
        assert self.text(session) == short
        assert self.text(Session.rebuild(commits, "s", seed=0)) == short
        run(session, step("set_printoptions", profile="default"))
        assert self.text(session) == plain

    @pytest.mark.parametrize("bad", [{"precision": -1}, {"profile": "long"}, {"linewidth": -5}])
    def test_bad_options_are_refused(self, bad: dict[str, Any]) -> None:
        with pytest.raises(EngineError):
            run(Session("s", seed=0), step("set_printoptions", **bad))
