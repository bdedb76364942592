"""The night of ``absurd demo``: a simulated array records it, the platform does the rest, a report tells of it.

`plan` says what the night holds, `telescope` makes its files arrive, `platform` runs server, scheduler and workers,
`watch` tells the terminal, `compare` measures what came out against what went in, `report` writes the page.
"""
