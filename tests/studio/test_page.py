"""The page of the studio, in a real browser. One server for all tests."""

import re

import numpy as np
import pytest
import soundfile
from conftest import write_tone
from served_studio import PATIENCE_S, RATE_HZ
from served_studio import inferred as inferred  # Fixtures, this one and the next three.
from served_studio import model_dir as model_dir
from served_studio import server as server
from served_studio import whistle as whistle

from umt_jax.studio import examples

pytestmark = pytest.mark.studio

CHROMIUM = "/usr/bin/chromium"


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


def test_a_file_that_is_too_large_is_refused_with_the_limit(new_page, tmp_path):
    page = new_page()
    large = tmp_path / "large.wav"
    write_tone(large, seconds=15.0, rate_hz=44_100)
    page.locator("#sound input[type=file]").set_input_files(large)
    toast = page.locator(".toast-body")
    toast.wait_for()
    assert "exceed the maximum allowed size of 1.0 Mb" in toast.inner_text()
