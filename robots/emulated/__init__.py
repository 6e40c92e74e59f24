"""Devices that are not there: emulators to which unmodified vendor drivers talk, with faults that can be switched on."""
