"""Networks of generators: one file per plug-in. SiT is the DiT network trained by flow matching."""
