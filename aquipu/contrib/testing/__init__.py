"""What tests of programs that use aquipu ask for: `aquipu.contrib.pytest` hands it out."""
