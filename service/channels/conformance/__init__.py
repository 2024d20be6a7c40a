"""A pytest suite that any channel runs, the built-in ones too; it prints the guarantee that the adapter earned.

A test file that names the adapter and plays its other side is all there is to write:

    class TestLetters(Conformance):
        factory = "letters:open_letters"

        def open_peer(self) -> AbstractAsyncContextManager[Peer]:
            return open_http_peer(self.factory, lambda url: {"DELIVERY_LETTERS_URL": url})

It needs pytest, which the service itself does not; only tests import it.
"""

from service.channels.conformance.http_peer import Asked, HttpPeer, Said, open_http_peer
from service.channels.conformance.peer import Peer, Plays
from service.channels.conformance.suite import Conformance

__all__ = ["Asked", "Conformance", "HttpPeer", "Peer", "Plays", "Said", "open_http_peer"]
