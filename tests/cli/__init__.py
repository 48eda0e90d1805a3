"""Tests of the rooms of the command line, each named by its room; the commands themselves in
`test_commands`.
"""
