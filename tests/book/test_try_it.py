"""The page Try it: what the browser computes is what Python computes, and whatever a reader gives it, it says what is.

Its arithmetic is tried on pages of the tests' own; all else needs the built book, with onnxruntime-web in it.
"""

import base64
import http.client
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from chromium import DESK, PHONE, served
from playwright.sync_api import Page
from PIL import Image

from course_lib import emoji_voc, profiles, viz, weights
from course_lib.boxes import box_iou
from course_lib.detect import Detections, detect_image, detect_one
from course_lib.images import read_image, resized

ROOT = Path(__file__).resolve().parents[2]
PAGE = "book/try_it.html"
SAID = "document.querySelector('.try-it-status').textContent"

pytestmark = pytest.mark.slow

# ---- the page's arithmetic -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def script(browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page with the script and nothing else."""
    folder = tmp_path_factory.mktemp("script")
    (folder / "try_it.js").write_bytes((ROOT / "book" / "_static" / "try_it.js").read_bytes())
    (folder / "page.html").write_text('<!doctype html><script src="try_it.js"></script>')
    with served(folder) as address:
        page = browser.new_page()
        page.goto(f"{address}/page.html")
        yield page
        page.close()


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def in_the_browser(script: Page, picture: bytes, size: int) -> np.ndarray:
    """A picture as the page gives it to the network."""
    address = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    planes = script.evaluate(
        """async ([address, size]) => {
            const picture = await tryIt.decoded(await (await fetch(address)).blob());
            return Array.from(tryIt.resized(picture, size));
        }""",
        [address, size],
    )
    return np.array(planes).reshape(3, size, size)


# Shrunk a little and much, stretched, of one row and of one pixel.
SIZES = [(500, 375), (333, 500), (160, 160), (161, 159), (40, 30), (1, 7), (9, 1), (1, 1), (2300, 30), (30, 2300)]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_resizing_is_opencv_s_within_a_grey_level(width, height, script):
    pixels = np.random.default_rng([width, height]).integers(0, 256, (height, width, 3), dtype=np.uint8)
    for size in (160, 32):
        ours = in_the_browser(script, png(pixels), size)
        assert np.abs(ours - resized(pixels, size).numpy().astype(int)).max() <= 1


def test_ten_scenes_are_resized_as_python_does_it(script):
    for number in range(10):
        scene = emoji_voc.draw_scene(True, np.random.default_rng([1, number])).image
        expected = resized(np.asarray(Image.fromarray(scene).convert("RGB")), 160).numpy().astype(int)
        assert np.abs(in_the_browser(script, png(scene), 160) - expected).max() <= 1


def test_what_is_transparent_is_white(script):
    pixels = np.zeros((40, 40, 4), dtype=np.uint8)
    pixels[:, 20:, 3] = 255
    planes = in_the_browser(script, png(pixels), 40)
    assert (planes[:, :, :20] == 255).all() and (planes[:, :, 20:] == 0).all()


@pytest.mark.parametrize("seed", range(8))
def test_detections_are_those_of_detect(seed, script):
    rng = np.random.default_rng(seed)
    priors, classes = 150, 3
    corner = rng.random((priors, 2), dtype=np.float32) * 0.5
    boxes = np.concatenate([corner, corner + 0.02 + 0.3 * rng.random((priors, 2), dtype=np.float32)], axis=1)
    scores = rng.random((priors, classes), dtype=np.float32)
    if seed % 2:
        scores = scores.round(1)  # many are equal: then the order of the priors decides
    limits = {"score_threshold": 0.15, "iou_threshold": 0.4, "top_k": 60, "max_detections": 40 if seed % 4 else 200}
    with_background = np.concatenate([np.zeros((priors, 1), np.float32), scores], axis=1)
    expected = detect_one(torch.from_numpy(boxes), torch.from_numpy(with_background), **limits)
    names = dict(zip(("score", "overlap", "topK", "most"), limits.values(), strict=True))
    found = script.evaluate(
        """([boxes, scores, limits]) =>
            tryIt.detections(Float32Array.from(boxes), Float32Array.from(scores), limits)
                .map(({ box, score, label }) => [...box, score, label])""",
        [boxes.ravel().tolist(), scores.ravel().tolist(), names],
    )
    found = torch.tensor(found, dtype=torch.float64)
    assert found[:, 5].tolist() == expected.labels.tolist()
    assert torch.equal(found[:, 4].float(), expected.scores) and torch.equal(found[:, :4].float(), expected.boxes)


def test_metadata_is_read_from_the_file(script):
    model = onnx.ModelProto(ir_version=10, producer_name="x" * 300)
    model.graph.initializer.add(name="w", data_type=1, dims=[2], raw_data=bytes(8))
    for key, value in {"classes": '["a","Ω"]', "long": "y" * 20_000, "empty": ""}.items():
        model.metadata_props.add(key=key, value=value)
    read = script.evaluate("bytes => tryIt.metadata(Uint8Array.from(bytes))", list(model.SerializeToString()))
    assert read == {one.key: one.value for one in model.metadata_props}


@pytest.mark.parametrize("bytes_", [b"", b"\xff" * 50, b"no model at all", bytes(range(256)), b"\x72\xff\xff\x7f"])
def test_bytes_that_are_no_model_have_no_metadata(bytes_, script):
    assert "classes" not in script.evaluate("bytes => tryIt.metadata(Uint8Array.from(bytes))", list(bytes_))


def test_colours_are_the_book_s(script):
    assert tuple(script.evaluate("tryIt.COLOURS")) == viz.COLOURS


def test_the_server_of_make_serve_knows_the_types_that_a_browser_insists_on(tmp_path):
    for name, kind in (("a.wasm", "application/wasm"), ("a.mjs", "javascript")):
        (tmp_path / name).touch()
        with served(tmp_path) as address:  # by http.server's own handler
            connection = http.client.HTTPConnection(address.removeprefix("http://"))
            connection.request("HEAD", f"/{name}")
            assert kind in connection.getresponse().headers["Content-Type"]
            connection.close()


# ---- the page in the book --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def contents(site: Path) -> dict:
    path = site / "_static" / "try_it" / "contents.json"
    if not path.exists():
        pytest.skip("the book was built without the page's files: make book")
    found = json.loads(path.read_text(encoding="utf-8"))
    if not found["runtime"]:
        pytest.skip("the book was built without onnxruntime-web: make try-it book")
    return found


@pytest.fixture
def try_it(contents, home, visit) -> Callable[..., tuple[Page, list[str]]]:
    def open_page(*how: object) -> tuple[Page, list[str]]:
        page, faults = visit(f"{home}/{PAGE}", *how)
        page.wait_for_function(f"{SAID} === 'Choose a picture.'")
        return page, faults

    return open_page


def wait_until_looked(page: Page) -> str:
    page.wait_for_function(f"{SAID}.includes('Looking took')", timeout=120_000)
    return page.evaluate(SAID)


def choose(page: Page, number: int) -> None:
    page.locator(".try-it-pictures button").nth(number).click()
    alt = page.locator(".try-it-pictures img").nth(number).get_attribute("alt")
    page.locator(f".try-it-shown img[alt='{alt}']").wait_for()
    wait_until_looked(page)


def give(page: Page, *files: Path | dict) -> None:
    page.locator(".try-it-file").set_input_files(list(files))


def drawn(page: Page) -> Detections:
    """The boxes over the picture, best first, and what is written on them; labels by the names of the recorded run."""
    rows = page.locator(".try-it-box").evaluate_all(
        """boxes => boxes.reverse().map(({ style, textContent }) => [
            ...["left", "top", "width", "height"].map(side => parseFloat(style[side]) / 100), textContent])"""
    )
    names = weights.load(profiles.RECORD).classes
    words = [row[4].rsplit(" ", 1) for row in rows]
    boxes = torch.tensor([row[:4] for row in rows]).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    labels = torch.tensor([names.index(name) + 1 for name, _ in words], dtype=torch.int64)
    return Detections(boxes, torch.tensor([float(score) for _, score in words]), labels)


def require_same(ours: Detections, expected: Detections, score: float = 0.5) -> None:
    """Every detection has its twin: the class, the box, the score. Only those at the threshold itself may lack one."""
    for some, others in ((ours, expected), (expected, ours)):
        sure = some.scores > score + 0.01
        if not sure.any():
            continue
        overlap = box_iou(some.boxes[sure], others.boxes)
        overlap[some.labels[sure, None] != others.labels] = 0
        best, twin = overlap.max(dim=1)
        assert (best >= 0.99).all() and len(set(twin.tolist())) == len(twin)
        assert ((some.scores[sure] - others.scores[twin]).abs() <= 1e-2).all()


@pytest.fixture(scope="module")
def expected(contents, site) -> Callable[[int, float, float], Detections]:
    """What Python finds in a test picture, above a score and after NMS."""
    model = weights.load(profiles.RECORD).eval()
    folder = site / "_static" / "try_it"

    def find(number: int, score: float, overlap: float) -> Detections:
        picture = read_image(folder / contents["pictures"][number]["file"])
        return detect_image(model, picture, score_threshold=score, iou_threshold=overlap)

    return find


def test_ten_test_pictures_are_detected_as_python_does_it(try_it, contents, expected):
    page, faults = try_it()
    assert len(contents["pictures"]) == 10
    for number in range(10):
        choose(page, number)
        require_same(drawn(page), expected(number, 0.5, 0.45))
    assert faults == []


def test_sliders_move_by_keyboard_and_the_network_does_not_look_again(try_it, expected):
    page, faults = try_it()
    choose(page, 0)
    took = page.evaluate(SAID).split(".")[-2]
    page.locator(".try-it-score").focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    page.wait_for_function(f"{SAID}.includes('above 0.35')")
    require_same(drawn(page), expected(0, 0.35, 0.45), 0.35)
    page.locator(".try-it-overlap").focus()
    page.keyboard.press("End")  # nothing overlaps too much
    page.wait_for_function("document.querySelector('.try-it-overlap').value === '1'")
    page.locator(".try-it-box").nth(len(expected(0, 0.35, 1).labels) - 1).wait_for()
    require_same(drawn(page), expected(0, 0.35, 1), 0.35)
    assert page.evaluate(SAID).split(".")[-2] == took
    assert page.locator("output").all_inner_texts() == ["0.35", "1.00"]
    assert faults == []


def test_a_picture_is_chosen_by_keyboard_and_told_in_words(try_it, expected):
    page, faults = try_it()
    page.locator(".try-it-pictures button").nth(1).focus()
    page.keyboard.press("Enter")
    assert f"{len(expected(1, 0.5, 0.45).labels)} objects" in wait_until_looked(page)
    found, told = drawn(page), page.locator(".try-it-list li").all_inner_texts()
    names = weights.load(profiles.RECORD).classes
    assert [line.split(",")[0].strip() for line in told] == [names[label - 1] for label in found.labels]
    assert page.locator(".try-it-pictures button[aria-pressed=true]").count() == 1
    assert faults == []


@pytest.mark.parametrize(("size", "scheme"), [(DESK, "light"), (DESK, "dark"), (PHONE, "light")])
def test_whoever_cannot_see_it_can_use_it(size, scheme, try_it):
    page, faults = try_it(size, scheme)
    choose(page, 1)
    page.locator(".try-it-score").fill("0.05")  # many boxes, some of them small and at the border
    page.locator(".try-it-box").nth(10).wait_for()
    found = Axe().run(page, options={"preload": False, "resultTypes": ["violations"]}).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []
    assert page.evaluate("document.scrollingElement.scrollWidth <= document.scrollingElement.clientWidth")
    frame, image = (page.locator(f".try-it-{name}").bounding_box() for name in ("frame", "shown img"))
    assert frame == image, "a box is drawn in percent of the frame, and meant in percent of the picture"
    assert faults == []


def test_a_large_photo_that_the_camera_turned_is_upright(try_it, expected, contents, site, tmp_path):
    page, faults = try_it()
    picture = Image.open(site / "_static" / "try_it" / contents["pictures"][1]["file"])
    large = picture.resize((picture.width * 8, picture.height * 8), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned to the right
    turned = large.transpose(Image.Transpose.ROTATE_90)
    turned.save(tmp_path / "photo.jpg", quality=95, subsampling=0, exif=exif)
    give(page, tmp_path / "photo.jpg")
    page.locator(".try-it-shown img").wait_for()
    wait_until_looked(page)
    model = weights.load(profiles.RECORD).eval()
    require_same(drawn(page), detect_image(model, read_image(tmp_path / "photo.jpg"), score_threshold=0.5))
    assert page.evaluate("document.querySelector('.try-it-shown img').naturalWidth") == large.width
    assert faults == []


# ---- a detector of the reader's own ----------------------------------------------------------------------------------


@pytest.fixture
def own(contents, site, tmp_path) -> Callable[..., Path]:
    """The recorded detector's file with other metadata, None to leave one out."""

    def write(name: str, **about: str | None) -> Path:
        model = onnx.load(site / "_static" / "try_it" / contents["model"])
        metadata = {one.key: one.value for one in model.metadata_props} | about
        onnx.helper.set_model_props(model, {key: value for key, value in metadata.items() if value is not None})
        onnx.save(model, tmp_path / name)
        return tmp_path / name

    return write


def drop(page: Page, name: str, content: bytes) -> None:
    page.evaluate(
        """async ([name, content]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([await (await fetch(content)).blob()], name));
            document.querySelector("h1").dispatchEvent(
                new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
        }""",
        [name, f"data:;base64,{base64.b64encode(content).decode()}"],
    )


def test_a_detector_that_is_dropped_looks_at_the_picture_with_its_own_names(try_it, own):
    page, faults = try_it()
    names = [f"thing <b>{number}</b>" for number in range(20)]
    drop(page, "own.onnx", own("own.onnx", classes=json.dumps(names)).read_bytes())
    page.wait_for_function(f"{SAID} === 'own.onnx is open. Choose a picture.'")
    choose(page, 0)
    assert page.locator(".try-it-list li").first.inner_text().strip().startswith("thing <b>")
    assert "own.onnx, 160 × 160 pixels, 20 classes: thing <b>0</b>" in page.locator(".try-it-detector").inner_text()
    assert faults == []


def test_a_picture_that_is_dropped_is_looked_at(try_it, expected, contents, site):
    page, faults = try_it()
    drop(page, "mine.png", (site / "_static" / "try_it" / contents["pictures"][3]["file"]).read_bytes())
    wait_until_looked(page)
    require_same(drawn(page), expected(3, 0.5, 0.45))
    assert page.locator(".try-it-shown img").get_attribute("alt") == "Your picture mine.png."
    assert faults == []


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("notes.txt", b"no picture", "notes.txt is no picture that this browser reads"),
        ("empty.png", b"", "empty.png is no picture that this browser reads"),
        ("half.png", png(np.zeros((50, 50, 3), dtype=np.uint8))[:60], "half.png is no picture that this browser reads"),
        ("other.onnx", b"", "other.onnx does not say what it detects"),
        ("Other.ONNX", b"\xff" * 1000, "Other.ONNX does not say what it detects"),
    ],
)
def test_what_cannot_be_used_is_named_and_the_page_goes_on(name, content, told, try_it):
    page, faults = try_it()
    give(page, {"name": name, "mimeType": "application/octet-stream", "buffer": content})
    page.wait_for_function(f"{SAID}.includes({told!r})")
    choose(page, 0)
    assert faults == []


@pytest.mark.parametrize(
    ("about", "told"),
    [
        ({"classes": None}, "python -m course_lib export"),
        ({"image_size": None}, "python -m course_lib export"),
        ({"nms": "yes"}, "without --nms"),
    ],
)
def test_a_detector_that_the_page_cannot_run_is_refused_with_the_cure(about, told, try_it, own):
    page, faults = try_it()
    give(page, own("own.onnx", **about))
    page.wait_for_function(f"{SAID}.includes({told!r})")
    choose(page, 0)  # with the detector of the book
    assert faults == []


# ---- where it cannot detect ------------------------------------------------------------------------------------------


@pytest.fixture
def page_file(site: Path) -> Path:
    if not (site / PAGE).exists():
        pytest.skip("the page came after the book was built: make book")
    return site / PAGE


def test_opened_as_a_file_the_page_says_how_to_serve_it(page_file, visit):
    page, faults = visit(page_file.as_uri())
    page.wait_for_function(f"{SAID}.includes('make serve')")
    assert not page.locator(".try-it-panel").is_visible()
    assert faults == []


def test_without_onnxruntime_web_the_page_says_so(page_file, home, visit):
    page, faults = visit(f"{home}/book/intro.html")
    bare = json.dumps({"runtime": False, "pictures": []})
    page.route("**/contents.json", lambda route: route.fulfill(body=bare, content_type="application/json"))
    page.goto(f"{home}/{PAGE}")
    page.wait_for_function(f"{SAID}.includes('make try-it book')")
    assert not page.locator(".try-it-panel").is_visible()
    assert faults == []


def test_without_javascript_the_page_says_so(page_file, home, browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{home}/{PAGE}")
    assert page.locator(".try-it-status").inner_text() == "This part of the page needs JavaScript."
    context.close()
