"""The values of a tensor as a picture: what is drawn of which shape, and that every number has its place and colour."""

from __future__ import annotations

import io
import re
import warnings
from typing import Any
from xml.etree import ElementTree as ET

import httpx
import numpy as np
import pytest
from PIL import Image

from app.wire import plots
from engine.errors import Invalid
from engine.service import TensorAnswer
from tests.app.conftest import tensor

SVG = "{http://www.w3.org/2000/svg}"


def svg(values: Any, dtype: str = "float64", kind: str = "auto", name: str = "x") -> ET.Element:
    return ET.fromstring(plots.draw(name, tensor(values, dtype), kind, "svg"))


def png(values: Any, dtype: str = "float64", kind: str = "auto") -> np.ndarray[Any, Any]:
    with Image.open(io.BytesIO(plots.draw("x", tensor(values, dtype), kind, "png")), formats=("PNG",)) as picture:
        return np.array(picture.convert("RGB"))


def texts(root: ET.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def cells(root: ET.Element) -> list[tuple[float, float, float, float, str]]:
    """The first grid of cells: x, y, width, height, colour."""
    group = next(root.iter(f"{SVG}g"))
    return [
        (*(float(rect.attrib[name]) for name in ("x", "y", "width", "height")), rect.attrib["fill"]) for rect in group
    ]


def test_a_matrix_is_a_heat_map_with_its_numbers() -> None:
    root = svg([[1.0, 2.0, 3.0], [4.0, 5.0, 6.5]])
    assert texts(root)[:2] == ["x  float64 [2, 3]", "min 1   max 6.5   mean 3.583"]
    assert {"1", "2", "3", "4", "5", "6.5"} <= set(texts(root))
    found = cells(root)
    assert len(found) == 6
    assert len({colour for *_, colour in found}) == 6
    assert found[0][4] == "#440154"  # the lowest and the highest have the ends of the colours
    assert found[-1][4] == "#fde725"
    xs, ys = sorted({x for x, *_ in found}), sorted({y for _, y, *_ in found})
    assert (len(xs), len(ys)) == (3, 2)


def test_zero_is_white_where_there_are_both_signs() -> None:
    found = cells(svg([[-2.0, 0.0, 1.0]]))
    assert [colour for *_, colour in found][1] == "#fafafa"
    assert found[0][4] == "#214c9c"


def test_neighbours_of_one_colour_are_one_rectangle() -> None:
    assert len(cells(svg(np.zeros((4, 5))))) == 4


def test_of_a_large_matrix_the_means_are_drawn() -> None:
    values = np.zeros((200, 300))
    values[:, 150:] = 8.0
    root = svg(values)
    assert any(text.startswith("drawn as 96 x 96 cells") for text in texts(root))
    colours = {colour for *_, colour in cells(root)}
    assert colours == {"#440154", "#fde725"}
    assert plots._averaged(np.arange(10.0).reshape(1, 10), 5).tolist() == [[0.5, 2.5, 4.5, 6.5, 8.5]]
    assert plots._averaged(np.arange(7.0).reshape(7, 1), 3).reshape(-1).tolist() == [0.5, 2.5, 5.0]


def test_the_pixels_of_a_heat_map_are_its_cells() -> None:
    pixels = png([[0.0, 1.0], [1.0, 0.0]])
    low, high = (68, 1, 84), (253, 231, 37)
    rows, columns = np.nonzero((pixels == low).all(axis=-1))
    top, left = rows.min(), columns.min()
    side = 40
    for i, j, colour in ((0, 0, low), (0, 1, high), (1, 0, high), (1, 1, low)):
        assert tuple(pixels[top + side * i + 3, left + side * j + 3]) == colour


def test_a_vector_is_a_line_with_gaps_where_nothing_is_known() -> None:
    root = svg([1.0, 2.0, np.nan, 4.0, 3.0, np.inf, 2.0])
    assert texts(root)[1] == "min 1   max 4   mean 2.4   NaN: 1   inf: 1"
    lines = [line.attrib for line in root.iter(f"{SVG}polyline") if line.attrib["stroke"] == "#26549e"]
    assert [len(line["points"].split()) for line in lines] == [2, 2]
    first = [tuple(map(float, point.split(","))) for point in lines[0]["points"].split()]
    assert first[0][0] < first[1][0]
    assert first[0][1] > first[1][1]  # larger is higher
    points = [rect for rect in root.iter(f"{SVG}rect") if rect.attrib["fill"] == "#26549e"]
    assert len(points) == 5


def test_a_long_line_is_drawn_by_its_lowest_and_highest_points() -> None:
    values = np.zeros(1_000_000)
    values[123_456] = 5.0
    root = svg(values)
    (line,) = [line for line in root.iter(f"{SVG}polyline") if line.attrib["stroke"] == "#26549e"]
    ys = [float(point.split(",")[1]) for point in line.attrib["points"].split()]
    assert len(ys) <= 2 * 560
    assert min(ys) < max(ys) - 300


@pytest.mark.parametrize(
    "values, dtype, bars",
    [
        (np.arange(6).reshape(1, 2, 3) % 3, "int64", [2, 2, 2]),
        ([[[True, True], [True, False]]], "bool", [1, 3]),
        (np.array([[[0.0, 0.1], [9.9, 10.0]]]), "float32", [2, 2]),
    ],
)
def test_more_dimensions_are_a_histogram(values: Any, dtype: str, bars: list[int]) -> None:
    found = [rect for rect in svg(values, dtype).iter(f"{SVG}rect") if rect.attrib["fill"] == "#26549e"]
    heights = [float(rect.attrib["height"]) for rect in found]
    assert [round(height / 320 * max(bars)) for height in heights] == bars


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_an_uploaded_picture_is_shown_as_it_is(channels: int) -> None:
    values = np.random.default_rng(0).integers(0, 256, (7, 5, channels), dtype=np.uint8)
    if channels == 4:
        values[..., 3] = 255
    pixels = png(values, "uint8")
    assert pixels.shape == (7, 5, 3)
    assert (pixels == (np.repeat(values, 3, axis=2) if channels == 1 else values[..., :3])).all()
    assert len(cells(svg(values, "uint8"))) > 20


def test_alpha_lies_on_white() -> None:
    assert png(np.array([[[200, 0, 0, 0]]]), "uint8").tolist() == [[[255, 255, 255]]]


@pytest.mark.parametrize("kind, values", [("heatmap", [1.0]), ("line", [[1.0]]), ("picture", [[[1.0]]])])
def test_a_kind_that_does_not_fit_is_refused(kind: str, values: Any) -> None:
    with pytest.raises(Invalid) as caught:
        plots.draw("x", tensor(values), kind, "png")
    assert (caught.value.code, caught.value.param) == ("not-drawn-so", "kind")


def test_complex_numbers_are_drawn_as_their_absolute_values() -> None:
    root = svg([[3 + 4j]], "complex64")
    assert texts(root)[0] == "x  complex64 [1, 1], absolute values"
    assert "5" in texts(root)


def test_bfloat16_is_drawn_as_its_values() -> None:
    assert texts(svg([0x3F80, 0x4000], "bfloat16"))[1] == "min 1   max 2   mean 1.5"


def test_names_are_text() -> None:
    text = plots.draw("<script>&\"'", tensor([1.0]), "auto", "svg").decode()
    assert "<script" not in text
    assert texts(ET.fromstring(text))[0].startswith("<script>&\"'")


HARD = {
    "empty": np.zeros(0),
    "no rows": np.zeros((0, 3)),
    "nothing known": np.full((2, 2), np.nan),
    "only infinities": np.array([np.inf, -np.inf]),
    "one": np.array(3.5),
    "zero": np.zeros((1, 1)),
    "all alike": np.full(5, -7.0),
    "widest": np.array([-1.79e308, 0.0, 1.79e308]),
    "widest matrix": np.array([[-1.79e308, 0.0, 1.79e308]]),
    "narrowest": np.array([5e-324, 0.0, 1e-323]),
    "close together": np.array([1e16, 1e16 + 2]),
    "tall": np.arange(5000.0).reshape(-1, 1),
    "broad": np.arange(5000.0).reshape(1, -1),
    "infinity in a large one": np.where(np.eye(700) > 0, np.inf, -1.0),
}


@pytest.mark.parametrize("kind", ["auto", "histogram"])
@pytest.mark.parametrize("name", HARD)
def test_whatever_the_values_there_is_a_picture_of_bounded_size(name: str, kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = png(HARD[name], kind=kind)
        text = plots.draw("x", tensor(HARD[name], "float64"), kind, "svg").decode()
    assert min(pixels.shape[:2]) >= 20
    assert max(pixels.shape[:2]) < 1200
    assert len(text) < 2_000_000
    places = re.findall(r'(?:x|y|width|height)="([^"%]*)"', text) + re.findall(r"[\d.e+-]+(?=[, ])", text)
    assert "nan" not in [place.lower() for place in places]
    assert "inf" not in [place.lower() for place in places]


# ---------------------------------------------------------------- over HTTP


def test_the_picture_of_a_tensor(http: httpx.Client) -> None:
    http.post("/v1/tensors", json={"data": [[1.0, 2.0], [3.0, 4.0]], "name": "m"})
    answer = http.get("/v1/tensors/m/image")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    with Image.open(io.BytesIO(answer.content)) as picture:
        assert picture.format == "PNG"
    assert http.get("/v1/tensors/m/image", headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    for drawn in (
        http.get("/v1/tensors/m/image?as=svg"),
        http.get("/v1/tensors/m/image", headers={"Accept": "image/svg+xml"}),
    ):
        assert drawn.headers["content-type"].startswith("image/svg+xml")
        assert drawn.headers["etag"] != answer.headers["etag"]
        assert texts(ET.fromstring(drawn.text))[0] == "m  float32 [2, 2]"
    part = http.get("/v1/tensors/m/image?as=svg&index=0")
    assert texts(ET.fromstring(part.text))[0] == "m  float32 [2]"
    assert http.get("/v1/tensors/m/image?kind=histogram").headers["etag"] != answer.headers["etag"]
    http.post("/v1/ops/add_", json={"input": "m", "other": 1})
    assert http.get("/v1/tensors/m/image", headers={"If-None-Match": answer.headers["etag"]}).status_code == 200


def test_a_picture_that_was_uploaded_comes_back(http: httpx.Client) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    headers = {"Content-Type": "image/png"}
    assert http.post("/v1/tensors?name=cat", content=out.getvalue(), headers=headers).status_code == 201
    with Image.open(io.BytesIO(http.get("/v1/tensors/cat/image").content)) as picture:
        assert (np.array(picture) == pixels).all()


def test_gradients_are_drawn_too(http: httpx.Client) -> None:
    http.post("/v1/tensors", json={"data": [1.0, 2.0], "requires_grad": True, "name": "w"})
    assert http.get("/v1/tensors/w.grad/image").json()["code"] == "no-grad"
    http.post("/v1/ops/sum", json={"input": "w", "out_name": "s"})
    http.post("/v1/tensors/s/backward")
    assert texts(ET.fromstring(http.get("/v1/tensors/w.grad/image?as=svg").text))[1] == "min 1   max 1   mean 1"


@pytest.mark.parametrize(
    "path, status, code",
    [
        ("/v1/tensors/nosuch/image", 404, "no-such-tensor"),
        ("/v1/tensors/big/image", 422, "picture-too-large"),
        ("/v1/tensors/big/image?kind=pie", 422, "invalid"),
        ("/v1/tensors/big/image?index=0&kind=heatmap", 422, "not-drawn-so"),
        ("/v1/tensors/big/image?colour=red", 422, "unknown-parameter"),
        ("/v1/tensors/big/image?as=gif", 406, "not-acceptable"),
    ],
)
def test_what_cannot_be_drawn_is_said(http: httpx.Client, path: str, status: int, code: str) -> None:
    http.post("/v1/ops/zeros", json={"size": [2, (1 << 22) + 1], "dtype": "bool", "out_name": "big"})
    problem = http.get(path).json()
    assert (problem["status"], problem["code"]) == (status, code), problem
    assert "hint" in problem or code == "invalid"
    if code == "picture-too-large":
        assert "/v1/tensors/big/image?index=" in problem["hint"]


def test_an_answer_without_values_is_a_bug() -> None:
    from engine.errors import Bug

    with pytest.raises(Bug):
        plots.draw("x", TensorAnswer(None, None, (), "float32", "cpu", 1, 4, False, True, None, 0, None), "auto", "png")
