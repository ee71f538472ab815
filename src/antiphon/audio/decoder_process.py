"""Where foreign audio is decoded: a process that forks a fresh one for every file and every stream.

FFmpeg reads some sixty formats that anybody may have written, and a file that finds a fault in it may end the process
or fill the memory. So this one, which never reads audio itself, waits for jobs on its standard input, each a socket;
the fork that serves the socket is bounded in memory, processor time and files, has nothing of the server's and nothing
of other callers', and is gone afterwards. `decoders` is the other side.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import io
import json
import os
import resource
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, BinaryIO, NoReturn

import numpy as np

from antiphon.audio import decoder_jobs
from antiphon.audio.decoder_link import WANTED, MessageKind, receive, send
from antiphon.audio.encoding import wav_header
from antiphon.audio.framing import Pcm16, pcm_to_bytes
from antiphon.errors import AudioError

_FILE_MEMORY_BYTES = 256 << 20
_STREAM_MEMORY_BYTES = 96 << 20
"""What a fork may take beside what it began with."""
_CPU_S = 5.0
"""What opening may compute: one file's tags can take a processor for minutes."""
_FILE_CPU_SHARE = 1 / 20
"""More processor time for every second of sound that came out. A fast machine needs a thousandth."""
_STREAM_CPU_SHARE = 0.5
"""A stream may use this much of a processor for as long as it lasts."""
_OPEN_FILES = 8
_NICENESS = 5
"""Of files: calls come first."""
_PIECE_SAMPLES = 64 << 10
_READ_BYTES = 128 << 10
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38


def main() -> None:
    """Serve until standard input, a Unix socket, is closed."""
    # The end of the server ends this process, by the end of its input; a service manager that tells every process of
    # the service to stop must not take the decoders from calls that are still served.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    control = socket.socket(fileno=os.dup(0))
    _touch()
    gc.collect()
    gc.freeze()  # what is imported stays shared with the forks
    _Forks(control).run()


def _touch() -> None:
    """Decode some silence of our own, so that forks share what decoding needs."""
    silence = wav_header(48_000, 9_600) + bytes(9_600)
    decoder_jobs.decode_whole_file(io.BytesIO(silence), 16_000, 1.0, lambda _: None, lambda _: None)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


class _Forks:
    """The forks that are alive, and the socket of each."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._by_fd: dict[int, tuple[int, socket.socket]] = {}
        """Descriptor of the socket -> process and socket."""
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._woken, wakes = socket.socketpair()
        for end in (self._woken, wakes):
            end.setblocking(False)
        self._wakes = wakes
        self._poll.register(self._woken, select.POLLIN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)

    def run(self) -> None:
        """Until nobody can send jobs any more."""
        while True:
            for fd, _ in self._poll.poll():
                if fd == self._control.fileno():
                    if not self._take():
                        signal.set_wakeup_fd(-1)  # its socket goes before the last fork does
                        self._kill_all()
                        return
                elif fd == self._woken.fileno():
                    with suppress(BlockingIOError):
                        self._woken.recv(4096)
                    self._reap()
                elif fd in self._by_fd:  # nobody waits for this fork any more
                    with suppress(ProcessLookupError):
                        os.kill(self._by_fd[fd][0], signal.SIGKILL)
                    self._poll.unregister(fd)

    def _take(self) -> bool:
        """The next job. False: there will be none."""
        data, fds, _, _ = socket.recv_fds(self._control, 1, 1)
        if not data:
            return False
        if not fds:
            return True
        connection = socket.socket(fileno=fds[0])
        try:
            process = os.fork()
        except OSError as error:
            with suppress(OSError):
                reason = f"no process for decoding can be started ({error.strerror}); try again"
                send(connection, MessageKind.REFUSED, reason.encode())
            connection.close()
        else:
            if not process:
                signal.set_wakeup_fd(-1)
                _fork_main(connection)
            self._by_fd[connection.fileno()] = (process, connection)
            self._poll.register(connection, 0)  # hang-ups only
        return True

    def _reap(self) -> None:
        ended: dict[int, int] = {}
        with suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                ended[found[0]] = found[1]
        for fd, (process, connection) in list(self._by_fd.items()):
            if process in ended:
                self._end(fd, connection, ended[process])

    def _end(self, fd: int, connection: socket.socket, status: int) -> None:
        del self._by_fd[fd]
        with suppress(KeyError):
            self._poll.unregister(fd)
        if status:
            number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
            connection.setblocking(False)
            with suppress(OSError):
                send(connection, MessageKind.DIED, str(number).encode())
        connection.close()

    def _kill_all(self) -> None:
        for process, _ in self._by_fd.values():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


# -- in a fork -----------------------------------------------------------------------------------------


def _fork_main(connection: socket.socket) -> NoReturn:
    """Serve one socket, then end."""
    code = 1
    try:
        _leave_behind(connection.fileno())
        with connection, connection.makefile("rb") as stream:
            _serve(connection, stream)
        code = 0
    except (ConnectionError, BrokenPipeError):
        code = 0  # whoever asked does not want it any more
    except BaseException:  # noqa: BLE001 - nothing may return into the loop of the process that forked
        traceback.print_exc()
    finally:
        os._exit(code)


def _leave_behind(kept_fd: int) -> None:
    """Give up what is not needed, so that it cannot be misused."""
    parent = os.getppid()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.closerange(3, kept_fd)
    os.closerange(kept_fd + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    _bound(resource.RLIMIT_NOFILE, kept_fd + _OPEN_FILES)
    _bound(resource.RLIMIT_FSIZE, 0)
    _bound(resource.RLIMIT_NPROC, 0)
    if os.getppid() != parent:
        raise ConnectionError("the process that forked this one is gone")


def _bound(limit: int, value: int) -> None:
    """Lower a limit for good."""
    with suppress(ValueError, OSError):  # macOS has some of them only in name
        resource.setrlimit(limit, (value, value))


def _bound_memory(more_bytes: int) -> None:
    with suppress(OSError):  # /proc is Linux'
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        _bound(resource.RLIMIT_AS, pages * resource.getpagesize() + more_bytes)


def _bound_cpu(seconds: float) -> None:
    """As a soft limit, which may be raised again; to pass it ends the process."""
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (max(1, round(seconds)), resource.RLIM_INFINITY))


def _serve(connection: socket.socket, stream: BinaryIO) -> None:
    job = receive(stream)
    if job is None:
        return
    wanted: dict[str, Any] = json.loads(job[1])

    def give(pcm: Pcm16) -> None:
        for at in range(0, len(pcm), _PIECE_SAMPLES):
            send(connection, MessageKind.PCM, pcm_to_bytes(pcm[at : at + _PIECE_SAMPLES]))

    def refuse(error: AudioError) -> None:
        send(connection, MessageKind.REFUSED, str(error).encode())

    try:
        if "max_gap_s" in wanted:
            _bound_memory(_STREAM_MEMORY_BYTES)
            pieces = decoder_jobs.Pieces(stream, _paced())
            decoder_jobs.decode_recording(pieces, wanted["max_gap_s"], give, refuse)
        else:
            file = io.BufferedReader(_DistantFile(connection, stream, wanted["size"]), _READ_BYTES)
            joined = _Joined(give)
            facts = _decode_file(file, wanted, joined.add)
            joined.flush()
            send(connection, MessageKind.FACTS, json.dumps(asdict(facts)).encode())
    except AudioError as error:
        refuse(error)
    except MemoryError:
        send(connection, MessageKind.MEMORY)


def _paced() -> Callable[[], None]:
    """Called before every wait for a message: what a stream may compute grows with the time that it lasts."""
    began_s = time.monotonic()

    def on_message() -> None:
        _bound_cpu(_CPU_S + _STREAM_CPU_SHARE * (time.monotonic() - began_s))

    return on_message


class _Joined:
    """Pieces of a file, given on in larger ones: nobody hears them before the last."""

    def __init__(self, give: Callable[[Pcm16], None]) -> None:
        self._give = give
        self._pieces: list[Pcm16] = []
        self._samples = 0

    def add(self, pcm: Pcm16) -> None:
        self._pieces.append(pcm)
        self._samples += len(pcm)
        if self._samples >= _PIECE_SAMPLES:
            self.flush()

    def flush(self) -> None:
        if self._pieces:
            self._give(np.concatenate(self._pieces))
            self._pieces.clear()
            self._samples = 0


class _DistantFile(io.RawIOBase):
    """A file that whoever sent the job holds."""

    def __init__(self, connection: socket.socket, stream: BinaryIO, size: int | None) -> None:
        """`size` None: it is read from front to back."""
        self._connection, self._stream = connection, stream
        self._size, self._at = size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._size is not None

    def readinto(self, buffer: Any) -> int:
        send(self._connection, MessageKind.READ, WANTED.pack(self._at, len(buffer)))
        kind, data = receive(self._stream) or (MessageKind.END, b"")
        if kind is not MessageKind.DATA:
            raise ConnectionError("whoever wanted the file decoded is gone")
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if self._size is None:
            raise io.UnsupportedOperation("this file is read from front to back")
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError(errno.EINVAL, "before the beginning of the file")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at


def _decode_file(
    file: IO[bytes], wanted: Mapping[str, Any], give: Callable[[Pcm16], None]
) -> decoder_jobs.Facts:
    os.nice(_NICENESS)
    _bound_memory(_FILE_MEMORY_BYTES)
    _bound_cpu(_CPU_S)

    bound_s = _CPU_S

    def on_duration(duration_s: float) -> None:
        nonlocal bound_s
        if _CPU_S + _FILE_CPU_SHARE * duration_s >= bound_s + 1:
            bound_s += 1
            _bound_cpu(bound_s)

    try:
        return decoder_jobs.decode_whole_file(
            file, wanted["rate_hz"], wanted["max_duration_s"], give, on_duration
        )
    except (AudioError, ConnectionError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever a damaged file makes PyAV raise
        reason = str(error) or type(error).__name__
        raise AudioError(f"the audio cannot be decoded ({reason}); record it again") from None


if __name__ == "__main__":
    main()
