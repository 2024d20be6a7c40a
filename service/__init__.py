"""Delivers Kravia invoices on behalf of a merchant: callback in, branded message out, capture, record."""
