"""The commands: ``dsvae NAME``; the scripts of launch/ and shards/ are doors to them.

A command module has ``make_parser`` and ``main``. What takes seconds to import is imported where a command
begins its work, so that --help and a mistyped option are answered at once.
"""
