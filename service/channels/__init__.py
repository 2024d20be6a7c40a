"""The ways to reach a customer; here only the table of those that come with the service."""

BUILT_IN: dict[str, str] = {
    "email": "service.channels.email:open_email",
}
"""A channel's name in `CHANNELS`, and the factory behind it, imported only when it is opened."""
