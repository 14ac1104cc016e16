"""Key ceremonies: one reviewed plan file in, one signed record out (dual control and split knowledge, PCI PIN Security; ISO 11568-2).

`plan` reads the file, `rehearsal` tries it, `run` carries it out at a `desk`, `record` proves it afterwards, `memorandum` prints it.
`vault` is all a ceremony needs of the place where keys live; `software` is the sealed file store in that role.
"""
