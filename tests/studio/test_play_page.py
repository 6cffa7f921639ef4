"""The page of docs/play in a real browser, from a plain static server."""

import functools
import http.server
import shutil
import threading
from pathlib import Path

import core_library
import numpy as np
import pytest
import soundfile
from tones import glide

from umt_jax.audio import spectrogram
from umt_jax.checkpoints import checkpoint, demo_model
from umt_jax.core import library

pytestmark = pytest.mark.studio

PAGE = Path(__file__).parents[2] / "docs" / "play"
CHROMIUM = "/usr/bin/chromium"
PATIENCE_MS = 120_000
RATE_HZ = 8000


@pytest.fixture(scope="module")
def browser():
    from playwright import sync_api

    with sync_api.sync_playwright() as playwright:
        flags = ["--no-sandbox", "--use-fake-ui-for-media-stream"]
        flags.append("--use-fake-device-for-media-stream")  # It beeps.
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def serve():
    """Starts a server of a folder's files; returns its address."""
    servers = []

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    def start(folder):
        handler = functools.partial(Quiet, directory=folder)
        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/index.html"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def address(serve):
    return serve(PAGE)


@pytest.fixture
def page(browser, address):
    """The page, which asks nobody else for anything and fails nowhere."""
    context = browser.new_context(accept_downloads=True)
    page, problems = context.new_page(), []
    page.set_default_timeout(PATIENCE_MS)
    page.on("pageerror", lambda error: problems.append(str(error)))
    host = address.rpartition("/")[0]
    page.on(
        "request",
        lambda request: (
            request.url.startswith((host, "blob:", "data:")) or problems.append(request.url)
        ),
    )
    page.goto(address)
    wait_for(page, "Drop a sound")
    yield page
    context.close()
    assert problems == []


def wait_for(page, sentence):
    page.locator("#status", has_text=sentence).wait_for()


def upload(page, path):
    page.set_input_files("#file", path)


def downloaded(page, name, folder):
    with page.expect_download() as download:
        page.click(f"[data-sound={name}] a")
    path = folder / f"{name}.wav"
    download.value.save_as(path)
    return soundfile.read(path, dtype="int16")


def recorded(folder):
    """Writes a sound of the model's rate, which the browser so does not change; returns it."""
    sound = np.round(glide(2 * RATE_HZ + 77) * 2**15).astype(np.int16)
    soundfile.write(folder / "tone.wav", sound, RATE_HZ)
    return sound.astype(np.float32) / 2**15


def in_16_bits(samples):
    """Returns samples as JavaScript rounds them: halves up."""
    return np.floor(32767 * samples.astype(float) + 0.5)


@pytest.mark.parametrize("temperature", ["0", "1"])
def test_decoders_play_what_the_native_core_plays(browser, serve, tmp_path, temperature):
    folder = tmp_path / "page"
    shutil.copytree(PAGE, folder)
    (folder / "model.safetensors").unlink()
    config, parameters, *_ = checkpoint.to_share(demo_model.path(), guides=False)
    file = core_library.file_of(folder, config, parameters).read_bytes()
    sound = recorded(tmp_path)
    page = browser.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(serve(folder))
    wait_for(page, "Drop a sound")
    page.fill("#temperature", temperature)
    upload(page, tmp_path / "tone.wav")
    wait_for(page, "Done.")
    core = library.functions()
    model, _ = library.load(file)
    for domain, name in enumerate(config.domains):
        samples, rate_hz = downloaded(page, name, tmp_path)
        assert rate_hz == RATE_HZ
        stream = core_library.Stream(core, model)
        stream.set(domain=domain, temperature=float(temperature))
        expected = in_16_bits(stream.translate(sound))
        assert len(samples) == len(expected)
        # Registers of other widths add in another order: sooner or later two codes are so nearly
        # alike that the other one is drawn, and what follows is another.
        np.testing.assert_array_equal(samples[:3000], expected[:3000])
        assert np.abs(samples).max() > 300
    page.close()


def test_the_shipped_guides_play_what_the_native_core_plays(page, tmp_path):
    sound = recorded(tmp_path)
    assert page.locator("#temperature").is_hidden()  # It would have no effect.
    upload(page, tmp_path / "tone.wav")
    wait_for(page, "Done.")
    core = library.functions()
    model, _ = library.load((PAGE / "model.safetensors").read_bytes())
    for domain, name in enumerate(("Cello", "Flute", "Piano", "Violin", "Clarinet")):
        samples, _ = downloaded(page, name, tmp_path)
        stream = core_library.Stream(core, model)
        stream.set(domain=domain)
        expected = in_16_bits(stream.translate(sound))
        assert len(samples) == len(expected)
        # Later phases part, by rounding errors; magnitudes do not.
        np.testing.assert_allclose(samples[:1600], expected[:1600], atol=33)
        heard, wanted = (
            np.exp(spectrogram.log_magnitudes(sound / 2**15, window_samples=512, hop_samples=100))
            for sound in (samples, expected)
        )
        assert np.linalg.norm(heard - wanted) < 0.15 * np.linalg.norm(wanted)


def test_an_example_is_played_and_one_under_way_is_stopped(page, tmp_path):
    page.click("#examples button:has-text('Whistle')")
    wait_for(page, "Playing it as Cello")
    page.click("#stop")
    wait_for(page, "Stopped.")
    assert page.locator("[data-sound]").count() < 4
    assert page.locator("#licences li").count() == 4
    assert page.locator("#stop").is_hidden()
    page.click("#examples button:has-text('Fiddle')")
    wait_for(page, "Done.")
    samples, _ = downloaded(page, "Cello", tmp_path)
    seconds = soundfile.info(PAGE / "Fiddle.ogg").duration
    assert abs(len(samples) / RATE_HZ - seconds) < 0.01


def test_a_sound_is_stopped_before_it_has_come(page):
    held = []
    page.route("**/Whistle.ogg", lambda route: held.append(route))
    with page.expect_request("**/Whistle.ogg"):
        page.click("#examples button:has-text('Whistle')")
    page.click("#stop")
    held[0].continue_()
    wait_for(page, "Stopped.")
    assert page.locator("[data-sound]").count() == 0
    assert page.locator("#file").is_enabled()


def test_a_recording_is_played(page):
    page.click("#record")
    wait_for(page, "Recording")
    assert page.locator("#file").is_disabled()
    page.wait_for_timeout(1500)
    page.click("#record")
    wait_for(page, "Done.")
    assert page.locator("[data-sound=Flute] audio").count() == 1


@pytest.mark.parametrize(
    ("sound", "message"),
    [
        (np.zeros(8000), "quiet.wav is silent"),
        (np.resize(glide(8000), 8000 * 3600), "This sound lasts 60 minutes; the page takes 5"),
        (None, "quiet.wav is no sound that this browser reads."),
    ],
)
def test_a_sound_that_cannot_be_played_gets_a_sentence(page, tmp_path, sound, message):
    path = tmp_path / "quiet.wav"
    if sound is None:
        path.write_text("no sound")
    else:
        soundfile.write(path, sound, RATE_HZ)
    upload(page, path)
    wait_for(page, message)
    assert page.locator("#file").is_enabled()


@pytest.mark.parametrize("missing", ["model.safetensors", "umt.wasm"])
def test_what_is_missing_beside_the_page_is_named(browser, serve, tmp_path, missing):
    folder = tmp_path / "page"
    shutil.copytree(PAGE, folder)
    (folder / missing).unlink()
    page = browser.new_page()
    page.goto(serve(folder))
    wait_for(page, f"is missing: {missing} beside this page (404)")
    assert page.locator("#file").is_disabled()
    page.close()


def test_a_damaged_model_is_refused(browser, serve, tmp_path):
    folder = tmp_path / "page"
    shutil.copytree(PAGE, folder)
    (folder / "model.safetensors").write_bytes(b"nothing of the kind")
    page = browser.new_page()
    page.goto(serve(folder))
    wait_for(page, "The model cannot be played. It is no model in the format safetensors")
    page.close()


def test_a_browser_without_simd_is_told_so(browser, address):
    page = browser.new_page()
    page.add_init_script("WebAssembly.validate = () => false")
    page.goto(address)
    wait_for(page, "This browser has no WebAssembly with SIMD")
    page.close()


def test_a_browser_that_cannot_record_is_told_so_and_needs_no_audio_worklet(browser, address):
    page = browser.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.add_init_script("delete window.MediaRecorder; delete window.AudioWorkletNode")
    page.goto(address)
    wait_for(page, "Drop a sound")
    page.click("#record")
    wait_for(page, "This browser cannot record. Choose a file.")
    page.click("#examples button:has-text('Whistle')")
    wait_for(page, "Playing it as Cello")
    page.close()


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_is_no_wider_than_the_screen(page, width):
    page.set_viewport_size({"width": width, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
