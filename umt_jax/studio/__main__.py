"""A page to play with: drop or record a sound, hear it as another instrument.

    python -m umt_jax.studio --checkpoint=runs/demo

serves it on this machine alone, at http://127.0.0.1:7860, until Ctrl-C. Without --checkpoint the
model that ships with the package plays. What the page does, programs can do, too:

    from gradio_client import Client, handle_file
    client = Client("http://127.0.0.1:7860")
    paths = client.predict(handle_file("song.mp3"), ["Cello"], 1.0, 0, api_name="/translate")
"""

import contextlib
import errno
import importlib.util
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from absl import flags

from umt_jax import command_line, path_flags, translator
from umt_jax.checkpoints import demo_model
from umt_jax.inference import generation_flags
from umt_jax.processes import leftovers
from umt_jax.studio import session
from umt_jax.studio.folder import Limits, StudioFolder

_FIRST_PORT, _LAST_PORT = 7860, 7959
_CLEAN_EVERY_SECONDS = 300

_OF_SHIPPED = (
    "It learned from single lines: play, hum or whistle one note at a time, without accompaniment."
)
_OF_OTHERS = "It plays sounds best that are like those it was trained on."

_OF_CONNECTIONS = ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE")
"""Variables of the environment that httpx, with which Gradio calls itself, takes files from."""


def define_flags() -> None:
    """Declares this command's flags."""
    demo_model.define_flags()
    flags.DEFINE_string(
        "host",
        "127.0.0.1",
        "Address to listen on; 0.0.0.0 lets everybody in who can reach this machine.",
    )
    flags.DEFINE_integer(
        "port",
        None,
        f"Port to listen on. Default: the first free one from {_FIRST_PORT} on.",
        lower_bound=1,
        upper_bound=65535,
    )
    flags.DEFINE_float(
        "max_seconds", 120.0, "Length of the longest sound that is taken.", lower_bound=1.0
    )
    flags.DEFINE_integer(
        "max_megabytes", 50, "Size of the largest file that is taken.", lower_bound=1
    )
    flags.DEFINE_integer(
        "client_megabytes",
        500,
        "What one address may send within an hour. Behind a proxy of this machine, the address "
        "that it forwards counts.",
        lower_bound=1,
    )
    flags.DEFINE_integer(
        "total_megabytes",
        5000,
        "What all sounds of the last hour may take on the disk, in $TMPDIR. Older ones go.",
        lower_bound=1,
    )
    flags.DEFINE_list(
        "allowed_hosts",
        [],
        "Names by which browsers reach the studio, as studio.example.org or *.example.org; others "
        "are refused. Default: this machine's own on 127.0.0.1, any with another --host.",
    )
    path_flags.define(
        "auth", None, "File with a line NAME:PASSWORD for each user; others are not let in."
    )
    flags.DEFINE_string(
        "root_path",
        "",
        "Where a reverse proxy serves the studio: /studio, or https://example.org/studio.",
    )
    generation_flags.define_engine(weights=True)


def main() -> None:
    """Serves the page until it is interrupted."""
    args = flags.FLAGS
    for package in ("gradio", "av"):
        if importlib.util.find_spec(package) is None:
            raise ValueError(
                f"The studio needs {package}, which is not installed: "
                'pip install "umt_jax[studio]".'
            )
    names = _names(args)
    accounts = read_accounts(args.auth) if args.auth else None
    port = _free_port(args.host, args.port)
    command_line.use_compilation_cache()
    model = translator.load(
        demo_model.chosen(),
        step=args.step,
        engine=args.engine,
        weights=args.weights,
        threads=args.threads,
    )
    limits = Limits(
        file_bytes=args.max_megabytes * 2**20,
        client_bytes=args.client_megabytes * 2**20,
        total_bytes=args.total_megabytes * 2**20,
    )
    with _gradio_folder(limits) as folder:
        # Not before Gradio knows its folder.
        from umt_jax.studio import components, guard
        from umt_jax.studio import page as studio_page

        page = studio_page.build(
            session.Studio(model, args.max_seconds),
            folder,
            hint=_OF_SHIPPED if args.checkpoint is None else _OF_OTHERS,
        )
        _serve(
            page,
            args,
            port,
            auth=accounts,
            app_kwargs={"middleware": guard.middleware(names, folder)},
            theme=components.THEME,
            css=components.CSS,
        )


def read_accounts(path: str) -> list[tuple[str, str]]:
    """Returns names and passwords of those who are let in.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds something else, or nobody.
    """
    accounts = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        name, separator, password = line.partition(":")
        if not line.strip():
            continue
        if not (name and separator and password):
            raise ValueError(f"--auth={path}: line {number} is not NAME:PASSWORD.")
        accounts.append((name, password))
    if not accounts:
        raise ValueError(f"--auth={path} names nobody. Write a line NAME:PASSWORD for each user.")
    return accounts


def _names(args) -> list[str]:
    """Returns by which names the server is reached, and checks where it is."""
    # Here, since Starlette comes with Gradio.
    from umt_jax.studio import guard

    if args.root_path and not args.root_path.startswith(("/", "http://", "https://")):
        raise ValueError(
            f"--root_path={args.root_path} is neither a path, such as /studio, nor an address, "
            "such as https://example.org/studio."
        )
    return guard.allowed_names(args.host, args.allowed_hosts)


@contextlib.contextmanager
def _gradio_folder(limits: Limits) -> Iterator[StudioFolder]:
    """Gives Gradio a folder of its own, which goes when the server does, and no other one.

    If the server is killed, the folder goes when the next one starts.

    Nothing that the environment tells Gradio counts: it could open other folders, for example.
    Nor do proxies and certificates, since it connects to nothing but itself.
    """
    for name in [name for name in os.environ if name.startswith(("GRADIO_", *_OF_CONNECTIONS))]:
        del os.environ[name]
    # In place of the proxies' own variables, so that those of macOS's settings do not count either.
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = "*"
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    with leftovers.temporary_folder() as path:
        folder = StudioFolder(path, limits)
        os.environ["GRADIO_TEMP_DIR"] = folder.served
        os.environ["GRADIO_EXAMPLES_CACHE"] = os.path.join(path, "examples")
        tempfile.tempdir = folder.temporary
        folder.keep_clean(_CLEAN_EVERY_SECONDS)
        try:
            yield folder
        finally:
            tempfile.tempdir = None


def _free_port(host: str, port: int | None) -> int:
    """Returns the port to listen on.

    Raises:
        ValueError: It is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in [port] if port else range(_FIRST_PORT, _LAST_PORT + 1):
        try:
            with socket.create_server((host, candidate), family=family):
                return candidate
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            if error.errno != errno.EADDRINUSE:
                break
    raise ValueError(
        f"--host={host} --port={port or _FIRST_PORT} cannot be listened on ({reason}). "
        "Leave --host out for this machine alone, and --port for the first free one."
    )


# What reaches other machines, or shows what others do.
_OFF = ("share", "run_history", "enable_monitoring", "ssr_mode", "mcp_server", "pwa")


def _serve(page, args, port, **options) -> None:
    try:
        _, url, _ = page.launch(
            server_name=args.host,
            server_port=port,
            max_file_size=args.max_megabytes * 2**20,
            root_path=args.root_path.rstrip("/"),
            **options,
            prevent_thread_lock=True,
            quiet=True,
            footer_links=["api"],
            **dict.fromkeys(_OFF, False),
        )
        command_line.say(f"The studio is open at {url} until Ctrl-C.")
        threading.Event().wait()
    finally:
        page.close(verbose=False)


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
