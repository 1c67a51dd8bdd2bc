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

    @pytest.mark.parametrize(
        "body, dtype, values",
        [
            (b"\xef\xbb\xbf1,2\r\n\r\n3,4\r\n", "int64", [[1, 2], [3, 4]]),
            (b'"1.5", 2\n', "float64", [[1.5, 2.0]]),
            (b"true,False\n", "bool", [[True, False]]),
            (b"1,true\n", "int64", [[1, 1]]),
            (b"inf,-inf,1e400\n", "float64", [[np.inf, -np.inf, np.inf]]),
            (b"-0.0", "float64", [[-0.0]]),
        ],
    )
    def test_what_a_spreadsheet_writes_is_read(self, body: bytes, dtype: str, values: Any) -> None:
        read = csv.read(body)
        assert (read.dtype, read.array.tolist()) == (dtype, values)
        assert np.signbit(read.array).tolist() == np.signbit(np.array(values)).tolist() if dtype == "float64" else True

    @pytest.mark.parametrize(
        "body, code, key",
        [
            (b"1;2\n", "not-a-number", "csv-comma"),
            (b"1\t2\n", "not-a-number", "csv-comma"),
            (b"1,,2\n", "not-a-number", "csv-empty-field"),
            (b"a,b\n1,2\n", "not-a-number", "csv-how"),
            (b"1_000,2\n", "not-a-number", "csv-how"),
            ("１,２\n".encode(), "not-a-number", "csv-how"),
            (b"\n\n", "csv-empty", "csv-how"),
            (b"\xff\xfe1\x00", "csv-encoding", "csv-encoding"),
            (b'"1,2\n', "not-csv", None),
        ],
    )
    def test_a_refusal_says_what_to_write_instead(self, body: bytes, code: str, key: str | None) -> None:
        with pytest.raises(Malformed) as caught:
            csv.read(body)
        assert caught.value.code == code
        assert (caught.value.hint.key if caught.value.hint else None) == key

    @pytest.mark.parametrize(
        "query, status, code",
        [
            ("columns=2", 422, "csv-column"),
            ("columns=-1", 422, "wrong-type"),
            ("skip_rows=9", 400, "csv-empty"),
            ("dtype=complex64", 422, "wrong-type"),
            ("dtype=int8", 422, "integer-overflow"),
            ("shape=4", 422, "invalid"),
            ("requires_grad=true", 422, "integer-requires-grad"),
        ],
    )
    def test_options_that_do_not_fit_are_refused(self, http: httpx.Client, query: str, status: int, code: str) -> None:
        sent = {"content": b"1,300\n", "headers": {"Content-Type": "text/csv"}}
        refused = http.post(f"{V1}/tensors?{query}", **sent)
        assert (refused.status_code, refused.json()["code"]) == (status, code)

    def test_a_dtype_is_that_of_torch_tensor(self, http: httpx.Client) -> None:
        sent = {"content": b"1.5,-2.7\n", "headers": {"Content-Type": "text/csv"}}
        assert ok(http.post(f"{V1}/tensors?dtype=int8", **sent), 201)["values"] == [[1, -2]]
        assert ok(http.post(f"{V1}/tensors?dtype=bool", **sent), 201)["values"] == [[True, True]]

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

    def test_a_palette_with_transparent_colours_has_four_channels(self) -> None:
        pixels = np.array([[[255, 0, 0, 255], [0, 255, 0, 128]]], np.uint8)
        out = io.BytesIO()
        Image.fromarray(pixels).quantize(4).save(out, "PNG")
        assert pictures.read(out.getvalue(), "image/png").array.tolist() == pixels.tolist()

    def test_black_and_white_is_0_and_255(self) -> None:
        out = io.BytesIO()
        Image.fromarray(np.array([[True, False]])).save(out, "PNG")
        assert pictures.read(out.getvalue(), "image/png").array.tolist() == [[[255], [0]]]

    def test_a_cmyk_jpeg_becomes_rgb(self) -> None:
        out = io.BytesIO()
        Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(out, "JPEG", quality=100)
        array = pictures.read(out.getvalue(), "image/jpeg").array
        assert array.shape == (8, 8, 3)
        assert np.abs(array.astype(int) - [255, 0, 0]).max() <= 2

    def test_16_bits_are_refused_rather_than_halved(self) -> None:
        out = io.BytesIO()
        Image.fromarray(np.array([[0, 40_000]], np.uint16)).save(out, "PNG")
        with pytest.raises(EngineError, match="16 bits") as caught:
            pictures.read(out.getvalue(), "image/png")
        assert caught.value.hint is not None

    @pytest.mark.parametrize("sent, said", [("PNG", "image/jpeg"), ("JPEG", "image/png")])
    def test_a_picture_of_the_other_kind_is_refused(self, sent: str, said: str) -> None:
        with pytest.raises(Malformed):
            pictures.read(picture("RGB", sent), said)

    def test_a_picture_may_be_given_a_dtype(self, http: httpx.Client) -> None:
        sent = {"content": picture("L"), "headers": {"Content-Type": "image/png"}}
        made = ok(http.post(f"{V1}/tensors?dtype=float32&requires_grad=true", **sent), 201)
        assert (made["dtype"], made["shape"], made["requires_grad"]) == ("float32", [2, 3, 1], True)

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

    def test_the_tag_of_a_text_changes_with_them(self, http: httpx.Client) -> None:
        ok(http.post(f"{V1}/tensors", json={"data": [1.23456789], "name": "x"}), 201)
        before = http.get(f"{V1}/tensors/x?as=text")
        tag = {"If-None-Match": before.headers["etag"]}
        assert http.get(f"{V1}/tensors/x?as=text", headers=tag).status_code == 304
        json_tag = http.get(f"{V1}/tensors/x").headers["etag"]
        ok(http.post(f"{V1}/ops/set_printoptions", json={"precision": 2}))
        after = http.get(f"{V1}/tensors/x?as=text", headers=tag)
        assert (after.status_code, after.text) == (200, "tensor([1.23])\n")
        assert after.headers["etag"] != before.headers["etag"]
        assert http.get(f"{V1}/tensors/x").headers["etag"] == json_tag

    @pytest.mark.parametrize("bad", [{"precision": -1}, {"profile": "long"}, {"linewidth": -5}])
    def test_bad_options_are_refused(self, bad: dict[str, Any]) -> None:
        with pytest.raises(EngineError):
            run(Session("s", seed=0), step("set_printoptions", **bad))
