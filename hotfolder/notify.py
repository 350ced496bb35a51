"""Tells systemd how the daemon is: READY, STATUS, WATCHDOG, STOPPING. Without systemd nothing happens."""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress


class Notifier:
    """Sends sd_notify messages.

    Source: sd_notify(3): datagrams of NAME=VALUE lines to the socket in NOTIFY_SOCKET; "@" stands for the abstract
    namespace.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        """Read NOTIFY_SOCKET and WATCHDOG_USEC."""
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        #: Seconds after which systemd ends a silent daemon; None: it does not.
        self.watchdog_s = int(environ["WATCHDOG_USEC"]) / 1e6 if environ.get("WATCHDOG_USEC", "").isdigit() else None

    def send(self, *lines: str) -> None:
        """Send lines such as "READY=1"; a systemd that does not listen is no reason to stop."""
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            out.sendto("\n".join(lines).encode(), self._address)
