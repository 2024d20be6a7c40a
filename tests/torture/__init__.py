"""Minutes of kills, faults and load on real processes; `make torture`."""
