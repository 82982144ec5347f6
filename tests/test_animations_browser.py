"""Animations that are written, as a browser shows them: count, times, loops and pixels."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from threading import Thread

import numpy as np
import pytest

from animations import MAKERS, Read, features
from command_line import cli
from cudafilter import apply
from cudafilter.images import Frames
from cudafilter.operations.pixels import Pixels
from test_animations import IDENTITY, SOURCES, assert_shows, straight

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

PLAYS = 4
TYPES = {"png": "image/png", "webp": "image/webp", "gif": "image/gif"}

DECODE = """<!doctype html><script>
const files = FILES;
const text = bytes => btoa(Array.from(bytes, b => String.fromCharCode(b)).join(""));
async function read(type, data) {
  const decoder = new ImageDecoder({type, data: Uint8Array.from(atob(data), c => c.charCodeAt(0))});
  await decoder.tracks.ready;
  await decoder.completed;
  const track = decoder.tracks.selectedTrack, ms = [], frames = [];
  for (let frameIndex = 0; frameIndex < track.frameCount; ++frameIndex) {
    const {image} = await decoder.decode({frameIndex});
    const pixels = new Uint8Array(image.allocationSize({format: "RGBA"}));
    await image.copyTo(pixels, {format: "RGBA"});
    ms.push(image.duration / 1000);
    frames.push([image.codedHeight, image.codedWidth, text(pixels)]);
  }
  return {frames, ms, repeats: track.repetitionCount === Infinity ? -1 : track.repetitionCount};
}
(async () => {
  const found = {};
  for (const [name, [type, data]] of Object.entries(files))
    found[name] = await read(type, data).catch(error => ({error: `${error}`}));
  await fetch("out", {method: "POST", body: JSON.stringify(found)});
})();
</script>"""


class Page(BaseHTTPRequestHandler):
    """Gives the page, and takes what it found."""

    def do_GET(self) -> None:
        """The page. A browser asks for an icon, too."""
        self._answer(self.server.page if self.path == "/" else b"")  # type: ignore[attr-defined]

    def do_POST(self) -> None:
        """What was found."""
        found = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(b"")
        self.server.found.put(found)  # type: ignore[attr-defined]

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


def by_chromium(files: Mapping[str, Path], folder: Path) -> dict[str, Read]:
    """*files* by their names, as Chromium's decoder reads them."""
    assert CHROMIUM is not None
    told = {
        name: (TYPES[path.suffix[1:]], base64.b64encode(path.read_bytes()).decode())
        for name, path in files.items()
    }
    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    server.page = DECODE.replace("FILES", json.dumps(told)).encode()  # type: ignore[attr-defined]
    server.found = Queue()  # type: ignore[attr-defined]
    Thread(target=server.serve_forever, daemon=True).start()
    words = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'user'}"]
    browser = subprocess.Popen(
        [CHROMIUM, *words, "--remote-debugging-port=0", f"http://127.0.0.1:{server.server_port}/"],
        stderr=subprocess.DEVNULL,
    )
    try:
        found = server.found.get(timeout=100)  # type: ignore[attr-defined]
    finally:
        browser.kill()
        browser.wait()
        server.shutdown()
        server.server_close()
    read = {}
    for name, one in json.loads(found).items():
        assert "error" not in one, (name, one)
        frames = [
            np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)
            for height, width, data in one["frames"]
        ]
        read[name] = Read(frames, [round(ms) for ms in one["ms"]], one["repeats"] + 1)
    return read


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize("target", TYPES)
def test_a_browser_shows_the_filtered_frames(target: str, here: Path) -> None:
    """A GIF has few colours, so its frames are left as they are."""
    filter = IDENTITY if target == "gif" else ("blur", "--sigma", "1.5")
    files: dict[str, Path] = {}
    expected: dict[str, list[Pixels]] = {}
    for format, name in SOURCES:
        source, made = Path(f"a.{format}"), Path(f"{len(files)}.{target}")
        source.write_bytes(MAKERS[format](features(format)[name], PLAYS))
        done = cli(*filter, str(source), str(made))
        assert done.exit_code == 0, done.stderr
        files[f"{format} {name}"] = made
        expected[f"{format} {name}"] = [
            shown(frame.pixels, frame.alpha, target) for frame in Frames(source.read_bytes(), "a")
        ]
    for key, read in by_chromium(files, here).items():
        format, name = key.split(" ", 1)
        assert read.ms == [one.ms for one in features(format)[name]], key
        assert read.plays == PLAYS, key
        assert len(read.frames) == len(expected[key])
        for got, frame in zip(read.frames, expected[key], strict=True):
            assert_shows(premultiplied(got), premultiplied(frame), 1)
            opaque = frame[..., 3] == 255
            np.testing.assert_array_equal(got[opaque], frame[opaque])


def shown(pixels: Pixels, alpha: bool, target: str) -> Pixels:
    """What a file of *target* shows of a frame, RGBA."""
    if target != "gif":
        return straight(apply(pixels, "blur", sigma=1.5, alpha=alpha, engine="cpu"))
    frame = straight(pixels).copy()
    frame[..., 3] = np.where(frame[..., 3] > 127, 255, 0)
    return frame


def premultiplied(frame: Pixels) -> Pixels:
    """*frame*, RGBA, as a browser holds it: of what is nearly transparent it loses the colours."""
    out = frame.copy()
    out[..., :3] = np.rint(frame[..., :3] * (frame[..., 3:] / 255))
    return out
