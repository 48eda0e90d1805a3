"""The commands that go on beside other programs."""
