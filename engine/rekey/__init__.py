"""A whole city's card keys anew: columns in, personalization files out, every key wrapped and with its check value.

`request` says what is asked for, `population` which cards, `parquet` and `tunion` write a part file each in their own layout,
`manifest` remembers what is done, and `run` turns the work over to both cores. Clear keys exist only inside the custody.
"""
