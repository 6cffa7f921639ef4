"""The way of the sound, played by a sound card that the test is."""

import dataclasses
import threading
import time

import numpy as np
import pytest
from conftest import random_parameters
from tones import glide

from umt_jax.audio import level
from umt_jax.checkpoints import model_file
from umt_jax.config import SamplingConfig
from umt_jax.core import library
from umt_jax.inference import low_latency
from umt_jax.live import __main__ as command
from umt_jax.live import session as live_session
from umt_jax.model import networks
from umt_jax.model.networks import Networks

RATE_HZ, BLOCK = 8000, 50


@pytest.fixture(scope="module")
def config(tiny_config):
    model = dataclasses.replace(tiny_config.model, sample_rate_hz=RATE_HZ)
    sampling = SamplingConfig(temperature=0.0)
    return dataclasses.replace(tiny_config, model=model, sampling=sampling)


@pytest.fixture(scope="module")
def file(config):
    return model_file.pack(config, networks.by_name(random_parameters(Networks(config))))


@pytest.fixture
def player(file, config):
    with library.Player(file) as player:
        low_latency.choose(
            player, config, player.domains[0], SamplingConfig(temperature=0.0), seed=0
        )
        yield player


def open_session(player, config, rate_hz=RATE_HZ, block=BLOCK):
    return live_session.Session(player, config, rate_hz=rate_hz, slack_seconds=block / rate_hz)


def translation(file, waveform, domain=0):
    with library.Player(file) as player:
        player.set(domain=domain, temperature=0.0)
        parts = []
        for start in range(0, len(waveform), 100):
            player.push(waveform[start : start + 100])
            parts.append(player.pull(1000))
        player.finish()
        return np.concatenate([*parts, player.pull(len(waveform))])


class Card:
    """A sound card whose clock waits for the player, but where it is told not to."""

    def __init__(self, session, player, monkeypatch):
        self.session, self.num_heard, self.pushed = session, 0, 0
        push = player.push

        def count(waveform):
            taken = push(waveform)
            self.pushed += taken
            return taken

        monkeypatch.setattr(player, "push", count)

    def play(self, waveform, block=BLOCK, waits=True, channels=2):
        parts = []
        for start in range(0, len(waveform), block):
            heard = waveform[start : start + block, np.newaxis]
            played = np.full((len(heard), channels), 9.0, np.float32)
            self.session.callback(heard, played)
            assert (played == played[:, :1]).all()
            parts.append(played[:, 0])
            deadline = time.monotonic() + 60
            while waits and not self.session.is_idle and time.monotonic() < deadline:
                time.sleep(0.0005)
        return np.concatenate(parts)


@pytest.fixture
def card(player, config, monkeypatch):
    with open_session(player, config) as session:
        yield Card(session, player, monkeypatch)
        assert session.error is None


def test_the_output_is_the_translation_as_late_as_is_stated(file, config, card):
    waveform = glide(4000)
    delay = card.session.delay_samples
    assert delay <= low_latency.delay_seconds(library.Player(file), config) * RATE_HZ + BLOCK + 1
    played = card.play(waveform)
    expected = np.concatenate([np.zeros(delay, np.float32), translation(file, waveform)])
    np.testing.assert_array_equal(played, expected[: len(played)])
    assert card.session.num_dropouts == 0


def test_what_comes_too_late_is_silence_counted_and_the_delay_stays(
    file, card, player, monkeypatch
):
    waveform = glide(9000)
    delay = card.session.delay_samples
    first = card.play(waveform[:3000])
    may_go_on, pull = threading.Event(), player.pull
    monkeypatch.setattr(player, "pull", lambda count: may_go_on.wait(60) and pull(count))
    second = card.play(waveform[3000:6000], waits=False)
    may_go_on.set()
    while not card.session.is_idle:
        time.sleep(0.001)
    third = card.play(waveform[6000:])
    expected = np.concatenate([np.zeros(delay, np.float32), translation(file, waveform)])
    np.testing.assert_array_equal(first, expected[:3000])
    assert not second[-1000:].any()
    assert 0 < card.session.num_dropouts <= 3000 / BLOCK + 1
    np.testing.assert_array_equal(third, expected[6000:9000])


def test_a_player_that_is_too_far_behind_leaves_sound_out_and_is_in_time_again(
    card, player, monkeypatch
):
    may_go_on, pull = threading.Event(), player.pull
    card.play(glide(1000))
    monkeypatch.setattr(player, "pull", lambda count: may_go_on.wait(60) and pull(count))
    card.play(np.zeros(60_000, np.float32), waits=False)  # More than there is room for.
    may_go_on.set()
    while not card.session.is_idle:
        time.sleep(0.001)
    card.play(glide(2000))  # What is still too late is left out.
    before = card.session.num_dropouts
    assert card.pushed < 60_000
    played = card.play(glide(4000))
    assert card.session.num_dropouts == before and played.any()


def test_a_domain_that_is_chosen_while_it_plays_is_heard(file, card):
    waveform = glide(4000)
    delay = card.session.delay_samples
    first = card.play(waveform[:2000])
    card.session.set(domain=1)
    rest = card.play(waveform[2000:])
    expected = np.concatenate([np.zeros(delay, np.float32), translation(file, waveform)])[:4000]
    played = np.concatenate([first, rest])
    np.testing.assert_array_equal(played[:2000], expected[:2000])
    assert (played[2000 + delay + 100 :] != expected[2000 + delay + 100 :]).any()


@pytest.mark.parametrize("rate_hz", [44_100, 48_000, 96_000])
def test_no_block_is_missed_at_any_rate_of_the_card(player, config, rate_hz, monkeypatch):
    block = rate_hz // 100
    with open_session(player, config, rate_hz, block) as session:
        card = Card(session, player, monkeypatch)
        played = card.play(glide(rate_hz, rate_hz), block)
        assert session.num_dropouts == 0
        # Held back: the model's look-ahead, and both ways of soxr.
        assert session.delay_samples < (0.1 + player.latency_samples / RATE_HZ) * rate_hz
        assert played[session.delay_samples :].any()


def test_what_a_card_lost_and_what_is_no_number_do_no_harm(file, card):
    waveform = glide(3000)
    waveform[500:600] = 0
    expected = translation(file, waveform)
    waveform[500:600:2], waveform[501:600:2] = np.nan, np.inf
    delay = card.session.delay_samples
    played = card.play(waveform)
    np.testing.assert_array_equal(played[delay:], expected[: 3000 - delay])
    blocks = np.zeros((2, BLOCK, 1), np.float32)
    card.session.callback(blocks[0], blocks[1], has_dropout=True)
    assert card.session.num_dropouts == 1


def test_what_ends_the_player_is_an_error_of_the_command(player, config, monkeypatch):
    def fail(waveform):
        raise RuntimeError("no more")

    with open_session(player, config) as session:
        monkeypatch.setattr(player, "push", fail)
        session.callback(np.ones((50, 1), np.float32), np.zeros((50, 1), np.float32))
        while session.error is None:
            time.sleep(0.001)
        with pytest.raises(ValueError, match="has stopped: no more"):
            command.play(session, player.domains, "Flute", SamplingConfig(), 60.0)


def test_meters_say_what_was_heard_since_the_last_look(card):
    card.play(np.full(500, 0.5, np.float32))
    meters = card.session.meters()
    assert meters.input.rms == meters.input.peak == 0.5
    assert card.session.meters().input.num_samples == 0


@pytest.mark.parametrize(
    ("amplitudes", "line"),
    [
        ([0.0, 0.0], "[                    ]  -60 dB"),
        ([0.1, -0.1], "[############|       ]  -20 dB"),
        ([0.8, 0.0], "[##################| ]   -5 dB"),
        ([1.0, 1.0], "[###################!]    0 dB"),
    ],
)
def test_a_meter_shows_level_and_peak(amplitudes, line):
    assert command.meter(level.measure([np.array(amplitudes, np.float32)])) == line
