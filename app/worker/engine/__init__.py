"""The steering engine: `engine.add(sequence)`, `engine.step() -> finished`, `engine.abort(id)`.

Synchronous, on one thread, with no knowledge of HTTP, SQL or asyncio.
"""
