"""The whole life of a model, scene by scene, on the shipped data and with real servers: `make story`."""
