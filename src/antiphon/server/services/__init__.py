"""One kind of model as a service of its own, for Antiphon on other machines and for other people's clients.

`app.create_service` makes the application that `antiphon service stt|tts|llm` runs.
"""
