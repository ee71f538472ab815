"""A simulated telephone and the carrier behind it: calls a voice agent as Twilio would, and measures what it hears."""
