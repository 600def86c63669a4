"""The bytes of a growing file or of a TCP, HTTP or HTTPS connection as they come, and why there are no more."""

from __future__ import annotations

import base64
import errno
import http.client
import io
import os
import select
import socket
import ssl
import stat
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

ADDRESSES = "a file, tcp://host:port, http://… or https://… is expected"
SLICE_S = 0.05  # a wait is interrupted so often, to see whether it should end
GROWTH_S = 0.01  # between two looks at a file's end
MAX_REDIRECTS = 5
WORTH_ANOTHER_TRY = (408, 425, 429)  # of the answers that blame the request: RFC 9110, 15.5; RFC 8470; RFC 6585


class Ending(NamedTuple):
    """Why a source gives no more bytes; dropped: it may come back."""

    dropped: bool
    reason: str


class Source:
    """Bytes as they come; `over` says why there are no more.

    recording: its length is known, so that another connection starts from its beginning.
    """

    recording = False

    def __init__(self, halt: Callable[[], str | None]) -> None:
        self.over: Ending | None = None
        self.halt = halt

    def read(self, size: int) -> bytes:
        """At most `size` bytes as soon as there are any; none once it is over, and never an error."""
        if self.over is not None:
            return b""
        try:
            _check(self.halt)
            data = self.receive(size)
        except (OSError, http.client.HTTPException) as error:
            self.over = Ending(True, in_words(error))
            return b""
        if not data:
            self.over = self.ending()
        return data

    def receive(self, size: int) -> bytes:
        raise NotImplementedError

    def ending(self) -> Ending:
        """What it means that no more bytes come."""
        return Ending(True, "closed by the other side")

    def close(self) -> None:
        raise NotImplementedError


def open_source(
    address: str | Path,
    *,
    stall_s: float = 10.0,
    idle_s: float = 10.0,
    halt: Callable[[], str | None] = lambda: None,
) -> Source:
    """The bytes of a growing file, tcp://host:port, http://… or https://….

    A file is over when it has not grown for idle_s; HTTP when all it announced has come. A TCP connection that is
    closed, an answer cut short or without a length, and stall_s without a byte count as dropped. halt is asked some
    20 times a second and breaks every wait off by giving a reason. Raises FileNotFoundError for a missing file,
    ValueError for another address or one that the server does not know, OSError for what may go better next time.
    """
    text = str(address)
    if "://" not in text:
        return _GrowingFile(Path(text), idle_s, halt)
    parts = _parts(text)
    if parts.scheme in ("http", "https"):
        return _open_http(text, stall_s, halt)
    if parts.scheme != "tcp" or not parts.hostname or parts.port is None or parts.path not in ("", "/"):
        raise ValueError(f"{without_password(text)}: not an address to read a stream from; {ADDRESSES}")
    return _Tcp(_Wire(parts.hostname, parts.port, False, stall_s, halt))


class _GrowingFile(Source):
    """A file that somebody writes: its end is waited at."""

    def __init__(self, path: Path, idle_s: float, halt: Callable[[], str | None]) -> None:
        super().__init__(halt)
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file; {ADDRESSES}")
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe may wait for ever
            raise ValueError(f"{path}: no file but a folder or a device; {ADDRESSES}")
        self.idle_s, self.position = idle_s, 0
        self.file = path.open("rb", buffering=0)

    def receive(self, size: int) -> bytes:
        patience = time.monotonic() + self.idle_s
        while not (data := self.file.read(size)):
            if os.fstat(self.file.fileno()).st_size < self.position:
                raise ConnectionError(f"the file was cut to less than the {self.position} bytes read")
            if time.monotonic() > patience:
                return b""
            _check(self.halt)
            time.sleep(GROWTH_S)
        self.position += len(data)
        return data

    def ending(self) -> Ending:
        return Ending(False, f"not grown for {self.idle_s:g} s")

    def close(self) -> None:
        self.file.close()


class _Wire:
    """A TCP connection, in TLS where asked, of which no wait outlasts stall_s or a reason to halt."""

    def __init__(self, host: str, port: int, tls: bool, stall_s: float, halt: Callable[[], str | None]) -> None:
        self.stall_s, self.halt = stall_s, halt
        failure: OSError = ConnectionError(f"{host} has no address")
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            self.socket = socket.socket(family, kind, protocol)
            try:
                self._connect(address, host if tls else None)
                return
            except OSError as error:
                failure = error
                self.hang_up()
        raise failure

    def _connect(self, address: tuple[Any, ...], tls_host: str | None) -> None:
        self.socket.setblocking(False)
        code = self.socket.connect_ex(address)
        if code == errno.EINPROGRESS:
            self._wait(select.POLLOUT)
            code = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        if tls_host is not None:
            secure = ssl.create_default_context().wrap_socket(
                self.socket, server_hostname=tls_host, do_handshake_on_connect=False
            )
            self.socket = secure
            self._patiently(secure.do_handshake)

    def receive_into(self, buffer: bytearray | memoryview) -> int:
        return self._patiently(partial(self.socket.recv_into, buffer))

    def send(self, data: bytes) -> None:
        while data:
            data = data[self._patiently(partial(self.socket.send, data), select.POLLOUT) :]

    def hang_up(self) -> None:
        self.socket.close()

    def _patiently(self, operation: Callable[[], int | None], event: int = select.POLLIN) -> int:
        while True:
            try:
                return operation() or 0
            except (BlockingIOError, ssl.SSLWantReadError):
                self._wait(event)
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT)

    def _wait(self, event: int) -> None:
        poll = select.poll()
        poll.register(self.socket, event)
        patience = time.monotonic() + self.stall_s
        while not poll.poll(1000 * min(SLICE_S, self.stall_s)):
            _check(self.halt)
            if time.monotonic() > patience:
                raise ConnectionError(f"stalled: nothing came for {self.stall_s:g} s")


class _WireFile(io.RawIOBase):
    """What http.client reads an answer from."""

    def __init__(self, wire: _Wire) -> None:
        self.wire = wire

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        return self.wire.receive_into(buffer)


class _Tcp(Source):
    def __init__(self, wire: _Wire) -> None:
        super().__init__(wire.halt)
        self.wire = wire

    def receive(self, size: int) -> bytes:
        buffer = bytearray(size)
        return bytes(memoryview(buffer)[: self.wire.receive_into(buffer)])

    def close(self) -> None:
        self.wire.hang_up()


class _Http(_Tcp):
    def __init__(self, wire: _Wire, answer: http.client.HTTPResponse) -> None:
        super().__init__(wire)
        self.answer = answer
        self.recording = answer.length is not None

    def receive(self, size: int) -> bytes:
        return self.answer.read1(size)

    def ending(self) -> Ending:
        if self.answer.length:
            return Ending(True, f"closed with {self.answer.length} bytes to come")
        if self.recording or self.answer.chunked:
            return Ending(False, "all of it has come")
        return super().ending()


def _open_http(address: str, stall_s: float, halt: Callable[[], str | None]) -> _Http:
    for _ in range(1 + MAX_REDIRECTS):
        parts = _parts(address)
        tls = parts.scheme == "https"
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{without_password(address)}: not an address to read a stream from; {ADDRESSES}")
        wire = _Wire(parts.hostname, parts.port or (443 if tls else 80), tls, stall_s, halt)
        try:
            answer = _ask(wire, parts)
            if answer.status == 200:
                return _Http(wire, answer)
        except BaseException:
            wire.hang_up()
            raise
        wire.hang_up()
        reason = f"{without_password(address)}: the server answers {answer.status} {answer.reason}"
        if 300 <= answer.status < 400 and (target := answer.headers["Location"]):
            address = urljoin(address, target)
        elif 400 <= answer.status < 500 and answer.status not in WORTH_ANOTHER_TRY:
            raise ValueError(f"{reason}; check the address, user and password")
        else:
            raise ConnectionError(reason)
    raise ValueError(f"{without_password(address)}: more than {MAX_REDIRECTS} redirections; give the last address")


def _ask(wire: _Wire, parts: SplitResult) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
    # closing is left to the wire: the connection would close it as soon as the answer's head is read
    plug = SimpleNamespace(
        sendall=wire.send, makefile=lambda *_: io.BufferedReader(_WireFile(wire)), close=lambda: None
    )
    connection.sock = plug
    headers = {"Host": parts.netloc.rpartition("@")[2], "Accept": "*/*", "User-Agent": "vigil"}
    if parts.username is not None:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        headers["Authorization"] = "Basic " + base64.b64encode(user).decode()
    target = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe="/?%&=:;+,@!$'()*~[]")
    connection.request("GET", target, headers=headers)
    return connection.getresponse()


def _parts(address: str) -> SplitResult:
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"{without_password(address)}: {error}; {ADDRESSES}") from error
    return parts


def without_password(address: str | Path) -> str:
    """The address as messages may show it."""
    scheme, mark, rest = str(address).partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"


def _check(halt: Callable[[], str | None]) -> None:
    if reason := halt():
        raise ConnectionError(reason)


def in_words(error: Exception) -> str:
    """Why a connection failed."""
    known = {
        ConnectionRefusedError: "refused",
        ConnectionResetError: "reset by the other side",
        http.client.IncompleteRead: "closed within a part of the answer",
    }
    return known.get(type(error)) or str(error) or type(error).__name__
