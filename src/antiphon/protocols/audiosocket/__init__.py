"""Asterisk's AudioSocket, a TCP protocol for the audio of one call."""
