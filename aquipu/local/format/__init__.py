"""The file formats as bytes and back: checksums, frames, segments, file names. Pure."""
