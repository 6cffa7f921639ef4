"""The studio among strangers: many at once, broken off, forged, wrong, with a login."""

import concurrent.futures
import html
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import write_tone
from served_studio import MAX_SECONDS, PATIENCE_S, RATE_HZ, handle, serving
from served_studio import model_dir as model_dir  # A fixture.
from small_disk import mounted

from umt_jax.processes import owner

httpx = pytest.importorskip("httpx", reason="It comes with Gradio: make test-studio")
pytestmark = pytest.mark.studio

MAX_WAITING = 32
ACCOUNTS = {"ada": "lovelace", "clara": "schumann:1819"}


def write_leftover(folder):
    """Makes what a server that was killed leaves; returns its path."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        started = owner._start_time(process.pid)
    system = owner.this_process().system
    left = folder / f".umt.{system}.{process.pid}.{started}.abcdefgh"
    (left / "served" / "123").mkdir(parents=True)
    (left / "served" / "123" / "song.wav").write_bytes(bytes(1000))
    return left


@pytest.fixture(scope="module")
def public(model_dir, tmp_path_factory):
    """A studio as it stands behind a reverse proxy; yields its process, address and folder."""
    folder = tmp_path_factory.mktemp("public")
    (folder / "temporary").mkdir()
    left = write_leftover(folder / "temporary")
    accounts = folder / "accounts"
    accounts.write_text("".join(f"{name}:{word}\n\n" for name, word in ACCOUNTS.items()))
    flags = ["--allowed_hosts=studio.example.org", f"--auth={accounts}", "--root_path=/studio/"]
    with serving(model_dir, folder, *flags, "--max_megabytes=1") as served:
        assert not left.exists()
        yield served


@pytest.fixture(scope="module")
def crowded(model_dir, tmp_path_factory):
    """A studio for many, of whom nothing is asked."""
    folder = tmp_path_factory.mktemp("crowded")
    with serving(model_dir, folder, "--max_megabytes=1", "--client_megabytes=100") as served:
        yield served
    log = (folder / "errors.log").read_text()
    assert "Traceback" not in log, log


def join(url, values, name="translate"):
    """Asks for something; returns the answer of the queue."""
    return httpx.post(f"{url}gradio_api/call/{name}", json={"data": values}, timeout=PATIENCE_S)


def outcome(url, joined, name="translate"):
    """Waits for what was asked for; returns its last event and what it brought."""
    event = joined.json()["event_id"]
    answer = httpx.get(f"{url}gradio_api/call/{name}/{event}", timeout=10 * PATIENCE_S).text
    kind, data = answer.strip().split("\n\n")[-1].splitlines()
    return kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))


def upload(url, path):
    """Uploads a file as browsers do; returns what calls take for it."""
    with open(path, "rb") as file:
        answer = httpx.post(f"{url}gradio_api/upload", files={"files": file}, timeout=PATIENCE_S)
    return {"path": answer.json()[0], "meta": {"_type": "gradio.FileData"}}


def served(folder):
    """The files that a server has of its users."""
    return [path for path in (folder / "temporary").glob(".umt.*/served/**/*") if path.is_file()]


@pytest.mark.parametrize("num_users", [8, 30])
def test_many_users_at_once_all_get_their_sound(crowded, tmp_path, num_users):
    _, url, _ = crowded
    write_tone(tmp_path / "a.wav", seconds=0.2)
    sound = upload(url, tmp_path / "a.wav")

    def user(seed):
        return outcome(url, join(url, [sound, ["Cello"], 1.0, seed]))

    with concurrent.futures.ThreadPoolExecutor(num_users) as pool:
        outcomes = list(pool.map(user, range(num_users)))
    assert [kind for kind, _ in outcomes] == ["complete"] * num_users
    sounds = [httpx.get(f"{url}gradio_api/file={files[0][0]['path']}") for _, files in outcomes]
    for place, sound in enumerate(sounds):
        (tmp_path / f"{place}.wav").write_bytes(sound.content)
        samples, rate_hz = soundfile.read(tmp_path / f"{place}.wav", dtype="int16")
        assert (len(samples), rate_hz) == (round(0.2 * RATE_HZ), RATE_HZ)
    # Each with its own seed.
    assert len({sound.content for sound in sounds}) == num_users


def cpu_seconds(process):
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_who_finds_the_queue_full_is_told_so_and_who_leaves_frees_the_core(crowded, tmp_path):
    import gradio_client

    process, url, _ = crowded
    write_tone(tmp_path / "long.wav", seconds=MAX_SECONDS - 1)
    clients = [gradio_client.Client(url, verbose=False)]
    jobs = [
        clients[0].submit(
            handle(tmp_path / "long.wav"), ["Cello", "Piano"], 1.0, seed, api_name="/translate"
        )
        for seed in range(MAX_WAITING + 1)
    ]
    deadline = time.monotonic() + PATIENCE_S
    while (full := join(url, [None, ["Cello"], 1.0, 0])).status_code != 503:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert "Queue is full" in full.json()["detail"]
    for job in jobs:
        job.cancel()
    deadline = time.monotonic() + PATIENCE_S
    while True:
        before = cpu_seconds(process)
        time.sleep(2)
        if cpu_seconds(process) - before < 0.3:
            break
        assert time.monotonic() < deadline, "it still works for those who have left"
    assert outcome(url, join(url, [None, ["Cello"], 1.0, 0]))[0] == "error"


FORGED = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
ELSEWHERE = {"path": "http://192.0.2.1/a.wav", "meta": {"_type": "gradio.FileData"}}
WRONG = [
    *([value, ["Cello"], 1.0, 0] for value in (7, "a", [], {}, True, FORGED, ELSEWHERE)),
    *([None, value, 1.0, 0] for value in (None, "Cello", 3, {}, ["Drum"], [None], [["Cello"]])),
    *([None, ["Cello"], value, 0] for value in (None, "1", [], {}, True, -1, 99)),
    *([None, ["Cello"], 1.0, value] for value in (None, "0", [], {}, True, 0.5, -1, 2**40)),
    *([], [None], [None, ["Cello"], 1.0, 0, 0]),
]


def test_wrong_types_get_sentences_which_name_no_folder(crowded):
    _, url, folder = crowded
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda values: outcome(url, join(url, values)), WRONG))
    for values, (kind, told) in zip(WRONG, outcomes, strict=True):
        assert kind == "error", values
        assert isinstance(told["error"], str) and told["error"].endswith("."), values
        assert str(folder) not in told["error"]
    answer = httpx.post(f"{url}gradio_api/call/translate", json={"data": "abc"})
    assert answer.status_code == 422 and "valid list" in answer.text


def test_long_names_are_blended_and_names_like_tags_are_shown_as_they_are(crowded, tmp_path):
    _, url, _ = crowded
    sounds = []
    for name in ("钢" * 60, "x" * 180):
        write_tone(tmp_path / f"{name}.wav", seconds=0.2)
        sounds.append(upload(url, tmp_path / f"{name}.wav"))
    joined = join(url, [*sounds, 0.5, "Piano", 1.0, 0], "blend")
    kind, files = outcome(url, joined, "blend")
    assert kind == "complete", files
    name = os.path.basename(files[0][0]["path"])
    assert name.startswith("钢" * 10) and name.endswith("x.Piano.wav")

    tag = tmp_path / "<img src=x onerror=alert(1)>.wav"
    soundfile.write(tag, np.zeros(8000), 8000)
    form = {"files": (tag.name, tag.read_bytes())}
    path = httpx.post(f"{url}gradio_api/upload", files=form).json()[0]
    shutil.move(path, renamed := os.path.join(os.path.dirname(path), tag.name))
    sound = {"path": renamed, "meta": {"_type": "gradio.FileData"}}
    kind, told = outcome(url, join(url, [sound, ["Cello"], 1.0, 0]))
    assert kind == "error" and "<" not in told["error"] and "&lt;img" in told["error"]


def test_every_odd_file_is_played_whole_or_refused_by_name(crowded, tmp_path):
    pytest.importorskip("av")
    import odd_files

    _, url, folder = crowded
    odd_files.write(tmp_path / "music")
    # No form carries a name that is no UTF-8.
    for name in (name for name in odd_files.good() if "\udce9" not in name):
        sound = upload(url, tmp_path / "music" / name)
        kind, files = outcome(url, join(url, [sound, ["Cello"], 0.0, 0]))
        assert kind == "complete", (name, files)
        path = urllib.parse.quote(files[0][0]["path"])
        content = httpx.get(f"{url}gradio_api/file={path}").content
        samples, rate_hz = soundfile.read(io.BytesIO(content))
        assert len(samples) / rate_hz == pytest.approx(odd_files.SECONDS, abs=0.07), name
    for name in odd_files.bad():
        sound = upload(url, tmp_path / "music" / name)
        kind, told = outcome(url, join(url, [sound, ["Cello"], 0.0, 0]))
        assert kind == "error", name
        shown = Path(sound["path"]).name  # Gradio drops some characters of a name.
        assert shown in html.unescape(told["error"]) and str(folder) not in told["error"]


def test_an_upload_that_is_broken_off_leaves_nothing(crowded):
    _, url, folder = crowded
    host, port = url.removeprefix("http://").rstrip("/").split(":")
    there = served(folder)
    head = (
        f"POST /gradio_api/upload HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 900000\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
        'Content-Disposition: form-data; name="files"; filename="half.wav"\r\n\r\n'
    )
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + bytes(500_000))
        deadline = time.monotonic() + PATIENCE_S
        while len(served(folder)) == len(there):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    deadline = time.monotonic() + PATIENCE_S
    while served(folder) != there:
        assert time.monotonic() < deadline, set(served(folder)) - set(there)
        time.sleep(0.05)


def test_strangers_get_nothing_without_a_login(public):
    _, url, folder = public
    assert httpx.get(f"{url}healthz").text == "ok\n"
    page = httpx.get(url).text
    assert '"auth_required":true' in page.replace(" ", "")
    requests = [
        ("GET", "gradio_api/info", {}),
        ("GET", "gradio_api/file=/etc/passwd", {}),
        ("POST", "gradio_api/upload", {"files": {"files": ("a.wav", b"sound")}}),
        ("POST", "gradio_api/call/translate", {"json": {"data": [None, ["Cello"], 1.0, 0]}}),
        ("POST", "gradio_api/queue/join", {"json": {"data": [], "fn_index": 0}}),
    ]
    for method, route, body in requests:
        assert httpx.request(method, url + route, **body).status_code in (401, 403), route
    wrong = httpx.post(f"{url}login", data={"username": "ada", "password": "byron"})
    assert wrong.status_code in (400, 401, 403)
    assert served(folder) == []


def test_users_log_in_and_find_the_studio_where_the_proxy_serves_it(public, tmp_path):
    _, url, _ = public
    write_tone(tmp_path / "a.wav", seconds=0.2)
    for name, word in ACCOUNTS.items():
        with httpx.Client(base_url=url, headers={"host": "studio.example.org"}) as session:
            own = {"origin": "https://studio.example.org"}
            login = {"username": name, "password": word}
            assert session.post("login", data=login, headers=own).status_code == 200
            config = session.get("config").json()
            assert config["root"].endswith("studio.example.org/studio")
            with open(tmp_path / "a.wav", "rb") as file:
                answer = session.post("gradio_api/upload", files={"files": file}, headers=own)
            assert answer.status_code == 200
    foreign = {"origin": "https://evil.example"}
    assert httpx.post(f"{url}login", data=login, headers=foreign).status_code == 403
    assert httpx.get(url, headers={"host": "evil.example"}).status_code == 400


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--auth=accounts", "--auth=accounts: line 1 is not NAME:PASSWORD."),
        ("--auth=nobody", "--auth=nobody names nobody. Write a line NAME:PASSWORD for each user."),
        ("--auth=missing", "missing: No such file or directory."),
        ("--root_path=studio", "--root_path=studio is neither a path, such as /studio, nor an"),
        ("--allowed_hosts=http://a", "--allowed_hosts=http://a is not the name of a host. Write"),
    ],
)
def test_wrong_flags_are_named_before_the_model_is_loaded(tmp_path, monkeypatch, flag, message):
    from absl import flags

    from umt_jax import command_line
    from umt_jax.studio import __main__ as studio

    (tmp_path / "accounts").write_text("ada\n")
    (tmp_path / "nobody").write_text("\n")
    monkeypatch.chdir(tmp_path)
    values = flags.FlagValues()
    name, _, value = flag[2:].partition("=")
    monkeypatch.setattr(flags, "FLAGS", values)
    for other, default in (("auth", None), ("root_path", ""), ("host", "127.0.0.1")):
        flags.DEFINE_string(other, default, "", flag_values=values)
    flags.DEFINE_list("allowed_hosts", [], "", flag_values=values)
    flags.DEFINE_integer("port", None, "", flag_values=values)
    values(["studio", flag])
    with pytest.raises((ValueError, OSError)) as error:
        studio.main()
    assert command_line.message(error.value).startswith(message)


def test_a_full_disk_is_a_sentence_for_users(model_dir, tmp_path):
    with mounted(tmp_path / "temporary", megabytes=70) as disk:
        with serving(model_dir, tmp_path, "--max_megabytes=1") as (_, url, folder):
            write_tone(tmp_path / "a.wav", seconds=0.2)
            sound = upload(url, tmp_path / "a.wav")
            (disk / "filler").write_bytes(bytes(8_000_000))
            form = {"files": ("b.wav", bytes(900_000))}
            answer = httpx.post(f"{url}gradio_api/upload", files=form, timeout=PATIENCE_S)
            assert answer.status_code == 507
            assert answer.text == "The studio's disk is full. Try again later."
            full = outcome(url, join(url, [sound, ["Cello"], 1.0, 0]))
            assert full[0] == "error" and full[1]["error"] == answer.text
            (disk / "filler").unlink()
            assert outcome(url, join(url, [sound, ["Cello"], 1.0, 0]))[0] == "complete"
        assert (folder / "errors.log").read_text() == "Interrupted.\n"
