"""The commands: ``dsvae NAME``, and the scripts of launch/ and shards/ that launchers start.

A command module has ``make_parser`` and ``main``. What takes seconds to import is imported where a command
begins its work, so that --help and a mistyped option are answered at once.
"""
