"""A virtual chip that behaves as a real one: durable memory, a GlobalPlatform security domain with SCP03, five applets.

It is the card side and shares nothing with the host side: it reads the standards for itself, uses raw ciphers only, and its
memory is a file that survives the death of the process at any byte. Around it stand the things a production line has
mechanically: a feeder, bins, heads, and a way into a real PC/SC stack. Nothing here is a certified product or holds real keys:
a chip's memory file carries its keys in clear, as the inside of a chip does, and is for TEST keys only.
"""
