"""The page of the studio, on Gradio: what is where, and what its buttons do.

One take is made at a time, whoever asked for it, by page or by HTTP; the others wait in the queue.
Imported only when GRADIO_TEMP_DIR is set: Gradio serves what lies in that folder, and nothing else.
"""

import contextlib
import functools
import html
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from absl import logging

from umt_jax.studio import aac, checks, components, examples, session
from umt_jax.studio.folder import StudioFolder

_MAX_TEMPERATURE = 2.0
_MAX_WAITING = 32
_DONE = "Done."
_LISTEN_SECONDS = 0.5  # Length of what is added, again and again, to sound under way.


@contextlib.contextmanager
def _errors_as_sentences() -> Iterator[None]:
    """Shows users what is wrong with what they gave, and no traceback."""
    try:
        yield
    except ValueError as error:
        raise _as_shown(str(error)) from error
    except OSError as error:
        logging.warning("A sound could not be stored: %s", error)
        # Its own words name folders of the server.
        raise _as_shown(
            "The studio could not store the sound. Its disk may be full; its log says more."
        ) from error


def _as_shown(sentence: str) -> gr.Error:
    # A file may be named like a tag; the page would take it for one.
    return gr.Error(html.escape(sentence, quote=False), duration=None, print_exception=False)


class _Page:
    """The components, and what its events do with them."""

    def __init__(self, studio: session.Studio, folder: StudioFolder) -> None:
        self.studio, self.folder = studio, folder
        self.inputs: dict[Any, checks.Input] = {}
        self._add_controls()
        with gr.Row(elem_id="cards"):
            self.sources = [components.Card(), components.Card()]
            self.made = {domain: components.Card() for domain in studio.model.domains}
        cards = [*self.sources, *self.made.values()]
        self.outputs = [self.status, self.listen]
        self.outputs += [component for card in cards for component in card.components]
        self._describe_inputs()
        self._add_events()

    def _add_controls(self) -> None:
        domains = list(self.studio.model.domains)
        with gr.Row():
            with gr.Column(min_width=320):
                with gr.Tab("Translate") as self.translate_tab:
                    self.source = components.recorder("Sound", "sound")
                    self._add_examples()
                    self.domains = gr.CheckboxGroup(domains, value=domains, label="Play it as")
                with gr.Tab("Blend") as self.blend_tab:
                    self.first = components.recorder("First sound", "first")
                    self.second = components.recorder("Second sound", "second")
                    self.weight = gr.Slider(
                        0, 1, 0.5, step=0.05, label="Blend (0 is the first, 1 the second)"
                    )
                    self.domain = gr.Radio(domains, value=domains[0], label="Play it as")
            with gr.Column(min_width=320):
                sampling = self.studio.model.config.sampling
                own = sampling.temperature
                effect = "Scale of the randomness; 0 takes the likeliest sample every time."
                if sampling.follows_alone:
                    effect = "Without effect: this model's guides are heard alone."
                self.temperature = gr.Slider(
                    0,
                    max(_MAX_TEMPERATURE, own),
                    own,
                    step=0.05,
                    label="Temperature",
                    info=effect,
                )
                self.seed = gr.Number(
                    0, precision=0, label="Seed", info="The same seed gives the same sound."
                )
                # Below the settings, also where the columns are one below the other.
                self.translate = gr.Button("Translate", variant="primary", interactive=False)
                self.blend = gr.Button("Blend", variant="primary", interactive=False, visible=False)
                self.status = gr.HTML(elem_id="status")
                self.stop = gr.Button("Stop", variant="stop", interactive=False)
                self.listen = components.player_of_frames()

    def _add_examples(self) -> None:
        """Adds buttons that each put a sound where one is dropped."""
        with gr.Row():
            for example in examples.ALL:
                gr.Button(example.title, size="sm", min_width=60).click(
                    functools.partial(self._put, example),
                    None,
                    self.source,
                    queue=False,
                    show_progress="hidden",
                    api_visibility="private",
                )
        with gr.Accordion("What these examples are", open=False):
            lines = (f"- **{example.title}**: {example.source}." for example in examples.ALL)
            gr.Markdown("\n".join([*lines, "", examples.SOUND]))

    def _put(self, example):
        """Yields a copy of an example, which Gradio copies again before it continues."""
        with _errors_as_sentences():
            self.folder.check_room()
            with tempfile.TemporaryDirectory() as folder:
                yield shutil.copy(example.path, folder)

    def _describe_inputs(self) -> None:
        """Says what each input may be, by component."""
        domains = list(self.studio.model.domains)
        self.inputs = {
            **{
                sound: checks.sound(sound.label, self.folder.served)
                for sound in (self.source, self.first, self.second)
            },
            self.domains: checks.some_of("Domains", domains),
            self.domain: checks.one_of("Domain", domains),
            self.weight: checks.number("Blend", 0.0, 1.0),
            self.temperature: checks.number("Temperature", 0.0, self.temperature.maximum),
            self.seed: checks.seed("Seed"),
        }

    def check_values(self, parts: Sequence[Any], values: Any) -> None:
        """Raises `gr.Error` if values are not what parts of the page take for sounds to be made."""
        if not parts or any(part not in self.inputs for part in parts):
            return
        with _errors_as_sentences():
            checks.check([self.inputs[part] for part in parts], values)

    def _add_events(self) -> None:
        translation = [self.source, self.domains, self.temperature, self.seed]
        blend = [self.first, self.second, self.weight, self.domain, self.temperature, self.seed]
        one_at_a_time = {"concurrency_id": "takes", "concurrency_limit": 1}
        runs = []
        for button, run, inputs in (
            (self.translate, self.run_translation, translation),
            (self.blend, self.run_blend, blend),
        ):
            # In the browser, since the server's answer could come after the end of a take that
            # fails at once. Gradio 6.31 runs a button's events one after another; it calls `then`
            # after success and Stop, and `failure` after an error and Stop.
            scripted = {"fn": None, "inputs": None, "api_visibility": "private"}
            # Who waits in the queue may stop, too.
            button.click(outputs=[self.stop, self.status], js=components.BEGIN, **scripted)
            done = button.click(
                run,
                inputs,
                self.outputs,
                show_progress_on=self.status,
                api_visibility="private",
                **one_at_a_time,
            )
            done.success(outputs=[self.stop, self.listen], js=components.END, **scripted)
            done.failure(
                outputs=[self.stop, self.listen, self.status], js=components.BREAK_OFF, **scripted
            )
            runs.append(done)
        self.stop.click(None, js=components.STOP, cancels=runs, api_visibility="private")
        self.listen.stop(
            _hidden_when_done, self.status, self.listen, queue=False, api_visibility="private"
        )
        self._add_availability()
        # The same for programs: `gradio_client`, or plain HTTP.
        files = gr.Files(visible=False, label="Sounds")
        for name, call, inputs in (
            ("translate", self.call_translation, translation),
            ("blend", self.call_blend, blend),
        ):
            gr.Button(visible=False).click(call, inputs, files, api_name=name, **one_at_a_time)

    def _add_availability(self) -> None:
        """Has buttons wait for their sounds, and shows the one of the tab that is open."""
        for button, sounds in (
            (self.translate, [self.source]),
            (self.blend, [self.first, self.second]),
        ):
            # In the browser: the server need not look at the sounds for it.
            gr.on(
                [sound.change for sound in sounds],
                None,
                sounds,
                button,
                js=components.ENABLE_WITH_ALL_SOUNDS,
                api_visibility="private",
            )
        buttons = [self.translate, self.blend]
        for tab, shown in zip([self.translate_tab, self.blend_tab], buttons, strict=True):
            visible = json.dumps([button is shown for button in buttons])
            tab.select(
                None,
                None,
                buttons,
                js=f"() => {visible}.map(visible => ({{__type__: 'update', visible}}))",
                api_visibility="private",
            )

    def run_translation(self, *inputs):
        """Shows a translation as it is made."""
        with _errors_as_sentences():
            yield from self._show(self._translation(*inputs))

    def run_blend(self, *inputs):
        """Shows a blend as it is made."""
        with _errors_as_sentences():
            yield from self._show(self._blend(*inputs))

    def call_translation(self, sound, domains, temperature, seed):
        """Translates a sound file into each of the domains; returns a wav file for each."""
        with _errors_as_sentences():
            yield from self._files(self._translation(sound, domains, temperature, seed))

    def call_blend(self, first, second, weight, domain, temperature, seed):
        """Plays a mixture of two sound files' latents as one domain; returns a wav file."""
        with _errors_as_sentences():
            yield from self._files(self._blend(first, second, weight, domain, temperature, seed))

    def _translation(self, path, domains, temperature, seed):
        self.folder.check_room()
        return self.studio.translate(path, domains, temperature=temperature, seed=seed)

    def _blend(self, first, second, weight, domain, temperature, seed):
        self.folder.check_room()
        return self.studio.blend(
            first,
            second,
            weight=weight,
            domain=domain,
            temperature=temperature,
            seed=seed,
        )

    def _show(self, take: session.Take) -> Iterator[components.Updates]:
        """Yields what the page shows: no results, then sound under way, then the results."""
        rate_hz = self.studio.model.sample_rate_hz
        cleared: components.Updates = {
            self.status: "Getting ready.",
            self.listen: gr.Audio(None, label=f"{take.domains[0]}, while it is made", visible=True),
        }
        for card in [*self.sources, *self.made.values()]:
            cleared |= card.hide()
        yield cleared
        encoder = aac.Encoder(rate_hz)
        pieces = []
        for progress in session.play(take, at_least=round(_LISTEN_SECONDS * rate_hz)):
            pieces.append(progress.piece)
            yield {
                self.status: _progress_bar(progress, take, rate_hz),
                self.listen: encoder.encode(progress.piece[0]),
            }
        yield {self.listen: encoder.finish(), self.status: "Drawing pictures."}
        with _written(take, pieces, rate_hz) as (sources, tracks):
            shown: components.Updates = {self.status: _DONE}
            for card, track in zip(self.sources, sources, strict=False):
                shown |= card.show(track)
            for track in tracks:
                shown |= self.made[track.title].show(track)
            yield shown

    def _files(self, take: session.Take) -> Iterator[Any]:
        """Yields the finished sounds, which Gradio copies before it continues."""
        pieces = []
        for progress in session.play(take):
            pieces.append(progress.piece)
            yield gr.skip()  # Here a caller, or the end of the server, may cancel it.
        with _written(take, pieces, self.studio.model.sample_rate_hz) as (_, tracks):
            yield [str(track.sound) for track in tracks]


def _hidden_when_done(status: str | None) -> gr.Audio:
    return gr.Audio(visible=status != _DONE)


@contextlib.contextmanager
def _written(take, pieces, sample_rate_hz):
    """The tracks of a finished take, in files that are gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        waveforms = np.concatenate(pieces, axis=-1)
        yield session.write(take, waveforms, Path(folder), sample_rate_hz=sample_rate_hz)


def _progress_bar(progress: session.Progress, take: session.Take, sample_rate_hz: int) -> str:
    left = progress.seconds_left
    return (
        f'<progress value="{progress.num_samples}" max="{take.num_samples}"></progress> '
        f"{progress.num_samples / sample_rate_hz:.1f} of {take.num_samples / sample_rate_hz:.1f} s"
        + ("" if left is None else f", about {max(1, round(left))} s left")
    )


def build(studio: session.Studio, folder: StudioFolder, *, hint: str = "") -> gr.Blocks:
    """Returns the page, which is not served yet.

    Args:
        studio: What plays.
        folder: Where sounds are kept.
        hint: A sentence on what the model plays well.
    """
    model, limits = studio.model, folder.limits
    with gr.Blocks(
        title="umt_jax studio",
        analytics_enabled=False,
    ) as page:
        gr.Markdown(
            "# umt_jax studio\n"
            f"Plays a sound back as {_list(model.domains)}, at {model.sample_rate_hz / 1000:g} kHz."
            f" A sound may be up to {studio.max_seconds:g} s long, a file up to "
            f"{limits.file_bytes / 2**20:g} MB. {hint}"
        )
        parts = _Page(studio, folder)
    _check_before_use(page, parts.check_values)
    # Closed: requests that would not wait in the queue.
    page.queue(api_open=False, max_size=_MAX_WAITING)
    return page


def _check_before_use(page: gr.Blocks, check: Callable[[Sequence[Any], Any], None]) -> None:
    """Has the values of every call checked before Gradio does anything with them.

    What its own components raise for wrong types reaches the caller as `null`.
    """
    preprocess_data = page.preprocess_data

    async def checked(block_fn: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        check(block_fn.inputs, inputs)
        return await preprocess_data(block_fn, inputs, *args, **kwargs)

    page.preprocess_data = checked


def _list(words):
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last
