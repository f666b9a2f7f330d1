"""What benches/compare.py runs: `machine` starts processes and loads them, `servers` configures them, `parts` is
what is measured, `results` keeps it, `report` writes the page."""
