"""URL, language and quality: measures first, decisions after."""
