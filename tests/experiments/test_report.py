import base64
import html.parser
import io
import json
import re

import numpy as np
import pytest
import soundfile

from experiments import report
from experiments.pages import run_page
from umt_jax.audio import sound_files
from umt_jax.config import Config
from umt_jax.plots import spectrograms

RATE_HZ = 16_000
CONFIG = Config(domains=("Piano", "Strings", "Pan_Flute"))
METRICS = [
    {
        "step": 100 * i,
        "seconds": 90.0 * i,
        "train/reconstruction": 4.0 / i,
        "train/reconstruction/Piano": 3.0 / i,
        "eval/reconstruction": 4.5 / i,
        "eval/reconstruction/Piano": 3.5 / i,
        "train/classifier_accuracy": 0.4,
    }
    for i in range(1, 9)
]


def tone(frequency_hz, seconds=1.0):
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return (0.2 * np.sin(2 * np.pi * frequency_hz * time_s)).astype(np.float32)


@pytest.fixture
def demo(tmp_path):
    """A run, a piece in three domains, and its translations from Piano into the others."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps(CONFIG.to_json()))
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in METRICS))
    for frequency_hz, domain in zip((440, 550, 660), CONFIG.domains, strict=True):
        folder = tmp_path / "pairs" / domain
        folder.mkdir(parents=True)
        sound_files.write(folder / "a_song.wav", tone(frequency_hz), sample_rate_hz=RATE_HZ)
    folder = tmp_path / "translations" / "Piano"
    folder.mkdir(parents=True)
    for domain in CONFIG.domains[1:]:
        sound_files.write(folder / f"a_song.{domain}.wav", tone(1000), sample_rate_hz=RATE_HZ)
    return tmp_path


def read_pieces(demo, seconds=60.0):
    return report.read_pieces(demo / "translations", demo / "pairs", config=CONFIG, seconds=seconds)


class Tags(html.parser.HTMLParser):
    """Collects the tags of a page with their attributes; refuses tags that are left open."""

    VOID = {"meta", "img"}

    def __init__(self, page):
        super().__init__()
        self.found, self.open = [], []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def named(self, name):
        return [attributes for tag, attributes in self.found if tag == name]


def decode(uri):
    kind, data = uri.removeprefix("data:").split(";base64,")
    return kind, io.BytesIO(base64.b64decode(data))


def peak_hz(waveform):
    spectrum = np.abs(np.fft.rfft(waveform[2000:14_000]))
    return np.argmax(spectrum) * RATE_HZ / 12_000


def test_sources_translations_and_true_pairs_find_one_another(demo):
    (piece,) = read_pieces(demo)
    assert (piece.name, piece.source_domain) == ("a_song", "Piano")
    assert list(piece.translations) == list(piece.true_pairs) == ["Strings", "Pan_Flute"]
    np.testing.assert_allclose(peak_hz(piece.source), 440, atol=2)
    np.testing.assert_allclose(peak_hz(piece.true_pairs["Pan_Flute"]), 660, atol=2)
    np.testing.assert_allclose(peak_hz(piece.translations["Pan_Flute"]), 1000, atol=2)


def test_the_page_holds_no_more_than_the_seconds_asked_for(demo):
    (piece,) = read_pieces(demo, seconds=0.25)
    assert len(piece.source) == len(piece.translations["Strings"]) == 4000


def test_every_sound_on_the_page_decodes_to_what_it_was_made_from(demo):
    tags = Tags(run_page.page(CONFIG, METRICS, read_pieces(demo)))
    heard = []
    for player in tags.named("audio"):
        kind, file = decode(player["src"])
        waveform, rate_hz = soundfile.read(file)
        assert (kind, rate_hz) == ("audio/mpeg", RATE_HZ)
        assert abs(len(waveform) - RATE_HZ) < 2000
        heard.append(peak_hz(waveform))
    np.testing.assert_allclose(heard, [440, 1000, 550, 1000, 660], atol=2)


def test_translations_by_the_shipped_model_come_before_those_of_the_run(demo):
    shipped = demo / "shipped"
    for domain in CONFIG.domains[1:]:
        path = shipped / "Piano" / f"a_song.{domain}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        sound_files.write(path, tone(800), sample_rate_hz=RATE_HZ)
    (piece,) = report.read_pieces(
        demo / "translations", demo / "pairs", config=CONFIG, seconds=60.0, shipped=shipped
    )
    page = run_page.page(CONFIG, METRICS, [piece])
    heard = [
        peak_hz(soundfile.read(decode(player["src"])[1])[0]) for player in Tags(page).named("audio")
    ]
    np.testing.assert_allclose(heard, [440, 800, 1000, 550, 800, 1000, 660], atol=2)
    assert page.count("by the shipped model</h3>") == 2
    (shipped / "Piano" / "a_song.Strings.wav").unlink()
    with pytest.raises(FileNotFoundError, match=r"shipped/Piano/a_song\.Strings\.wav"):
        report.read_pieces(
            demo / "translations", demo / "pairs", config=CONFIG, seconds=60.0, shipped=shipped
        )


def test_the_page_needs_no_network_and_no_other_file(demo):
    page = run_page.page(CONFIG, METRICS, read_pieces(demo))
    tags = Tags(page)
    sources = [attributes["src"] for _, attributes in tags.found if "src" in attributes]
    assert all(source.startswith("data:") for source in sources)
    assert not any("href" in attributes for _, attributes in tags.found)
    without_data = re.sub(r'"data:[^"]*"', "", page)
    assert not re.search(r"https?:|//\w|url\(|@import", without_data)


def test_pictures_decode_and_everything_to_see_or_play_has_a_name(demo):
    tags = Tags(run_page.page(CONFIG, METRICS, read_pieces(demo)))
    images = tags.named("img")
    assert len(images) == 5 + 1
    for image in images:
        kind, file = decode(image["src"])
        assert kind == "image/png"
        assert file.read(8) == b"\x89PNG\r\n\x1a\n"
        assert image["alt"]
    assert all(player["aria-label"] for player in tags.named("audio"))
    assert tags.named("html") == [{"lang": "en"}]
    assert "width=device-width" in str(tags.named("meta"))


def test_the_page_says_in_words_what_it_is_and_how_long_it_was_trained(demo):
    page = run_page.page(CONFIG, METRICS, read_pieces(demo))
    text = " ".join(re.sub(r"<style>.*</style>|<[^>]*>", " ", page, flags=re.DOTALL).split())
    assert "Piano, played back as Strings and Pan Flute" in text
    assert "800 steps, which took 12 minutes" in text
    assert "heard 12,800 segments of each instrument, of 1 s each" in text
    assert "--preset=musicnet" in text
    assert "all 0.500 0.562" in text
    assert "Strings – –" in text


def test_names_are_escaped():
    config = Config(domains=("<b>", "A&B"))
    piece = run_page.Piece("<i>", "<b>", tone(440), {"A&B": tone(440)}, {"A&B": tone(440)})
    page = run_page.page(config, METRICS, [piece])
    assert not {"b", "i"} & {tag for tag, _ in Tags(page).found}
    assert "A&amp;B" in page


def test_a_sound_played_back_as_itself_has_no_true_pair():
    piece = run_page.Piece("a", "Piano", tone(440), {"Piano": tone(440)}, {"Piano": tone(440)})
    assert len(Tags(run_page.page(CONFIG, METRICS, [piece])).named("audio")) == 2


def test_pictures_of_one_piece_share_their_colours(demo, monkeypatch):
    levels = []
    draw = spectrograms.log_mel_row

    def spy(waveforms, rate_hz, *, seconds, loudest_db):
        levels.append(loudest_db)
        return draw(waveforms, rate_hz, seconds=seconds, loudest_db=loudest_db)

    monkeypatch.setattr(spectrograms, "log_mel_row", spy)
    run_page.page(CONFIG, METRICS, read_pieces(demo))
    assert len(levels) == 5
    assert len(set(levels)) == 1


def test_bad_folders_are_named(demo, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no config\.json in --workdir"):
        report.read_run(tmp_path / "nothing")
    (demo / "pairs" / "Strings" / "a_song.wav").unlink()
    with pytest.raises(FileNotFoundError, match=r"pairs/Strings/a_song\.wav"):
        read_pieces(demo)
    sound_files.write(demo / "translations" / "loose.Strings.wav", tone(1), sample_rate_hz=RATE_HZ)
    with pytest.raises(ValueError, match="is not named <SourceDomain>/<piece>.<Domain>.wav"):
        read_pieces(demo)


def test_a_translation_to_a_domain_that_the_run_lacks_is_refused(demo):
    path = demo / "translations" / "Piano" / "a_song.Kazoo.wav"
    sound_files.write(path, tone(1000), sample_rate_hz=RATE_HZ)
    with pytest.raises(ValueError, match="Kazoo, but the run in --workdir has the domains Piano"):
        read_pieces(demo)


def test_a_run_that_has_not_reported_is_refused(demo):
    (demo / "run" / "metrics.jsonl").write_text("")
    with pytest.raises(ValueError, match="has not reported yet"):
        report.read_run(demo / "run")


def test_damaged_metrics_are_reported_with_their_folder(demo):
    (demo / "run" / "metrics.jsonl").write_text('{"step": 1')
    with pytest.raises(ValueError, match="run is damaged"):
        report.read_run(demo / "run")


def test_a_run_is_read_as_it_was_written(demo):
    assert report.read_run(demo / "run") == (CONFIG, METRICS)
