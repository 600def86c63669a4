"""Real sources on 127.0.0.1 that send a video's bytes as scripted, and a writer of growing files."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

PACKET = 188  # bytes of an MPEG-TS packet
VIDEO = 256  # the PID that FFmpeg gives the first stream


def ts_pictures(path: Path) -> list[bytes]:
    """The bytes of an MPEG-TS file, cut where the packets of each picture begin, in stored order."""
    data = path.read_bytes()
    first = [
        at
        for at in range(0, len(data), PACKET)
        if (data[at + 1] & 0x1F) << 8 | data[at + 2] == VIDEO and data[at + 1] & 0x40
    ]
    edge = [0, *first[1:], len(data)]
    return [data[a:b] for a, b in pairwise(edge)]


class Line(NamedTuple):
    """One connection of the server. over: set when the server is to end. sent: as of the server."""

    connection: socket.socket
    over: threading.Event
    sent: list[float]


Step = Callable[[Line], None]


def send(pieces: Sequence[bytes], fps: float | None = None) -> Step:
    """The pieces, one every 1 / fps seconds, or as fast as they are taken."""

    def step(line: Line) -> None:
        start = time.monotonic()
        for number, piece in enumerate(pieces):
            if fps and line.over.wait(max(0.0, start + number / fps - time.monotonic())):
                return
            line.sent.append(time.monotonic())
            line.connection.sendall(piece)

    return step


def stall(seconds: float) -> Step:
    return lambda line: line.over.wait(seconds) and None


def reset(line: Line) -> None:
    """Ends the connection with RST. What the other side has not read by then is lost, so it gets time to."""
    line.over.wait(0.2)
    line.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    line.connection.close()


def answer(head: str) -> Step:
    """Takes an HTTP request and sends this status and these header lines."""

    def step(line: Line) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            if not (more := line.connection.recv(4096)):
                return
            request += more
        line.connection.sendall(("HTTP/1.1 " + head.strip().replace("\n", "\r\n") + "\r\n\r\n").encode())

    return step


def chunked(pieces: Sequence[bytes]) -> list[bytes]:
    """The pieces as parts of a chunked answer; the end is not among them."""
    return [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces]


class Loopback:
    """A server whose n-th connection runs the n-th script; when there is no other script, it refuses connections.

    A number in place of a script refuses connections for so many seconds from the end of the one before.
    sent: when each piece went out (time.monotonic()), over all connections.
    """

    def __init__(self, *scripts: Sequence[Step] | float) -> None:
        self.scripts, self.sent = scripts, []
        self.over = threading.Event()
        self.lines: list[socket.socket] = []
        self.listener = self._bind(0)
        self.port = self.listener.getsockname()[1]
        self.threads = [threading.Thread(target=self._serve, name="loopback")]

    @property
    def tcp(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}/live.ts"

    def __enter__(self) -> Loopback:
        if not isinstance(self.scripts[0], float):
            self.listener.listen()
        self.threads[0].start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.over.set()
        for line in [*self.lines, self.listener]:
            with suppress(OSError):  # it is closed, or was never connected
                line.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join()
        self.listener.close()

    def _bind(self, port: int) -> socket.socket:
        """A socket that holds the port and refuses connections until it listens."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        return listener

    def _refuse(self) -> None:
        self.listener.close()
        self.listener = self._bind(self.port)

    def _serve(self) -> None:
        for script in self.scripts:
            if isinstance(script, float):
                for thread in self.threads[1:]:
                    thread.join()
                self._refuse()
                self.over.wait(script)
                continue
            if self.over.is_set():
                break
            self.listener.listen()
            try:
                connection, _ = self.listener.accept()
            except OSError:  # shut down
                break
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.lines.append(connection)
            self.threads.append(threading.Thread(target=self._run, args=(connection, script), name="loopback line"))
            self.threads[-1].start()
        self._refuse()

    def _run(self, connection: socket.socket, script: Sequence[Step]) -> None:
        with connection, suppress(OSError):  # the other side may leave
            for step in script:
                step(Line(connection, self.over, self.sent))


@contextmanager
def growing(path: Path, pieces: Sequence[bytes], pause_s: float) -> Iterator[None]:
    """A file that grows by a piece every pause_s seconds; the first is there at once."""
    path.write_bytes(pieces[0])
    over = threading.Event()

    def write() -> None:
        with path.open("ab", buffering=0) as file:
            for piece in pieces[1:]:
                if over.wait(pause_s):
                    return
                file.write(piece)

    writer = threading.Thread(target=write, name="growing")
    writer.start()
    try:
        yield
    finally:
        over.set()
        writer.join()
