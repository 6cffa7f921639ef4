"""Which requests reach the studio: names, origins, sizes."""

import asyncio

import pytest

from umt_jax.studio import folder as studio_folder

pytestmark = pytest.mark.studio

LIMITS = studio_folder.Limits(file_bytes=100_000, client_bytes=400_000, total_bytes=10**9)


@pytest.fixture
def client(tmp_path):
    """Makes clients of a server behind the guard, which answers with the length of a body."""
    from starlette import applications, responses, routing, testclient

    from umt_jax.studio import guard as studio_guard

    async def length(request):
        if request.headers.get("content-type", "").startswith("multipart"):
            async with request.form() as form:
                return responses.PlainTextResponse(str(sum(f.size for f in form.getlist("files"))))
        return responses.PlainTextResponse(str(len(await request.body())))

    def make(host="127.0.0.1", allowed_hosts=(), base_url="http://127.0.0.1:7860"):
        folder = studio_folder.StudioFolder(tmp_path / "studio", LIMITS)
        app = applications.Starlette(
            routes=[routing.Route("/{path:path}", length, methods=["GET", "POST"])],
            middleware=studio_guard.middleware(
                studio_guard.allowed_names(host, allowed_hosts), folder
            ),
        )
        return testclient.TestClient(app, base_url=base_url)

    return make


def test_a_studio_of_this_machine_answers_to_its_own_names_alone(client):
    own = client()
    for host in ("127.0.0.1:7860", "localhost:7860", "localhost", "[::1]:7860"):
        assert own.get("/", headers={"host": host}).status_code == 200, host
    for host in ("evil.example", "evil.example:7860", "localhost.evil.example", "127.0.0.1.nip.io"):
        assert own.get("/", headers={"host": host}).status_code == 400, host


def test_names_that_are_allowed_are_answered_to(client):
    named = client(allowed_hosts=["studio.example.org", "*.example.net"])
    for host in ("studio.example.org", "STUDIO.example.org:80", "a.example.net", "127.0.0.1"):
        assert named.get("/", headers={"host": host}).status_code == 200, host
    for host in ("example.org", "example.net", "evilexample.net"):
        assert named.get("/", headers={"host": host}).status_code == 400, host


def test_pages_of_other_sites_are_refused(client):
    own = client(allowed_hosts=["*.example.net"])
    for origin in ("http://127.0.0.1:7860", "http://localhost", "https://a.example.net"):
        assert own.post("/", headers={"origin": origin}).status_code == 200, origin
    for origin in ("http://evil.example", "null", "http://[", "https://evilexample.net"):
        answer = own.post("/", headers={"origin": origin})
        assert answer.status_code == 403, origin
        assert "--allowed_hosts" in answer.text


def test_a_studio_for_everybody_knows_its_own_pages_by_the_name_that_was_asked(client):
    public = client(host="0.0.0.0", base_url="http://studio.example.org:7860")
    assert public.get("/").status_code == 200
    own = {"origin": "http://studio.example.org:7860"}
    assert public.post("/", headers=own).status_code == 200
    assert public.post("/", headers={"origin": "http://evil.example"}).status_code == 403


@pytest.mark.parametrize("name", ["http://a.example", "a.example:80", "a/b", "a.*.example", ""])
def test_what_is_no_name_is_refused_at_the_start(client, name):
    with pytest.raises(ValueError, match="is not the name of a host. Write it as"):
        client(allowed_hosts=[name])


def test_health_is_told_by_any_name(client):
    answer = client().get("/healthz", headers={"host": "10.1.2.3:7860"})
    assert (answer.status_code, answer.text) == (200, "ok\n")


def test_large_uploads_are_refused_whether_they_say_so_or_not(client):
    own = client()
    files = {"files": ("a.wav", bytes(LIMITS.file_bytes))}
    assert own.post("/upload", files=files).text == str(LIMITS.file_bytes)
    files = {"files": ("a.wav", bytes(LIMITS.file_bytes + 2**17))}
    request = own.build_request("POST", "/upload", files=files)
    body, kind = request.read(), request.headers["content-type"]
    pieces = [body[start : start + 10_000] for start in range(0, len(body), 10_000)]
    for content in (body, iter(pieces)):
        answer = own.post("/upload", content=content, headers={"content-type": kind})
        assert answer.status_code in (400, 413)
        assert "exceeds the maximum allowed size of 0.2 MB" in answer.text


def test_sixty_small_files_in_one_request_are_one_large_one(client):
    files = [("files", (f"{i}.wav", bytes(LIMITS.file_bytes // 10))) for i in range(60)]
    assert client().post("/upload", files=files).status_code == 413


def test_a_client_that_sends_again_and_again_is_refused(client):
    own = client()
    files = {"files": ("a.wav", bytes(LIMITS.file_bytes - 1000))}
    answers = [own.post("/upload", files=files) for _ in range(5)]
    assert [answer.status_code for answer in answers[:4]] == [200] * 4
    assert answers[4].status_code in (400, 429)
    assert "came from this address within an hour" in answers[4].text


def test_calls_are_small(client):
    own = client()
    assert own.post("/call", content=bytes(2**20)).text == str(2**20)
    assert own.post("/call", content=bytes(2**20 + 1)).status_code == 413
    assert own.post("/call", content=iter([bytes(2**20), b"1"])).status_code == 413


def test_an_upload_that_is_broken_off_looks_like_a_form_that_cannot_be_read(tmp_path):
    from starlette.formparsers import MultiPartException

    from umt_jax.studio import guard as studio_guard

    folder = studio_folder.StudioFolder(tmp_path / "studio", LIMITS)
    messages = iter(
        [{"type": "http.request", "body": b"--a", "more_body": True}, {"type": "http.disconnect"}]
    )

    async def receive():
        return next(messages)

    async def read_all(scope, receive, send):
        while (await receive()).get("more_body"):
            pass

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/upload",
        "client": ("127.0.0.1", 1),
        "headers": [(b"content-type", b"multipart/form-data; boundary=a")],
    }
    with pytest.raises(MultiPartException, match="broken off"):
        asyncio.run(studio_guard.Sizes(read_all, folder)(scope, receive, None))
