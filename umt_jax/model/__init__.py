"""The networks: layers, encoder, decoder, classifier."""
