"""uvicorn's websocket protocol, and what it lacks: quiet answers to senseless peers, no pongs that nobody reads."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol

_BAD_REQUEST = (
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 35\r\n\r\nthis is no request for a websocket\n"
)
_NO_TEXT = 1007


class _Frames(ServerProtocol):
    def recv_frame(self, frame: Frame) -> None:
        """A peer may close in the middle of a message (RFC 6455, 5.5.1): that is no error."""
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None
        super().recv_frame(frame)


class Websocket(WebSocketsSansIOProtocol):
    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.conn = _Frames(max_size=self.config.ws_max_size, logger=self.conn.logger)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.conn.parser.close()  # a generator that refers to its object, which refers to it

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            answer = b"".join(self.conn.data_to_send())
            self.transport.write(answer or _BAD_REQUEST)
            self.transport.close()

    def handle_ping(self) -> None:
        """A peer that does not read gets no pongs: they would be kept for it."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()

    def send_receive_event_to_app(self) -> None:
        """Text that is no UTF-8 ends the connection, and is not worth a traceback."""
        if self.curr_msg_data_type == "text" and not self.close_sent:
            text = b"".join(self.frames)
            try:
                text.decode()
            except UnicodeDecodeError as error:
                self.frames = []
                self.conn.fail(_NO_TEXT, f"{error.reason} at position {error.start}")
                self.handle_parser_exception()
                return
            self.frames = [text]
        super().send_receive_event_to_app()
