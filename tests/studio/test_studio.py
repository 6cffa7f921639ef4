"""The studio, in a real browser and by its HTTP API.

One server, as `python -m umt_jax.studio` starts it, for all tests but those of its start and end.
It must come out with nothing from other machines: whatever asks for an address elsewhere, server
or page, is refused and noted.
"""

import contextlib
import dataclasses
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import PREPARED, random_parameters, write_tone

from umt_jax.checkpoints import checkpoint
from umt_jax.config import SamplingConfig
from umt_jax.model import networks
from umt_jax.studio import examples
from umt_jax.training import train_state

pytestmark = pytest.mark.studio

ROOT = Path(__file__).parents[2]
RATE_HZ = PREPARED.sample_rate_hz
OWN = SamplingConfig(temperature=0.7, top_p=0.9)
"""How the model says it is to be played, which both the studio and `infer` do."""
CHROMIUM = "/usr/bin/chromium"
MAX_SECONDS = 20

# Longer than anything takes, compilation on a busy machine included.
PATIENCE_S = 120

# Python runs this module in every process that finds it: sockets reach this machine alone.
OFFLINE = """
import os, socket
_connect, _lookup = socket.socket.connect, socket.getaddrinfo
def _refuse(host):
    with open(os.environ["OUTSIDE_LOG"], "a") as log:
        print(host, file=log)
    raise OSError(f"no network in this test: {host}")
def connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1"):
        _refuse(address[0])
    return _connect(self, address)
def getaddrinfo(host, *args, **kwargs):
    if host not in (None, "", "localhost", "127.0.0.1", b"127.0.0.1", "::1"):
        _refuse(host)
    return _lookup(host, *args, **kwargs)
socket.socket.connect, socket.getaddrinfo = connect, getaddrinfo
"""


def command(*flags):
    return [sys.executable, "-m", "umt_jax.studio", "--engine=scan", *flags]


@contextlib.contextmanager
def serving(model, folder, *flags, **variables):
    """Starts a studio in an empty folder; yields its process, its address and the folder.

    `variables` come to its environment; empty ones leave it.
    """
    (folder / "offline").mkdir()
    (folder / "offline" / "sitecustomize.py").write_text(OFFLINE)
    (folder / "temporary").mkdir(exist_ok=True)
    environment = os.environ | {
        "PYTHONPATH": f"{folder / 'offline'}:{ROOT}",
        "TMPDIR": str(folder / "temporary"),
        "OUTSIDE_LOG": str(folder / "outside.log"),
        # Would open the whole disk, if the studio let it.
        "GRADIO_ALLOWED_PATHS": "/",
        **variables,
    }
    environment = {name: value for name, value in environment.items() if value}
    with (folder / "errors.log").open("w") as errors:
        process = subprocess.Popen(
            command(f"--checkpoint={model}", f"--max_seconds={MAX_SECONDS}", *flags),
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            line = process.stdout.readline()
            match = re.search(r"http://127\.0\.0\.1:\d+/", line)
            assert match, line + (folder / "errors.log").read_text()
            yield process, match.group(), folder
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE_S)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory, run_config):
    """The --checkpoint of a model that nobody trained."""
    run_config = dataclasses.replace(run_config, sampling=OWN)
    parameters = random_parameters(networks.Networks(run_config))
    optimizers = train_state.make_optimizers(run_config.training)
    state = train_state.create(parameters, optimizers, run_config)
    folder = tmp_path_factory.mktemp("model")
    with checkpoint.Checkpoints(str(folder)) as checkpoints:
        checkpoints.save(state, run_config, {}, reconstruction=5.0)
    return folder


@pytest.fixture(scope="module")
def server(model_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("studio")
    with serving(model_dir, folder, "--max_megabytes=1") as (_, url, _):
        yield url
    assert not (folder / "outside.log").exists(), (folder / "outside.log").read_text()
    # Forged paths, and they alone: Gradio refuses those itself, and tells its log.
    log = (folder / "errors.log").read_text()
    assert log.count("Traceback") == log.count("exceptions.InvalidPathError:")


@pytest.fixture(scope="module")
def browser():
    from playwright import sync_api

    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                # Chromium's sandbox refuses to run as root, as CI does.
                "--no-sandbox",
                "--use-fake-device-for-media-stream",
                "--use-fake-ui-for-media-stream",
            ],
        )
        yield browser
        browser.close()


@pytest.fixture
def new_page(server, browser):
    """Opens pages that know no other machine; what they asked of one is an error."""
    outside, contexts = [], []

    def refuse(route):
        outside.append(route.request.url)
        route.abort()

    def open_page(**viewport):
        contexts.append(browser.new_context(viewport=viewport or {"width": 1280, "height": 800}))
        page = contexts[-1].new_page()
        page.set_default_timeout(1000 * PATIENCE_S)
        page.route(lambda url: not url.startswith((server, "blob:", "data:")), refuse)
        page.goto(server)
        page.get_by_role("button", name="Translate").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not outside


@pytest.fixture(scope="module")
def client(server):
    import gradio_client

    return gradio_client.Client(server, verbose=False)


def handle(path):
    import gradio_client

    return gradio_client.handle_file(str(path))


@pytest.fixture(scope="module")
def whistle(tmp_path_factory):
    """Four seconds that rise, at another rate than the model's, in stereo."""
    path = tmp_path_factory.mktemp("sounds") / "my whistle.wav"
    write_tone(path, seconds=4.0, rate_hz=16_000, channels=2, frequency_hz=440.0)
    return path


@pytest.fixture(scope="module")
def inferred(model_dir, whistle, tmp_path_factory):
    """What `infer` makes of the whistle with seed 3: 16-bit samples by domain."""
    folder = tmp_path_factory.mktemp("inferred")
    arguments = [f"--checkpoint={model_dir}", f"--input={whistle}", f"--output={folder}"]
    subprocess.run(
        [sys.executable, "-m", "umt_jax.infer", *arguments]
        + ["--domain=all", "--seed=3", "--engine=scan"],
        check=True,
        capture_output=True,
        cwd=ROOT,
        timeout=PATIENCE_S,
    )
    return {
        domain: soundfile.read(folder / f"my whistle.{domain}.wav", dtype="int16")[0]
        for domain in ("Cello", "Piano")
    }


def upload(page, path, place="sound"):
    page.locator(f"#{place} input[type=file]").set_input_files(path)
    page.locator(f"#{place}").get_by_label("Play", exact=True).wait_for()


def press(page, name):
    page.get_by_role("button", name=name, exact=True).click()


def wait_for_result(page):
    page.locator("#status", has_text="Done.").wait_for()


def downloaded(page, title, folder):
    """Presses a card's download button; returns the file."""
    with page.expect_download() as download:
        page.locator(f'#cards a[download$=".{title}.wav"]').click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_an_uploaded_sound_is_heard_while_it_is_made_and_can_be_downloaded(
    new_page, whistle, inferred, tmp_path
):
    page = new_page()
    upload(page, whistle)
    page.get_by_label("Seed").fill("3")
    page.evaluate(
        """() => setInterval(() => {
            const seconds = document.querySelector('#listen audio')?.duration;
            if (isFinite(seconds)) window.longest = Math.max(window.longest || 0, seconds);
        }, 20)"""
    )
    press(page, "Translate")
    # It plays by itself; what comes out of the audio element is not silence.
    page.wait_for_function("document.querySelector('#listen audio')?.currentTime > 0.2")
    loudest = page.evaluate(
        """async () => {
            const context = new AudioContext();
            const analyser = context.createAnalyser();
            const audio = document.querySelector('#listen audio');
            context.createMediaElementSource(audio).connect(analyser);
            const samples = new Float32Array(analyser.fftSize);
            audio.currentTime = 0;
            await audio.play();
            for (let tries = 0; tries < 100; ++tries) {
                await new Promise(resolve => setTimeout(resolve, 20));
                analyser.getFloatTimeDomainData(samples);
                const loudest = Math.max(...samples.map(Math.abs));
                if (loudest > 0) return loudest;
            }
            return 0;
        }"""
    )
    assert loudest > 1e-3
    wait_for_result(page)
    page.wait_for_function("window.longest > 3.9")
    # The codec ends with up to three frames of its own.
    assert 4.0 <= page.evaluate("window.longest") < 4.0 + 3 * 1024 / 48_000
    # It goes when it has been heard.
    page.locator("#listen").wait_for(state="hidden")
    assert page.get_by_label("Play", exact=True).locator("visible=true").count() == 4
    for domain, expected in inferred.items():
        samples, rate_hz = soundfile.read(downloaded(page, domain, tmp_path), dtype="int16")
        assert rate_hz == RATE_HZ
        assert len(samples) == 4 * RATE_HZ
        np.testing.assert_array_equal(samples, expected)
    for title in ("Source", "Cello", "Piano"):
        picture = page.get_by_alt_text(f"Log-mel spectrogram of {title}")
        picture.scroll_into_view_if_needed()
        assert picture.evaluate("async image => (await image.decode(), image.naturalWidth)") > 400


def wait_until_enabled(page, name, enabled=True):
    from playwright import sync_api

    button = sync_api.expect(page.get_by_role("button", name=name, exact=True))
    button.to_be_enabled(enabled=enabled, timeout=1000 * PATIENCE_S)


def test_buttons_wait_for_their_sounds(new_page, whistle):
    page = new_page()
    wait_until_enabled(page, "Translate", False)
    upload(page, whistle)
    wait_until_enabled(page, "Translate")
    page.locator("#sound").get_by_label("Clear").click()
    wait_until_enabled(page, "Translate", False)
    page.get_by_role("tab", name="Blend").click()
    page.get_by_role("button", name="Translate", exact=True).wait_for(state="hidden")
    upload(page, whistle, "first")
    wait_until_enabled(page, "Blend", False)
    upload(page, whistle, "second")
    wait_until_enabled(page, "Blend")


def test_nothing_sent_gets_a_sentence(client):
    with pytest.raises(Exception, match="^There is no sound yet. Drop a file, or record something"):
        client.predict(None, ["Cello"], 1.0, 0, api_name="/translate")


def test_examples_are_whole_and_one_click_away(new_page, tmp_path):
    page = new_page()
    for example in examples.ALL:
        press(page, example.title)
        # The player shows its length, to the second.
        seconds = soundfile.info(example.path).duration
        page.locator("#sound", has_text=f"0:{seconds:02.0f}").wait_for()
        waveform, _ = soundfile.read(example.path)
        assert 8 < seconds < 12 and 0.02 < np.sqrt(np.mean(waveform**2)) < 0.3
    wait_until_enabled(page, "Translate")
    page.get_by_text("What these examples are").click()
    page.get_by_text("Stephen Foster", exact=False).first.wait_for()
    press(page, "Translate")
    wait_for_result(page)
    path = downloaded(page, "Cello", tmp_path)
    assert path.name == f"{examples.ALL[-1].title}.Cello.wav"


def test_after_an_error_nothing_is_under_way(new_page, whistle):
    page = new_page()
    upload(page, whistle)
    for box in page.get_by_role("checkbox").all():
        box.uncheck()
    wait_until_enabled(page, "Translate")
    press(page, "Translate")
    toast = page.locator(".toast-body")
    toast.wait_for()
    assert "No domain is chosen. Choose at least one to translate to." in toast.inner_text()
    wait_until_enabled(page, "Stop", False)
    assert not page.locator("#listen").is_visible()
    page.get_by_label("Cello").check()
    press(page, "Translate")
    wait_for_result(page)
    wait_until_enabled(page, "Stop", False)


def test_progress_ends_before_pictures_are_drawn(new_page, whistle):
    page = new_page()
    upload(page, whistle)
    page.evaluate(
        """() => {
            window.said = [];
            const status = document.querySelector('#status');
            new MutationObserver(() => window.said.push(status.innerText)).observe(
                status, {subtree: true, childList: true, characterData: true});
        }"""
    )
    wait_until_enabled(page, "Translate")
    press(page, "Translate")
    wait_for_result(page)
    said = page.evaluate("window.said")
    drawn = max(i for i, text in enumerate(said) if "Drawing pictures." in text)
    assert any("s left" in text for text in said[:drawn])
    assert not any("s left" in text for text in said[drawn:])


def test_a_recording_is_translated(new_page):
    page = new_page()
    sound = page.locator("#sound")
    sound.get_by_label("Record audio").click()
    sound.get_by_role("button", name="Record", exact=True).click()
    page.wait_for_timeout(1500)  # The device beeps once a second.
    with page.expect_response(re.compile("/upload")):
        sound.get_by_role("button", name="Stop", exact=True).click()
    sound.get_by_label("Play", exact=True).wait_for()
    press(page, "Translate")
    wait_for_result(page)


def test_the_page_fits_a_phone(new_page, whistle):
    page = new_page(width=375, height=700)

    def overflow():
        return page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )

    assert overflow() <= 0
    # Whoever scrolls down finds the settings first, then the button.
    seed = page.get_by_label("Seed").bounding_box()
    assert seed["y"] < page.get_by_role("button", name="Translate", exact=True).bounding_box()["y"]
    upload(page, whistle)
    press(page, "Translate")
    wait_for_result(page)
    page.get_by_alt_text("Log-mel spectrogram of Piano").wait_for()
    assert overflow() <= 0
    page.get_by_role("tab", name="Blend").click()
    page.get_by_text("Second sound").wait_for()
    assert overflow() <= 0


def test_of_two_users_one_waits_in_the_queue_and_both_get_their_sound(
    new_page, whistle, inferred, tmp_path
):
    pages = [new_page(), new_page()]
    long = tmp_path / "long.wav"
    write_tone(long, seconds=15.0)
    upload(pages[0], long)
    upload(pages[1], whistle)
    pages[1].get_by_label("Seed").fill("3")
    press(pages[0], "Translate")
    pages[0].locator("#status progress").wait_for()
    press(pages[1], "Translate")
    pages[1].locator("#status", has_text="queue").wait_for()
    for page, seconds in zip(pages, (15, 4), strict=True):
        wait_for_result(page)
        samples, _ = soundfile.read(downloaded(page, "Piano", tmp_path), dtype="int16")
        assert len(samples) == seconds * RATE_HZ
    np.testing.assert_array_equal(samples, inferred["Piano"])


def test_stop_ends_a_translation_and_makes_way_for_the_next(new_page, tmp_path):
    page = new_page()
    long = tmp_path / "long.wav"
    write_tone(long, seconds=10.0)
    upload(page, long)
    press(page, "Translate")
    page.locator("#status", has_text="s left").wait_for()
    press(page, "Stop")
    page.locator("#status", has_text="Stopped.").wait_for()
    press(page, "Translate")
    wait_for_result(page)


def test_two_sounds_are_blended(new_page, whistle, tmp_path):
    page = new_page()
    page.get_by_role("tab", name="Blend").click()
    other = tmp_path / "other.wav"
    write_tone(other, seconds=2.0)
    upload(page, whistle, "first")
    upload(page, other, "second")
    press(page, "Blend")
    wait_for_result(page)
    samples, _ = soundfile.read(downloaded(page, "Cello", tmp_path), dtype="int16")
    assert len(samples) == 2 * RATE_HZ


def test_the_api_gives_the_samples_of_infer(client, whistle, inferred):
    arguments = (handle(whistle), ["Cello", "Piano"], OWN.temperature, 3)
    paths = client.predict(*arguments, api_name="/translate")
    assert [Path(path).name for path in paths] == ["my whistle.Cello.wav", "my whistle.Piano.wav"]
    for path, expected in zip(paths, inferred.values(), strict=True):
        np.testing.assert_array_equal(soundfile.read(path, dtype="int16")[0], expected)


def test_a_blend_without_the_second_sound_is_the_translation_of_the_first(
    client, whistle, inferred
):
    arguments = (handle(whistle), handle(whistle), 0.0, "Piano", OWN.temperature, 3)
    (path,) = client.predict(*arguments, api_name="/blend")
    np.testing.assert_array_equal(soundfile.read(path, dtype="int16")[0], inferred["Piano"])


@pytest.mark.parametrize(
    ("write", "sentence"),
    [
        (lambda path: path.touch(), "a.wav is empty."),
        (lambda path: path.write_text("not a sound " * 99), "a.wav is damaged, cut off or not"),
        (lambda path: soundfile.write(path, np.zeros(8000), 8000), "a.wav is silent: "),
        (
            lambda path: write_tone(path, seconds=MAX_SECONDS + 1),
            f"a.wav is longer than {MAX_SECONDS} s, the most that is taken here. Cut it first.",
        ),
    ],
)
def test_what_is_no_sound_to_translate_gets_a_sentence(client, tmp_path, write, sentence):
    path = tmp_path / "a.wav"
    write(path)
    with pytest.raises(Exception, match="^" + re.escape(sentence)):
        client.predict(handle(path), ["Cello"], 1.0, 0, api_name="/translate")


def test_a_file_that_is_too_large_is_refused_with_the_limit(new_page, tmp_path):
    page = new_page()
    large = tmp_path / "large.wav"
    write_tone(large, seconds=15.0, rate_hz=44_100)
    page.locator("#sound input[type=file]").set_input_files(large)
    toast = page.locator(".toast-body")
    toast.wait_for()
    assert "exceed the maximum allowed size of 1.0 Mb" in toast.inner_text()


def test_no_file_of_the_server_can_be_read(server, client, model_dir, whistle):
    import httpx

    secret = next(model_dir.glob("checkpoints/*/config/metadata"))
    for path in ("/etc/passwd", str(secret), str(whistle), f"{ROOT}/README.md"):
        for route in (f"file={path}", f"file=//{path}", f"file=./../../../../../../..{path}"):
            response = httpx.get(f"{server}gradio_api/{route}")
            assert response.status_code in (403, 404), route
    # Nor have it read as a sound, which the whistle is one of.
    from gradio_client import utils

    assert utils.is_file_obj(sound := {"path": str(whistle), "meta": {"_type": "gradio.FileData"}})
    call = httpx.post(
        f"{server}gradio_api/call/translate", json={"data": [sound, ["Cello"], 1.0, 0]}
    )
    answer = httpx.get(
        f"{server}gradio_api/call/translate/{call.json()['event_id']}", timeout=PATIENCE_S
    ).text
    assert "event: error" in answer
    assert "event: complete" not in answer
    # Nor past the queue.
    skipped = httpx.post(f"{server}gradio_api/run/translate", json={"data": [sound, [], 1.0, 0]})
    assert skipped.status_code == 404


def test_files_of_users_go_when_the_server_goes(model_dir, whistle, tmp_path):
    import gradio_client

    with serving(model_dir, tmp_path) as (process, url, folder):
        client = gradio_client.Client(url, verbose=False)
        client.predict(handle(whistle), ["Cello"], 1.0, 0, api_name="/translate")
        temporary = folder / "temporary"
        (private,) = temporary.iterdir()
        assert private.stat().st_mode & 0o777 == 0o700
        assert list(private.rglob("my whistle*.wav"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=PATIENCE_S) == 1
    assert not list(temporary.iterdir())
    assert (folder / "errors.log").read_text() == "Interrupted.\n"


@pytest.mark.parametrize(
    "variables",
    [
        {"http_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"},
        {"all_proxy": "socks5://127.0.0.1:9", "no_proxy": "example.org"},
        {"http_proxy": "no address", "SSL_CERT_FILE": "/nowhere/certificates.pem"},
    ],
    ids=lambda variables: next(iter(variables)),
)
def test_proxies_and_certificates_of_the_environment_do_not_matter(model_dir, tmp_path, variables):
    import httpx

    with serving(model_dir, tmp_path, **variables) as (_, url, folder):
        assert "umt_jax" in httpx.get(url).text
    assert not (folder / "outside.log").exists()
    assert (folder / "errors.log").read_text() == "Interrupted.\n"


def test_a_port_that_is_taken_is_named(model_dir):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        finished = subprocess.run(
            command(f"--checkpoint={model_dir}", f"--port={port}"),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
    assert finished.returncode == 1
    assert finished.stderr == (
        f"error: --host=127.0.0.1 --port={port} cannot be listened on (Address already in use). "
        "Leave --host out for this machine alone, and --port for the first free one.\n"
    )
