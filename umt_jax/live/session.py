"""The way of the sound: from a sound card's callback to the player's thread, and back.

Of PortAudio nothing is known here: whatever calls `Session.callback` with blocks is a sound card.
"""

import dataclasses
import gc
import threading
from collections.abc import Iterator

import numpy as np

from umt_jax.audio import level, sound_files
from umt_jax.config import Config
from umt_jax.core import library
from umt_jax.inference import low_latency
from umt_jax.live import ring
from umt_jax.shapes import Float

_MOST_BEHIND_SECONDS = 1.0
"""A player that is further behind leaves out sound, and plays silence for it."""
_WAIT_SECONDS = 0.5
"""So long the player's thread waits before it looks whether it is to end."""


@dataclasses.dataclass
class Meters:
    """What has been heard and played since the last look.

    Attributes:
        input: Loudness of the input.
        output: Loudness of the output.
    """

    input: level.Loudness = level.Loudness()
    output: level.Loudness = level.Loudness()


class Session:
    """Plays what comes: the output is the input's translation, `delay_samples` later.

    Where the translation is not there in time, silence is played, and what comes too late is left
    out: the delay stays.

    Attributes:
        delay_samples: At the sound card's rate, without the card's own.
        num_dropouts: Blocks of which the card lost, or got too late, at least a sample.
        error: What has ended the player's thread, if anything has.
    """

    def __init__(
        self, player: library.Player, config: Config, *, rate_hz: int, slack_seconds: float
    ) -> None:
        """Starts nothing yet.

        Args:
            player: What `low_latency.choose` has set.
            config: Of its model.
            rate_hz: The sound card's, of input and output.
            slack_seconds: How much later than it could be the sound is played: so much the player
                may be late.
        """
        self._player, self._config, self._rate_hz = player, config, rate_hz
        model_hz = player.sample_rate_hz
        delay = low_latency.delay_seconds(player, config) + slack_seconds
        delay += sound_files.resampling_delay_seconds(rate_hz, model_hz, is_live=True)
        delay += sound_files.resampling_delay_seconds(model_hz, rate_hz, is_live=True)
        self.delay_samples = int(np.ceil(delay * rate_hz))
        capacity = int(4 * _MOST_BEHIND_SECONDS * rate_hz) + 2 * self.delay_samples
        self._heard, self._played = ring.Ring(capacity), ring.Ring(capacity)
        self._silence = self.delay_samples  # Still to be played before the first sample.
        self._late = 0  # Samples that silence was played for.
        # Samples of the input of which nothing comes: those that there was no room for, and those
        # that the player left out; and how many of both were made up for.
        self._lost = self._left_out = self._made_up = 0
        self.num_dropouts = 0
        self.error: Exception | None = None
        self._is_waiting = False
        self._meters = Meters()
        self._wanted: dict[str, int | float] = {}
        self._lock = threading.Lock()
        self._has_come, self._is_ending = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="player", daemon=True)

    def __enter__(self) -> "Session":
        """Starts the player's thread."""
        # A full pass of the collector over many objects, such as JAX's where it is imported, would
        # stop the player for too long.
        gc.collect()
        gc.freeze()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Ends it."""
        self._is_ending.set()
        self._has_come.set()
        self._thread.join()
        gc.unfreeze()

    def set(self, **values: int | float) -> None:
        """Changes domain (an index), seed, temperature or top_p with the next block."""
        with self._lock:
            self._wanted |= values

    @property
    def is_idle(self) -> bool:
        """Whether the player has done all that it can with what has come."""
        return not self._heard.available and self._is_waiting

    def meters(self) -> Meters:
        """Returns the meters, and sets them back."""
        meters, self._meters = self._meters, Meters()
        return meters

    def callback(
        self,
        heard: Float[np.ndarray, "T _"],
        played: Float[np.ndarray, "T _"],
        *,
        has_dropout: bool = False,
    ) -> None:
        """Takes a block of the input and fills one of the output, every channel alike.

        Args:
            heard: Samples by channels, which are averaged.
            played: To be filled.
            has_dropout: The card has lost something since the last block.
        """
        block = heard.mean(axis=1, dtype=np.float32)
        lost = block.size - self._heard.write(block)
        self._lost += lost
        self._has_come.set()
        self._make_up()
        silence = min(self._silence, len(played))
        self._silence -= silence
        self._late -= self._played.read(self._late).size
        sound = self._played.read(len(played) - silence)
        missing = len(played) - silence - sound.size
        self._late += missing
        played[:] = 0
        played[silence : silence + sound.size] = sound[:, np.newaxis]
        self.num_dropouts += bool(has_dropout or lost or missing)
        meters = self._meters
        meters.input = meters.input.after(np.nan_to_num(block))
        meters.output = meters.output.after(played[:, 0])

    def _make_up(self) -> None:
        """Plays silence for what nothing comes of, unless it has been played already."""
        count = self._lost + self._left_out - self._made_up
        self._made_up += count
        already = min(count, self._late)
        self._late -= already
        self._silence += count - already

    def _run(self) -> None:
        model_hz = self._player.sample_rate_hz
        blocks = sound_files.resample_blocks(
            ((self._rate_hz, block) for block in self._blocks()), to_hz=model_hz, is_live=True
        )
        pieces = low_latency.translate(self._player, self._config, blocks)
        waveforms = (
            (model_hz, piece.waveforms[0]) for piece in pieces if not self._is_ending.is_set()
        )
        try:
            for sound in sound_files.resample_blocks(waveforms, to_hz=self._rate_hz, is_live=True):
                self._played.write(np.asarray(sound))
        except Exception as error:  # Of a thread, where nobody would see it.
            self.error = error

    def _blocks(self) -> Iterator[Float[np.ndarray, "_"]]:
        """Yields what has come, at the card's rate, until the session ends."""
        most_behind = int(_MOST_BEHIND_SECONDS * self._rate_hz)
        while not self._is_ending.is_set():
            if not self._heard.available:
                self._is_waiting = True
                self._has_come.wait(_WAIT_SECONDS)
                self._has_come.clear()
                continue
            self._is_waiting = False
            with self._lock:
                wanted, self._wanted = self._wanted, {}
            self._player.set(**wanted)
            if self._heard.available > most_behind:
                self._left_out += self._heard.read(self._heard.available).size
            block = self._heard.read(self._heard.available)
            if block.size:
                yield np.nan_to_num(block, posinf=0.0, neginf=0.0)
