"""HTTP in: one module per face."""
