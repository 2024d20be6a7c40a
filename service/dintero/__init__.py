"""Every line that knows the payment provider: its signatures, its HTTP, its documents and its settings."""
