"""Readers of files that other programs write.

Every module reads one format and gives a frozen dataclass of plain arrays in the units and the convention of that
file; what these mean for tiltwise is decided in `tiltwise.interchange`.  All readers are strict: a file that is cut
off, has a missing column, a text where a number belongs or a NaN raises `FormatError` with file, line and column.
"""
