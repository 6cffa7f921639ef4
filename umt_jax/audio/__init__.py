"""Sound: files, decoding, raw samples and mu-law codes."""
