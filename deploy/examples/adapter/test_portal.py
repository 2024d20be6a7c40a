"""The portal's channel against a portal that is played: `pytest test_portal.py`."""

from contextlib import AbstractAsyncContextManager

from service.channels.conformance import Conformance, Peer, open_http_peer


class TestPortal(Conformance):
    factory = "portal:open_portal"

    def open_peer(self) -> AbstractAsyncContextManager[Peer]:
        settings = {"DELIVERY_PORTAL_TOKEN": "a-token-of-the-portal"}
        return open_http_peer(self.factory, lambda url: settings | {"DELIVERY_PORTAL_URL": url})
