"""Groups of commands: `cvdm data ...` and `cvdm audit ...`."""
