"""A run's numbers by step, in `metrics.jsonl` and in TensorBoard, each written at once."""

import json
import math
import time
from pathlib import Path

from matplotlib.figure import Figure
from tensorboardX import event_file_writer, summary
from tensorboardX.proto import event_pb2, summary_pb2

from umt_jax import storage
from umt_jax.plots import spectrograms


class ScalarsLog:
    """Writes `metrics.jsonl` and `tensorboard/` in a folder.

    Attributes:
        tensorboard: For pictures and sounds beside the numbers.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        """Opens the files; drops what they say of steps after `first_step`, to be run again."""
        path = folder / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        kept = [line for line in lines if _step_of(line) <= first_step]
        with storage.whole_file(path) as incomplete:
            incomplete.write_text("".join(f"{line}\n" for line in kept))
        self._file = path.open("a")
        self.tensorboard = EventFile(folder / "tensorboard", first_step + 1)
        self._seconds_before = json.loads(kept[-1])["seconds"] if kept else 0.0
        self._started = time.monotonic()

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Writes what was measured at a step, and the seconds of training so far, of all parts."""
        seconds = self._seconds_before + time.monotonic() - self._started
        self._file.write(json.dumps({"step": step, "seconds": round(seconds, 3), **scalars}) + "\n")
        self._file.flush()
        self.tensorboard.scalars(step, scalars)

    def close(self) -> None:
        """Closes the files."""
        self._file.close()
        self.tensorboard.close()


class EventFile:
    """Writes to an event file, at once.

    tensorboardX's own SummaryWriter leaves it to a thread; when that dies of a full disk, nobody is
    told and training waits for it forever.
    """

    def __init__(self, folder: Path, purge_step: int) -> None:
        """Begins a file that replaces what others say of `purge_step` and later ones."""
        folder.mkdir(exist_ok=True)
        self._writer = event_file_writer.EventsWriter(str(folder / "events"), f".{purge_step}")
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._writer.write_event(event_pb2.Event(step=purge_step, session_log=start))

    def write(self, step: int, values: summary_pb2.Summary) -> None:
        """Writes what was measured at a step."""
        event = event_pb2.Event(step=step, wall_time=time.time(), summary=values)
        self._writer.write_event(event)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Writes numbers by name, and what was written before."""
        for name, value in values.items():
            self.write(step, summary.scalar(name, value))
        self.flush()

    def draw(self, step: int, name: str, figure: Figure) -> None:
        """Writes a picture."""
        self.write(step, summary.image(name, spectrograms.to_rgb(figure), dataformats="HWC"))

    def flush(self) -> None:
        """Has the system write what was written so far."""
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except ValueError:
        return math.inf  # Cut off, since the run was killed while it wrote.
