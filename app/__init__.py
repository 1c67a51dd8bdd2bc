"""curlgrad over HTTP: thin. A request is parsed, handed to the engine's one door, and its answer is encoded."""
