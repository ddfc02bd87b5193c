"""Networks of generators: plug-ins, one file each. SiT is the DiT network under flow matching."""
