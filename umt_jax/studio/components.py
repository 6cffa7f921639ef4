"""Parts of the studio's page: players, cards of results, and how they look."""

from typing import Any

import gradio as gr

from umt_jax.studio import aac, session

# The page needs nothing from other machines, fonts included.
THEME = gr.themes.Soft(
    primary_hue="blue",
    font=["system-ui", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
)

CSS = """
#cards {display: grid; grid-template-columns: repeat(auto-fill, minmax(min(270px, 100%), 1fr))}
#status {min-height: 60px}
#status progress {display: block; width: 100%; background: var(--border-color-primary)}
#status progress::-webkit-progress-bar {background: var(--border-color-primary)}
#status progress::-webkit-progress-value {background: var(--color-accent)}
#status progress::-moz-progress-bar {background: var(--color-accent)}
"""

# Scripts of the page. What a component becomes is an update, or its value.
BEGIN = """() => {
    window.isStopped = false;
    return [{__type__: "update", interactive: true}, ""];
}"""
"""Switches Stop on, and empties the status."""

STOP = "() => { window.isStopped = true; }"
"""Remembers that the user did it."""

END = """() => {
    const audio = document.querySelector("#listen audio");
    const playing = audio !== null && !audio.paused && !audio.ended;
    return [
        {__type__: "update", interactive: false},
        {__type__: "update", visible: playing},
    ];
}"""
"""Switches Stop off, and hides the player of sound under way unless it plays: each has its own
by then."""

ENABLE_WITH_ALL_SOUNDS = "(...sounds) => ({__type__: 'update', interactive: sounds.every(Boolean)})"
"""Switches a button on when all of its sounds are there."""

BREAK_OFF = """() => [
    {__type__: "update", interactive: false},
    {__type__: "update", visible: false},
    window.isStopped ? "Stopped." : "",
]"""
"""Switches Stop off, hides the player of sound under way, and says if the user stopped it."""

Updates = dict[Any, Any]
"""New values by component, as Gradio takes them."""


def player_of_frames() -> gr.Audio:
    """Returns a player of a sound under way, whose pieces are AAC frames.

    Gradio's own would start an ffmpeg program for each sound, and need one to be installed. (A
    subclass would do the same, but Gradio writes a .pyi file beside the module of each.)
    """
    player = gr.Audio(
        streaming=True,
        autoplay=True,
        interactive=False,
        visible=False,
        buttons=[],
        elem_id="listen",
    )

    async def stream_output(frames: bytes | None, output_id: str, first_chunk: bool) -> Any:
        segment = None
        if frames:
            segment = {"data": frames, "duration": aac.seconds(frames), "extension": ".aac"}
        stream = {
            "path": output_id,
            "is_stream": True,
            "orig_name": "stream.mp3",
            "meta": {"_type": "gradio.FileData"},
        }
        return segment, stream

    async def flush_stream_output(output_id: str) -> None:
        """Nothing is held back: the last piece has the last frames."""

    player.stream_output = stream_output
    player.flush_stream_output = flush_stream_output
    player.end_stream_output = lambda output_id: None
    return player


def recorder(label: str, name: str) -> gr.Audio:
    """Returns a place to drop a file or to record; the file comes as it is."""
    return gr.Audio(type="filepath", label=label, editable=False, buttons=[], elem_id=name)


class Card:
    """A sound and its picture; hidden while there is none."""

    def __init__(self) -> None:
        """Adds the components to the page under construction."""
        with gr.Column(visible=False, min_width=0) as self.column:
            self.sound = gr.Audio(interactive=False, buttons=["download"])
            self.picture = gr.Image(interactive=False, show_label=False, buttons=["fullscreen"])
        self.components = [self.column, self.sound, self.picture]

    def show(self, track: session.Track) -> Updates:
        """Returns what shows a track."""
        return {
            self.column: gr.Column(visible=True),
            self.sound: gr.Audio(str(track.sound), label=track.title),
            self.picture: gr.Image(
                str(track.picture), alt_text=f"Log-mel spectrogram of {track.title}"
            ),
        }

    def hide(self) -> Updates:
        """Returns what hides it."""
        return {
            self.column: gr.Column(visible=False),
            self.sound: gr.Audio(None),
            self.picture: gr.Image(None),
        }
