"""What the live page shows, as functions of plain values: the HTTP/JSON API, and what the command line shares with it.

`endpoint` says what an endpoint is, `table` lists them all, and `openapi` describes them. Each module beside these has
one subject. None of them needs a web framework.
"""
