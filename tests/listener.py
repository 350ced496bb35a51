"""systemd's end of the socket on which a daemon says how it is."""

import socket
from typing import Final

_PATIENCE_S: Final = 30.0


class Listener:
    """Hears what `sd_notify` says."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(_PATIENCE_S)
        self._socket.bind(f"\0{address[1:]}" if address.startswith("@") else address)

    def hear(self) -> list[str]:
        """Return the lines of one message."""
        return self._socket.recv(4096).decode().split("\n")

    def hear_until(self, line: str) -> list[str]:
        """Return all that is said up to this line."""
        heard: list[str] = []
        while line not in heard:
            heard += self.hear()
        return heard

    def close(self) -> None:
        self._socket.close()
