"""Pictures of sounds, latents and training runs."""
