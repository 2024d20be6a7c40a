"""How fast it is: six ratios, each against a named baseline in the same run. `make bench` runs them; no test times."""
