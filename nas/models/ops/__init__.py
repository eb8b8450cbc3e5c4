"""Block families, one file each: `READS`, the Stage fields it uses, and `body(block) -> Body`.

A new op is one new file. Every op also reads `channels`, `layers`, `stride`, `skip` and
`activation`.
"""
