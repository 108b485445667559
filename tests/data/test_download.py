"""Servers that misbehave: each download ends, in few seconds here by small limits, and leaves nothing."""

import gc
import hashlib
import socket
import threading
import time

import pytest

from vae_exp.data import download
from vae_exp.data.download import FileSet, check_md5, scratch_in

# The threads of the servers are not waited for, and their sockets are closed when Python finds the time.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

CONTENT = bytes(range(256)) * 40
MD5 = hashlib.md5(CONTENT).hexdigest()


def head(length=10_240, status="200 OK", more=""):
    return f"HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{more}\r\n".encode()


def forever(connection, what, pause=0.0):
    while True:
        connection.sendall(what)
        time.sleep(pause)


def slowly(connection, content):
    for byte in content:
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


# What the server does with a connection, and what the user is told; None for a download that is whole.
SERVERS = {
    "sound": (lambda c: c.sendall(head() + CONTENT), None),
    "without length": (lambda c: c.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + CONTENT), None),
    "endless": (lambda c: forever(c, b"HTTP/1.0 200 OK\r\n\r\n" + bytes(9999)), "more than 100,000 bytes"),
    "too long": (lambda c: c.sendall(head(10**9) + CONTENT), "more than 100,000 bytes"),
    "slow": (lambda c: (c.sendall(head()), slowly(c, CONTENT)), "fewer than 1000 bytes a second"),
    "slow header": (lambda c: slowly(c, head() + CONTENT), "timed out"),
    "silent": (lambda c: time.sleep(5), "timed out"),
    "silent body": (lambda c: (c.sendall(head() + b"1"), time.sleep(5)), "timed out"),
    "closed": (lambda c: None, "download failed"),
    "truncated": (lambda c: c.sendall(head() + CONTENT[:-1]), "after 10239 of 10240 bytes"),
    "longer": (lambda c: c.sendall(head(len(CONTENT) + 1) + CONTENT + b"1"), "not this file"),
    "another file": (lambda c: c.sendall(head() + CONTENT[::-1]), "not this file"),
    "broken": (lambda c: c.sendall(head(0, "500 Oops")), "500"),
    "gone": (lambda c: c.sendall(head(0, "404 Gone")), "404"),
    "circle": (lambda c: c.sendall(head(0, "302 Found", "Location: /x\r\n")), "infinite loop"),
    "other scheme": (lambda c: c.sendall(head(0, "302 Found", "Location: file:///etc/passwd\r\n")), "not allowed"),
    "no http": (lambda c: c.sendall(b"\x00" * 70_000), "download failed"),
    "long header": (lambda c: forever(c, b"HTTP/1.1 200 OK\r\n" + b"X: " + b"1" * 9999), "download failed"),
}


@pytest.fixture(autouse=True)
def collected():
    yield
    gc.collect()


@pytest.fixture
def limits(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    for name, value in {"TIMEOUT": 0.3, "PAUSE": 0.0, "LARGEST": 100_000, "LONGEST": 5.0}.items():
        monkeypatch.setattr(download, name, value)


@pytest.fixture
def serve(loopback):
    """Starts a server that treats connections in turn as told, the last way again and again; gives its address."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve(*ways):
        def answer():
            for i in range(100):
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=one, args=(connection, ways[min(i, len(ways) - 1)]), daemon=True).start()

        def one(connection, way):
            try:
                with connection:
                    connection.recv(9999)
                    way(connection)
            except OSError:
                pass

        threading.Thread(target=answer, daemon=True).start()
        return f"http://127.0.0.1:{server.getsockname()[1]}/x"

    yield serve
    server.close()


def fetch(url, folder):
    def get(scratch):
        download.download(url, scratch / "x", lambda path: check_md5(path, MD5))
        return scratch

    FileSet(title="Mine", names=("x",), folders=("mine",)).fetch(folder, get)


@pytest.mark.usefixtures("limits")
@pytest.mark.parametrize("name", SERVERS)
def test_a_download_ends(name, serve, tmp_path):
    way, said = SERVERS[name]
    began = time.monotonic()
    if said is None:
        fetch(serve(way), tmp_path)
        assert (tmp_path / "mine" / "x").read_bytes() == CONTENT
    else:
        with pytest.raises(FileNotFoundError, match="download failed: ") as error:
            fetch(serve(way), tmp_path)
        assert said in str(error.value)
        assert len(str(error.value).splitlines()) <= 6
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert time.monotonic() - began < 4
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.usefixtures("limits")
def test_a_server_that_fails_is_asked_again(serve, tmp_path):
    fetch(serve(SERVERS["broken"][0], SERVERS["truncated"][0], SERVERS["sound"][0]), tmp_path)
    assert (tmp_path / "mine" / "x").read_bytes() == CONTENT


@pytest.mark.usefixtures("limits")
def test_what_does_not_end_in_time_is_given_up(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "LONGEST", 0.2)
    steady = lambda c: (c.sendall(head()), forever(c, b"x" * 100, 0.02))  # noqa: E731
    with pytest.raises(FileNotFoundError, match="not done after 0 seconds"):
        fetch(serve(steady), tmp_path)


def test_the_next_download_removes_what_a_killed_one_left(tmp_path):
    (tmp_path / "tmpkilled.part").mkdir()
    (tmp_path / "tmpkilled.part" / "half").write_bytes(b"half")
    with scratch_in(tmp_path) as scratch:
        assert list(tmp_path.iterdir()) == [scratch]
    assert not list(tmp_path.iterdir())
