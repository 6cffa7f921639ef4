"""The start and the end of the studio's server."""

import signal
import socket
import subprocess

import pytest
from served_studio import PATIENCE_S, ROOT, command, handle, serving
from served_studio import model_dir as model_dir  # Fixtures, this one and the next.
from served_studio import whistle as whistle

pytestmark = pytest.mark.studio


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
